"""Files that nobody would write on purpose: reading, judging and rewriting them fails with an error of ours or not at all.

`EXAMPLES=20000 python -m pytest tests/property -n 0` is the long run (docs/validation.md).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable  # noqa: TC003  # hypothesis reads annotations
from math import prod
from pathlib import Path  # noqa: TC003

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import ITEM_BYTES, Raw, container, packed
from support.keylists import expectations, key_list

from hubtool.errors import HubtoolError
from hubtool.formats.safetensors import read_safetensors
from hubtool.naming.architecture import architecture, architecture_ids
from hubtool.naming.dialect import dialects
from hubtool.naming.suffixes import ROLE_OF
from hubtool.operations.convert import ConvertOptions, convert
from hubtool.operations.inspect import inspect
from hubtool.operations.normalize import NormalizeOptions, normalize
from hubtool.operations.validate import validate

_SECONDS = 10  # of processor time for one small file: a hang, not a slow machine
_DTYPES = st.sampled_from(sorted(ITEM_BYTES))
_TEXT = st.text(max_size=20)

# ---------------------------------------------------------------- headers

_SCALARS = (
    st.none() | st.booleans() | st.integers(-(1 << 66), 1 << 66) | st.floats() | _TEXT | st.sampled_from(["F16", "I64"])
)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4), max_leaves=12
)
_SIDES = st.lists(st.integers(0, 4) | st.integers(-9, 1 << 64), max_size=4)
_ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(sorted(ITEM_BYTES)) | _JSON,
        "shape": _SIDES | _JSON,
        "data_offsets": st.lists(st.integers(0, 64), min_size=2, max_size=2) | _JSON,
        "else": _JSON,
    },
)
_HEADERS = st.dictionaries(st.text(max_size=6) | st.just("__metadata__"), _ENTRIES | _JSON, max_size=5) | _JSON


@given(_HEADERS, st.binary(max_size=64), st.none() | st.integers(0, 1 << 64).map(lambda n: min(n, (1 << 64) - 1)))
def test_no_header_raises_anything_but_an_error_of_ours(
    tmp_path: Path, header: object, body: bytes, length: int | None
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(container(json.dumps(header), body, length=length))
    assert _message_of(lambda: read_safetensors(path)).isprintable()
    assert validate(path).verdict in {"ok", "warning", "broken", "refused"}


# ---------------------------------------------------------------- adapters

_PREFIXES = st.sampled_from(
    ["", "lora_unet_", "lora_unet__", "lora_te1_", "unet.", "transformer.", "text_encoder.", "diffusion_model.",
     "base_model.model.", "lora_transformer_", "lycoris_", "oft_unet_", "unet.base_model.model.", "unet:3:"]
)  # fmt: skip
_SUFFIXES = st.sampled_from([suffix.replace("*", "default") for suffix in ROLE_OF])
_SMALL = st.lists(st.sampled_from([0, 1, 1, 2, 3, 4, 4, 8]), max_size=4).map(tuple)
_PEFT = st.dictionaries(
    st.sampled_from(["unet.", "transformer.", "text_encoder.", ""]).flatmap(
        lambda prefix: st.sampled_from(
            ["r", "lora_alpha", "alpha_pattern", "rank_pattern", "use_rslora", "use_dora"]
        ).map(prefix.__add__)
    ),
    _JSON | st.dictionaries(st.sampled_from(["to_q", "^.*(a+)+$", "(", "attn"]), _SCALARS, max_size=3),
    max_size=4,
).map(json.dumps)
_METADATA = st.dictionaries(
    st.sampled_from(
        ["lora_adapter_metadata", "hubtool.alpha", "hubtool.architecture", "hubtool.fused", "ss_network_dim",
         "ss_network_alpha", "ss_tag_frequency", "ss_base_model_version", "modelspec.architecture", "sshs_model_hash",
         "modelspec.hash_sha256", "ss_datasets", "modelspec.trigger_phrase", "ss_output_name"]
    ) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    _PEFT | _JSON.map(json.dumps) | st.sampled_from(["", "None", "flux1", "sdxl_base_v1-0", "1e999", "e3b0c44298fc1c14"]),
    max_size=5,
)  # fmt: skip


@st.composite
def _bases(draw: st.DrawFn) -> list[str]:
    """What stands before the suffix: names of real modules in a dialect, or strings that look like such names."""
    target = architecture(draw(st.sampled_from(architecture_ids())))
    spoken = dialects()[draw(st.sampled_from(sorted(dialects())))]
    real = sorted(spoken.written(target).values()) or sorted(target.modules)
    first = draw(st.integers(0, len(real) - 1))
    near = real[first : first + 12]
    paths = st.sampled_from(near) | st.sampled_from(sorted(target.modules)[:200])
    made = st.tuples(_PREFIXES, paths | _TEXT, st.sampled_from(["", "_", ".", ".0"])).map("".join)
    return draw(st.lists(st.sampled_from(near) | made, min_size=1, max_size=6))


def _raw(draw: st.DrawFn, shape: tuple[int, ...], dtype: str | None = None) -> Raw:
    dtype = dtype or draw(st.sampled_from(["F16", "F32", "BF16"]) | _DTYPES)
    count = prod(shape) * ITEM_BYTES[dtype]
    pattern = draw(st.binary(min_size=1, max_size=8))
    return Raw(dtype, shape, (pattern * (count // len(pattern) + 1))[:count])


@st.composite
def _made_up(draw: st.DrawFn) -> bytes:
    """Bases with random suffixes, shapes, dtypes and metadata."""
    tensors: dict[str, Raw] = {}
    rank = draw(st.integers(0, 4))
    for base in draw(_bases()):
        family = draw(st.sampled_from(_FAMILIES) | st.lists(_SUFFIXES, max_size=4).map(tuple))
        for suffix in family:
            fitting = st.sampled_from([(rank, 4), (4, rank), (rank, 4, 1, 1), (4, rank, 1, 1), (), (1,), (4,)])
            tensors[base + suffix] = _raw(draw, draw(fitting | _SMALL))
    tensors.pop("__metadata__", None)
    return packed({key: raw for key, raw in tensors.items() if _is_text(key)}, draw(_METADATA))


def _is_text(key: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in key)


_FAMILIES = [
    (".lora_down.weight", ".lora_up.weight", ".alpha"),
    (".lora_down.weight", ".lora_mid.weight", ".lora_up.weight", ".alpha", ".dora_scale"),
    (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"),
    (".lora_A.default.weight", ".lora_B.default.weight", ".lora_B.default.bias"),
    (".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", ".alpha"),
    (".lokr_w1", ".lokr_w2_a", ".lokr_w2_b", ".alpha"),
    (".oft_blocks", ".rescale", ".alpha"),
    (".weight", ".on_input"),
    (".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight", ".alpha"),
    (".diff", ".diff_b"),
    (".w_norm", ".b_norm"),
]


@st.composite
def _nearly_real(draw: st.DrawFn) -> bytes:
    """A few modules of a real file; some tensors reshaped, renamed, left out or of another dtype."""
    shapes = key_list(draw(st.sampled_from(sorted(expectations())))).shapes
    keys = [key for key in shapes if prod(shapes[key]) < 300_000]
    start = draw(st.integers(0, max(0, len(keys) - 1)))
    tensors: dict[str, Raw] = {}
    for key in keys[start : start + 9]:
        fate = draw(st.integers(0, 9))
        shape = draw(_SMALL) if fate == 0 else shapes[key][::-1] if fate == 1 else shapes[key]
        name = key.replace(".", "_", 1) if fate == 2 else key.replace("_", ".", 1) if fate == 3 else key
        if fate != 4:
            tensors[name] = _raw(draw, shape, "F16" if fate > 6 else None)
    return packed(tensors, draw(_METADATA))


@pytest.fixture(params=["made up", "nearly real"])
def files(request: pytest.FixtureRequest) -> st.SearchStrategy[bytes]:
    """Two ways of making strange files."""
    return _made_up() if request.param == "made up" else _nearly_real()


_OPTIONS = st.builds(
    ConvertOptions,
    alpha=st.sampled_from(["auto", "auto", "fold", "record"]),
    dtype=st.none() | st.sampled_from(["F16", "BF16", "F32"]),
    parametrization=st.none() | st.just("lora"),
    rank=st.none() | st.integers(1, 3),
    architecture=st.none() | st.sampled_from(["sd1", "flux1", "z-image"]),
    hashes=st.booleans(),
)


def _message_of(work: Callable[[], object]) -> str:
    """What an error of ours says; nothing if there is none. Any other error is the test's failure."""
    try:
        work()
    except HubtoolError as error:
        return str(error) or "an error without a word"
    return ""


