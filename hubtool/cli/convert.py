"""`hubtool convert`: rewrite adapters in another dialect."""

from __future__ import annotations

from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import dry_run_option, files_argument, force_option
from hubtool.cli._output import Row, answer_each, row_of

DTYPES = {"fp16": "F16", "bf16": "BF16", "fp32": "F32", "f16": "F16", "f32": "F32", "fp64": "F64"}


@click.command(cls=HubtoolCommand)
@files_argument
@click.option(
    "--to", "to", required=True, metavar="DIALECT", help="kohya, diffusers, comfyui, peft or another dialect."
)
@click.option("-o", "--output", metavar="FILE|DIR", help="Where to write; beside each input if not given.")
@click.option("--dtype", type=click.Choice(sorted(DTYPES)), help="Store the weights in this dtype.")
@click.option("--architecture", metavar="A", help="Read the keys as this architecture's.")
@click.option(
    "--parametrization",
    type=click.Choice(["lora", "lokr", "dylora"]),
    help="Rewrite other families as LoRA or LoKr, or cut a DyLoRA to a lower rank.",
)
@click.option("--rank", type=click.IntRange(1), metavar="N", help="Rank of rewritten modules, at most.")
@click.option(
    "--energy",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="E",
    help="Share of each rewritten change to keep (0 to 1).",
)
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="The model it was made for, which OFT, BOFT, IA3, GLoRA and DoRA need to become LoRA.",
)
@click.option("--alpha", type=click.Choice(["auto", "keep", "fold", "record"]), default="auto", show_default=True,
              help="Where scales go if the dialect has no alpha: into the weights or into the metadata.")  # fmt: skip
@click.option("--hashes", is_flag=True, help="State the output's SHA-256.")
@click.option("--strict", is_flag=True, help="Refuse files with tensors that are not understood.")
@click.option("--allow-pickle", is_flag=True, help="Read a .pt or .ckpt, too; nothing in it is run.")
@force_option
@dry_run_option
def command(files: tuple[Path, ...], to: str, output: str | None, **options: object) -> None:
    """Rewrite adapters in another dialect, losslessly or saying what is lost.

    \b
    hubtool convert style.safetensors --to comfyui
    hubtool convert style.safetensors --to diffusers -o converted/
    hubtool convert *.safetensors --to kohya -o kohya/ --dtype fp16
    hubtool convert lokr.safetensors --to diffusers --parametrization lora --energy 0.99
    hubtool convert boft.safetensors --to kohya --parametrization lora --rank 64 --base sd15.safetensors
    """
    from hubtool.cli._conversion import conversion_text, convert_options, output_for
    from hubtool.operations.convert import convert

    wanted = convert_options(options, DTYPES)

    def work(path: Path) -> Row:
        return row_of(convert(path, to, output_for(path, to, output, several=len(files) > 1), wanted))

    answer_each(files, work, conversion_text, name="input")
