"""What diffusers makes of the authors' own names, for every model whose loader reads them: the change that our tables mean.

Renames, stacked projections and swapped halves are taken from tables that were not written from this code, so that each is a
check of the other. Where diffusers is wrong, a test says how.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest
import torch
from oracle.models import error

from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import Architecture, architecture
from hubtool.naming.dialect import dialect
from hubtool.naming.spelling import denoiser_names

diffusers = pytest.importorskip("diffusers")

PEFT, KOHYA = (".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight")
RANK = 3
BLOCKS = r"^(double_blocks|single_blocks|layers|noise_refiner|transformer_blocks|single_transformer_blocks)\."


class Case(NamedTuple):
    """An architecture, diffusers' loader for it, and the dialect that it is given."""

    id: str
    loader: str
    dialect: str
    only: str = ""  # the modules that the loader knows, where it does not know all

    @property
    def suffixes(self) -> tuple[str, str]:
        """Of the two factors."""
        return KOHYA if self.dialect == "kohya" else PEFT


CASES = [
    Case("wan-14b", "Wan", "comfyui"),
    Case("wan21-1.3b", "Wan", "comfyui"),
    Case("wan21-i2v-14b", "Wan", "comfyui"),
    Case("wan22-5b", "Wan", "comfyui"),
    Case("qwen-image", "QwenImage", "comfyui"),
    Case("qwen-image", "QwenImage", "kohya"),
    Case("krea2", "Krea2", "comfyui"),
    Case("minimax-h3", "MiniMaxH3", "comfyui"),
    Case("minimax-h3", "MiniMaxH3", "kohya"),
    Case("minimax-h3", "MiniMaxH3", "original"),
    Case("ltx2", "LTX2", "comfyui"),
    Case("hidream", "HiDreamImage", "comfyui"),
    Case("anima", "Anima", "comfyui"),
    Case("audio-ace-step", "AceStep", "original"),
    Case("flux2", "Flux2", "comfyui"),
    Case("flux2-klein-4b", "Flux2", "comfyui"),
    Case("flux2-klein-9b", "Flux2", "comfyui"),
    Case("flux2", "Flux2", "kohya", BLOCKS),
    Case("flux1", "Flux", "kohya", BLOCKS),
    Case("z-image", "ZImage", "kohya"),
    Case("lumina2", "Lumina2", "comfyui", BLOCKS),
    Case("ideogram4", "Ideogram4", "comfyui", BLOCKS),
    Case("ideogram4", "Ideogram4", "original", BLOCKS),
    Case("ltx-video-2b", "LTXVideo", "comfyui", BLOCKS),
    Case("ltx-video-13b", "LTXVideo", "comfyui", BLOCKS),
]

Factors = tuple[torch.Tensor, torch.Tensor]  # down, up


def first_blocks(target: Architecture, names: dict[ModuleRef, str], only: str) -> dict[ModuleRef, str]:
    """Linear layers outside of blocks and in the first of each kind."""
    found = {}
    for module, name in names.items():
        numbers = [int(number) for number in re.findall(r"\.(\d+)(?=\.)", f"{module.path}.")]
        linear = module.component is Component.DENOISER and len(target.shape(module)) == 2
        if (
            linear
            and not any(numbers[:1])
            and re.search(only, module.path)
            and not re.fullmatch(r"blocks\.0", module.path)
        ):
            found[module] = name
    return found


def factors(target: Architecture, module: ModuleRef) -> Factors:
    rows, columns = target.shape(module)
    seed = torch.Generator().manual_seed(sum(module.path.encode()))
    return torch.randn(RANK, columns, generator=seed), torch.randn(rows, RANK, generator=seed)


def meant(target: Architecture, module: ModuleRef) -> dict[str, Factors]:
    """The canonical modules that a change of this one changes, and how, as our tables have it."""
    down, up = factors(target, module)
    fused = target.fused.get(module.path)
    if fused is None:
        return {module.path: (down, up)}
    if fused.swapped:
        return {fused.parts[0]: (down, torch.cat(up.chunk(2)[::-1]))}
    return {part: (down, rows) for part, rows in zip(fused.parts, up.split(list(fused.rows)), strict=True)}


