"""What the sample hub offers: seven models whose weights are noise, described the way people describe theirs.

Ids say what they are: models from 1001, versions from 2001, files from 3001, pictures from 4001.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from hubtool.hubs.sample.picture import Picture
from hubtool.hubs.sample.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN = "sample-token"  # noqa: S105  # published on purpose: what the sample hub takes for a login
USER = "sample-visitor"  # whom that token belongs to
NEWEST = "2026-06-20"  # `--period` counts back from the last release, so that it means something on any day
EARLY_ACCESS_ENDS = "2099-12-31T00:00:00.000Z"

Access = Literal["open", "login", "early"]


@dataclass(frozen=True, slots=True)
class File:
    """One file of a version."""

    id: int
    name: str
    recipe: Recipe
    primary: bool = True
    size: str = "full"  # or "pruned"


@dataclass(frozen=True, slots=True)
class Version:
    """One release."""

    id: int
    name: str
    base_model: str
    released: str  # date
    words: tuple[str, ...]
    files: tuple[File, ...]
    pictures: Mapping[int, Picture]  # by id
    downloads: int
    about: str = ""  # HTML
    access: Access = "open"


@dataclass(frozen=True, slots=True)
class Model:
    """A page of the hub."""

    id: int
    name: str
    type: str  # LORA, LoCon, DoRA
    creator: str
    tags: tuple[str, ...]
    about: str  # HTML
    versions: tuple[Version, ...]  # newest first
    thumbs_up: int
    commercial_use: tuple[str, ...] = ("Image", "RentCivit")
    credit_needed: bool = True
    derivatives: bool = True

    @property
    def downloads(self) -> int:
        """Of all versions."""
        return sum(version.downloads for version in self.versions)


@dataclass(frozen=True, slots=True, eq=False)  # hashed by identity: there is one of each
class Offer:
    """A file with all that it belongs to."""

    model: Model
    version: Version
    file: File


_SD1_ALL = r"lora_unet_.*_attentions_.*|lora_te_text_model_encoder_layers_.*"  # what sd-scripts trains by default
_SD1_BLOCKS = r"lora_unet_(down_blocks|mid_block|up_blocks)_.*"  # with the residual blocks' 3×3 convolutions
_SD1_ATTENTION = r"lora_unet_.*_attn[12]_.*"
_SDXL_CROSS = r"lora_unet_.*_attn2_.*"
_SDXL_CROSS_TE1 = r"lora_unet_.*_attn2_.*|lora_te1_text_model_encoder_layers_.*"
_SDXL_DIFFUSERS = r"unet\..*\.attn[12]\.to_(q|k|v|out\.0)"  # the default targets of diffusers' trainers
_FLUX_DOUBLE = r"lora_unet_double_blocks_.*_attn_(qkv|proj)"

_NOISE = "<p>A <strong>sample file</strong>: real keys and shapes, but the weights are noise. It draws nothing.</p>"

MODELS: tuple[Model, ...] = (
    Model(
        id=1001,
        name="Pixel Meadow",
        type="LORA",
        creator="lantern_lab",
        tags=("style", "pixel art", "landscape"),
        about=_NOISE
        + "<h3>How to use</h3><ul><li><p>strength 0.6 – 0.9</p></li><li><p>write <code>pixel meadow</code> first</p></li></ul>",
        thumbs_up=812,
        versions=(
            Version(
                id=2002,
                name="v2",
                base_model="SD 1.5",
                released="2026-03-14",
                words=("pixel meadow",),
                files=(
                    File(3002, "pixel-meadow-v2.safetensors", Recipe("sd1", "kohya", _SD1_ALL, 2, 1)),
                    File(
                        3003,
                        "pixel-meadow-v2-small.safetensors",
                        Recipe("sd1", "kohya", _SD1_ALL, 1, 1),
                        primary=False,
                        size="pruned",
                    ),
                ),
                pictures={
                    4002: Picture("meadow", (18, 52, 40), (210, 240, 150)),
                    4003: Picture("dusk", (30, 26, 70), (250, 170, 110)),
                },
                downloads=5120,
                about="<p>Trained longer; also as a small file of rank 1.</p>",
            ),
            Version(
                id=2001,
                name="v1",
                base_model="SD 1.5",
                released="2025-11-02",
                words=("pixel meadow", "8-bit sky"),
                files=(File(3001, "pixel-meadow-v1.safetensors", Recipe("sd1", "kohya", _SD1_ALL, 1, 1)),),
                pictures={4001: Picture("meadow", (24, 60, 90), (190, 230, 255))},
                downloads=2210,
            ),
        ),
    ),
    Model(
        id=1002,
        name="Ink Wash Hills",
        type="LoCon",
        creator="studio_reed",
        tags=("style", "ink", "landscape"),
        about=_NOISE + "<p>A LoCon: it changes the 3×3 convolutions too.</p>",
        thumbs_up=377,
        commercial_use=(),
        derivatives=False,
        versions=(
            Version(
                id=2003,
                name="1.0",
                base_model="SD 1.5",
                released="2026-01-09",
                words=("ink wash",),
                files=(File(3004, "ink_wash_hills.safetensors", Recipe("sd1", "kohya", _SD1_BLOCKS, 1, 0.5)),),
                pictures={4004: Picture("waves", (20, 20, 24), (235, 232, 222))},
                downloads=1894,
            ),
        ),
    ),
    Model(
        id=1003,
        name="Paper Lantern Glow",
        type="LORA",
        creator="lantern_lab",
        tags=("lighting", "style"),
        about=_NOISE + "<p>Warm light from within. Best between 0.5 and 1; goes with any SDXL checkpoint.</p>",
        thumbs_up=1543,
        credit_needed=False,
        versions=(
            Version(
                id=2004,
                name="v1.0",
                base_model="SDXL 1.0",
                released="2026-05-28",
                words=("paper lantern glow",),
                files=(File(3005, "paper-lantern-glow.safetensors", Recipe("sdxl", "kohya", _SDXL_CROSS, 1, 1)),),
                pictures={4005: Picture("rings", (60, 14, 10), (255, 214, 130))},
                downloads=9407,
            ),
        ),
    ),
    Model(
        id=1004,
        name="Velvet Portrait",
        type="LORA",
        creator="brushfox",
        tags=("portrait", "photography"),
        about=_NOISE + "<p>Written by the <em>diffusers</em> trainer, keys included.</p>",
        thumbs_up=655,
        versions=(
            Version(
                id=2005,
                name="main",
                base_model="SDXL 1.0",
                released="2025-08-17",
                words=(),
                files=(
                    File(
                        3006, "velvet_portrait_lora_weights.safetensors", Recipe("sdxl", "diffusers", _SDXL_DIFFUSERS)
                    ),
                ),
                pictures={4006: Picture("dusk", (46, 8, 30), (228, 160, 170))},
                downloads=3051,
            ),
        ),
    ),
    Model(
        id=1005,
        name="Moss Goblins",
        type="LORA",
        creator="studio_reed",
        tags=("character", "fantasy"),
        about=_NOISE + "<p>Three characters in one file; one trigger each.</p>",
        thumbs_up=2088,
        commercial_use=("Image", "RentCivit", "Rent", "Sell"),
        versions=(
            Version(
                id=2006,
                name="Pony v3",
                base_model="Pony",
                released="2026-04-30",
                words=("moss goblin", "goblin elder, long beard", "goblin child, mushroom hat"),
                files=(File(3007, "MossGoblins_Pony.safetensors", Recipe("sdxl", "kohya", _SDXL_CROSS_TE1, 1, 0.5)),),
                pictures={4007: Picture("leaves", (12, 40, 14), (170, 220, 90))},
                downloads=12870,
            ),
        ),
    ),
    Model(
        id=1006,
        name="Glass Orchard",
        type="LORA",
        creator="brushfox",
        tags=("style", "glass"),
        about=_NOISE + "<p>For FLUX.1 [dev]. The newest version is in early access; the first one is free.</p>",
        thumbs_up=921,
        versions=(
            Version(
                id=2008,
                name="v2",
                base_model="Flux.1 D",
                released=NEWEST,
                words=("glass orchard",),
                files=(File(3009, "glass-orchard-v2.safetensors", Recipe("flux1", "kohya", _FLUX_DOUBLE, 2, 2)),),
                pictures={4009: Picture("leaves", (10, 50, 60), (225, 250, 245))},
                downloads=140,
                access="early",
            ),
            Version(
                id=2007,
                name="v1",
                base_model="Flux.1 D",
                released="2026-02-11",
                words=("glass orchard",),
                files=(File(3008, "glass-orchard-v1.safetensors", Recipe("flux1", "kohya", _FLUX_DOUBLE, 1, 1)),),
                pictures={4008: Picture("leaves", (16, 34, 66), (190, 225, 250))},
                downloads=4416,
            ),
        ),
    ),
    Model(
        id=1007,
        name="Copper Botanica",
        type="DoRA",
        creator="wrenworks",
        tags=("style", "engraving"),
        about=_NOISE + "<p>A DoRA. Its creator wants you to be logged in to download it.</p>",
        thumbs_up=204,
        versions=(
            Version(
                id=2009,
                name="first print",
                base_model="SD 1.5",
                released="2026-06-01",
                words=("copper engraving",),
                files=(
                    File(3010, "copper-botanica.safetensors", Recipe("sd1", "kohya", _SD1_ATTENTION, 2, 1, dora=True)),
                ),
                pictures={4010: Picture("weave", (40, 18, 10), (222, 158, 110))},
                downloads=733,
                access="login",
            ),
        ),
    ),
)


@lru_cache(maxsize=1)
def offers() -> tuple[Offer, ...]:
    """Every file, in the order of the catalogue."""
    return tuple(
        Offer(model, version, file) for model in MODELS for version in model.versions for file in version.files
    )


def pictures() -> Mapping[int, Picture]:
    """Every picture by its id."""
    return {id: picture for model in MODELS for version in model.versions for id, picture in version.pictures.items()}
