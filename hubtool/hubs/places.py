"""Where the known hubs live. `[hubs]` in config.toml moves any of them; Hugging Face's own variable moves it too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hubtool.hubs.addresses import origin

if TYPE_CHECKING:
    from collections.abc import Mapping

# civitai.com does not answer for every mature model since April 2026, civitai.red answers for all; one account serves both
CIVITAI_API = ("https://civitai.red", "https://civitai.com")
CIVITAI_PAGES = "https://civitai.com"
#: Civitai answers under all of these and knows one account for them; its storage host b2.civitai.com is not among them.
CIVITAI_HOSTS = ("civitai.com", "www.civitai.com", "civitai.red", "www.civitai.red", "civitai.green", "api.civitai.com")
CIVITAI_ORIGINS = frozenset(f"https://{host}" for host in CIVITAI_HOSTS)

HUGGING_FACE = "https://huggingface.co"
HUGGING_FACE_ORIGINS = frozenset({HUGGING_FACE, "https://hf.co", "https://www.huggingface.co"})
MODELSCOPE = "https://www.modelscope.cn"
MODELSCOPE_ORIGINS = frozenset(
    {MODELSCOPE, "https://modelscope.cn", "https://modelscope.ai", "https://www.modelscope.ai"}
)
CIVARCHIVE = "https://civarchive.com"
ARC_EN_CIEL = "https://arcenciel.io"
#: Origin of a page with `/models/NUMBER` → the hub whose number it is.
NUMBERED_SITES = {
    CIVARCHIVE: "civarchive",
    "https://www.civarchive.com": "civarchive",
    "https://civitaiarchive.com": "civarchive",
    ARC_EN_CIEL: "arcenciel",
    "https://www.arcenciel.io": "arcenciel",
}


def hugging_face_endpoint(environment: Mapping[str, str] | None = None) -> str:
    """The address of Hugging Face, or of the mirror that HF_ENDPOINT names."""
    return ((os.environ if environment is None else environment).get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")


def repository_site(own_origin: str) -> str:
    """`huggingface` or `modelscope` if repositories live at this origin, else nothing."""
    if own_origin in HUGGING_FACE_ORIGINS or own_origin == _endpoint_origin():
        return "huggingface"
    return "modelscope" if own_origin in MODELSCOPE_ORIGINS else ""


def _endpoint_origin() -> str:
    try:
        return origin(hugging_face_endpoint())
    except ValueError:
        return ""
