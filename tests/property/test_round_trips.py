"""kohya → another dialect → kohya is the identity, for whatever ranks, alphas and zeros a file has."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.adapters import denoiser, pair, spelt
from support.conversions import round_trip
from support.files import Raw, floats, number

from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.architecture import architecture
from hubtool.operations.convert import ConvertOptions

Tensors = dict[Role, Raw]

#: modules of small width, so that an example takes milliseconds; linear, 1×1, 3×3, and a text encoder
SD1 = [
    *denoiser("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", "down_blocks.0.attentions.0.proj_in"),
    *denoiser("down_blocks.0.resnets.0.conv1", "conv_out"),
    ModuleRef(Component.CLIP_L, "text_model.encoder.layers.0.self_attn.q_proj"),
]
FLUX = ConvertOptions(architecture="flux1")
QKV = "double_blocks.0.img_attn.qkv"

alphas = st.one_of(
    st.none(),
    st.builds(
        number,
        st.sampled_from([1, 2, 3, 4, 8, 16, 7]),
        st.sampled_from(["F32", "F16", "BF16", "F64", "I64"]),
        st.sampled_from([(), (1,)]),
    ),
    st.builds(number, st.floats(0.0625, 500, width=16), st.sampled_from(["F32", "F16", "F64"])),
)
dtypes = st.sampled_from(["F16", "BF16", "F32"])


@st.composite
def sd1_files(draw: st.DrawFn) -> dict[str, Raw]:
    """A few modules of SD 1.x, each with a rank, an alpha and a dtype of its own."""
    tensors: dict[ModuleRef, Tensors] = {}
    for seed, module in enumerate(draw(st.lists(st.sampled_from(SD1), min_size=1, max_size=4, unique=True))):
        shape = architecture("sd1").shape(module)
        tensors[module] = pair(shape, draw(st.integers(1, 50)), seed, draw(dtypes))
        alpha = draw(alphas)
        if alpha is not None:
            tensors[module][Role.ALPHA] = alpha
    return spelt("sd1", "kohya", tensors)


@given(tensors=sd1_files(), target=st.sampled_from(["diffusers", "peft", "diffusers-old", "comfyui"]))
def test_unfused_modules_come_back_as_they_were(tmp_path: Path, tensors: dict[str, Raw], target: str) -> None:
    trip = round_trip(tmp_path, tensors, target, options=ConvertOptions(architecture="sd1"))
    assert trip.after == trip.before
    assert (trip.there.exact, trip.back.exact) == (True, True)
    assert trip.change < 1e-9


@st.composite
def partitions(draw: st.DrawFn) -> tuple[Raw, Raw]:
    """Factors of a fused module: dense, or block-diagonal with some parts zero, absent, or with zero columns at the edges."""
    ranks = draw(st.lists(st.sampled_from([0, 1, 2, 4, 5]), min_size=3, max_size=3).filter(any))
    rank, dtype = sum(ranks), draw(dtypes)
    values = np.random.default_rng(draw(st.integers(0, 99))).standard_normal((9216, rank))
    if draw(st.booleans()):
        mask, start = np.zeros((9216, rank)), 0
        for part, width in enumerate(ranks):
            mask[3072 * part : 3072 * (part + 1), start : start + width] = draw(st.sampled_from([1, 1, 0]))
            start += width
        for column in draw(st.sets(st.integers(0, rank - 1), max_size=2)):
            mask[:, column] = 0
        values = values * mask
    down = pair((9216, 3072), rank, 1, dtype)[Role.DOWN]
    return down, Raw(dtype, (9216, rank), floats(values.ravel(), dtype))


@given(factors=partitions(), alpha=alphas, target=st.sampled_from(["diffusers", "peft", "diffusers-old"]))
def test_fused_modules_come_back_as_they_were(
    tmp_path: Path, factors: tuple[Raw, Raw], alpha: Raw | None, target: str
) -> None:
    rows: Tensors = {Role.DOWN: factors[0], Role.UP: factors[1]}
    if alpha is not None:
        rows[Role.ALPHA] = alpha
    trip = round_trip(tmp_path, spelt("flux1", "kohya", {denoiser(QKV)[0]: rows}), target, options=FLUX)
    assert trip.there.exact
    assert trip.change < 1e-9
    assert trip.after == trip.before


PARTS = [f"transformer_blocks.0.attn.to_{name}" for name in "qkv"]


@st.composite
def members(draw: st.DrawFn) -> dict[ModuleRef, Tensors]:
    """Some of q, k and v, with ranks of their own; one may be all zeros, or all may share one `down`."""
    dtype = draw(dtypes)
    chosen = draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3, unique=True))
    shared = draw(st.booleans()) and draw(st.integers(1, 6))
    tensors: dict[ModuleRef, Tensors] = {}
    for seed, module in enumerate(denoiser(*sorted(chosen))):
        rows = pair((3072, 3072), shared or draw(st.integers(1, 6)), seed, dtype)
        if shared:
            rows[Role.DOWN] = pair((3072, 3072), shared, 0, dtype)[Role.DOWN]
        if draw(st.integers(0, 4)) == 0:
            rows[Role.UP] = Raw(dtype, rows[Role.UP].shape, bytes(len(rows[Role.UP].data)))
        tensors[module] = rows
    return tensors


@given(tensors=members(), target=st.sampled_from(["kohya", "comfyui"]))
def test_members_come_back_from_the_fused_module_as_they_were(
    tmp_path: Path, tensors: dict[ModuleRef, Tensors], target: str
) -> None:
    trip = round_trip(tmp_path, spelt("flux1", "diffusers", tensors), target, options=FLUX)
    assert trip.there.exact
    assert trip.change < 1e-9
    assert trip.after == trip.before
