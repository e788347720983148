"""Every family cut by rows: the parts do what the whole did, and joined again they are what they were."""

import numpy as np
import pytest
import torch
from support.files import Raw, floats, number, random_tensor
from support.lazy import lazy, literal

from hubtool.adapters.joining import join_parts
from hubtool.adapters.layer import Layer
from hubtool.adapters.splitting import SHARED, split_module
from hubtool.errors import NotRepresentable
from hubtool.naming.address import Role
from hubtool.naming.architecture import Fused

R = Role
Tensors = dict[Role, Raw]
ROWS = (8, 4, 12)
FUSED = Fused(("q", "k", "v"), ROWS)
BASE = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))


def made(seed: int = 0, **shapes: tuple[int, ...]) -> Tensors:
    return {
        Role[name.upper()]: random_tensor(seed + i, shape, "F32", 0.5) for i, (name, shape) in enumerate(shapes.items())
    }


def diagonal(rank: int, seed: int) -> Raw:
    """(24, 3 · rank), each part in columns of its own."""
    values = np.zeros((24, 3 * rank))
    for index, (start, rows) in enumerate(zip((0, 8, 12), ROWS, strict=True)):
        block = np.random.default_rng(seed + index).standard_normal((rows, rank))
        values[start : start + rows, index * rank : (index + 1) * rank] = block
    return Raw("F32", values.shape, floats(values.ravel(), "F32"))


HADA = {"hada_w1_a": (24, 3), "hada_w1_b": (3, 6), "hada_w2_a": (24, 3), "hada_w2_b": (3, 6)}
LOKR = {"lokr_w1": (6, 2), "lokr_w2": (4, 3)}
GLORA = {"glora_a1": (6, 2), "glora_a2": (2, 6), "glora_b1": (24, 2), "glora_b2": (2, 6)}
LORA = {"up": (24, 3), "down": (3, 6)}

WHOLE = {
    "lora dense": made(**LORA) | {R.ALPHA: number(6)},
    "lora with biases": made(**LORA, up_bias=(24,), diff_bias=(24,)),
    "lora block-diagonal": made(down=(9, 6)) | {R.UP: diagonal(3, 0), R.ALPHA: number(18)},
    "lora with DoRA": made(**LORA, magnitude=(24, 1)),
    "loha dense": made(**HADA) | {R.ALPHA: number(6)},
    "loha block-diagonal": made(hada_w1_b=(6, 6), hada_w2_b=(6, 6))
    | {R.HADA_W1_A: diagonal(2, 0), R.HADA_W2_A: diagonal(2, 5), R.ALPHA: number(12)},
    "loha with DoRA": made(**HADA, magnitude=(24, 1)),
    "lokr whole": made(**LOKR) | {R.ALPHA: number(7)},
    "lokr factorised": made(lokr_w1_a=(6, 1), lokr_w1_b=(1, 2), lokr_w2_a=(4, 2), lokr_w2_b=(2, 3)) | {R.ALPHA: number(6)},
    "glora": made(**GLORA) | {R.ALPHA: number(6)},
    "glora before 2.0": made(glora_a1=(2, 6), glora_a2=(6, 2), glora_b1=(2, 6), glora_b2=(24, 2)) | {R.ALPHA: number(6)},
    "difference": made(diff=(24, 6), diff_bias=(24,)),
    "absolute": made(set_weight=(24, 6)),
    "norm": made(norm_weight=(24,), norm_bias=(24,)),
    "ia3 of outputs": made(ia3_weight=(24,)) | {R.IA3_ON_INPUT: number(0, "I64")},
    "ia3 of inputs": made(ia3_weight=(6,)) | {R.IA3_ON_INPUT: number(1, "I64")},
    "ia3 of PEFT": made(ia3_l=(24, 1)),
    "ia3 of PEFT's inputs": made(ia3_l=(1, 6)),
    "oft": made(oft_blocks=(6, 4, 4), rescale=(24, 1)) | {R.ALPHA: number(0)},
    "oft of old": made(oft_diag=(12, 2, 2)),
    "oft of PEFT": made(oft_r=(2, 3)),
    "boft of PEFT": made(boft_r=(1, 2, 3, 3), boft_s=(24, 1)),
}  # fmt: skip