def loaded(loader: str, state: dict[str, torch.Tensor]) -> dict[str, Factors]:
    """What diffusers would put into the transformer, by module."""
    found = getattr(diffusers.loaders, f"{loader}LoraLoaderMixin").lora_state_dict(dict(state))
    converted = found[0] if isinstance(found, tuple) else found
    bases = {re.sub(r"\.lora_[AB]\.weight$", "", key) for key in converted}
    return {base: (converted[base + PEFT[0]].float(), converted[base + PEFT[1]].float()) for base in bases}


def differs(ours: Factors, theirs: Factors) -> bool:
    probe = torch.randn(ours[0].shape[1], 4, generator=torch.Generator().manual_seed(1))
    return error(theirs[1] @ (theirs[0] @ probe), ours[1] @ (ours[0] @ probe)) > 1e-5


def state_of(target: Architecture, names: dict[ModuleRef, str], suffixes: tuple[str, str]) -> dict[str, torch.Tensor]:
    state = {}
    for module, name in names.items():
        state[name + suffixes[0]], state[name + suffixes[1]] = factors(target, module)
        if suffixes == KOHYA:
            state[f"{name}.alpha"] = torch.tensor(float(RANK))
    return state


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id}-{case.dialect}")
def test_diffusers_reads_the_authors_names_as_we_do(case: Case) -> None:
    if not hasattr(diffusers.loaders, f"{case.loader}LoraLoaderMixin"):
        pytest.skip("this diffusers has no such model")
    target = architecture(case.id)
    names = first_blocks(target, dialect(case.dialect).written(target), "")
    canonical = {module: list(meant(target, module)) for module in names}
    chosen = {module: name for module, name in names.items() if all(re.search(case.only, p) for p in canonical[module])}
    pairs = {path: pair for module in chosen for path, pair in meant(target, module).items()}
    apart = tuple(f"{model}." for model in target.apart)
    expected = {path if path.startswith(apart) else f"transformer.{path}": pair for path, pair in pairs.items()}
    theirs = loaded(case.loader, state_of(target, chosen, case.suffixes))
    assert len(expected) > 5
    assert theirs.keys() == expected.keys()
    assert [path for path, pair in expected.items() if differs(pair, theirs[path])] == []


# ---------------------------------------------------------------- where diffusers is wrong


def hunyuan(only: str) -> tuple[dict[str, Factors], dict[str, Factors]]:
    """(what Tencent's names mean, what diffusers makes of them)."""
    target = architecture("hunyuanvideo")
    names = first_blocks(target, dict(denoiser_names(target, "second")), only)
    expected = {path: pair for module in names for path, pair in meant(target, module).items()}
    theirs = loaded("HunyuanVideo", state_of(target, names, PEFT))
    return expected, {path.removeprefix("transformer."): pair for path, pair in theirs.items()}


def test_diffusers_reads_the_blocks_of_hunyuanvideo_as_we_do() -> None:
    expected, theirs = hunyuan(r"^(double|single)?_?(blocks|transformer_blocks)\.|^single_transformer_blocks\.")
    assert len(expected) > 10
    assert theirs.keys() == expected.keys()
    assert [path for path, pair in expected.items() if differs(pair, theirs[path])] == []


def test_diffusers_gives_each_projection_of_hunyuanvideos_refiner_a_third_of_the_rank() -> None:
    expected, theirs = hunyuan(r"self_attn\.qkv|img_attn\.qkv")
    refiner = [path for path in expected if "token_refiner" in path]
    assert len(refiner) == 3
    assert [theirs[path][0].shape[0] for path in refiner] == [1, 1, 1]  # chunks of lora_A; all need all of it


def test_diffusers_loses_fluxs_layers_outside_of_blocks() -> None:
    target = architecture("flux1")
    names = first_blocks(target, dialect("kohya").written(target), "")
    outside = {module: name for module, name in names.items() if "_blocks_" not in name}
    theirs = loaded("Flux", state_of(target, names, KOHYA))
    lost = [path for path in theirs if not path.startswith("transformer.")]  # what the loader then passes over
    assert len(lost) == len(outside) > 5


def test_diffusers_leaves_ltx_videos_first_layer_its_authors_name() -> None:
    target = architecture("ltx-video-2b")
    names = first_blocks(target, dialect("comfyui").written(target), "^proj_in$")
    assert list(loaded("LTXVideo", state_of(target, names, PEFT))) == ["transformer.patchify_proj"]
