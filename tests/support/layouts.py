"""Every layout of every parametrization, as shapes by role for a weight's shape."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hubtool.naming.address import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Shape = tuple[int, ...]
Layout = dict[Role, Shape]
R = Role


def _lora(w: Shape, rank: int = 4) -> Layout:
    return {R.UP: (w[0], rank, *(1,) * (len(w) - 2)), R.DOWN: (rank, *w[1:]), R.ALPHA: ()}


def _loha(w: Shape) -> Layout:
    columns = prod(w[1:])
    return {
        R.HADA_W1_A: (w[0], 2),
        R.HADA_W1_B: (2, columns),
        R.HADA_W2_A: (w[0], 2),
        R.HADA_W2_B: (2, columns),
        R.ALPHA: (),
    }


def _divisor(side: int) -> int:
    return next(n for n in range(min(8, side), 0, -1) if side % n == 0)


def _lokr(w: Shape, rank: int | None = None) -> Layout:
    o2, i2 = 2, w[1] // _divisor(w[1])  # rows in twos: on the border of every part of a fused module
    first = {R.LOKR_W1: (w[0] // o2, _divisor(w[1]))}
    if rank is None:
        return {**first, R.LOKR_W2: (o2, i2, *w[2:])}
    return {**first, R.LOKR_W2_A: (o2, rank), R.LOKR_W2_B: (rank, i2 * prod(w[2:])), R.ALPHA: ()}


#: What any weight of two or more dimensions may have; an odd number of rows cannot be a LoKr here.
MATRIX: Mapping[str, Callable[[Shape], Layout]] = {
    "lora": _lora,
    "lora without alpha": lambda w: {role: s for role, s in _lora(w).items() if role is not R.ALPHA},
    "lora with bias": lambda w: {**_lora(w), R.UP_BIAS: (w[0],)},
    "lora with a change of the bias": lambda w: {**_lora(w), R.DIFF_BIAS: (w[0],)},
    "dora": lambda w: {**_lora(w), R.MAGNITUDE: (w[0], 1, *(1,) * (len(w) - 2))},
    "dora of inputs": lambda w: {**_lora(w), R.MAGNITUDE: (1, w[1], *(1,) * (len(w) - 2))},
    "loha": _loha,
    "loha with dora": lambda w: {**_loha(w), R.MAGNITUDE: (w[0], 1, *(1,) * (len(w) - 2))},
    "lokr": _lokr,
    "lokr factorised": lambda w: _lokr(w, 1),
    "difference": lambda w: {R.DIFF: w},
    "difference with bias": lambda w: {R.DIFF: w, R.DIFF_BIAS: (w[0],)},
    "absolute": lambda w: {R.SET_WEIGHT: w},
    "ia3 of outputs": lambda w: {R.IA3_WEIGHT: (w[0],) if len(w) == 2 else (1, w[0], *(1,) * (len(w) - 2)), R.IA3_ON_INPUT: ()},
    "ia3 of PEFT": lambda w: {R.IA3_L: (w[0], 1) if len(w) == 2 else (1, w[0], *(1,) * (len(w) - 2))},
    "oft": lambda w: {R.OFT_BLOCKS: (w[0] // 2, 2, 2), R.RESCALE: (w[0], *(1,) * (len(w) - 1))},
    "oft of old": lambda w: {R.OFT_DIAG: (w[0] // 2, 2, 2)},
    "oft of PEFT": lambda w: {R.OFT_R: (prod(w[1:]) // 2, 1)},
    "boft": lambda w: {R.OFT_BLOCKS: (1, w[0] // 2, 2, 2), R.ALPHA: ()},
    "boft of PEFT": lambda w: {R.BOFT_R: (1, prod(w[1:]) // 2, 2, 2), R.BOFT_S: (w[0], 1)},
    "glora": lambda w: {
        R.GLORA_A1: (w[1], 1, *(1,) * (len(w) - 2)), R.GLORA_A2: (1, w[1], *(1,) * (len(w) - 2)),
        R.GLORA_B1: (w[0], 1, *(1,) * (len(w) - 2)), R.GLORA_B2: (1, *w[1:]), R.ALPHA: (),
    },
    "sparse remainder": lambda w: {**_lora(w), R.SPARSE_INDICES: (2, 3), R.SPARSE_VALUES: (3,), R.SPARSE_SIZE: (2,)},
}  # fmt: skip

#: What convolutions with a kernel have besides.
KERNEL: Mapping[str, Callable[[Shape], Layout]] = {
    "tucker": lambda w: {R.UP: (w[0], 4, 1, 1), R.DOWN: (4, w[1], 1, 1), R.MID: (4, 4, *w[2:]), R.ALPHA: ()},
    "loha tucker": lambda w: {
        R.HADA_W1_A: (2, w[0]), R.HADA_W1_B: (2, w[1]), R.HADA_T1: (2, 2, *w[2:]),
        R.HADA_W2_A: (2, w[0]), R.HADA_W2_B: (2, w[1]), R.HADA_T2: (2, 2, *w[2:]), R.ALPHA: (),
    },
    "lokr tucker": lambda w: {
        R.LOKR_W1: (w[0] // 2, _divisor(w[1])), R.LOKR_W2_A: (1, 2), R.LOKR_W2_B: (1, w[1] // _divisor(w[1])),
        R.LOKR_T2: (1, 1, *w[2:]), R.ALPHA: (),
    },
}  # fmt: skip

#: What norms have.
VECTOR: Mapping[str, Callable[[Shape], Layout]] = {
    "norm": lambda w: {R.NORM_WEIGHT: w, R.NORM_BIAS: w},
    "difference of a norm": lambda w: {R.DIFF: w, R.DIFF_BIAS: w},
    "absolute norm": lambda w: {R.SET_WEIGHT: w},
}


def layouts_of(weight: Shape) -> Mapping[str, Callable[[Shape], Layout]]:
    """The layouts that a weight of this shape can have."""
    if len(weight) == 1:
        return VECTOR
    if weight[0] % 2 or prod(weight[1:]) % 2:
        return {
            name: MATRIX[name]
            for name in ("lora", "lora without alpha", "lora with bias", "loha", "difference", "absolute")
        }
    return {**MATRIX, **KERNEL} if len(weight) > 2 and prod(weight[2:]) > 1 else MATRIX
