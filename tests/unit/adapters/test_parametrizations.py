"""Weight changes against the formulas written out in float64, for every layout that files have."""

import math

import numpy as np
import pytest
from support.files import Raw, numbers, random_tensor
from support.lazy import lazy

from hubtool.adapters.layer import Layer, parametrizations
from hubtool.errors import BrokenAdapter, NotRepresentable
from hubtool.naming.address import Role

Tensors = dict[Role, Raw]
R = Role


def made(seed: int = 0, dtype: str = "F32", **shapes: tuple[int, ...]) -> Tensors:
    """Random tensors of these shapes; roles by name in lower case."""
    return {
        Role[name.upper()]: random_tensor(seed + i, shape, dtype, 0.5) for i, (name, shape) in enumerate(shapes.items())
    }


def alpha(value: float) -> Tensors:
    return {R.ALPHA: Raw("F32", (), np.float32(value).tobytes())}


def array(tensors: Tensors, role: Role) -> np.ndarray:
    return numbers(tensors[role].data, tensors[role].dtype).reshape(tensors[role].shape)


def check(tensors: Tensors, expected: np.ndarray, scale: float, family: str) -> None:
    """Layer's change is `scale` × `expected`, its extent is the weight's, and it is linear in alpha."""
    layer = Layer(lazy(tensors), "module")
    assert layer.parametrization.id == family
    assert layer.extent.fits(expected.shape)
    assert layer.scale == pytest.approx(scale)
    found = layer.delta(expected.shape).double().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, scale * expected, rtol=2e-6, atol=2e-6 * np.abs(expected).max() * max(scale, 1))


# ---------------------------------------------------------------- LoRA and LoCon

KERNELS = [(), (1, 1), (3, 3), (1, 3), (3, 3, 3)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("strength", [None, 4.0, 8.0, 1.0, -2.0, 3.7])
def test_lora_is_up_times_down(kernel: tuple[int, ...], strength: float | None) -> None:
    ones = (1,) * len(kernel)
    tensors = made(down=(4, 5, *kernel), up=(6, 4, *ones))
    up, down = array(tensors, R.UP).reshape(6, 4), array(tensors, R.DOWN)
    expected = np.einsum("or,ri...->oi...", up, down)
    check(tensors | (alpha(strength) if strength else {}), expected, strength / 4 if strength else 1.0, "lora")


@pytest.mark.parametrize("kernel", KERNELS[1:])
def test_a_tucker_core_meets_up_with_its_first_axis_and_down_with_its_second(kernel: tuple[int, ...]) -> None:
    ones = (1,) * len(kernel)
    tensors = made(down=(4, 5, *ones), up=(6, 4, *ones), mid=(4, 4, *kernel))
    up, down = array(tensors, R.UP).reshape(6, 4), array(tensors, R.DOWN).reshape(4, 5)
    expected = np.einsum("mn...,om,ni->oi...", array(tensors, R.MID), up, down)
    check(tensors | alpha(2), expected, 0.5, "lora")


def test_a_linear_lora_on_a_1x1_convolution_and_the_reverse_have_the_weights_shape() -> None:
    flat, conv = made(down=(4, 5), up=(6, 4)), made(down=(4, 5, 1, 1), up=(6, 4, 1, 1))
    assert Layer(lazy(flat)).delta((6, 5, 1, 1)).shape == (6, 5, 1, 1)
    assert Layer(lazy(conv)).delta((6, 5)).shape == (6, 5)


def test_dylora_keeps_its_convolutions_up_two_dimensional() -> None:
    tensors = made(down=(4, 5, 3, 3), up=(6, 4))
    expected = np.einsum("or,rixy->oixy", array(tensors, R.UP), array(tensors, R.DOWN))
    check(tensors, expected, 1.0, "lora")


def test_an_embedding_is_changed_by_the_transposed_product() -> None:
    tensors = made(embedding_down=(4, 50), embedding_up=(8, 4))
    expected = (array(tensors, R.EMBEDDING_UP) @ array(tensors, R.EMBEDDING_DOWN)).T
    check(tensors | alpha(2), expected, 0.5, "lora")


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_every_dtype_is_computed_in_float32(dtype: str) -> None:
    tensors = made(dtype=dtype, down=(4, 50), up=(60, 4))
    check(tensors, array(tensors, R.UP) @ array(tensors, R.DOWN), 1.0, "lora")


@pytest.mark.parametrize(
    ("dtype", "shape"), [("F32", ()), ("F16", (1,)), ("BF16", ()), ("I64", ()), ("I64", (1, 1)), ("F64", ())]
)
def test_alpha_of_any_dtype_and_one_element_counts(dtype: str, shape: tuple[int, ...]) -> None:
    from support.files import number

    layer = Layer(lazy(made(down=(4, 5), up=(6, 4)) | {R.ALPHA: number(2, dtype, shape)}))
    assert (layer.alpha, layer.scale) == (2.0, 0.5)


def test_a_scale_tensor_goes_before_alpha() -> None:
    scale = {R.SCALE: Raw("F32", (), np.float32(0.3).tobytes())}
    assert Layer(lazy(made(down=(4, 5), up=(6, 4)) | alpha(2) | scale)).scale == pytest.approx(0.3)


def test_a_recorded_scale_counts_only_where_there_is_no_alpha() -> None:
    tensors = made(down=(4, 5), up=(6, 4))
    assert Layer(lazy(tensors), recorded_scale=3.0).scale == 3.0
    assert Layer(lazy(tensors | alpha(2)), recorded_scale=3.0).scale == 0.5


# ---------------------------------------------------------------- LoHa


@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 3)])
def test_loha_is_the_product_of_two_products_element_by_element(kernel: tuple[int, ...]) -> None:
    inputs = 5 * math.prod(kernel)
    tensors = made(hada_w1_a=(6, 3), hada_w1_b=(3, inputs), hada_w2_a=(6, 3), hada_w2_b=(3, inputs))
    first = array(tensors, R.HADA_W1_A) @ array(tensors, R.HADA_W1_B)
    second = array(tensors, R.HADA_W2_A) @ array(tensors, R.HADA_W2_B)
    check(tensors | alpha(1.5), (first * second).reshape(6, 5, *kernel), 0.5, "loha")


