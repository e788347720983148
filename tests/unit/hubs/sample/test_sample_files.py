"""The sample hub's files are what real trainers write, and the same everywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hubtool.formats.hashing import embedded_hash, hash_file
from hubtool.formats.safetensors import read_safetensors
from hubtool.hubs.sample.catalogue import MODELS, Offer, offers, pictures
from hubtool.hubs.sample.made import made
from hubtool.hubs.sample.picture import HEIGHT, WIDTH, png
from hubtool.operations.inspect import inspect
from hubtool.operations.validate import validate

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = Path(__file__).parents[4] / "fixtures" / "keys"
#: Sample file → a list of keys that the real trainer's code wrote.
REAL = {
    3001: "gen_sdscripts_sd15_lora.json",
    3002: "gen_sdscripts_sd15_lora.json",
    3003: "gen_sdscripts_sd15_lora.json",
    3004: "gen_sdscripts_sd15_locon.json",
    3005: "gen_sdscripts_sdxl_lora.json",
    3006: "gen_diffusers_peft_sdxl-base.json",
    3007: "gen_sdscripts_sdxl_lora.json",
    3008: "gen_sdscripts_flux_te1_te3.json",
    3009: "gen_sdscripts_flux_te1_te3.json",
    3010: "gen_lycoris_sd15_locon_dora_out.json",
}
every_offer = pytest.mark.parametrize("offer", offers(), ids=lambda offer: offer.file.name)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    for offer in offers():
        (folder / offer.file.name).write_bytes(made(offer).body)
    return folder


def real_shapes(name: str) -> Mapping[str, list[int]]:
    """Key → shape of a fixture."""
    groups = json.loads((KEYS / name).read_text("utf-8"))["tensors"]
    return {base + suffix: shape for shapes, bases in groups for base in bases for suffix, shape in shapes.items()}


def without_rank(key: str, shape: list[int] | tuple[int, ...]) -> list[int]:
    """A tensor's shape with the rank struck out."""
    axis = 0 if re.search(r"lora_(down|A)\.weight$", key) else 1 if re.search(r"lora_(up|B)\.weight$", key) else None
    return [side for number, side in enumerate(shape) if number != axis]


@every_offer
def test_a_sample_file_is_identified_as_what_it_was_made_for(offer: Offer, folder: Path) -> None:
    found = inspect(folder / offer.file.name)
    recipe = offer.file.recipe
    assert (found.architecture, found.dialect) == (recipe.architecture, recipe.dialect)
    assert (found.coverage, found.leftovers, found.malformed) == (1.0, (), False)
    assert found.rank is not None
    assert (found.rank.min, found.rank.max) == (recipe.rank, recipe.rank)
    assert found.modifiers == (("dora",) if recipe.dora else ())


@every_offer
def test_a_sample_file_is_sound_down_to_its_values(offer: Offer, folder: Path) -> None:
    report = validate(folder / offer.file.name, check_all_values=True)
    assert (report.verdict, report.problems) == ("ok", ())


@every_offer
def test_keys_and_shapes_are_those_that_the_real_trainer_writes(offer: Offer, folder: Path) -> None:
    real = real_shapes(REAL[offer.file.id])
    for key, tensor in read_safetensors(folder / offer.file.name).tensors.items():
        assert without_rank(key, tensor.shape) == without_rank(key, real[key]), key


def test_the_plain_sd1_lora_has_every_key_of_the_trainer_s(folder: Path) -> None:
    assert read_safetensors(folder / "pixel-meadow-v1.safetensors").tensors.keys() == real_shapes(REAL[3001]).keys()


@every_offer
def test_published_hashes_are_those_of_the_bytes(offer: Offer, folder: Path) -> None:
    real = hash_file(folder / offer.file.name)
    published = made(offer).hashes
    assert (
        published.items()
        >= {
            "SHA256": real.sha256.upper(),
            "AutoV2": real.autov2.upper(),
            "AutoV3": (real.autov3 or "").upper(),
            "BLAKE3": real.blake3.upper(),
            "CRC32": real.crc32.upper(),
        }.items()
    )
    assert published.get("AutoV1", real.autov1.upper()) == real.autov1.upper()


@every_offer
def test_the_header_states_the_hash_of_the_tensors(offer: Offer, folder: Path) -> None:
    metadata = read_safetensors(folder / offer.file.name).metadata
    if offer.file.recipe.dialect == "diffusers":
        assert metadata == {"format": "pt"}
        return
    real = hash_file(folder / offer.file.name).tensors_sha256
    assert (embedded_hash(metadata), metadata["modelspec.hash_sha256"]) == (real, f"0x{real}")


@every_offer
def test_the_header_s_lists_are_json_and_its_words_the_hub_s(offer: Offer, folder: Path) -> None:
    metadata = read_safetensors(folder / offer.file.name).metadata
    for key in ("ss_tag_frequency", "ss_dataset_dirs", "ss_network_args"):
        assert isinstance(json.loads(metadata.get(key, "{}")), dict)
    assert metadata.get("modelspec.trigger_phrase", "") == ", ".join(offer.version.words)


def test_two_processes_make_the_same_bytes() -> None:
    code = (
        "from hubtool.hubs.sample.catalogue import offers\nfrom hubtool.hubs.sample.made import made\n"
        "print(*(made(offer).hashes['SHA256'] for offer in offers()))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True)
        for seed in ("1", "2")
    ]
    here = " ".join(made(offer).hashes["SHA256"] for offer in offers()).encode()
    assert [run.stdout.strip() for run in runs] == [here, here]


def test_no_two_files_have_the_same_content() -> None:
    assert len({made(offer).hashes["SHA256"] for offer in offers()}) == len(offers())


def test_all_files_together_are_small() -> None:
    assert sum(len(made(offer).body) for offer in offers()) < 24 << 20


def test_no_id_means_two_things() -> None:
    ids = [model.id for model in MODELS]
    ids += [version.id for model in MODELS for version in model.versions]
    ids += [offer.file.id for offer in offers()] + list(pictures())
    assert max(Counter(ids).values()) == 1


def test_versions_are_listed_newest_first() -> None:
    for model in MODELS:
        released = [version.released for version in model.versions]
        assert released == sorted(released, reverse=True)


@pytest.mark.parametrize("id", pictures())
def test_a_picture_is_a_whole_png_of_the_announced_size(id: int) -> None:
    data = png(pictures()[id])
    chunks: dict[bytes, bytes] = {}
    position = 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        assert zlib.crc32(kind + body) == int.from_bytes(data[position + 8 + length : position + 12 + length], "big")
        chunks[kind] = body
        position += 12 + length
    assert (data[:8], list(chunks)) == (b"\x89PNG\r\n\x1a\n", [b"IHDR", b"PLTE", b"IDAT", b"IEND"])
    assert chunks[b"IHDR"][:8] == WIDTH.to_bytes(4, "big") + HEIGHT.to_bytes(4, "big")
    assert len(zlib.decompress(chunks[b"IDAT"])) == HEIGHT * (WIDTH + 1)
