"""Suffix tables: every role has one written suffix, every suffix one meaning within a table, keys are cut at the right place."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubtool.naming import suffixes
from hubtool.naming.address import Role
from hubtool.naming.dialect import dialects
from hubtool.naming.suffixes import split_key

TABLES = {
    name: table
    for name, table in vars(suffixes).items()
    if name.isupper() and isinstance(table, Mapping) and all(isinstance(role, Role) for role in table)
}
SPELLINGS = [
    pytest.param(id, spelling, id=f"{id}-{n}") for id, d in dialects().items() for n, spelling in enumerate(d.spellings)
]


@pytest.mark.parametrize("name", TABLES)
def test_no_suffix_of_a_table_means_two_roles(name: str) -> None:
    seen = [suffix for row in TABLES[name].values() for suffix in row]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(("id", "spelling"), SPELLINGS)
def test_no_suffix_of_a_spelling_means_two_roles(id: str, spelling: object) -> None:
    seen = [suffix for row in spelling.suffixes.values() for suffix in row]
    assert len(seen) == len(set(seen)), id
    assert all(spelling.role_of(suffix) is role for role, row in spelling.suffixes.items() for suffix in row)


@pytest.mark.parametrize(("id", "spelling"), SPELLINGS)
def test_every_key_is_cut_before_the_suffix_it_was_glued_from(id: str, spelling: object) -> None:
    for suffix in (suffix for row in spelling.suffixes.values() for suffix in row if "*" not in suffix):
        for base in ("lora_unet_a_b_0_c", "unet.a.b.0.c", "double_blocks.0.img_attn.qkv", "x"):
            cut = split_key(base + suffix)
            assert cut is not None, (id, suffix)
            assert tuple(cut) == (base, suffix)


NAMES = ["default", "pixel-art", "my adapter", "1", "lora_A", "weights", "µ"]
NAMED = sorted({suffix for row in suffixes.PEFT_NAMED.values() for suffix in row})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", NAMED)
def test_any_adapter_name_is_cut_out_of_a_raw_dump(suffix: str, name: str) -> None:
    cut = split_key("base_model.model.a.to_out.0" + suffix.replace("*", name))
    assert cut is not None
    assert tuple(cut) == ("base_model.model.a.to_out.0", suffix)


@pytest.mark.parametrize(
    "key", ["", ".", "weights", "a.b.c", "alpha", "lora_A.weigh", "lora_unet_x.lora_down", "x.bias"]
)
def test_a_key_without_an_adapters_suffix_is_not_cut(key: str) -> None:
    assert split_key(key) is None


@pytest.mark.parametrize(
    ("key", "base", "suffix"),
    [
        ("a.lora_A.weight", "a", ".lora_A.weight"),
        ("a.lora_A", "a", ".lora_A"),
        ("a.lora_magnitude_vector", "a", ".lora_magnitude_vector"),
        ("a.lora_magnitude_vector.weight", "a", ".lora_magnitude_vector.weight"),
        ("a.lora_magnitude_vector.default.weight", "a", ".lora_magnitude_vector.*.weight"),
        ("a.lora.down.weight", "a", ".lora.down.weight"),
        ("a.processor.to_q_lora.down.weight", "a.processor.to_q_lora", ".down.weight"),
        ("a.lora_linear_layer.up.weight", "a", ".lora_linear_layer.up.weight"),
        ("a.alpha.alpha", "a.alpha", ".alpha"),
        ("a.lokr_w1_a", "a", ".lokr_w1_a"),
        (".alpha", "", ".alpha"),
    ],
)  # fmt: skip
def test_the_longest_suffix_wins(key: str, base: str, suffix: str) -> None:
    cut = split_key(key)
    assert cut is not None
    assert tuple(cut) == (base, suffix)


@given(st.text(max_size=80))
def test_cutting_any_text_gives_two_parts_of_it_or_nothing(key: str) -> None:
    cut = split_key(key)
    assert cut is None or key.startswith(cut.base)


def test_a_long_hostile_key_is_cut_in_no_time() -> None:
    import time

    started = time.process_time()
    for part in (".lora_A", ".lora_A.a", ".", "a", ".lora_magnitude_vector", ".lora_A.weight"):
        split_key(part * 50_000)
    assert time.process_time() - started < 1
