"""What `check` says of diffusers is what the installed diffusers' own `lora_state_dict` leaves of a file."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch
from support.adapters import in_memory
from support.files import Raw, number

from hubtool.adapters.codec import decode
from hubtool.adapters.grouping import group_tensors
from hubtool.naming.address import Address, Component, ModuleRef, Role
from hubtool.naming.architecture import Architecture, architecture
from hubtool.naming.dialect import dialect
from hubtool.operations.loader import loader
from hubtool.operations.verdict import Subject, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

pipelines = pytest.importorskip("diffusers.loaders.lora_pipeline")

#: Mixin of the pipeline that each architecture is run by.
MIXINS = {
    "sd1": "StableDiffusion", "sdxl": "StableDiffusionXL", "ssd-1b": "StableDiffusionXL", "sd3-medium": "SD3",
    "auraflow": "AuraFlow", "flux1": "Flux", "chroma": "Flux", "flux2-klein-4b": "Flux2", "wan21-1.3b": "Wan",
    "z-image": "ZImage", "qwen-image": "QwenImage", "hidream": "HiDreamImage", "hunyuanvideo": "HunyuanVideo",
    "lumina2": "Lumina2", "ltx-video-2b": "LTXVideo", "ltx2": "LTX2", "anima": "Anima", "krea2": "Krea2",
    "ideogram4": "Ideogram4", "cosmos-predict2-2b": "Cosmos", "cogvideox-2b": "CogVideoX", "audio-ace-step": "AceStep",
    "minimax-h3": "MiniMaxH3", "sana": "Sana",
}  # fmt: skip
#: Architectures with a converter for ComfyUI's names.
CONVERTED = [
    "sd1", "sdxl", "flux1", "chroma", "flux2-klein-4b", "wan21-1.3b", "z-image", "qwen-image", "hidream", "ltx-video-2b", "ltx2",
    "anima", "krea2", "ideogram4", "audio-ace-step", "minimax-h3",
]  # fmt: skip
BARE = ["qwen-image", "z-image", "ideogram4", "audio-ace-step", "minimax-h3"]
FIRST = r"\.[01]\."  # the first two blocks of each kind
BLOCKS = r"(blocks|layers|block)\.\d+\."
ALL = r""


class File(NamedTuple):
    """A file of one architecture, dialect and family, with some of its modules."""

    architecture: str
    dialect: str
    modules: str = FIRST  # pattern of paths
    family: str = "lora"
    alpha: bool = True
    peft: bool = False  # `lora_A` and `lora_B` instead of the dialect's names
    encoders: bool = False


FILES = [
    *(File(id, "diffusers") for id in MIXINS),
    *(File(id, "kohya") for id in MIXINS if id not in {"wan21-1.3b", "hunyuanvideo"}),
    *(
        File(id, "comfyui", alpha=alpha, peft=peft)
        for id in CONVERTED
        for alpha in (True, False)
        for peft in (True, False)
    ),
    *(File(id, "peft") for id in ("sd1", "sdxl", "qwen-image", "krea2", "flux2-klein-4b", "wan21-1.3b")),
    *(File(id, "original", alpha=not peft, peft=peft) for id in BARE for peft in (True, False)),
    *(File(id, "diffusers-old", encoders=True) for id in ("sd1", "sdxl", "flux1")),
    File("sd1", "kohya", ALL, encoders=True),
    File("sdxl", "kohya", ALL, encoders=True),
    File("sd1", "lycoris"),
    File("sdxl", "onetrainer"),
    File("sd1", "kohya", family="loha"),
    File("sdxl", "kohya", family="lokr"),
    File("sd1", "diffusers", family="lokr"),
    File("flux1", "kohya", ALL),
    File("flux1", "comfyui", ALL),
    File("flux1", "onetrainer"),
    File("flux1", "onetrainer", alpha=False),
    File("flux1", "kohya", family="lokr"),
    File("flux1", "lycoris"),
    File("flux2-klein-4b", "kohya", ALL),
    File("flux2-klein-4b", "comfyui", ALL, alpha=False, peft=True),
    File("flux2-klein-4b", "comfyui", family="lokr"),
    File("z-image", "diffusers", family="lokr", alpha=False),
    File("qwen-image", "comfyui", family="lokr"),
    File("anima", "comfyui", family="lokr"),
    File("krea2", "comfyui", family="lokr"),
    File("wan21-1.3b", "kohya", BLOCKS),
    File("wan21-1.3b", "kohya", r"attn1\.to_"),
    File("wan21-1.3b", "kohya", BLOCKS, alpha=False),
    File("wan21-1.3b", "comfyui", r"blocks\.0\.|patch_embedding"),
    File("wan21-1.3b", "comfyui", r"blocks\.0\.|proj_out|embedder"),
    File("lumina2", "comfyui", r"^layers", alpha=False, peft=True),
    File("lumina2", "comfyui", r"^layers.*attn", alpha=False, peft=True),
    File("lumina2", "comfyui", r"^layers", alpha=False),
    File("z-image", "comfyui", ALL),
    File("ideogram4", "comfyui", ALL),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: "-".join(map(str, file)))
def test_the_verdict_counts_the_modules_that_diffusers_keeps(file):
    tensors = dict(keys_of(file))
    assert tensors
    verdict, paths = judged(file, tensors)
    kept = kept_by_diffusers(file, tensors)
    target = architecture(file.architecture)
    survivors = [key for key, ref in paths.items() if all(part in kept for part in parts_of(target, ref))]
    assert verdict.modules_loaded == len(survivors), verdict.reasons
    assert verdict.loads == ("all" if len(survivors) == len(paths) else "some" if survivors else "none")


# ---------------------------------------------------------------- files


def keys_of(file: File) -> Iterator[tuple[str, Raw]]:
    """Every key of such a file, with zeros of the right shapes at rank 1."""
    target, spoken = architecture(file.architecture), dialect(file.dialect)
    for ref in spoken.written(target):
        shape = target.shape(ref)
        if shape is None or len(shape) < 2 or not wanted(file, ref) or re.search(r"blocks\.\d+$", ref.path):
            continue
        for role, tensor in layer(file, shape, alpha=file.alpha and spoken.says(Role.ALPHA, ref.component)).items():
            key = spoken.encode(target, Address(ref.component, ref.path, role))
            renamed = key.replace("lora_down", "lora_A").replace("lora_up", "lora_B") if file.peft else key
            yield renamed, tensor


def wanted(file: File, ref: ModuleRef) -> bool:
    if ref.component is not Component.DENOISER:
        return file.encoders and ref.component is not Component.T5 and ".layers.0." in ref.path
    return re.search(file.modules, ref.path) is not None


def layer(file: File, shape: tuple[int, ...], *, alpha: bool) -> dict[Role, Raw]:
    ones, size = (1,) * (len(shape) - 2), shape[1:]
    flat = int(torch.Size(size).numel())
    rows = shape[0]
    families = {
        "lora": {Role.DOWN: (1, *size), Role.UP: (rows, 1, *ones)},
        "loha": {
            Role.HADA_W1_A: (shape[0], 1),
            Role.HADA_W1_B: (1, flat),
            Role.HADA_W2_A: (shape[0], 1),
            Role.HADA_W2_B: (1, flat),
        },
        "lokr": {Role.LOKR_W1: (1, 1), Role.LOKR_W2_A: (rows, 1), Role.LOKR_W2_B: (1, flat)},
    }
    found = {
        role: Raw("F16", sides, bytes(2 * torch.Size(sides).numel())) for role, sides in families[file.family].items()
    }
    return {**found, **({Role.ALPHA: number(1.0)} if alpha else {})}


# ---------------------------------------------------------------- ours and theirs


def judged(file: File, tensors: dict[str, Raw]) -> tuple[Verdict, dict[str, ModuleRef]]:
    """Our verdict, and the modules of the file by what stands before the suffix."""
    opened = in_memory(tensors)
    adapter = decode(opened, architecture_id=file.architecture)
    subject = Subject(opened, group_tensors(opened.tensors), adapter, None)
    return judge(loader("diffusers"), subject), {layer.base: ref for ref, layer in adapter.layers.items()}


def kept_by_diffusers(file: File, tensors: dict[str, Raw]) -> set[ModuleRef]:
    """Canonical modules whose factors are both there, under names that diffusers' loader will look for."""
    state = {
        key: torch.zeros(raw.shape, dtype=torch.float16) if raw.shape else torch.tensor(1.0)
        for key, raw in tensors.items()
    }
    mixin = getattr(pipelines, f"{MIXINS[file.architecture]}LoraLoaderMixin")
    more = {"unet_config": UNetConfig()} if MIXINS[file.architecture] == "StableDiffusionXL" else {}
    try:
        found = mixin.lora_state_dict(state, **more)
    except (ValueError, KeyError, AssertionError, IndexError, NotImplementedError):
        return set()
    found = found[0] if isinstance(found, tuple) else found
    words = ("lora", "lokr") if MIXINS[file.architecture] in {"Flux2", "ZImage"} else ("lora",)
    if not all(any(word in key for word in words) for key in found):  # the check of `load_lora_weights`
        return set()
    target = architecture(file.architecture)
    counts = Counter(ref for key in found for ref in canonical(target, key))
    return {ref for ref, count in counts.items() if count >= 2}


