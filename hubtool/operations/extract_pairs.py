"""Which weights of two checkpoints are compared, and whether the two belong together at all.

An adapter targets the modules inside repeated blocks, as kohya's trainer does (sd-scripts networks/lora.py: attention and
feed-forward layers, with convolutions also those of resnets and samplers), never input, output and time layers, embeddings,
norms or biases. What they changed is reported, for a LoRA does not carry it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from hubtool.adapters.checkpoint import Checkpoint, Weight, read_checkpoint, same_extent
from hubtool.errors import CheckpointProblem, IncompatibleCheckpoints, UsageProblem
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.dialect import dialect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hubtool.formats.tensor import Shape
    from hubtool.naming.architecture import Architecture

#: Blocks that an adapter touches only when it has convolutions (sd-scripts UNET_TARGET_REPLACE_MODULE_CONV2D_3X3).
_CONVOLUTIONAL = frozenset({"resnets", "downsamplers", "upsamplers"})


class Rows(NamedTuple):
    """Rows of a module's weight in both checkpoints."""

    base: Weight
    tuned: Weight

    @property
    def weights(self) -> tuple[Weight, Weight]:
        """Both."""
        return self.base, self.tuned


class Pair(NamedTuple):
    """One module in both checkpoints."""

    module: ModuleRef
    shape: Shape  # as the architecture has it; a file may store a linear layer as a 1×1 convolution or the reverse
    rows: tuple[Rows, ...]  # one after the other; more than one for a module that stacks several

    @property
    def is_kernel(self) -> bool:
        """A convolution larger than 1×1."""
        return any(side > 1 for side in self.shape[2:])

    @property
    def is_convolutional(self) -> bool:
        """Part of a resnet or sampler."""
        return not _CONVOLUTIONAL.isdisjoint(self.module.path.split("."))

    @property
    def size(self) -> int:
        """Bytes in both files."""
        return sum(weight.tensor.nbytes for rows in self.rows for weight in rows.weights)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Two checkpoints of one architecture, matched."""

    base: Checkpoint
    tuned: Checkpoint
    targets: tuple[Pair, ...]  # in the architecture's order
    beside: tuple[tuple[str, Weight, Weight], ...]  # what an adapter does not carry, by name
    notes: tuple[str, ...]

    @property
    def architecture(self) -> Architecture:
        """The architecture that both have."""
        return self.base.architecture


def compare(base_path: Path, tuned_path: Path, components: Sequence[str] = ()) -> Comparison:
    """Open two checkpoints and match their modules.

    Args:
        base_path: the model that was tuned.
        tuned_path: the tuned model.
        components: ids of the parts to compare (`denoiser`, `clip_l` …; `text_encoders` for all encoders); empty: all.

    Raises:
        FileProblem, CheckpointProblem: one of them cannot be read.
        IncompatibleCheckpoints: they are of different architectures or variants, or lack parts.
        UsageProblem: a component that the architecture does not have.
    """
    base, tuned = _same_architecture(read_checkpoint(base_path), read_checkpoint(tuned_path))
    wanted = _components(base.architecture, components)
    shared = base.components & tuned.components & wanted
    notes = [
        *base.notes,
        *tuned.notes,
        *_absent(base, tuned, wanted, asked=bool(components)),
        *_predictions(base, tuned),
    ]
    if not shared:
        _refuse(tuned, f"{base.path.name} and {tuned.path.name} have no part in common that could be compared.")
    modules = [module for module in _modules(base.architecture) if module.component in shared]
    _check_shapes(base, tuned, modules)
    _check_complete(base, tuned, [module for module in modules if _is_target(module, base.architecture)])
    both = [module for module in modules if module in base.weights and module in tuned.weights]
    targets = tuple(_pair(base, tuned, module) for module in both if _is_target(module, base.architecture))
    if not targets:
        _refuse(tuned, f"{tuned.path.name} and {base.path.name} share no module that an adapter can change.")
    _check_numbers(targets, (base, tuned))
    return Comparison(base, tuned, targets, tuple(_beside(base, tuned, both)), tuple(notes))


def _same_architecture(base: Checkpoint, tuned: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    common = [id for id in base.fits if id in tuned.fits]
    if not common:
        message = f"{base.path.name} is {base.architecture.title}, but {tuned.path.name} is {tuned.architecture.title}."
        _refuse(tuned, message)
    return base.read_as(common[0]), tuned.read_as(common[0])


def prediction_of(checkpoint: Checkpoint) -> str:
    """`v` where the checkpoint says so, by its metadata or by the marker tensor that UIs look for; empty if it is silent."""
    stated = [file.metadata.get("modelspec.prediction_type", "") for file in checkpoint.files]
    return next((text for text in stated if text), "v" if "v_pred" in checkpoint.others else "")


def _predictions(base: Checkpoint, tuned: Checkpoint) -> Iterator[str]:
    """A note if the two were trained to predict different things: a LoRA carries the weights, not that."""
    first, second = (prediction_of(checkpoint).startswith("v") for checkpoint in (base, tuned))
    if first != second:
        name, kinds = tuned.path.name, ("noise", "v")
        yield (
            f"{name} predicts {kinds[second]}, {base.path.name} {kinds[first]}: the program that uses the LoRA has to be "
            f"told so, and nearly every weight differs."
        )


def _components(target: Architecture, names: Sequence[str]) -> frozenset[Component]:
    """The components meant by ids or by the usual words for them."""
    known = {Component.DENOISER, *target.encoders}
    words = {component.value: {component} for component in known}
    words |= {target.denoiser: {Component.DENOISER}, "text_encoders": set(target.encoders)}
    words |= {encoder.diffusers: {encoder.component} for encoder in target.encoders.values()}
    unknown = [name for name in names if name not in words]
    if unknown:
        raise UsageProblem(
            f"{target.title} has no component {unknown[0]!r}.", hint=f"Choose from {', '.join(sorted(words))}."
        )
    return frozenset(known).intersection(set().union(*(words[name] for name in names)) if names else known)


def _absent(base: Checkpoint, tuned: Checkpoint, wanted: frozenset[Component], *, asked: bool) -> Iterator[str]:
    """A note for each part that only one of the two has; an error if it was asked for by name."""
    for component in sorted(wanted & (base.components ^ tuned.components)):
        has, lacks = (base, tuned) if component in base.components else (tuned, base)
        message = f"{component.value} is in {has.path.name} but not in {lacks.path.name}"
        if asked:
            _refuse(tuned, f"{message}.")
        yield f"{message}; it is left out."
    for component in sorted(wanted - base.components - tuned.components) if asked else ():
        _refuse(tuned, f"Neither {base.path.name} nor {tuned.path.name} holds {component.value}.")


def _modules(target: Architecture) -> Iterator[ModuleRef]:
    yield from (ModuleRef(Component.DENOISER, path) for path in target.modules)
    for encoder in target.encoders.values():
        yield from (ModuleRef(encoder.component, path) for path in encoder.modules)


def _is_target(module: ModuleRef, target: Architecture) -> bool:
    """A matrix inside a repeated block, which is what a number in the path says."""
    return len(target.shape(module) or ()) >= 2 and any(part.isdigit() for part in module.path.split("."))


def _check_shapes(base: Checkpoint, tuned: Checkpoint, modules: Sequence[ModuleRef]) -> None:
    for checkpoint in (base, tuned):
        for module in modules:
            if module in checkpoint.weights and 0 in checkpoint.weights[module].tensor.shape:
                _refuse(tuned, f"{module.path} has no elements in {checkpoint.path.name}: the file is incomplete.")
    differing = [
        (module, base.weights[module].tensor.shape, tuned.weights[module].tensor.shape)
        for module in modules
        if module in base.weights
        and module in tuned.weights
        and not same_extent(base.weights[module].tensor.shape, tuned.weights[module].tensor.shape)
    ]
    if not differing:
        return
    module, first, second = differing[0]
    variant = " One of them is an inpainting model." if module.path == "conv_in" and 9 in {first[1], second[1]} else ""
    more = f", and {len(differing) - 1} other weights differ" if len(differing) > 1 else ""
    _refuse(
        tuned,
        f"{module.path} is {list(first)} in {base.path.name} but {list(second)} in {tuned.path.name}{more}.{variant}",
    )


def _check_complete(base: Checkpoint, tuned: Checkpoint, targets: Sequence[ModuleRef]) -> None:
    for has, lacks in ((base, tuned), (tuned, base)):
        missing = [module for module in targets if module in has.weights and module not in lacks.weights]
        if missing:
            more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
            _refuse(
                tuned, f"{lacks.path.name} lacks {missing[0].path}{more}, which {has.path.name} has: a part is missing."
            )


def _check_numbers(targets: Sequence[Pair], checkpoints: tuple[Checkpoint, Checkpoint]) -> None:
    for pair in targets:
        for checkpoint in checkpoints:
            dtype = checkpoint.weights[pair.module].tensor.dtype
            if dtype.startswith(("I", "U", "BOOL")):
                message = (
                    f"{checkpoint.path.name} holds {pair.module.path} as {dtype}, whose scales are not understood."
                )
                raise CheckpointProblem(checkpoint.path, message, hint="Use the checkpoint in bf16 or fp16.")


def _pair(base: Checkpoint, tuned: Checkpoint, module: ModuleRef) -> Pair:
    shape = base.architecture.shape(module)
    stored = base.weights[module].tensor.shape
    # the file's own shape where a variant's differs from the architecture's
    return Pair(
        module,
        shape if shape and same_extent(shape, stored) else stored,
        (Rows(base.weights[module], tuned.weights[module]),),
    )


def as_named(pairs: Sequence[Pair], target: Architecture, dialect_id: str) -> list[Pair]:
    """The same weights by the modules that a dialect names: q, k and v as one where it only knows them stacked.

    Factorised together they get the rank once, as the trainers of such models have it, not once each.
    """
    named = dialect(dialect_id).written(target)
    found = {pair.module: pair for pair in pairs}
    for name, fused in target.fused.items():
        whole = ModuleRef(Component.DENOISER, name)
        parts = [found.get(ModuleRef(Component.DENOISER, path)) for path in fused.parts]
        members = [part for part in parts if part is not None and part.module not in named]
        if whole in named and not fused.swapped and len(members) == len(parts):
            rows = tuple(rows for part in members for rows in part.rows)
            joined = Pair(whole, target.shape(whole) or (), rows)
            # in the place of its first part, so that the order stays the architecture's
            found = {m: joined if m == members[0].module else p for m, p in found.items() if p not in members[1:]}
    return list(found.values())


def _beside(base: Checkpoint, tuned: Checkpoint, both: Sequence[ModuleRef]) -> Iterator[tuple[str, Weight, Weight]]:
    """Everything of equal shape in both that is no target: outer layers, norms, biases, embeddings, the VAE."""
    for module in both:
        if not _is_target(module, base.architecture):
            yield module.path, base.weights[module], tuned.weights[module]
    for module, bias in base.biases.items():
        if module in tuned.biases and module in both and bias.shape == tuned.biases[module].shape:
            yield f"{module.path}.bias", Weight(bias), Weight(tuned.biases[module])
    for key, tensor in base.others.items():
        if key in tuned.others and tensor.shape == tuned.others[key].shape and not key.startswith("model_ema."):
            yield key, Weight(tensor), Weight(tuned.others[key])


def _refuse(tuned: Checkpoint, message: str) -> NoReturn:
    raise IncompatibleCheckpoints(tuned.path, message)
