"""Extract a LoRA from a tuned checkpoint and the base it was trained from: ΔW = tuned − base, factorised module by module.

Streaming: both checkpoints stay files, and memory holds a few modules at a time. The method is `hubtool.operations.svd`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.codec import encode
from hubtool.adapters.fusion import fit
from hubtool.adapters.layer import Layer
from hubtool.errors import IncompatibleCheckpoints, NotRepresentable, UsageProblem
from hubtool.formats.atomic import atomic_output
from hubtool.formats.safetensors import header_bytes, write_safetensors
from hubtool.naming.address import Role
from hubtool.naming.dialect import dialect
from hubtool.operations.extract_allocation import even_rank, fit_to_size
from hubtool.operations.extract_forms import Plan
from hubtool.operations.extract_layers import Extracted, extract_layers
from hubtool.operations.extract_metadata import describe
from hubtool.operations.extract_options import (
    DEFAULT_RANK,
    ExtractOptions,
    check_options,
    form_of,
    rule_for,
    worker_count,
)
from hubtool.operations.extract_pairs import Comparison, Pair, as_named, compare
from hubtool.operations.extract_report import Extraction, Outcome, change_beside, counted, most_changed, report
from hubtool.operations.extract_small import SmallChange, Wanted, joined, small_changes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hubtool.formats.tensor import LazyTensor

__all__ = ["ExtractOptions", "Extraction", "extract"]

_RANKS = 64  # bytes by which metadata may differ with the ranks
_DIGESTS = 512  # bytes that `--hash-inputs` adds to the metadata at most, but for sharded checkpoints


def extract(tuned: Path, base: Path, output: Path, options: ExtractOptions | None = None) -> Extraction:
    """Write to `output` the LoRA that turns `base` into `tuned`, as nearly as its rank allows.

    Raises:
        UsageProblem: options that contradict each other.
        FileProblem, CheckpointProblem: a checkpoint cannot be read.
        IncompatibleCheckpoints: the two do not belong together, or are the same.
        NonFinite: NaN or infinity among the weights.
        AdapterProblem: values that the dtype cannot hold.
        NotRepresentable: the dialect cannot name a module, or does not know the parametrization.
        OutputExists, DiskFull, StorageProblem: from the disk; nothing is left behind.
    """
    started = time.perf_counter()
    options = options or ExtractOptions()
    check_options(options, output, (tuned, base))
    comparison = compare(base, tuned, options.components)
    pairs = as_named(comparison.targets, comparison.architecture, options.dialect)
    pairs = [pair for pair in pairs if options.conv_rank != 0 or not pair.is_convolutional]
    _check_dialect(comparison, pairs, options)
    if options.dry_run:
        return report(output, comparison, options, Outcome(pairs, [], [], started))
    small = small_changes(comparison, pairs, Wanted(options.biases, options.norms, options.dtype))
    layers = _layers(pairs, options)
    if not small and not any(layer.rank for layer in layers):
        _refuse_nothing(comparison, pairs, layers)
    if options.max_size is not None:
        layers = _fitted(comparison, layers, small, options, output.stem)
    encoded, metadata = _spelt(comparison, (layers, small), options, output.stem)
    with atomic_output(output, force=options.force) as out:
        write_safetensors(out, encoded, metadata)
    return report(output, comparison, options, Outcome(pairs, layers, small, started))


def _layers(pairs: Sequence[Pair], options: ExtractOptions) -> list[Extracted]:
    """What changed, in the order of the pairs."""
    even = even_rank(pairs, options.dtype, options.max_size) if options.max_size is not None else DEFAULT_RANK
    plan = Plan(
        rule=lambda pair: rule_for(options, pair, even),
        dtype=options.dtype,
        exact=options.method == "exact",
        form=lambda pair: form_of(options, pair),
        device=options.device,
        seed=options.seed,
    )
    results = extract_layers(pairs, plan, worker_count(options), options.progress)
    return [layer for layer in results if layer is not None]


def _refuse_nothing(comparison: Comparison, pairs: Sequence[Pair], layers: Sequence[Extracted]) -> NoReturn:
    """Say why there would be nothing in the file.

    Raises:
        IncompatibleCheckpoints, UsageProblem: always.
    """
    if layers:
        message = f"The rule for the ranks keeps nothing of the {len(layers)} modules that changed."
        raise UsageProblem(message, hint="Give it a lower value, or `--rank N` alone.")
    base, tuned = comparison.base.path, comparison.tuned.path
    message = f"{tuned.name} and {base.name} are the same in all {len(pairs)} modules: there is nothing to extract."
    if beside := change_beside(comparison):
        changed = f"{counted(beside)} beside them changed, most of all {most_changed(beside)}"
        hint = f"{changed}; `--biases --norms` extracts those that are biases and norms."
        raise IncompatibleCheckpoints(tuned, message, hint=hint)
    raise IncompatibleCheckpoints(tuned, message, hint="Check that these are the files you mean.")


def _fitted(
    comparison: Comparison,
    layers: Sequence[Extracted],
    small: Sequence[SmallChange],
    options: ExtractOptions,
    name: str,
) -> list[Extracted]:
    """The layers cut so that the whole file keeps to the size.

    Raises:
        UsageProblem: not one direction fits.
    """
    most, kept = options.max_size or 0, [layer for layer in layers if layer.rank]
    for _ in range(2):  # a module that gets nothing takes no room in the header either
        encoded, metadata = _spelt(comparison, (kept, small), replace(options, hash_inputs=False), name)
        whole = (
            _RANKS
            + _DIGESTS * options.hash_inputs
            + len(header_bytes(encoded, metadata))
            + sum(tensor.nbytes for tensor in encoded.values())
        )
        fixed = whole - sum(layer.bytes_per_rank * layer.rank for layer in kept)
        fitted = {layer.module: layer for layer in fit_to_size(kept, most - fixed)}
        kept = [layer for layer in kept if fitted[layer.module].rank]
    if not kept:
        message = f"{len(layers)} modules do not fit into {most} bytes."
        raise UsageProblem(message, hint=f"Names and metadata take {fixed} bytes, and factors come on top of that.")
    return [fitted.get(layer.module, layer.cut(0)) for layer in layers]


def _check_dialect(comparison: Comparison, pairs: Sequence[Pair], options: ExtractOptions) -> None:
    """Fail before the work, not after it: every module has a name, or (with halves swapped) gets one when it is written.

    Raises:
        NotRepresentable: the dialect has no name for a module, or no word for a form of change.
    """
    target, spoken = comparison.architecture, dialect(options.dialect)
    swapped = {part for row in target.fused.values() if row.swapped for part in row.parts}
    for pair in pairs:
        if pair.module.path not in swapped:
            spoken.base(target, pair.module)
    asked = {
        "`--conv tucker`": (Role.MID, options.conv == "tucker" and any(pair.is_kernel for pair in pairs)),
        "`--parametrization lokr`": (Role.LOKR_W1, options.parametrization == "lokr"),
        "`--parametrization full`": (Role.DIFF, options.parametrization == "full"),
        "`--biases`": (Role.DIFF_BIAS, options.biases),
        "`--norms`": (Role.NORM_WEIGHT, options.norms),
    }
    for option, (role, is_asked) in asked.items():
        if is_asked and not any(spoken.says(role, pair.module.component) for pair in pairs):
            message = f"{spoken.id} keys have no place for what {option} makes."
            raise NotRepresentable(role.name, message, hint=f"Leave out {option}, or choose `--to kohya`.")


def _spelt(
    comparison: Comparison,
    changes: tuple[Sequence[Extracted], Sequence[SmallChange]],
    options: ExtractOptions,
    name: str,
) -> tuple[Mapping[str, LazyTensor], Mapping[str, str]]:
    """Tensors and metadata in the dialect asked for.

    Its scale is 1 (alpha = rank), so a dialect without alphas loses nothing.
    """
    layers, small = changes
    spoken = dialect(options.dialect)
    tensors = joined({layer.module: layer.tensors for layer in layers if layer.rank}, small)
    found = {
        module: Layer(
            {
                role: part
                for role, part in parts.items()
                if role is not Role.ALPHA or spoken.says(role, module.component)
            }
        )
        for module, parts in tensors.items()
    }
    adapter = Adapter(comparison.architecture, found, describe(comparison, layers, options, name))
    fitted = fit(adapter, options.dialect).adapter
    return encode(fitted, options.dialect), fitted.metadata
