"""Base models by the names that hubs and people use: "SDXL 1.0", "Pony", "Flux.1 D" → architectures.

The names are those of Civitai's base-model list; an architecture's own id, title and `hints` count, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.errors import UsageProblem
from hubtool.naming.architecture import architecture, architecture_ids

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Civitai's name, folded → architectures it can mean, the likeliest first.
BASE_MODELS: Mapping[str, tuple[str, ...]] = {
    "sd 1.4": ("sd1",),
    "sd 1.5": ("sd1",),
    "sd 1.5 lcm": ("sd1",),
    "sd 1.5 hyper": ("sd1",),
    "sd 2.0": ("sd2",),
    "sd 2.0 768": ("sd2",),
    "sd 2.1": ("sd2",),
    "sd 2.1 768": ("sd2",),
    "sdxl 0.9": ("sdxl",),
    "sdxl 1.0": ("sdxl",),
    "sdxl 1.0 lcm": ("sdxl",),
    "sdxl lightning": ("sdxl",),
    "sdxl hyper": ("sdxl",),
    "sdxl turbo": ("sdxl",),
    "sdxl distilled": ("sdxl", "ssd-1b"),
    "playground v2": ("sdxl",),
    "pony": ("sdxl",),
    "illustrious": ("sdxl",),
    "noobai": ("sdxl",),
    "sd 3": ("sd3-medium",),
    "sd 3.5": ("sd35-large", "sd35-medium"),
    "sd 3.5 medium": ("sd35-medium",),
    "sd 3.5 large": ("sd35-large",),
    "sd 3.5 large turbo": ("sd35-large",),
    "flux.1 d": ("flux1",),
    "flux.1 s": ("flux1",),
    "flux.1 krea": ("flux1",),
    "flux.1 kontext": ("flux1",),
    "flux.2 d": ("flux2",),
    "flux.2 klein 4b": ("flux2-klein-4b",),
    "flux.2 klein 9b": ("flux2-klein-9b",),
    "pony v7": ("auraflow",),
    "auraflow": ("auraflow",),
    "chroma": ("chroma",),
    "pixart a": ("pixart-alpha",),
    "pixart e": ("pixart-sigma",),
    "hunyuan 1": ("hunyuandit",),
    "hunyuan video": ("hunyuanvideo", "hunyuanvideo15"),
    "lumina": ("lumina2",),
    "mochi": ("mochi1",),
    "ltxv": ("ltx-video-2b", "ltx-video-13b"),
    "ltxv2": ("ltx2",),
    "cogvideox": ("cogvideox-5b", "cogvideox-2b"),
    "hidream": ("hidream",),
    "qwen": ("qwen-image",),
    "qwen-image": ("qwen-image",),
    "zimageturbo": ("z-image",),
    "zimagebase": ("z-image",),
    "z image": ("z-image",),
    "anima": ("anima",),
    "wan video": ("wan-14b", "wan21-1.3b", "wan21-i2v-14b"),
    "wan video 1.3b t2v": ("wan21-1.3b",),
    "wan video 14b t2v": ("wan-14b",),
    "wan video 14b i2v 480p": ("wan21-i2v-14b",),
    "wan video 14b i2v 720p": ("wan21-i2v-14b",),
    "wan video 2.2 ti2v-5b": ("wan22-5b",),
    "wan video 2.2 i2v-a14b": ("wan-14b",),
    "wan video 2.2 t2v-a14b": ("wan-14b",),
}


def architectures_of(name: str) -> tuple[str, ...]:
    """The architectures that a base model's name means, the likeliest first.

    >>> architectures_of("Illustrious"), architectures_of("flux1"), architectures_of("SD 3.5")
    (('sdxl',), ('flux1',), ('sd35-large', 'sd35-medium'))

    Raises:
        UsageProblem: no architecture goes by that name.
    """
    if name in architecture_ids():
        return (name,)
    folded = " ".join(name.casefold().split())
    found = BASE_MODELS.get(folded, ())
    if not found:
        known = [architecture(id) for id in architecture_ids()]
        found = tuple(
            one.id for one in known if folded in {one.title.casefold(), *(hint.casefold() for hint in one.hints)}
        )
    if not found:
        raise UsageProblem(
            f"There is no base model {name!r}.",
            hint=f'Name one as hubs do ("SDXL 1.0", "Pony", "Flux.1 D"), or an architecture: {", ".join(architecture_ids())}.',
        )
    return found