def contents(layer: Layer) -> Tensors:
    return {role: literal(tensor) for role, tensor in layer.tensors.items()}


def change(layer: Layer, base: torch.Tensor) -> torch.Tensor:
    if layer.parametrization.id == "norm":
        return layer.change((base.shape[0],))
    return layer.change(tuple(base.shape), base)


@pytest.mark.parametrize("name", WHOLE)
def test_parts_change_their_rows_as_the_whole_did_and_joined_they_are_the_whole(name: str) -> None:
    whole = Layer(lazy(WHOLE[name]), "m")
    parts = split_module(whole, FUSED)
    assert list(parts) == ["q", "k", "v"]
    changes = [change(part, base) for part, base in zip(parts.values(), BASE.split(ROWS), strict=True)]
    torch.testing.assert_close(torch.cat(changes), change(whole, BASE), rtol=1e-5, atol=1e-5)
    joined = join_parts("m", FUSED, parts)
    assert (joined.note, joined.rounding, contents(joined.layer)) == (None, 0.0, contents(whole))


#: These say something of every row, or turn and scale the inputs for all rows alike.
_NEVER_SILENT = {
    "lora with DoRA",
    "loha with DoRA",
    "absolute",
    "oft of old",
    "oft of PEFT",
    "ia3 of inputs",
    "ia3 of PEFT's inputs",
}


@pytest.mark.parametrize("name", sorted(WHOLE.keys() - _NEVER_SILENT))
@pytest.mark.parametrize("absent", ["q", "k", "v"])
def test_an_absent_part_changes_nothing_and_stays_absent(name: str, absent: str) -> None:
    parts = {path: part for path, part in split_module(Layer(lazy(WHOLE[name]), "m"), FUSED).items() if path != absent}
    joined = join_parts("m", FUSED, parts)
    if name not in {"glora", "glora before 2.0", "boft of PEFT"}:  # whose shared part changes every row
        rows = dict(zip("qkv", change(joined.layer, BASE).split(ROWS), strict=True))
        assert not rows[absent].any()
    back = split_module(joined.layer, FUSED, joined.note)
    assert {path: contents(part) for path, part in back.items()} == {p: contents(part) for p, part in parts.items()}


def test_the_full_rank_form_is_cut_as_a_difference_is() -> None:
    fused = Fused(("q", "k"), (300, 260))
    whole = Layer(lazy(made(down=(560, 3)) | {R.ALPHA: number(9)}), "m")
    parts = split_module(whole, fused)
    changes = [part.delta((rows, 3)) for part, rows in zip(parts.values(), fused.rows, strict=True)]
    torch.testing.assert_close(torch.cat(changes), whole.delta((560, 3)))
    assert contents(join_parts("m", fused, parts).layer) == contents(whole)


@pytest.mark.parametrize(
    "names", [("lora dense", "loha dense"), ("lokr whole", "lora dense"), ("difference", "lora dense")]
)
def test_parts_of_several_families_are_refused_with_a_way_out(names: tuple[str, str]) -> None:
    first, second = (split_module(Layer(lazy(WHOLE[name]), "m"), FUSED) for name in names)
    with pytest.raises(NotRepresentable, match="cannot be joined") as caught:
        join_parts("m", FUSED, {"q": first["q"], "k": second["k"]})
    assert "--parametrization lora" in caught.value.hint