class UNetConfig:
    """The one entry of a UNet's config that SDXL's conversion reads."""

    layers_per_block = 2


_SUFFIX = re.compile(r"\.(lora_[AB]\.weight|lora\.(down|up)\.weight|lora_linear_layer\.(down|up)\.weight|lokr_w\w+)$")


def canonical(target: Architecture, key: str) -> Iterator[ModuleRef]:
    """The modules that one of diffusers' own keys changes; none where its loader would not look."""
    prefix, _, rest = key.partition(".")
    path, cut = _SUFFIX.subn("", rest)
    if not cut:
        path = re.sub(r"\.processor\.to_(q|k|v)_lora\.(down|up)\.weight$", r".to_\1", rest)
        path = re.sub(r"\.processor\.to_out_lora\.(down|up)\.weight$", ".to_out.0", path)
        path = re.sub(r"\.to_(q|k|v|out)_lora\.(down|up)\.weight$", r".\1_proj", path)
    encoder = next((one for one in target.encoders.values() if one.diffusers == prefix), None)
    if prefix == target.denoiser:
        # a LoKr of q, k and v together makes diffusers fuse them in the model
        block, _, last = path.rpartition(".")
        together = {"to_qkv": ("to_q", "to_k", "to_v"), "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj")}
        paths = [f"{block}.{name}" for name in together[last]] if last in together else [path]
        yield from (ModuleRef(Component.DENOISER, one) for one in paths if one in target.modules)
    elif prefix in target.apart:
        yield ModuleRef(Component.DENOISER, f"{prefix}.{path}")
    elif encoder and path in encoder.modules:
        yield ModuleRef(encoder.component, path)


def parts_of(target: Architecture, ref: ModuleRef) -> list[ModuleRef]:
    """The canonical modules that a module of a file stacks."""
    fused = target.fused.get(ref.path) if ref.component is Component.DENOISER else None
    return [ModuleRef(ref.component, path) for path in fused.parts] if fused else [ref]