def test_loha_with_tucker_cores_has_its_first_factors_transposed() -> None:
    sides = dict.fromkeys(("hada_w1_a", "hada_w2_a"), (3, 6)) | dict.fromkeys(("hada_w1_b", "hada_w2_b"), (3, 5))
    tensors = made(**sides, hada_t1=(3, 3, 3, 3), hada_t2=(3, 3, 3, 3))
    factors = [
        np.einsum("ijkl,jr,ip->prkl", *(array(tensors, Role[f"HADA_{name}"]) for name in names))
        for names in (("T1", "W1_B", "W1_A"), ("T2", "W2_B", "W2_A"))
    ]
    check(tensors | alpha(3), factors[0] * factors[1], 1.0, "loha")


# ---------------------------------------------------------------- LoKr


def second(tensors: Tensors, kernel: tuple[int, ...]) -> np.ndarray:
    """w2 from whatever parts it is stored in, as (outputs, inputs, *kernel)."""
    if R.LOKR_T2 in tensors:
        return np.einsum("ij...,jr,ip->pr...", *(array(tensors, r) for r in (R.LOKR_T2, R.LOKR_W2_B, R.LOKR_W2_A)))
    if R.LOKR_W2 in tensors:
        return array(tensors, R.LOKR_W2)
    return (array(tensors, R.LOKR_W2_A) @ array(tensors, R.LOKR_W2_B)).reshape(4, 3, *kernel)


