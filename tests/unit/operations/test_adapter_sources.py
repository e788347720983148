"""Strengths as people type them: files, text encoders, blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.adapters import denoiser
from support.changes import LINEAR, lora, write_adapter

from hubtool.errors import UsageProblem
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture, architecture_ids
from hubtool.operations.model_blocks import LISTS, block_of, blocks, parse_block_weights
from hubtool.operations.sources import Source, parse_source, read_sources


@pytest.mark.parametrize(
    ("text", "path", "strength", "encoder"),
    [
        ("a.safetensors", "a.safetensors", 1.0, None),
        ("a.safetensors:0.7", "a.safetensors", 0.7, None),
        ("a.safetensors:-1", "a.safetensors", -1.0, None),
        ("a.safetensors:.5", "a.safetensors", 0.5, None),
        ("a.safetensors:0.7:te=0.3", "a.safetensors", 0.7, 0.3),
        ("a.safetensors:te=0", "a.safetensors", 1.0, 0.0),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", 1.0, None),
        (r"C:\loras\a.safetensors:0.5", r"C:\loras\a.safetensors", 0.5, None),
        ("C:/loras/a.safetensors:0.5:te=1", "C:/loras/a.safetensors", 0.5, 1.0),
        ("a:b.safetensors", "a:b.safetensors", 1.0, None),
    ],
)
def test_a_strength_follows_its_file(text: str, path: str, strength: float, encoder: float | None) -> None:
    found = parse_source(text)
    assert (found.path, found.strength, found.text_encoder) == (Path(path), strength, encoder)


def test_a_file_that_exists_under_the_whole_name_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "style:0.7"
    path.write_bytes(b"")
    assert parse_source(str(path)) == Source(path)
    assert parse_source(f"{path}:0.5") == Source(path, 0.5)


@pytest.mark.parametrize("text", ["nan", "inf", "te=-inf", "1e300", "-1e5", "1e-9", "0.5:te=1e30"])
def test_a_strength_that_is_no_number_of_a_sensible_size_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"no strength for a\.safetensors"):
        parse_source(f"a.safetensors:{text}")


@pytest.mark.parametrize("weight", ["1e300", "nan", "-1e5", "1e-9"])
def test_a_block_has_a_sensible_weight(weight: str) -> None:
    with pytest.raises(UsageProblem, match="is no weight"):
        parse_block_weights(f"MID={weight}")


def test_every_module_of_every_architecture_is_in_a_block_that_is_listed() -> None:
    for id in architecture_ids():
        target = architecture(id)
        names = set(blocks(target))
        modules = [*denoiser(*target.modules, *target.fused)]
        modules += [ModuleRef(e.component, path) for e in target.encoders.values() for path in e.modules]
        assert {block_of(target, module) for module in modules} <= names


@pytest.mark.parametrize(
    ("id", "path", "block"),
    [
        ("sd1", LINEAR, "IN01"),
        ("sd1", "mid_block.attentions.0.proj_in", "MID"),
        ("sd1", "up_blocks.3.attentions.2.proj_in", "OUT11"),
        ("sdxl", "up_blocks.0.attentions.0.transformer_blocks.3.attn1.to_q", "OUT00"),
        ("flux1", "transformer_blocks.7.attn.to_q", "transformer_blocks.7"),
        ("flux1", "double_blocks.7.img_attn.qkv", "transformer_blocks.7"),
        ("flux1", "single_blocks.12.linear1", "single_transformer_blocks.12"),
    ],
)
def test_blocks_have_the_names_that_people_use(id: str, path: str, block: str) -> None:
    assert block_of(architecture(id), denoiser(path)[0]) == block


def test_lists_without_names_follow_the_order_of_a1111s_extension() -> None:
    numbers = ",".join(str(i) for i in range(12))
    assert dict(parse_block_weights(numbers).rows) == {
        "BASE": 0, "IN04": 1, "IN05": 2, "IN07": 3, "IN08": 4, "MID": 5,
        "OUT00": 6, "OUT01": 7, "OUT02": 8, "OUT03": 9, "OUT04": 10, "OUT05": 11,
    }  # fmt: skip
    assert {length: len(names) for length, names in LISTS.items()} == {12: 12, 17: 17, 20: 20, 26: 26}


@pytest.mark.parametrize("text", ["1,2,3", "IN04=x", "IN04=", "IN04=nan", "IN04", ""])
def test_block_weights_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(UsageProblem):
        parse_block_weights(text)


def test_ranges_patterns_and_paths_name_blocks_and_the_last_one_wins() -> None:
    target, module = architecture("flux1"), denoiser("single_blocks.12.linear1")[0]
    for text, expected in (
        ("single_transformer_blocks.0-12=0.5", 0.5),
        ("single_transformer_blocks.0-11=0.5", 1.0),
        ("single_*=0.5", 0.5),
        ("single_blocks.12=0.5", 0.5),
        ("single_*=0.5,single_transformer_blocks.12=0.25", 0.25),
        ("BASE=0", 1.0),
    ):
        assert parse_block_weights(text).factor(target, module) == expected
    assert parse_block_weights("BASE=0").factor(target, ModuleRef(Component.CLIP_L, "x")) == 0


def test_a_block_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    with pytest.raises(UsageProblem, match="No block of Stable Diffusion 1"):
        read_sources([Source(path, blocks=parse_block_weights("transformer_blocks.3=0.5"))])
    assert read_sources([Source(path, blocks=parse_block_weights("OUT11=0.5"))])
