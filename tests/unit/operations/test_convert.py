"""A conversion's header, report and refusals; the tensors themselves are compared in test_convert_real_files.py."""

import os
from hashlib import sha256
from pathlib import Path

import pytest
from support.adapters import lora, modules_like
from support.files import number, random_tensor, write
from support.lazy import contents

from hubtool.errors import (
    AmbiguousArchitecture,
    BrokenAdapter,
    FileMissing,
    NotAnAdapter,
    NotRepresentable,
    OutputExists,
    StorageProblem,
    UnknownArchitecture,
    UnknownDialect,
)
from hubtool.formats.safetensors import read_safetensors
from hubtool.operations.convert import ConvertOptions, convert

K = modules_like("sd1", "attn2.to_k")
HASHES = {"sshs_model_hash": "a" * 64, "sshs_legacy_hash": "b" * 8, "modelspec.hash_sha256": "0x" + "c" * 64}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.safetensors", lora("sd1", "kohya", K, alpha=3), {"ss_x": "kept", **HASHES})


def header(path: Path) -> dict[str, str]:
    return dict(read_safetensors(path).metadata)


def test_metadata_are_kept_and_the_architecture_added_where_nothing_names_it(tmp_path: Path, source: Path) -> None:
    convert(source, "comfyui", tmp_path / "out.safetensors")
    assert header(tmp_path / "out.safetensors") == {"ss_x": "kept", **HASHES, "hubtool.architecture": "sd1"}
    named = write(tmp_path / "named.safetensors", lora("sd1", "kohya", K), {"ss_base_model_version": "sd_v1"})
    convert(named, "comfyui", tmp_path / "out2.safetensors")
    assert header(tmp_path / "out2.safetensors") == {"ss_base_model_version": "sd_v1"}


def test_hashes_of_the_tensors_are_kept_only_while_they_are_true(tmp_path: Path, source: Path) -> None:
    convert(source, "diffusers", tmp_path / "out.safetensors")  # without its alphas the body is another
    assert not HASHES.keys() & header(tmp_path / "out.safetensors").keys()
    convert(source, "kohya", tmp_path / "recast.safetensors", ConvertOptions(dtype="F32"))
    assert not HASHES.keys() & header(tmp_path / "recast.safetensors").keys()


def test_a_rename_keeps_the_body_byte_for_byte(tmp_path: Path, source: Path) -> None:
    convert(source, "comfyui", tmp_path / "out.safetensors")
    bodies = []
    for path in (source, tmp_path / "out.safetensors"):
        raw = path.read_bytes()
        bodies.append(raw[8 + int.from_bytes(raw[:8], "little") :])
    assert bodies[0] == bodies[1]


def test_the_sha256_is_the_outputs(tmp_path: Path, source: Path) -> None:
    result = convert(source, "comfyui", tmp_path / "out.safetensors", ConvertOptions(hashes=True))
    assert result.sha256 == sha256(result.output.read_bytes()).hexdigest()
    dry = convert(source, "comfyui", tmp_path / "dry.safetensors", ConvertOptions(hashes=True, dry_run=True))
    assert dry.sha256 is None


def test_a_dry_run_reports_what_the_real_one_does(tmp_path: Path, source: Path) -> None:
    for target in ("diffusers", "comfyui", "kohya"):
        dry = convert(source, target, tmp_path / f"{target}.safetensors", ConvertOptions(dry_run=True))
        assert not dry.output.exists()
        assert convert(source, target, dry.output) == dry


def test_tensors_that_were_not_understood_are_copied_and_counted(tmp_path: Path) -> None:
    extra = {"bundle_emb.x.clip_l": random_tensor(1, (2, 768))}
    path = write(tmp_path / "in.safetensors", lora("sd1", "kohya", K) | extra)
    result = convert(path, "diffusers", tmp_path / "out.safetensors")
    assert result.leftovers == tuple(extra)
    assert contents(result.output)["bundle_emb.x.clip_l"] == extra["bundle_emb.x.clip_l"]
    with pytest.raises(NotRepresentable, match="1 tensors"):
        convert(path, "diffusers", tmp_path / "strict.safetensors", ConvertOptions(strict=True))