FIRST = {"whole": {"lokr_w1": (2, 5)}, "factors": {"lokr_w1_a": (2, 2), "lokr_w1_b": (2, 5)}}
SECOND = {
    ("whole", ()): {"lokr_w2": (4, 3)},
    ("factors", ()): {"lokr_w2_a": (4, 2), "lokr_w2_b": (2, 3)},
    ("whole", (3, 3)): {"lokr_w2": (4, 3, 3, 3)},
    ("factors", (3, 3)): {"lokr_w2_a": (4, 2), "lokr_w2_b": (2, 27)},
    ("whole", (1, 1)): {"lokr_w2": (4, 3, 1, 1)},
    ("tucker", (3, 3)): {"lokr_w2_a": (2, 4), "lokr_w2_b": (2, 3), "lokr_t2": (2, 2, 3, 3)},
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize(("kind", "kernel"), SECOND)
def test_lokr_is_the_kronecker_product_of_its_factors(first: str, kind: str, kernel: tuple[int, ...]) -> None:
    tensors = made(**FIRST[first], **SECOND[kind, kernel])
    outer = array(tensors, R.LOKR_W1) if first == "whole" else array(tensors, R.LOKR_W1_A) @ array(tensors, R.LOKR_W1_B)
    inner = second(tensors, kernel)
    expected = np.einsum("ab,cd...->acbd...", outer, inner).reshape(8, 15, *kernel)
    if not kernel:
        np.testing.assert_allclose(expected, np.kron(outer, inner))
    scale = 1.0 if (first, kind) == ("whole", "whole") else 3.0 / 2
    check(tensors | alpha(3), expected, scale, "lokr")


@pytest.mark.parametrize("value", [0.0, 1e10, math.inf, math.nan])
def test_alpha_means_nothing_where_both_kronecker_factors_are_whole(value: float) -> None:
    assert Layer(lazy(made(lokr_w1=(2, 5), lokr_w2=(4, 3)) | alpha(value))).scale == 1.0


def test_the_second_factors_rank_counts_where_both_are_factorised() -> None:
    tensors = made(lokr_w1_a=(2, 1), lokr_w1_b=(1, 5), lokr_w2_a=(4, 2), lokr_w2_b=(2, 3))
    assert Layer(lazy(tensors | alpha(3))).scale == 1.5


# ---------------------------------------------------------------- plain differences and norms


def test_a_difference_is_itself_in_the_weights_shape() -> None:
    tensors = made(diff=(6, 5, 3, 3))
    check(tensors, array(tensors, R.DIFF), 1.0, "full")


def test_a_norms_change_is_itself() -> None:
    tensors = made(norm_weight=(6,), norm_bias=(6,))
    check(tensors, array(tensors, R.NORM_WEIGHT), 1.0, "norm")


# ---------------------------------------------------------------- what they say of themselves


@pytest.mark.parametrize(
    ("tensors", "lacking"),
    [
        (made(up=(6, 4)), "down"),
        (made(down=(4, 5)), "up"),
        (made(embedding_down=(4, 50)), "embedding_up"),
        (made(hada_w1_a=(6, 3), hada_w1_b=(3, 5), hada_w2_a=(6, 3)), "hada_w2_b"),
        (made(lokr_w1=(2, 5)), "lokr_w2"),
        (made(lokr_w1=(2, 5), lokr_w2_a=(4, 2)), "lokr_w2_b"),
        (made(lokr_w1_b=(2, 5), lokr_w2=(4, 2)), "lokr_w1_a"),
        (made(norm_bias=(6,)), "w_norm"),
        (alpha(1), "everything"),
        ({}, "everything"),
    ],
)
def test_a_module_that_lacks_a_tensor_has_no_change(tensors: Tensors, lacking: str) -> None:
    with pytest.raises(BrokenAdapter, match=lacking):
        Layer(lazy(tensors), "module").delta((6, 5))


@pytest.mark.parametrize(
    "tensors",
    [
        made(down=(4, 5), up=(6, 3)),
        made(down=(4, 7), up=(6, 4)),
        made(down=(4,), up=(6, 4)),
        made(down=(), up=()),
        made(hada_w1_a=(6, 3), hada_w1_b=(3, 5), hada_w2_a=(6, 2), hada_w2_b=(3, 5)),
        made(lokr_w1=(2, 5), lokr_w2=(4, 3)),
        made(lokr_w1=(5,), lokr_w2=(4, 3)),
        made(diff=(6, 6)),
    ],
)
def test_factors_that_do_not_multiply_to_the_weight_are_an_error_of_ours(tensors: Tensors) -> None:
    with pytest.raises(BrokenAdapter, match="module"):
        Layer(lazy(tensors), "module").delta((6, 5))


@pytest.mark.parametrize(
    "tensors", [made(oft_blocks=(2, 3, 3)), made(oft_blocks=(2, 2, 3, 3)), made(ia3_weight=(6,), ia3_on_input=())]
)
def test_what_depends_on_the_base_weight_says_so(tensors: Tensors) -> None:
    with pytest.raises(NotRepresentable, match="base weight"):
        Layer(lazy(tensors), "module").delta((6, 5))


def test_no_role_belongs_to_two_families() -> None:
    roles = [role for kind in parametrizations().values() for role in kind.roles]
    assert len(roles) == len(set(roles))


@pytest.mark.parametrize("kind", list(parametrizations().values()), ids=list(parametrizations()))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 0), (2, 3), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4, 5)])
def test_shapes_of_any_rank_are_asked_about_without_a_crash(kind: object, shape: tuple[int, ...]) -> None:
    for role in Role:
        for shapes in ({role: shape}, dict.fromkeys(kind.roles, shape), dict.fromkeys(Role, shape)):
            assert [kind.recognises(shapes), kind.missing(shapes), kind.rank(shapes), kind.extent(shapes)]


@pytest.mark.parametrize(
    ("tensors", "modifiers"),
    [
        (made(down=(4, 5), up=(6, 4), magnitude=(6, 1)), ("dora",)),
        (made(down=(4, 5, 1, 1), up=(6, 4, 1, 1), mid=(4, 4, 3, 3)), ("tucker",)),
        (made(down=(4, 5), up=(6, 4), up_bias=(6,)), ("bias",)),
        (made(down=(4, 5), up=(6, 4), diff_bias=(6,), magnitude=(6,)), ("dora", "bias")),
        (made(diff=(6, 5), diff_bias=(6,)), ()),
        (made(lokr_w1=(2, 5), lokr_w2=(4, 3), magnitude=(1, 15)), ("dora",)),
    ],
)
def test_modifiers_are_told_apart_from_the_family(tensors: Tensors, modifiers: tuple[str, ...]) -> None:
    assert Layer(lazy(tensors)).modifiers == modifiers
