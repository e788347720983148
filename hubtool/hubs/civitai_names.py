"""Civitai's own lists of names, for when `/enums` does not answer.

Source: civitai/civitai, packages/civitai-shared/src/basemodel.constants.ts of August 2026.

Base models must be spelt exactly: a filter by an unknown one finds nothing, and says nothing.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MODEL_TYPES = """
Checkpoint TextualInversion Hypernetwork AestheticGradient LORA LoCon DoRA Controlnet Upscaler MotionModule VAE TextEncoder
UNet CLIPVision Poses Wildcards Workflows ComfyWorkflows Detection VisionLanguage CLIP LLM Other
"""
_BASE_MODELS = """
Anima, AuraFlow, Chroma, CogVideoX, Ernie, Flux.1 S, Flux.1 D, Flux.1 Krea, Flux.1 Kontext, Flux.2 D, Flux.2 Klein 9B,
Flux.2 Klein 9B-base, Flux.2 Klein 4B, Flux.2 Klein 4B-base, Flux 3 Video, Grok, HappyHorse, HiDream, HiDream-O1,
Hunyuan 1, Hunyuan Video, Ideogram 4.0, Boogu, Illustrious, Kolors, Krea 2, LTXV, LTXV2, LTXV 2.3, Lens, Lumina,
MageFlow, MAI, Mochi, NoobAI, Upscaler, Other, PixArt a, PixArt E, Pony, Pony V7, Qwen, Qwen 2, Qwen 3, SD 1.4,
SD 1.5, SD 1.5 LCM, SD 1.5 Hyper, SD 2.0, SD 2.1, SDXL 1.0, SDXL Lightning, SDXL Hyper, Reve, Wan Video 1.3B t2v,
Wan Video 14B t2v, Wan Video 14B i2v 480p, Wan Video 14B i2v 720p, Wan Video 2.2 TI2V-5B, Wan Video 2.2 I2V-A14B,
Wan Video 2.2 T2V-A14B, Wan Video 2.5 T2V, Wan Video 2.5 I2V, Wan Image 2.7, Wan Video 2.7, ZImageTurbo, ZImageBase,
MiniMax H3, ACE Audio, Imagen4, Nano Banana, ODOR, OpenAI, Playground v2, Stable Cascade, SD 2.0 768, SD 2.1 768,
SD 2.1 Unclip, SD 3, SD 3.5, SD 3.5 Large, SD 3.5 Large Turbo, SD 3.5 Medium, SDXL 0.9, SDXL 1.0 LCM, SDXL Turbo,
SDXL Distilled, Seedream, SVD, SVD XT, Sora 2, Veo 3, Wan Video, Vidu Q1, Kling, Seedance, PolyGen, Tripo, Hunyuan3D
"""
MODEL_TYPES = tuple(_MODEL_TYPES.split())
BASE_MODELS = tuple(" ".join(name.split()) for name in _BASE_MODELS.split(","))


def spelt(name: str, known: Iterable[str]) -> str:
    """The name as the list has it, whatever its case; empty if the list has none such.

    >>> spelt("sdxl 1.0", BASE_MODELS), spelt("SDXL", BASE_MODELS)
    ('SDXL 1.0', '')
    """
    return next((entry for entry in known if entry.casefold() == name.strip().casefold()), "")


def close(name: str, known: Iterable[str]) -> list[str]:
    """Names that somebody may have meant.

    >>> close("SDXL", BASE_MODELS)[:1]
    ['SDXL 1.0']
    """
    folded = {entry.casefold(): entry for entry in known}
    wanted = name.casefold()
    beginning = [entry for fold, entry in folded.items() if fold.startswith(wanted)]
    alike = [folded[fold] for fold in difflib.get_close_matches(wanted, folded, 5, 0.5)]
    return list(dict.fromkeys(beginning + alike))[:5]
