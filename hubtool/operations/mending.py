"""The conversion that makes a program load what it does not load: tried on the tables before it is proposed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode, encode
from hubtool.adapters.fusion import fit
from hubtool.adapters.grouping import group_tensors
from hubtool.adapters.rewriting import BESIDE, fold_tucker, is_to_be_rewritten, magnitudes_for
from hubtool.adapters.scaling import AlphaMode, plan_alphas, with_alpha_tensors, without_alpha_tensors
from hubtool.errors import AdapterProblem, NamingProblem
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import Role
from hubtool.operations.loader import loader_for
from hubtool.operations.validate import refuse_broken
from hubtool.operations.verdict import Subject, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.naming.address import ModuleRef

#: Families that `convert --parametrization lora` rewrites without the base model.
_REWRITABLE = frozenset({"lora", "loha", "lokr", "full"})
_ORDER = {"all": 2, "some": 1, "none": 0}


@dataclass(frozen=True, slots=True)
class Way:
    """A conversion that may help."""

    dialect: str
    as_lora: bool = False
    alpha: AlphaMode = "auto"

    def command(self, subject: Subject) -> str:
        """What the user types."""
        words = ["hubtool", "convert", str(subject.file.path), "--to", self.dialect]
        if subject.architecture or subject.adapter.identification.ambiguous:
            words += ["--architecture", subject.adapter.architecture.id]
        if self.as_lora:
            words += ["--parametrization", "lora", "--energy", "0.99"]
        if self.alpha != "auto":
            words += ["--alpha", self.alpha]
        return shlex.join(words)


def mended(subject: Subject, verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """The verdicts, with the command that mends each, where one does."""
    tried: dict[Way, Subject | None] = {}
    if all(verdict.perfect for verdict in verdicts.values()) or _is_broken(subject):
        return dict(verdicts)
    return {
        id: verdict if verdict.perfect else _mended(id, subject, verdict, tried) for id, verdict in verdicts.items()
    }


def _is_broken(subject: Subject) -> bool:
    """Whether `convert` refuses the file, whatever it is asked for."""
    try:
        refuse_broken(subject.file, subject.adapter)
    except AdapterProblem:
        return True
    return False


def _mended(id: str, subject: Subject, verdict: Verdict, tried: dict[Way, Subject | None]) -> Verdict:
    table = loader_for(id, subject.adapter.architecture.id)
    if subject.adapter.architecture.id not in table.runs:
        return verdict
    best, command, then = _rank(verdict), None, None
    for way in _ways(subject, table.mends):
        if way not in tried:
            tried[way] = rehearsed(subject, way)
        converted = tried[way]
        after = judge(table, converted) if converted else None
        if after and _rank(after) > best:
            best, command, then = _rank(after), way.command(subject), after
        if after and after.perfect:
            break
    return replace(verdict, convert=command, then=then)


def _rank(verdict: Verdict) -> tuple[int, float, int]:
    share = verdict.modules_loaded / verdict.modules if verdict.modules else 0.0
    return (_ORDER[verdict.loads], share, -len(verdict.findings))


def _ways(subject: Subject, dialects: tuple[str, ...]) -> Iterator[Way]:
    """Exact renames first, then those that round."""
    yield from (Way(dialect) for dialect in dialects)
    if _is_rewritable(subject.adapter):
        yield from (Way(dialect, as_lora=True) for dialect in dialects)
    yield from (Way(dialect, alpha="fold") for dialect in dialects)


def _is_rewritable(adapter: Adapter) -> bool:
    """Whether there is something that is no plain LoRA, and the base model is not needed to make it one."""
    others = [layer for module, layer in adapter.layers.items() if _is_other(adapter, module, layer)]
    kinds = {kind.id if (kind := layer.parametrization) else "" for layer in others}
    cores = any(Role.MID in layer.tensors for layer in adapter.layers.values())
    return (
        (bool(others) or cores)
        and kinds <= _REWRITABLE
        and not any(Role.SET_WEIGHT in layer.tensors for layer in others)
    )


def _is_other(adapter: Adapter, module: ModuleRef, layer: Layer) -> bool:
    return is_to_be_rewritten(layer, adapter.architecture.shape(module), with_base=False)


def rehearsed(subject: Subject, way: Way) -> Subject | None:
    """The file as a conversion would write it; None if it would refuse. Factors rewritten as LoRA have their shapes alone."""
    try:
        adapter = subject.adapter
        if way.as_lora:
            adapter, _ = fold_tucker(_as_lora(adapter), way.dialect)
        alphas = plan_alphas(adapter, way.dialect, way.alpha)
        fitted = fit(adapter, way.dialect).adapter
        kept = alphas.outcome == "kept"
        written = with_alpha_tensors(fitted) if kept else without_alpha_tensors(fitted, alphas)
        written = magnitudes_for(written, way.dialect)
        tensors = encode(written, way.dialect)
        file = replace(subject.file, tensors=tensors, metadata=written.metadata)
        return Subject(
            file, group_tensors(tensors), decode(file, architecture_id=adapter.architecture.id), subject.architecture
        )
    except (AdapterProblem, NamingProblem):
        return None


def _as_lora(adapter: Adapter) -> Adapter:
    layers = {module: _rewritten(adapter, module, layer) for module, layer in adapter.layers.items()}
    return replace(adapter, layers=layers)


def _rewritten(adapter: Adapter, module: ModuleRef, layer: Layer) -> Layer:
    """A LoRA of rank 1 in place of another family: what loads it depends on its keys alone."""
    shape = adapter.architecture.shape(module)
    if shape is None or not _is_other(adapter, module, layer):
        return layer
    tensors = {role: tensor for role, tensor in layer.tensors.items() if role in BESIDE}
    tensors[Role.UP] = _blank((shape[0], 1, *(1,) * (len(shape) - 2)))
    tensors[Role.DOWN] = _blank((1, *shape[1:]))
    tensors[Role.ALPHA] = scalar_tensor(1.0)
    return replace(layer, tensors=tensors, recorded_scale=None)


def _blank(shape: tuple[int, ...]) -> LazyTensor:
    return LazyTensor("F16", shape, bytes(2 * prod(shape)))
