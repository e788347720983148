"""`hubtool extract`: a LoRA from a tuned checkpoint and its base."""

from __future__ import annotations

from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import FILE, dry_run_option, force_option
from hubtool.cli._output import answer, row_of
from hubtool.cli._progress import transfer_bars
from hubtool.cli.convert import DTYPES

_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}


def _size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """`60M`, `1.5GB`, `800000`: bytes."""
    if value is None:
        return None
    text = value.upper().removesuffix("B")
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "")
    if not number.replace(".", "", 1).isdigit():
        raise click.BadParameter(f"{value!r} is no size; write it like 60M or 1.5G.")
    return int(float(number) * _UNITS.get(unit, 1))


@click.command(cls=HubtoolCommand)
@click.argument("tuned", type=FILE, metavar="TUNED")
@click.option("--base", required=True, type=FILE, metavar="BASE", help="The model that TUNED was trained from.")
@click.option("-o", "--output", type=FILE, metavar="FILE|DIR", help="Where to write. Default: beside TUNED.")
@click.option(
    "--rank", type=click.IntRange(1), metavar="N", help="Rank of every module; 32 if nothing else is asked for."
)
@click.option(
    "--conv-rank",
    type=click.IntRange(0),
    metavar="N",
    help="Rank of 3x3 convolutions; 0 leaves resnets and samplers out.",
)
@click.option(
    "--energy", type=float, metavar="E", help="The smallest rank that holds this share (0 to 1) of each change."
)
@click.option("--threshold", type=float, metavar="T", help="Keep singular values greater than this.")
@click.option("--ratio", type=float, metavar="R", help="Keep those greater than this share of the module's largest.")
@click.option("--quantile", type=float, metavar="Q", help="The fewest whose sum is this share of the sum of all.")
@click.option(
    "--max-size",
    callback=_size,
    metavar="S",
    help="The best ranks for a file of at most this size, such as 60M or 1.5G.",
)
@click.option(
    "--conv",
    type=click.Choice(["flat", "tucker"]),
    default="flat",
    show_default=True,
    help="3x3 convolutions as two factors, or with a small core between them.",
)
@click.option("--biases", is_flag=True, help="Write the changes of biases, too.")
@click.option("--norms", is_flag=True, help="Write the changes of norms, too.")
@click.option(
    "--parametrization",
    type=click.Choice(["lora", "lokr", "full"]),
    default="lora",
    show_default=True,
    help="Low-rank factors, the nearest Kronecker product, or the whole change.",
)
@click.option("--components", metavar="LIST", help="Only these parts, such as unet or clip_l,clip_g or text_encoders.")
@click.option("--to", "dialect", default="kohya", show_default=True, metavar="DIALECT", help="Dialect of the keys.")
@click.option("--dtype", type=click.Choice(sorted(DTYPES)), default="fp16", show_default=True, help="Dtype to store.")
@click.option(
    "--method",
    type=click.Choice(["randomized", "exact"]),
    default="randomized",
    show_default=True,
    help="randomized: within about 0.1 % of the optimum; exact: the optimum, much slower.",
)
@click.option(
    "--device", default="cpu", show_default=True, metavar="D", help="Where to compute: cpu, cuda, cuda:1 or mps."
)
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 63) - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Random numbers that the search begins with; equal seeds give equal files.",
)
@click.option("--hash-inputs", is_flag=True, help="Record the SHA-256 of both checkpoints.")
@click.option("--report", type=FILE, metavar="FILE", help="Write the figures of every module as JSON.")
@click.option("--plot", type=FILE, metavar="FILE", help="Draw the singular values: FILE.png or FILE.svg.")
@force_option
@dry_run_option
def command(tuned: Path, output: Path | None, dtype: str, **options: object) -> None:
    """Extract a LoRA: the difference of two checkpoints, as nearly as its rank can hold it.

    TUNED and BASE are checkpoints (safetensors or .ckpt) or diffusers folders, also one of each. With --energy,
    --threshold, --ratio, --quantile or --max-size, --rank is the most that a module may get.

    \b
    hubtool extract tuned.safetensors --base v1-5-pruned.safetensors -o style.safetensors
    hubtool extract tuned.safetensors --base base.safetensors --rank 64 --conv-rank 16 --report figures.json
    hubtool extract tuned/ --base sd_xl_base_1.0.safetensors --energy 0.9 --components unet --to diffusers
    """
    from hubtool.cli._extraction import extract_options, extraction_text, output_for, side_files
    from hubtool.operations.extract import extract

    base = Path(str(options.pop("base")))
    target = output_for(tuned, output)
    beside = side_files(options, (tuned, base, target))
    with transfer_bars() as watch, watch(tuned.name) as bar:
        wanted = extract_options(options | {"dtype": DTYPES[dtype]}, bar)
        found = extract(tuned, base, target, wanted)
    beside.write(found)
    answer(row_of(found), lambda: extraction_text(found))