def test_loha_parts_of_ranks_and_scales_of_their_own_become_one_of_all_ranks() -> None:
    parts = {
        path: Layer(lazy(made(seed, hada_w1_a=(rows, rank), hada_w1_b=(rank, 6), hada_w2_a=(rows, rank), hada_w2_b=(rank, 6))
                         | {R.ALPHA: number(alpha)}), path)
        for path, rows, rank, alpha, seed in (("q", 8, 2, 1, 0), ("k", 4, 1, 4, 10), ("v", 12, 3, 3, 20))
    }  # fmt: skip
    joined = join_parts("m", FUSED, parts)
    assert joined.layer.rank == 6
    changes = [change(part, base) for part, base in zip(parts.values(), BASE.split(ROWS), strict=True)]
    torch.testing.assert_close(change(joined.layer, BASE), torch.cat(changes), rtol=1e-6, atol=1e-6)
    assert [part.rank for part in split_module(joined.layer, FUSED, joined.note).values()] == [2, 1, 3]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (made(lokr_w1=(2, 2), lokr_w2=(12, 3)), "every 12 rows"),
        (made(oft_blocks=(3, 8, 8)), "every 8 rows"),
        (made(oft_blocks=(6, 4, 4)) | {R.ALPHA: number(1e-3)}, "oft"),
        (made(oft_blocks=(1, 6, 4, 4)), "boft"),
        (made(**LORA, magnitude=(1, 6)), "input column"),
        (made(diff_modulation=(24, 6)), "full"),
        (made(**LORA) | {R.SPARSE_INDICES: Raw("I64", (2, 0), b"")}, "lora"),
        (made(**LORA, reshape_weight=(2,)), "reshape_weight"),
        (made(up=(20, 3), down=(3, 6)), "24 rows"),
        (made(diff=(24, 6), diff_bias=()), "24 rows"),
        ({R.ALPHA: number(1)}, "unknown"),
    ],
)
def test_what_has_no_rows_of_its_own_at_the_border_is_refused(tensors: Tensors, words: str) -> None:
    with pytest.raises(NotRepresentable, match=words):
        split_module(Layer(lazy(tensors), "m"), FUSED)


@pytest.mark.parametrize("first", ["lokr whole", "glora", "ia3 of inputs", "oft of PEFT"])
def test_parts_that_do_not_share_what_one_module_has_once_are_refused(first: str) -> None:
    other = dict(WHOLE[first])
    for role, raw in other.items():
        if raw.dtype == "F32" and raw.shape and role not in {R.LOKR_W1, R.GLORA_B1}:
            other[role] = random_tensor(99, raw.shape, "F32")
    one, two = (split_module(Layer(lazy(tensors), "m"), FUSED) for tensors in (WHOLE[first], other))
    with pytest.raises(NotRepresentable, match="of their own"):
        join_parts("m", FUSED, {"q": one["q"], "k": two["k"], "v": one["v"]})


def test_a_part_with_a_bias_alone_is_not_taken_for_absent() -> None:
    whole = made(down=(6, 6), up_bias=(24,)) | {R.UP: diagonal(2, 0)}
    values = np.frombuffer(whole[R.UP].data, "<f4").reshape(24, 6).copy()
    values[:8] = 0
    whole[R.UP] = Raw("F32", (24, 6), values.tobytes())
    parts = split_module(Layer(lazy(whole), "m"), FUSED)
    assert list(parts) == ["q", "k", "v"]
    assert literal(parts["q"].tensors[R.UP_BIAS]).data == whole[R.UP_BIAS].data[:32]


@pytest.mark.parametrize("name", ["lora dense", "lokr whole", "difference", "oft"])
@pytest.mark.parametrize("note", [SHARED, "x", [0, 0, 0], [1, 0, 1], [0, 0, 1], [3, 0, 0], [1, 1], [-1, 2, 2], []])
def test_no_note_makes_rows_that_do_something_absent(name: str, note: object) -> None:
    whole = Layer(lazy(WHOLE[name]), "m")
    parts = split_module(whole, FUSED, note)
    changes = [change(part, base) for part, base in zip(parts.values(), BASE.split(ROWS), strict=True)]
    torch.testing.assert_close(torch.cat(changes), change(whole, BASE), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lora dense", "lokr whole", "difference", "oft", "glora", "norm", "ia3 of outputs"])
def test_halves_change_places_in_whatever_has_rows(name: str) -> None:
    swap = Fused(("q",), (24,), swapped=True)
    whole = Layer(lazy(WHOLE[name]), "m")
    half = BASE.roll(12, 0)
    found = change(split_module(whole, swap)["q"], half).roll(12, 0)
    torch.testing.assert_close(found, change(whole, BASE), rtol=1e-5, atol=1e-5)
    assert contents(join_parts("m", swap, split_module(whole, swap)).layer) == contents(whole)


def test_an_odd_number_of_entries_has_no_halves() -> None:
    swap = Fused(("q",), (24,), swapped=True)
    with pytest.raises(NotRepresentable, match="no two halves"):
        split_module(Layer(lazy(made(lokr_w1=(3, 2), lokr_w2=(8, 3))), "m"), swap)
