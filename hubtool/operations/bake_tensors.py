"""A checkpoint's tensor with the changes of adapters added, computed when it is written.

Every change is computed from the checkpoint's own weight and all are added, W' = W + Σ strengthᵢ · changeᵢ(W), so that the
order of the adapters does not matter. For families that depend on W (DoRA, OFT, BOFT, (IA)³, GLoRA) that is
W + s · (W₁ − W), W₁ being the weight as trained, which is what ComfyUI applies.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.tensors import TORCH_DTYPES, from_torch, to_torch
from hubtool.errors import IncompatibleAdapters, NonFinite
from hubtool.formats.tensor import FileBytes, LazyTensor
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.operations.extract_difference import Strips
from hubtool.operations.factors import Factors, is_additive

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from hubtool.adapters.checkpoint import Checkpoint
    from hubtool.operations.bake_edits import Edit

_STRIP = 1 << 20  # elements computed at a time; the loss by rounding is estimated from one strip of each tensor


@dataclass(slots=True)
class Rounding:
    """How much of the change was lost when the sums were stored, from one strip of each tensor."""

    change: float = 0.0  # ‖change‖²
    lost: float = 0.0  # ‖stored − exact‖²

    def add(self, change: Tensor, lost: Tensor) -> None:
        """Take one strip into account."""
        self.change += float(change.square().sum())
        self.lost += float(lost.square().sum())

    @property
    def share(self) -> float | None:
        """‖stored − exact‖ / ‖change‖; None if nothing changed."""
        return (self.lost / self.change) ** 0.5 if self.change else None


@dataclass(frozen=True, slots=True)
class Bake:
    """What all tensors of one bake have in common."""

    checkpoint: Checkpoint
    rounding: Rounding
    done: Callable[[], None]


def baked(tensor: LazyTensor, key: str, edits: Sequence[Edit], stored: tuple[str, float], bake: Bake) -> LazyTensor:
    """The tensor with its edits; `stored` is the dtype to write and the factor that float8 weights are kept without."""
    dtype, scale = stored

    def compute() -> memoryview:
        with torch.inference_mode():
            changes = [(edit, _change(edit, bake.checkpoint)) for edit in edits]
            rows, columns = tensor.shape[0], prod(tensor.shape[1:])
            kept = torch.empty(rows, columns, dtype=TORCH_DTYPES[dtype])
            strips, step = Strips(), max(1, _STRIP // columns)
            for start in range(0, rows, step):
                stop = min(start + step, rows)
                before = (
                    strips.read(tensor, slice(start * columns, stop * columns)).reshape(-1, columns).float() * scale
                )
                exact = before.clone()
                for edit, change in changes:
                    _add(exact, start, edit, change)
                kept[start:stop] = exact / scale if scale != 1 else exact
                _check(kept[start:stop], exact, key, dtype)
                if start <= edits[0].start < stop:
                    bake.rounding.add(exact - before, kept[start:stop].float() * scale - exact)
        bake.done()
        return from_torch(kept).view()

    return LazyTensor(dtype, tensor.shape, compute)


def _add(block: Tensor, first: int, edit: Edit, change: Factors) -> None:
    """Add an edit's rows to those of a block that begins at row `first`."""
    start, stop = max(edit.start, first), min(edit.start + edit.rows, first + block.shape[0])
    if start >= stop:
        return
    rows, left = block[start - first : stop - first], change.left[start - edit.start : stop - edit.start]
    if change.right is None:
        rows.add_(left, alpha=edit.strength)
    else:
        rows.addmm_(left, change.right, alpha=edit.strength)


def recast(tensor: LazyTensor, dtype: str) -> LazyTensor:
    """The tensor in another dtype, computed when it is written."""

    def compute() -> memoryview:
        kept = to_torch(tensor).to(TORCH_DTYPES[dtype])
        if isinstance(tensor.data, FileBytes):
            tensor.data.file.forget(tensor.data.start, tensor.data.stop)
        return from_torch(kept).view()

    return LazyTensor(dtype, tensor.shape, compute)


def _change(edit: Edit, checkpoint: Checkpoint) -> Factors:
    """What an edit adds to its rows at strength 1."""
    share = edit.share
    if edit.bias is not None:
        scale = share.layer.scale if edit.bias is Role.UP_BIAS else 1.0
        found = share.rows_of(Factors(share.layer.float(edit.bias).reshape(-1, 1) * scale, None))
    elif is_additive(share.layer):
        found = share.factors()
    else:
        whole = share.layer.change(share.source_shape, _base(edit, checkpoint).reshape(share.source_shape))
        found = share.rows_of(Factors(whole.reshape(share.source_shape[0], -1), None))
    return found.halves_swapped() if edit.swapped else found


def _base(edit: Edit, checkpoint: Checkpoint) -> Tensor:
    """The weight that the change depends on, as the adapter names it: several modules' rows where it stacks them.

    Raises:
        IncompatibleAdapters: the checkpoint holds only some of them.
    """
    source = edit.share.source
    fused = None if source in checkpoint.weights else checkpoint.architecture.fused.get(source.path)
    parts = [ModuleRef(Component.DENOISER, path) for path in fused.parts] if fused else [source]
    if any(part not in checkpoint.weights for part in parts):
        message = f"The change of {source.path} depends on the whole weight, of which the checkpoint holds only a part."
        raise IncompatibleAdapters(source.path, message)
    weights = [checkpoint.weights[part] for part in parts]
    rows = [to_torch(w.tensor).float().reshape(w.tensor.shape[0], -1) * w.scale for w in weights]
    whole = torch.cat(rows)
    return whole.roll(whole.shape[0] // 2, 0) if fused and fused.swapped else whole


def _check(kept: Tensor, exact: Tensor, key: str, dtype: str) -> None:
    if bool(torch.isfinite(kept.float() if kept.dtype.itemsize == 1 else kept).all()):
        return
    if bool(torch.isfinite(exact).all()):
        message = f"A value of {float(exact.abs().max()):.3g} in {key} does not fit {dtype}."
        raise NonFinite(key, message, hint="Choose a wider dtype with `--dtype`.")
    raise NonFinite(key, f"{key} holds NaN or infinity, or gets it by the change.")
