"""Modules by number: the order in which cloneofsimo/lora met them when it walked through a model.

Its files say `unet:17:up` and nothing more. The walk is torch's `named_modules` of diffusers up to 0.14 (down blocks, up blocks,
mid block; in a transformer block the feed-forward's gate between the two attentions) over the attentions and gates, which are
what it trained unless told otherwise; text encoders have CLIP's attentions (transformers models/clip/modeling_clip.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubtool.naming.address import ModuleRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hubtool.naming.address import Component

_UNET = re.compile(
    r"^(down_blocks|up_blocks|mid_block)\.(.*)\.(attn1|attn2|ff)\.(to_q|to_k|to_v|to_out\.0|net\.0\.proj)$"
)
_CLIP = re.compile(r"\.layers\.(\d+)\.self_attn\.([kvq]|out)_proj$")
_REGIONS = ("down_blocks", "up_blocks", "mid_block")
_PARTS = ("attn1", "ff", "attn2")
_LEAVES = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj")
_CLIP_LEAVES = ("k", "v", "q", "out")
PER_BLOCK = 9  # four of each attention, one gate
_NEWER = (0, 1, 2, 3, 5, 6, 7, 8, 4)


def numbered(component: Component, paths: Iterable[str]) -> Iterator[tuple[ModuleRef, str]]:
    """Each module that the walk meets, with its number; nothing for models that are no UNet and no CLIP."""
    places = sorted((place, path) for path in paths if (place := _unet_place(path) or _clip_place(path)))
    for number, (_, path) in enumerate(places):
        yield ModuleRef(component, path), str(number)


def _unet_place(path: str) -> tuple[int, ...]:
    found = _UNET.match(path)
    if not found or ".attentions." not in path:
        return ()
    indices = tuple(int(part) for part in found[2].split(".") if part.isdigit())
    return (_REGIONS.index(found[1]), *indices, _PARTS.index(found[3]), _LEAVES.index(found[4]))


def _clip_place(path: str) -> tuple[int, ...]:
    found = _CLIP.search(path)
    return (int(found[1]), _CLIP_LEAVES.index(found[2])) if found else ()


def number_of(base: str) -> int | None:
    """The number in a base such as `unet:17`.

    >>> number_of("unet:17"), number_of("down_blocks.0")
    (17, None)
    """
    _, colon, number = base.rpartition(":")
    return int(number) if colon and number.isdecimal() and len(number) < 6 else None


def older(number: int) -> int:
    """The number up to diffusers 0.14 of what has this one since 0.15, where the gate comes after both attentions.

    >>> [older(number) for number in range(9)]
    [0, 1, 2, 3, 5, 6, 7, 8, 4]
    """
    place = number % PER_BLOCK
    return number - place + _NEWER[place]
