"""Files ⇄ adapters: nothing is lost, nothing is overwritten, nothing is half written."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.adapters import decoded, denoiser, lora, modules_like
from support.files import number, random_tensor, write
from support.lazy import contents, lazy, literal

from hubtool.adapters.codec import encode, read_adapter, write_adapter
from hubtool.errors import KeyClash, NotAnAdapter, NotRepresentable, OutputExists, UnknownArchitecture, UnknownDialect
from hubtool.naming.dialect import dialects

K = modules_like("sd1", "attn2.to_k")


@pytest.mark.parametrize("dialect", ["kohya", "diffusers", "diffusers-old", "peft", "comfyui", "original"])
def test_writing_what_was_read_gives_the_same_file(tmp_path: Path, dialect: str) -> None:
    tensors = lora("sd1", dialect, K)
    adapter = read_adapter(write(tmp_path / "in.safetensors", tensors, {"a": "b"}))
    write_adapter(tmp_path / "out.safetensors", adapter, dialect)
    assert contents(tmp_path / "out.safetensors") == tensors
    assert read_adapter(tmp_path / "out.safetensors").metadata == {"a": "b"}


@pytest.mark.parametrize(
    "dialect", [id for id, spoken in dialects().items() if spoken.spelling_of(next(iter(K)).component)]
)
def test_every_dialect_says_a_plain_lora_of_sd1_or_refuses(dialect: str) -> None:
    adapter = decoded(lora("sd1", "kohya", K))
    try:
        keys = encode(adapter, dialect)
    except NotRepresentable:
        return
    again = decoded({key: literal(tensor) for key, tensor in keys.items()})
    assert again.layers.keys() == adapter.layers.keys()


def test_tensors_that_were_not_understood_are_written_as_they_are() -> None:
    extra = {"bundle_emb.token.clip_l": random_tensor(1, (2, 768)), "odd": number(1)}
    adapter = decoded({**lora("sd1", "kohya", K), **extra})
    for dialect in ("kohya", "diffusers", "comfyui"):
        found = encode(adapter, dialect)
        assert {key: literal(found[key]) for key in extra} == extra


def test_a_stranger_whose_name_is_taken_is_no_reason_to_lose_either() -> None:
    adapter = decoded(lora("sd1", "kohya", K))
    key = next(iter(encode(adapter, "diffusers")))
    with pytest.raises(KeyClash, match=key):
        encode(replace(adapter, leftovers=lazy({key: number(1)})), "diffusers")


def test_a_duplicate_of_another_dialect_is_never_written_over() -> None:
    adapter = decoded({**lora("sd1", "kohya", K), **lora("sd1", "diffusers", K[:1])})
    with pytest.raises(KeyClash):
        encode(adapter, "diffusers")
    assert len(encode(adapter, "comfyui")) == 2 * len(K) + 2


def test_a_module_without_a_name_is_refused() -> None:
    adapter = decoded(lora("flux1", "diffusers", denoiser("transformer_blocks.0.attn.to_q")), architecture_id="flux1")
    with pytest.raises(NotRepresentable, match="kohya"):
        encode(adapter, "kohya")
    with pytest.raises(UnknownDialect):
        encode(adapter, "latin")


def test_an_output_that_exists_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "out.safetensors").write_text("precious")
    with pytest.raises(OutputExists):
        write_adapter(tmp_path / "out.safetensors", decoded(lora("sd1", "kohya", K)), "kohya")
    assert (tmp_path / "out.safetensors").read_text() == "precious"


def test_an_adapter_may_be_written_over_the_file_it_is_read_from(tmp_path: Path) -> None:
    tensors = lora("sd1", "kohya", K)
    path = write(tmp_path / "in.safetensors", tensors)
    write_adapter(path, read_adapter(path), "diffusers", force=True)
    assert set(contents(path).values()) == set(tensors.values())
    assert [file.name for file in tmp_path.iterdir()] == ["in.safetensors"]


@pytest.mark.parametrize("tensors", [{}, {"model.weight": number(1)}, {"a.weight": number(1), "a.bias": number(1)}])
def test_a_file_of_something_else_says_how_to_find_out_what(tmp_path: Path, tensors: dict) -> None:
    with pytest.raises(NotAnAdapter) as caught:
        read_adapter(write(tmp_path / "x.safetensors", tensors))
    assert "inspect" in caught.value.hint


def test_an_adapter_of_an_unknown_model_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"strange.lora_up.weight": random_tensor(1, (5, 4))})
    with pytest.raises(UnknownArchitecture, match=r"x\.safetensors"):
        read_adapter(path)