@given(st.data())
def test_no_adapter_raises_anything_but_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, files: st.SearchStrategy[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / data.draw(st.sampled_from(["x.safetensors", "adapter_model.safetensors"]))
    raw = data.draw(files)
    path.write_bytes(raw)
    started = time.process_time()
    verdict = validate(path, check_all_values=True)
    assert all(found.message.isprintable() for found in verdict.problems)
    assert inspect(path).kind in {"adapter", "checkpoint", "embedding", "other"}
    to, options = data.draw(st.sampled_from(sorted(dialects()))), data.draw(_OPTIONS)
    for name, work in _WORKS.items():
        output = folder / name / data.draw(st.sampled_from(["out.safetensors", "adapter_model.safetensors"]))
        if _message_of(lambda work=work, output=output: work(path, to, output, options)):  # type: ignore[misc]  # bound at once
            assert not output.parent.exists() or not any(output.parent.iterdir())
        else:
            assert verdict.verdict in {"ok", "warning"}
            assert validate(output).verdict in {"ok", "warning"}, validate(output)
    assert path.read_bytes() == raw
    assert time.process_time() - started < _SECONDS


_WORKS: dict[str, Callable[[Path, str, Path, ConvertOptions], object]] = {
    "converted": convert,
    "normalized": lambda path, _, output, options: normalized_twice(path, output, options.architecture),
}


def normalized_twice(path: Path, output: Path, architecture_id: str | None) -> None:
    """Normalize, and what that wrote again, which changes nothing."""
    options = NormalizeOptions(architecture=architecture_id)
    normalize(path, output, options)
    again = output.with_name("again")
    normalize(output, again, options)
    assert again.read_bytes() == output.read_bytes()
    again.unlink()
