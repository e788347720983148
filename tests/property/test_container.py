"""The container under random contents and random damage."""

from math import prod
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from support.files import ITEM_BYTES, Raw, packed
from support.lazy import written

from hubtool.errors import HubtoolError
from hubtool.formats.safetensors import printable, read_safetensors
from hubtool.formats.tensor import LazyTensor

_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_DTYPES = st.sampled_from(sorted(ITEM_BYTES))
_SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def _tensors(draw: st.DrawFn) -> dict[str, Raw]:
    found = {}
    for name in draw(st.sets(_NAMES.filter(lambda name: name != "__metadata__"), max_size=6)):
        dtype, shape = draw(_DTYPES), draw(_SHAPES)
        size = prod(shape) * ITEM_BYTES[dtype]
        found[name] = Raw(dtype, shape, draw(st.binary(min_size=size, max_size=size)))
    return found


@given(_tensors(), st.dictionaries(_NAMES, _NAMES, max_size=4))
def test_reading_what_was_written_gives_the_same(
    tmp_path: Path, tensors: dict[str, Raw], metadata: dict[str, str]
) -> None:
    path = written(tmp_path / "out.safetensors", {key: LazyTensor(*raw) for key, raw in tensors.items()}, metadata)
    file = read_safetensors(path)
    assert {key: Raw(t.dtype, t.shape, bytes(t.view())) for key, t in file.tensors.items()} == tensors
    assert dict(file.metadata) == metadata


@given(_tensors(), st.dictionaries(_NAMES, _NAMES, max_size=4))
def test_the_reference_library_reads_what_we_write(
    tmp_path: Path, tensors: dict[str, Raw], metadata: dict[str, str]
) -> None:
    path = written(tmp_path / "out.safetensors", {key: LazyTensor(*raw) for key, raw in tensors.items()}, metadata)
    with safe_open(path, "np") as reference:
        assert set(reference.keys()) == set(tensors)
        assert (reference.metadata() or {}) == metadata
        for key, raw in tensors.items():
            row = reference.get_slice(key)
            assert (tuple(row.get_shape()), row.get_dtype()) == (raw.shape, raw.dtype)


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """A small sound file with a few bytes changed, cut, doubled or put in between."""
    raw = packed({"a": Raw("F32", (2, 2), bytes(16)), "b.alpha": Raw("F32", (), b"1234")}, {"k": "v"})
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(raw) - 1)))
        stop = place + draw(st.integers(0, 9))
        new = draw(st.sampled_from([b"", raw[place : place + 40]]) | st.binary(max_size=4) | st.sampled_from(_TOKENS))
        raw = raw[:place] + new + raw[stop:]
    return raw


_TOKENS = [token.encode() for token in '" } { [ ] , : - 0 e9 . null true NaN \\ \\u0000 __metadata__ shape'.split()]  # noqa: SIM905


@given(_damaged())
def test_no_damage_raises_anything_but_an_error_of_ours(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw)
    try:
        file = read_safetensors(path)
    except HubtoolError as error:
        message = str(error)
    else:
        message = "read"
        assert all(len(tensor.view()) == tensor.nbytes for tensor in file.tensors.values())
    assert message.isprintable()


@given(st.text())
def test_nothing_printable_makes_of_a_key_can_steer_a_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) <= 120