def test_files_of_any_dialect_are_converted_to_their_own(tmp_path: Path) -> None:
    for dialect in ("kohya", "diffusers", "diffusers-old", "peft", "comfyui", "original"):
        tensors = lora("sd1", dialect, K)
        path = write(tmp_path / f"{dialect}.safetensors", tensors)
        result = convert(path, dialect, tmp_path / f"{dialect}.out.safetensors")
        assert (result.from_, result.to, result.exact) == (dialect, dialect, True)
        assert contents(result.output) == tensors


def test_tied_candidates_are_no_obstacle_where_they_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "in.safetensors", lora("sd1", "kohya", modules_like("sd1", "attn1.to_q")))
    assert convert(path, "diffusers", tmp_path / "out.safetensors").architecture == "sd1"


def test_tied_candidates_that_disagree_are_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in.safetensors", lora("sdxl", "diffusers", modules_like("sdxl", "mid_block.attentions.0.proj_in"))
    )
    with pytest.raises(AmbiguousArchitecture, match="sdxl"):
        convert(path, "kohya", tmp_path / "out.safetensors")
    assert (
        convert(path, "kohya", tmp_path / "out.safetensors", ConvertOptions(architecture="sdxl")).architecture == "sdxl"
    )


def test_metadata_that_name_one_of_the_tied_settle_it(tmp_path: Path) -> None:
    tensors = lora("sdxl", "diffusers", modules_like("sdxl", "mid_block.attentions.0.proj_in"))
    for metadata in ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, {"hubtool.architecture": "sdxl"}):
        path = write(tmp_path / "in.safetensors", tensors, metadata)
        assert convert(path, "kohya", tmp_path / "out.safetensors", ConvertOptions(force=True)).architecture == "sdxl"


@pytest.mark.parametrize("options", [ConvertOptions(), ConvertOptions(dry_run=True)])
def test_an_output_that_exists_is_refused_before_anything_is_read(tmp_path: Path, options: ConvertOptions) -> None:
    (tmp_path / "out.safetensors").touch()
    with pytest.raises(OutputExists):
        convert(tmp_path / "gone.safetensors", "kohya", tmp_path / "out.safetensors", options)


def test_an_output_of_another_kind_is_never_replaced(tmp_path: Path, source: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(StorageProblem):
            convert(source, "comfyui", tmp_path / name, ConvertOptions(force=True))


def test_a_link_as_output_is_replaced_and_what_it_leads_to_is_not(tmp_path: Path, source: Path) -> None:
    before = source.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(source)
    convert(source, "comfyui", tmp_path / "link.safetensors", ConvertOptions(force=True))
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("make", "to", "options", "error"),
    [
        (None, "kohya", {}, FileMissing),
        (lora("sd1", "kohya", K), "latin", {}, UnknownDialect),
        (lora("sd1", "kohya", K), "diffusers", {"architecture": "sd9"}, UnknownArchitecture),
        (lora("sd1", "kohya", K), "diffusers", {"architecture": "flux1"}, UnknownArchitecture),
        ({"x.lora_up.weight": number(1, "F16", (4, 4))}, "diffusers", {}, BrokenAdapter),
        ({"model.weight": number(1)}, "diffusers", {}, NotAnAdapter),
        (lora("sd1", "kohya", K), "xlabs", {}, NotRepresentable),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    tmp_path: Path, make: dict | None, to: str, options: dict[str, str], error: type[Exception]
) -> None:
    path = tmp_path / "in.safetensors"
    if make is not None:
        write(path, make)
    with pytest.raises(error):
        convert(path, to, tmp_path / "new" / "out.safetensors", ConvertOptions(**options))
    assert not (tmp_path / "new").exists()
