"""Rewrite an adapter in another dialect: read into the neutral form, fit modules and alphas, write.

A pure rename streams byte ranges and imports no torch; what cannot be said in the target dialect is refused unless a lossy
way is asked for, and the result says what happened to every tensor.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.adapters.codec import encode
from hubtool.adapters.duplicates import equal_duplicates, without_duplicates
from hubtool.adapters.fusion import Fitted, fit
from hubtool.adapters.peft_directory import Described, described, is_folder_of_peft, write_directory
from hubtool.adapters.rewriting import biases_for, magnitudes_for, recast
from hubtool.adapters.scaling import (
    AlphaMode,
    AlphaOutcome,
    AlphaPlan,
    plan_alphas,
    with_alpha_tensors,
    without_alpha_tensors,
)
from hubtool.adapters.unknown import is_unknown
from hubtool.errors import AmbiguousArchitecture, NotRepresentable, OutputExists
from hubtool.formats.atomic import atomic_output
from hubtool.formats.safetensors import SafetensorsFile, read_safetensors, write_safetensors
from hubtool.formats.tensor import FileBytes
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import Architecture, architecture
from hubtool.naming.dialect import dialect, written_dialect
from hubtool.naming.identify import ARCHITECTURE_KEY, metadata_hint
from hubtool.operations.rewrite import Wish, rewritten
from hubtool.operations.unknown_architecture import NOTE, alpha_mode, read_known_or_not
from hubtool.operations.validate import refuse_broken, refuse_broken_result

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hubtool.adapters.adapter import Adapter
    from hubtool.formats.tensor import LazyTensor

#: Metadata that states a hash of the tensor bytes; true of the output only if its bytes are the input's.
_BODY_HASHES = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """How to convert; the defaults lose nothing."""

    architecture: str | None = None  # overrides what identification says
    alpha: AlphaMode = "auto"
    dtype: str | None = None  # safetensors name such as "F16"
    parametrization: str | None = None  # what to rewrite other families as: "lora", "lokr"; "dylora": cut to `rank`
    rank: int | None = None  # of rewritten modules
    energy: float | None = None  # share of each rewritten change that is kept
    base: Path | None = None  # the model that the adapter was made for, where its changes depend on it
    strict: bool = False  # refuse files with tensors that were not understood
    hashes: bool = False
    allow_pickle: bool = False  # read a file of torch's, too; nothing in it is run
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """A module that is not bit-exact, and the relative error of its change."""

    module: str
    error: float


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did; the fields are the contract's."""

    input: Path
    output: Path
    from_: str
    to: str
    architecture: str | None  # none: unknown, so only suffixes were rewritten
    modules: int
    exact: bool  # every module's change is the same number for number, up to the exactness of the scale
    lossy: tuple[Loss, ...]
    dropped: tuple[str, ...]
    fused: int
    split: int
    alpha: AlphaOutcome
    sha256: str | None
    leftovers: tuple[str, ...]  # tensors not understood, copied under their own names
    malformed: bool
    notes: tuple[str, ...] = ()


def convert(path: Path, to: str, output: Path, options: ConvertOptions | None = None) -> Conversion:
    """Rewrite the adapter at `path` in dialect `to`.

    Raises:
        FileProblem, NotAnAdapter, UnknownArchitecture: the input cannot be read as an adapter.
        AmbiguousArchitecture: several architectures fit and they would be spelt differently.
        BrokenAdapter: validation finds an error in it.
        NotRepresentable: the dialect cannot say what the adapter holds; nothing was written.
        OutputExists, DiskFull, StorageProblem: from the disk.
    """
    options = options or ConvertOptions()
    written_dialect(to)
    if not options.force and os.path.lexists(output):  # a dry run says so, too
        raise OutputExists(output)
    file = _opened(path, allow_pickle=options.allow_pickle)
    source = read_known_or_not(file, options.architecture)
    copies = equal_duplicates(source)
    source = without_duplicates(source, copies)
    _check(source, to, options)
    is_regular = refuse_broken(file, source)
    plan = _plan(source, to, output, options)
    tensors = encode(plan.adapter, to)
    metadata = _metadata(plan, file, tensors)
    if not is_regular:
        refuse_broken_result(replace(file, tensors=tensors, metadata=metadata))
    sha256 = None
    if not options.dry_run:
        _write(plan, output, tensors, metadata, force=options.force)
        sha256 = _sha256(output) if options.hashes else None
    return Conversion(
        input=path,
        output=output,
        from_=source.dialect,
        to=to,
        architecture=None if is_unknown(source) else source.architecture.id,
        modules=len(plan.adapter.layers),
        exact=not plan.inexact,
        lossy=tuple(Loss(module.path, error) for module, error in plan.inexact.items()),
        dropped=copies,
        fused=plan.fused,
        split=plan.split,
        alpha=plan.alpha,
        sha256=sha256,
        leftovers=tuple(source.leftovers),
        malformed=source.malformed,
        notes=(NOTE.format(to=to),) if is_unknown(source) else (),
    )


def _opened(path: Path, *, allow_pickle: bool) -> SafetensorsFile:
    if allow_pickle:
        from hubtool.formats.pickle import is_torch_file, read_pickle  # noqa: PLC0415  # seldom wanted

        if is_torch_file(path):
            return read_pickle(path)
    return read_safetensors(path)


