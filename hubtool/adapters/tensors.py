"""The border to torch: a `LazyTensor` seen as a `torch.Tensor` and back, without copying elements.

Importing this module needs torch; everything that only moves bytes does without it.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hubtool.errors import AdapterProblem, MissingExtra, NonFinite
from hubtool.formats.tensor import LazyTensor

try:
    import numpy as np
    import torch
except ImportError as error:
    raise MissingExtra("torch", "torch", "Arithmetic on tensors") from error

if TYPE_CHECKING:
    from collections.abc import Mapping

#: safetensors' dtype names → torch's. The packed ones (F4, F6_*) have no torch dtype of the same shape.
TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16, "U16": torch.uint16, "F16": torch.float16, "BF16": torch.bfloat16,
    "I32": torch.int32, "U32": torch.uint32, "F32": torch.float32,
    "I64": torch.int64, "U64": torch.uint64, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip
_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}


class _Unlocked:
    """A read-only array shown as writable: torch warns about read-only memory, once per process and thread-unsafely.

    numpy keeps this object as the base of the array it makes, which keeps the mapped file open.
    """

    def __init__(self, array: np.ndarray) -> None:
        pointer, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (pointer, False)}
        self.owner = array


def to_torch(tensor: LazyTensor) -> torch.Tensor:
    """The same elements as a torch tensor, sharing memory with the mapped file: read it, never write to it.

    Raises:
        AdapterProblem: torch has no such dtype.
    """
    dtype = TORCH_DTYPES.get(tensor.dtype)
    if dtype is None:
        raise AdapterProblem("", f"Tensors of dtype {tensor.dtype} cannot be computed with.")
    if not prod(tensor.shape):
        return torch.empty(tensor.shape, dtype=dtype)
    array = np.frombuffer(tensor.view(), np.uint8)
    elements = torch.from_numpy(np.asarray(_Unlocked(array)))
    if elements.data_ptr() % dtype.itemsize:  # a header of odd length; vector instructions want alignment
        elements = elements.clone()
    return elements.view(dtype).reshape(tensor.shape)


def from_torch(tensor: torch.Tensor) -> LazyTensor:
    """The elements of a torch tensor as bytes; shares memory where it is contiguous and on the CPU.

    Raises:
        AdapterProblem: safetensors has no such dtype.
    """
    if tensor.dtype not in _NAMES:
        raise AdapterProblem("", f"Tensors of dtype {tensor.dtype} cannot be stored.")
    elements = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return LazyTensor(_NAMES[tensor.dtype], tuple(tensor.shape), elements.numpy().data)


def stored_as(values: torch.Tensor, dtype: str, name: str = "") -> LazyTensor:
    """Computed values in the dtype that they are kept in; `name` is the module's, for the error.

    Raises:
        NonFinite: one of them is too large for it.
    """
    kept = values.to(TORCH_DTYPES[dtype])
    if not torch.isfinite(kept.float()).all():
        where = f" in {name}" if name else ""
        message = f"A value of {float(values.abs().max()):.3g}{where} does not fit {dtype}."
        raise NonFinite(name, message, hint="Choose a wider dtype with `--dtype`.")
    return from_torch(kept)
