"""What ModelSpec's header fields (`modelspec.*`) call an architecture, and the code whose names the keys follow.

Stability-AI/ModelSpec 1.0.0. Ids as kohya-ss/sd-scripts library/sai_model_spec.py writes them; what it does not train is called
as mcmonkeyprojects/SwarmUI T2IModelClassSorter.cs does; UIs filter by them. What neither knows has our id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.naming.architecture import Architecture

#: Fields that the specification demands of an adapter.
REQUIRED = (
    "modelspec.sai_model_spec",
    "modelspec.architecture",
    "modelspec.implementation",
    "modelspec.title",
)
VERSION = "1.0.0"
_SUFFIX = "/lora"  # of every adapter, LyCORIS included
_DIFFUSERS = "diffusers"
_STABILITY = "https://github.com/Stability-AI/generative-models"
_FLUX = "https://github.com/black-forest-labs/flux"
_COMFYUI = "https://github.com/comfyanonymous/ComfyUI"

_IDS: Mapping[str, str] = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-512",
    "sdxl": "stable-diffusion-xl-v1-base",
    "sdxl-refiner": "stable-diffusion-xl-v1-refiner",
    "ssd-1b": "segmind-stable-diffusion-1b",
    "sd3-medium": "stable-diffusion-3-medium",
    "sd35-medium": "stable-diffusion-3-5-medium",
    "sd35-large": "stable-diffusion-3-5-large",
    "flux1": "flux-1-dev",
    "flux2": "flux.2-dev",
    "flux2-klein-4b": "flux.2-klein-4b",
    "flux2-klein-9b": "flux.2-klein-9b",
    "lumina2": "lumina-2",
    "hunyuanimage21": "hunyuan-image-2.1",
    "hunyuanvideo": "hunyuan-video",
    "hunyuanvideo15": "hunyuan-video-1_5",
    "anima": "anima-preview",
    "wan21-1.3b": "wan-2_1-text2video-1_3b",
    "wan-14b": "wan-2_1-text2video-14b",
    "wan21-i2v-14b": "wan-2_1-image2video-14b",
    "wan21-vace-1.3b": "wan-2_1-vace-1_3b",
    "wan21-vace-14b": "wan-2_1-vace-14b",
    "wan22-5b": "wan-2_2-ti2v-5b",
    "ltx-video-2b": "lightricks-ltx-video",
    "ltx-video-13b": "lightricks-ltx-video",
    "ltx2": "lightricks-ltx-video-2",
    "cosmos-predict1-7b": "nvidia-cosmos-1-7b-text2world",
    "cosmos-predict2-2b": "nvidia-cosmos-predict2-t2i-2b",
    "pixart-sigma": "pixart-ms-sigma-xl-2",
    "sana": "nvidia-sana-1600",
    "mochi1": "genmo-mochi-1",
    "auraflow": "auraflow-v1",
    "hidream": "hidream-i1",
    "ideogram4": "ideogram-4",
    "krea2": "krea-2",
    "ovis-image": "ovis",
}
#: Whose names the keys follow, where they are not diffusers'. ComfyUI's loader is the reader of all others.
_AUTHORS: Mapping[str, str] = {
    "sdxl": _STABILITY,
    "sdxl-refiner": _STABILITY,
    "flux1": _FLUX,
    "chroma": "https://huggingface.co/lodestones/Chroma",
    "lumina2": "https://github.com/Alpha-VLLM/Lumina-Image-2.0",
    "hunyuanvideo": "https://github.com/Tencent/HunyuanVideo",
    "wan-14b": "https://github.com/Wan-Video/Wan2.1",
    "wan21-1.3b": "https://github.com/Wan-Video/Wan2.1",
    "wan21-i2v-14b": "https://github.com/Wan-Video/Wan2.1",
    "qwen-image": "https://github.com/QwenLM/Qwen-Image",
}
_DIFFUSERS_NAMES = frozenset({"diffusers", "diffusers-old", "peft", "onetrainer", "lycoris"})


def architecture_value(target: Architecture, metadata: Mapping[str, str]) -> str:
    """`modelspec.architecture` of an adapter; Stable Diffusion 2 with v-prediction has an id of its own."""
    known = _IDS.get(target.id, target.id)
    if target.id == "sd2" and metadata.get("ss_base_model_version", "").endswith("_v"):
        known = "stable-diffusion-v2-768-v"
    return known + _SUFFIX


def implementation_value(target: Architecture, dialect_id: str) -> str:
    """`modelspec.implementation`: the code whose module names the keys follow."""
    if dialect_id in _DIFFUSERS_NAMES or (dialect_id == "kohya" and target.kohya == "diffusers"):
        return _DIFFUSERS
    return _AUTHORS.get(target.id, _COMFYUI)
