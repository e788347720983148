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


# ---------------------------------------------------------------- what depends on the base weight

BASE = np.random.default_rng(5).standard_normal((6, 8, 3, 3))


def checked_with_base(tensors: Tensors, base: np.ndarray, expected: np.ndarray, family: str) -> None:
    import torch

    layer = Layer(lazy(tensors), "module")
    assert layer.parametrization.id == family
    assert layer.extent.fits(base.shape)
    found = layer.delta(base.shape, torch.from_numpy(base).float()).double().numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", [(), (3, 3)])
@pytest.mark.parametrize("rank", [2, 6, 8])
@pytest.mark.parametrize("old", [False, True])
def test_both_generations_of_glora_are_the_same_change(kernel: tuple[int, ...], rank: int, old: bool) -> None:
    """A square module of full rank is the one case that cannot be told; it is read as the newer layout."""
    base = BASE if kernel else BASE[..., 0, 0]
    ones = (1,) * len(kernel)
    new = made(
        glora_a1=(8, rank, *ones), glora_a2=(rank, 8, *ones), glora_b1=(6, rank, *ones), glora_b2=(rank, 8, *kernel)
    )
    mixed = np.einsum("ir,rj->ij", array(new, R.GLORA_A1).reshape(8, rank), array(new, R.GLORA_A2).reshape(rank, 8))
    expected = np.einsum("or,ri...->oi...", array(new, R.GLORA_B1).reshape(6, rank), array(new, R.GLORA_B2))
    expected = expected + np.einsum("oi...,ij->oj...", base, mixed)
    if old:
        swaps = {R.GLORA_A1: R.GLORA_A2, R.GLORA_A2: R.GLORA_A1, R.GLORA_B1: R.GLORA_B2, R.GLORA_B2: R.GLORA_B1}
        new = {role: new[other] for role, other in swaps.items()}
    checked_with_base(new | alpha(rank / 2), base, expected / 2, "glora")


def test_glora_with_a_tucker_core_has_the_kernel_there() -> None:
    tensors = made(
        glora_a1=(8, 2, 1, 1),
        glora_a2=(2, 8, 1, 1),
        glora_b1=(6, 2, 1, 1),
        glora_b2=(2, 8, 1, 1),
        glora_bm=(2, 2, 3, 3),
    )
    flat = {role: array(tensors, role).reshape(raw.shape[:2]) for role, raw in tensors.items() if role != R.GLORA_BM}
    expected = np.einsum("or,rsxy,si->oixy", flat[R.GLORA_B1], array(tensors, R.GLORA_BM), flat[R.GLORA_B2])
    expected += np.einsum("oixy,ir,rj->ojxy", BASE, flat[R.GLORA_A1], flat[R.GLORA_A2])
    checked_with_base(tensors, BASE, expected, "glora")


def test_the_blocks_of_the_oldest_oft_are_the_rotation_itself() -> None:
    tensors = made(oft_diag=(3, 2, 2))
    turned = np.einsum("knm,kn...->km...", array(tensors, R.OFT_DIAG), BASE.reshape(3, 2, 8, 3, 3)).reshape(BASE.shape)
    checked_with_base(tensors, BASE, turned - BASE, "oft")


def skew(triangles: np.ndarray, side: int) -> np.ndarray:
    upper = np.zeros((len(triangles), side, side))
    rows, columns = np.triu_indices(side, 1)
    upper[:, rows, columns] = triangles
    return upper - upper.transpose(0, 2, 1)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("terms", [0, 1, 2, 3, 4, 5, 6])
def test_pefts_oft_turns_inputs_by_a_series_or_the_other_way_by_the_inverse(terms: int, scaled: bool) -> None:
    from dataclasses import replace

    import torch

    base = BASE[..., 0, 0]
    tensors = made(oft_r=(2, 6)) | ({R.OFT_SCALED: Raw("F32", (), np.float32(1).tobytes())} if scaled else {})
    q = skew(array(tensors, R.OFT_R) / (2 * math.sqrt(3) if scaled else 1), 4)
    eye = np.eye(4)
    powers = [np.linalg.matrix_power(q, exponent) for exponent in range(6)]
    series = {
        0: (eye - q) @ np.linalg.inv(eye + q),
        1: eye + 0 * q,
        2: eye + 2 * q,
        **dict.fromkeys((3, 4), eye + 2 * q + 2 * powers[2] + powers[3]),
        5: eye + 2 * q + 2 * powers[2] + 2 * powers[3] + powers[4],
        6: eye + 2 * q + 2 * powers[2] + 2 * powers[3] + 2 * powers[4] + powers[5],
    }[terms]
    expected = np.einsum("oki,kji->okj", base.reshape(6, 2, 4), series).reshape(6, 8) - base
    layer = replace(Layer(lazy(tensors), "module"), series_terms=terms)
    found = layer.delta((6, 8), torch.from_numpy(base).float()).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_pefts_boft_turns_inputs_by_one_butterfly_after_the_other(levels: int) -> None:
    """Its own forward pass needs CUDA for more than one; this is `block_butterfly_perm` and `get_delta_weight` spelt out."""
    side, count, half = 4, 4, 2
    base = np.random.default_rng(1).standard_normal((6, side * count))
    tensors = made(boft_r=(levels, count, side, side), boft_s=(6, 1))
    blocks, matrix = array(tensors, R.BOFT_R), np.eye(side * count)
    for level in range(levels):
        q = (blocks[level] - blocks[level].transpose(0, 2, 1)) / 2
        turns = (np.eye(side) - q) @ np.linalg.inv(np.eye(side) + q)
        diagonal = np.zeros((side * count, side * count))
        for index, turn in enumerate(turns):
            diagonal[index * side : (index + 1) * side, index * side : (index + 1) * side] = turn
        width, order = side * 2**level, []
        for start in range(0, side * count, width):
            halves = [list(range(start + h, start + h + half)) for h in range(0, width, half)]
            order += [i for h in (*halves[::2], *halves[1::2]) for i in h]
        permutation = np.eye(side * count)[order] if levels > 1 else np.eye(side * count)
        matrix = permutation @ diagonal @ permutation.T @ matrix
    expected = (matrix @ base.T).T * array(tensors, R.BOFT_S) - base
    checked_with_base(tensors, base, expected, "boft")


