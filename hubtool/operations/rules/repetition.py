"""Rules about saying things once: modules under two names, wholes beside their parts, parts without the rest."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from hubtool.adapters.duplicates import equal_duplicates
from hubtool.formats.safetensors import printable
from hubtool.naming.address import Component, ModuleRef
from hubtool.operations.rules.problem import Problem, Subject, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.naming.architecture import Fused


def said_once(subject: Subject) -> Iterator[Problem]:
    """Modules under two names. Whether the copies are equal is looked at where values are."""
    adapter = subject.adapter
    if adapter is None or not adapter.duplicates:
        return
    equal = set(equal_duplicates(adapter)) if subject.values_too else set()
    for key in adapter.duplicates.keys() - equal:
        yield problem("E_DUPLICATE_MODULE", f"{printable(key)} names a tensor that another key names too.", key)
    if equal:
        message = f"{len(equal)} tensors are there twice, under two names and with equal values."
        yield problem("W_EQUAL_COPIES", message, min(equal))


def whole_and_parts(subject: Subject) -> Iterator[Problem]:
    """A fused module beside the modules that it stacks: loaders add both, or take one."""
    adapter = subject.adapter
    for path, fused in adapter.architecture.fused.items() if adapter else ():
        whole = ModuleRef(Component.DENOISER, path)
        if adapter and whole in adapter.layers and (parts := _present(subject, fused.parts)):
            base = printable(adapter.layers[parts[0]].base)
            message = f"{base} is also a part of {printable(adapter.layers[whole].base)}."
            yield problem("E_DUPLICATE_MODULE", message, adapter.layers[parts[0]].base)


def attention_in_full(subject: Subject) -> Iterator[Problem]:
    """Some of q, k and v where the authors' own code has one module for all of them."""
    adapter = subject.adapter
    wholes = [fused for fused in adapter.architecture.fused.values() if not fused.partial] if adapter else []
    partial = [found for fused in wholes if (found := _some(subject, fused))]
    if partial and adapter:
        base = adapter.layers[partial[0]].base
        message = f"{len(partial)} fused modules are there in part, such as {printable(base)}."
        yield problem("W_PARTIAL_FUSED", message, base)


def _some(subject: Subject, fused: Fused) -> ModuleRef | None:
    """One of the parts, if some others of the same layer (q, k, v, but not an MLP stacked with them) are absent."""
    folder = fused.parts[0].rpartition(".")[0]
    wanted = tuple(part for part in fused.parts if part.rpartition(".")[0] == folder)
    present = _present(subject, wanted)
    return present[0] if 0 < len(present) < len(wanted) else None


def _present(subject: Subject, parts: tuple[str, ...]) -> list[ModuleRef]:
    layers = subject.adapter.layers if subject.adapter else {}
    return [module for part in parts if (module := ModuleRef(Component.DENOISER, part)) in layers]


def alike(subject: Subject) -> Iterator[Problem]:
    """Keys that only look different."""
    forms = {key: _form(key) for key in subject.file.tensors}
    count = Counter(forms.values())
    twin = next((key for key, form in forms.items() if count[form] > 1), None)
    if twin is not None:
        message = f"{printable(twin)} differs from another key only in its letters' form."
        yield problem("W_DUPLICATE_MODULE", message, twin)


def _form(key: str) -> str:
    """What a key looks like. Of long ones only the case is folded: accents piled up take the square of their number in time."""
    if len(key) > 128 or key.isascii():
        return key.casefold()
    return unicodedata.normalize("NFC", key).casefold()


RULES = (said_once, whole_and_parts, attention_in_full, alike)
