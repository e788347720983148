"""Extract a LoRA from a tuned checkpoint and the base it was trained from: ΔW = tuned − base, factorised module by module.

Streaming: both checkpoints stay files, and memory holds a few modules at a time. The method is `hubtool.operations.svd`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.codec import encode
from hubtool.adapters.fusion import fit
from hubtool.adapters.layer import Layer
from hubtool.errors import IncompatibleCheckpoints
from hubtool.formats.atomic import atomic_output
from hubtool.formats.safetensors import write_safetensors
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
from hubtool.operations.extract_report import Extraction, Outcome, report
from hubtool.operations.extract_small import SmallChange, Wanted, joined, small_changes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ExtractOptions", "Extraction", "extract"]


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
    _check_dialect(comparison, pairs, options.dialect)
    if options.dry_run:
        return report(output, comparison, options, Outcome(pairs, [], [], started))
    small = small_changes(comparison, pairs, Wanted(options.biases, options.norms, options.dtype))
    layers = _layers(pairs, options)
    if not layers and not small:
        message = f"{tuned.name} and {base.name} are the same in all {len(pairs)} modules: there is nothing to extract."
        raise IncompatibleCheckpoints(tuned, message, hint="Check that these are the files you mean.")
    _write(output, comparison, (layers, small), options)
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
    layers = [layer for layer in results if layer is not None]
    return layers if options.max_size is None else fit_to_size(layers, options.max_size)


def _check_dialect(comparison: Comparison, pairs: Sequence[Pair], dialect_id: str) -> None:
    """Fail before the work, not after it: every module has a name, or (with halves swapped) gets one when it is written."""
    target, spoken = comparison.architecture, dialect(dialect_id)
    swapped = {part for row in target.fused.values() if row.swapped for part in row.parts}
    for pair in pairs:
        if pair.module.path not in swapped:
            spoken.base(target, pair.module)


def _write(
    output: Path,
    comparison: Comparison,
    changes: tuple[Sequence[Extracted], Sequence[SmallChange]],
    options: ExtractOptions,
) -> None:
    """The adapter in the dialect asked for. Its scale is 1 (alpha = rank), so a dialect without alphas loses nothing."""
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
    adapter = Adapter(comparison.architecture, found, describe(comparison, layers, options, output.stem))
    fitted = fit(adapter, options.dialect).adapter
    encoded = encode(fitted, options.dialect)
    with atomic_output(output, force=options.force) as out:
        write_safetensors(out, encoded, fitted.metadata)