@pytest.mark.parametrize(
    ("factors", "weight", "axis"), [((6, 1), (6, 8), 0), ((1, 8), (6, 8), 1), ((1, 6, 1, 1), (6, 8, 3, 3), 0),
                                    ((1, 8, 1, 1), (6, 8, 3, 3), 1), ((1, 6, 1, 1), (6, 6, 3, 3), 0)]
)  # fmt: skip
def test_pefts_ia3_multiplies_the_axis_that_its_length_says(
    factors: tuple[int, ...], weight: tuple[int, ...], axis: int
) -> None:
    tensors = made(ia3_l=factors)
    base = np.random.default_rng(2).standard_normal(weight)
    shape = [-1 if i == axis else 1 for i in range(len(weight))]
    checked_with_base(tensors, base, base * (array(tensors, R.IA3_L).reshape(shape) - 1), "ia3")


# ---------------------------------------------------------------- full rank, and remainders


def test_a_lone_down_of_the_weights_shape_is_the_change_and_its_alpha_means_nothing() -> None:
    tensors = made(down=(300, 20))
    check(tensors | alpha(16), array(tensors, R.DOWN), 1.0, "lora")
    assert Layer(lazy(tensors)).rank is None


def test_a_lone_down_of_few_rows_is_half_a_pair() -> None:
    assert Layer(lazy(made(down=(128, 320)))).parametrization.missing({R.DOWN: (128, 320)}) == (R.UP,)


def test_a_sparse_remainder_is_added_before_scaling() -> None:
    tensors = made(down=(2, 5), up=(6, 2), sparse_values=(3,))
    tensors[R.SPARSE_INDICES] = Raw("I64", (2, 3), np.array([[0, 5, 0], [1, 4, 1]], "<i8").tobytes())
    tensors[R.SPARSE_SIZE] = Raw("I64", (2,), np.array([6, 5], "<i8").tobytes())
    expected = array(tensors, R.UP) @ array(tensors, R.DOWN)
    np.add.at(expected, ([0, 5, 0], [1, 4, 1]), array(tensors, R.SPARSE_VALUES))
    check(tensors | alpha(1), expected, 0.5, "lora")


# ---------------------------------------------------------------- DoRA


@pytest.mark.parametrize("kernel", [(), (3, 3)])
@pytest.mark.parametrize(("shape", "axes"), [((6, 1), "out"), ((6,), "out"), ((1, 5), "in")])
def test_dora_gives_each_row_or_column_the_length_that_it_stores(
    kernel: tuple[int, ...], shape: tuple[int, ...], axes: str
) -> None:
    import torch

    ones = (1,) * len(kernel)
    stored = (*shape, *ones) if len(shape) > 1 else shape
    tensors = made(down=(2, 5, *kernel), up=(6, 2, *ones)) | made(9, magnitude=stored)
    base = torch.from_numpy(BASE[:, :5] if kernel else BASE[:, :5, 0, 0]).float()
    whole = (base + Layer(lazy(tensors)).change(tuple(base.shape), base)).double().numpy()
    lengths = (
        np.linalg.norm(whole.reshape(6, -1), axis=1)
        if axes == "out"
        else np.sqrt((whole**2).sum(0).reshape(5, -1).sum(1))
    )
    np.testing.assert_allclose(lengths, np.abs(array(tensors, R.MAGNITUDE)).ravel(), rtol=1e-5)


def test_dora_without_the_base_weight_says_so() -> None:
    with pytest.raises(NotRepresentable, match="DoRA"):
        Layer(lazy(made(down=(2, 5), up=(6, 2), magnitude=(6, 1)))).change((6, 5))


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
