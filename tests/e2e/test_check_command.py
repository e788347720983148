"""`hubtool check` as people run it."""

from pathlib import Path

import pytest
from support.adapters import denoiser, lora, modules_like
from support.command import hubtool
from support.files import write

SDXL = modules_like("sdxl", "transformer_blocks.0.attn2.to_k")
FLUX = denoiser("transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_v")


@pytest.fixture
def sdxl(tmp_path: Path) -> Path:
    return write(tmp_path / "sdxl.safetensors", lora("sdxl", "kohya", SDXL, alpha=2))


@pytest.fixture
def flux(tmp_path: Path) -> Path:
    return write(tmp_path / "flux.safetensors", lora("flux1", "peft", FLUX))


def test_a_file_that_loads_everywhere_is_a_success(sdxl: Path) -> None:
    ran = hubtool("check", sdxl)
    assert ran.code == 0
    first, *programs = ran.out.splitlines()
    assert first == f"{sdxl}: sdxl, kohya"
    assert [line.split() for line in programs] == [
        [id, "✓"] for id in ("a1111", "comfyui", "diffusers", "fooocus", "forge", "invokeai", "sdnext", "swarmui")
    ]


def test_what_is_lost_ends_with_12_and_names_the_conversion(flux: Path) -> None:
    ran = hubtool("check", flux, "--for", "comfyui,a1111")
    assert ran.code == 12
    lines = ran.out.splitlines()
    assert lines[1] == "  comfyui  ✗  0 of 3 modules"
    assert "ComfyUI knows no FLUX.1 key such as base_model.model.transformer_blocks.0" in lines[2]
    assert lines[3].startswith(f"      mend: hubtool convert {flux} --to comfyui")
    assert lines[4:] == ["  a1111    ✗  0 of 3 modules", "      AUTOMATIC1111 runs no FLUX.1 LoRAs."]


def test_the_proposed_command_works_as_it_is_printed(flux: Path) -> None:
    line = hubtool("check", flux, "--for", "comfyui").out.splitlines()[-1]
    words = line.split("mend: ")[1].split()
    assert words[0] == "hubtool"
    assert hubtool(*words[1:], "-o", flux.with_name("out.safetensors")).code == 0
    assert hubtool("check", flux.with_name("out.safetensors"), "--for", "comfyui").code == 0


def test_the_document_is_the_contracts(flux: Path, sdxl: Path) -> None:
    ran = hubtool("--json", "check", sdxl, flux, "--for", "fooocus")
    assert ran.code == 17  # one of two
    good, bad = ran.document["results"]
    assert good["path"] == str(sdxl)
    assert {key: good["targets"]["fooocus"][key] for key in ("loads", "modules_loaded", "modules", "reasons")} == {
        "loads": "all",
        "modules_loaded": len(SDXL),
        "modules": len(SDXL),
        "reasons": [],
    }
    assert bad["targets"]["fooocus"]["loads"] == "none"
    assert bad["targets"]["fooocus"]["findings"][0]["source"]


def test_sources_are_told_on_request(flux: Path) -> None:
    assert "comfy/lora.py@" in hubtool("-v", "check", flux, "--for", "comfyui").out


def test_another_base_model_is_a_reason(sdxl: Path) -> None:
    ran = hubtool("check", sdxl, "--for", "comfyui", "--base", "Flux.1 D")
    assert ran.code == 12
    assert "not for Flux.1 D." in ran.out
    assert hubtool("check", sdxl, "--for", "comfyui", "--base", "Illustrious").code == 0


@pytest.mark.parametrize("options", [["--for", "krita"], ["--for", ","], ["--base", "SDXXL"]])
def test_unknown_names_are_errors_of_use_that_list_the_known(sdxl: Path, options: list[str]) -> None:
    ran = hubtool("check", sdxl, *options)
    assert (ran.code, ran.out) == (2, "")
    assert "comfyui" in ran.err or "sdxl" in ran.err


def test_what_is_no_lora_is_told_as_everywhere(tmp_path: Path) -> None:
    assert (
        hubtool("check", tmp_path / "none.safetensors").code == hubtool("inspect", tmp_path / "none.safetensors").code
    )
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    assert hubtool("check", tmp_path / "cut.safetensors").code == hubtool("inspect", tmp_path / "cut.safetensors").code