def _write(
    plan: _Plan, output: Path, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], *, force: bool
) -> None:
    if plan.folder:
        write_directory(output, plan.folder, tensors, metadata, force=force)
        return
    with atomic_output(output, force=force) as out:
        write_safetensors(out, tensors, metadata)


def _sha256(path: Path) -> str:
    from hubtool.formats.hashing import hash_file  # noqa: PLC0415  # 20 ms that most conversions never need

    return hash_file(path).sha256


@dataclass(frozen=True, slots=True)
class _Plan:
    adapter: Adapter
    fused: int
    split: int
    alpha: AlphaOutcome
    inexact: Mapping[ModuleRef, float]
    certain: bool  # nothing but this architecture fits, or it was asked for
    folder: Described | None  # the configs, if the output is a folder of PEFT's


def _plan(source: Adapter, to: str, output: Path, options: ConvertOptions) -> _Plan:
    """Everything that has to happen to the neutral form before it can be spelt; nothing is computed yet."""
    inexact: dict[ModuleRef, float] = {}
    adapter = source
    if options.parametrization:
        wish = Wish(options.parametrization, options.rank, options.energy, options.base)
        adapter, changed = rewritten(adapter, to, wish)
        inexact |= changed
    adapter, rounded = biases_for(adapter, to)
    inexact |= rounded
    if options.dtype:
        adapter, rounded = recast(adapter, options.dtype)
        inexact |= rounded
    in_folder = is_folder_of_peft(to, output)
    mode = "record" if in_folder and options.alpha == "auto" else alpha_mode(adapter, options.alpha)
    alphas = plan_alphas(adapter, to, mode)
    fitted = Fitted(adapter) if is_unknown(source) else fit(adapter, to)
    adapter, folder = _with_scales_said(fitted.adapter, alphas, in_folder=in_folder)
    inexact |= {**alphas.inexact, **(fitted.inexact or {})}
    asked_or_alone = options.architecture is not None or not source.identification.ambiguous
    certain = asked_or_alone and not is_unknown(source)
    return _Plan(magnitudes_for(adapter, to), fitted.fused, fitted.split, alphas.outcome, inexact, certain, folder)


def _with_scales_said(adapter: Adapter, plan: AlphaPlan, *, in_folder: bool) -> tuple[Adapter, Described | None]:
    """Alphas as the plan has them; a folder's config says them instead of the header."""
    if plan.outcome == "kept":
        return with_alpha_tensors(adapter), None
    if not (in_folder and plan.outcome == "recorded"):
        adapter = without_alpha_tensors(adapter, plan)
    folder = described(adapter, plan.originals) if in_folder else None
    return (folder.adapter, folder) if folder else (adapter, None)


def _check(source: Adapter, to: str, options: ConvertOptions) -> None:
    if options.strict and source.leftovers:
        keys = list(source.leftovers)
        message = f"{len(keys)} tensors were not understood, the first is {keys[0][:100]}."
        raise NotRepresentable(keys[0], message, hint="Without `--strict` they are copied as they are.")
    if options.architecture is None and source.identification.ambiguous:
        _check_candidates_agree(source, to)


def _check_candidates_agree(source: Adapter, to: str) -> None:
    """Go on with tied candidates only if metadata name one, or each gives every module the same name (the contract's rule).

    An architecture whose modules have no names in the dialect gives no answer.
    """
    tied = source.identification.candidates
    candidates = [candidate for candidate in tied if candidate.hint] or tied
    answers = []
    for candidate in candidates:
        names = _names(architecture(candidate.architecture), to)
        answer = {base: names.get(meaning.module) for base, meaning in candidate.explained.items()}
        answers += [answer] if None not in answer.values() else []
    if any(answer != answers[0] for answer in answers[1:]):
        raise AmbiguousArchitecture([candidate.architecture for candidate in candidates])


def _names(target: Architecture, to: str) -> dict[ModuleRef, str]:
    """What each module becomes part of, or is taken apart into, in a dialect."""
    written = dialect(to).written(target)
    names = dict(written)
    for path, fused in target.fused.items():
        whole, parts = (
            ModuleRef(Component.DENOISER, path),
            [ModuleRef(Component.DENOISER, part) for part in fused.parts],
        )
        if whole in written:
            names |= {part: f"{written[whole]}[{i}]" for i, part in enumerate(parts) if part not in written}
        elif all(part in written for part in parts):
            names[whole] = " ".join(written[part] for part in parts)
    return names


def _metadata(plan: _Plan, file: SafetensorsFile, tensors: Mapping[str, LazyTensor]) -> dict[str, str]:
    """The source's metadata and the architecture; hashes of the tensor bytes only where those are still the same."""
    adapter, kept = plan.adapter, dict(plan.adapter.metadata)
    if plan.certain and not metadata_hint(adapter.architecture, kept):
        kept[ARCHITECTURE_KEY] = adapter.architecture.id
    if not _same_body(file, tensors):
        for key in _BODY_HASHES:
            kept.pop(key, None)
    return kept


def _same_body(file: SafetensorsFile, tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether the output's tensor bytes are the input's, in the same order."""
    spans = sorted((t.data.start, t.data.stop) for t in tensors.values() if isinstance(t.data, FileBytes))
    if len(spans) != len(tensors) or not spans:
        return False
    gapless = all(first[1] == second[0] for first, second in itertools.pairwise(spans))
    return gapless and (spans[0][0], spans[-1][1]) == (file.body_start, file.size_bytes)
