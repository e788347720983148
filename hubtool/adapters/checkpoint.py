"""Reads a checkpoint's weights by what they are, whatever layout it has: one file, shards, or a diffusers folder.

Only headers are read; weights stay on disk until somebody looks at them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.adapters.checkpoint_layouts import Place, place
from hubtool.errors import CheckpointProblem, FileMissing
from hubtool.formats.pickle import PickleFile, is_torch_file, read_pickle
from hubtool.formats.safetensors import SafetensorsFile, read_safetensors
from hubtool.formats.tensor import FileBytes
from hubtool.naming.architecture import Architecture, architecture
from hubtool.naming.identify import family
from hubtool.naming.outline import shortlist

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.formats.tensor import LazyTensor
    from hubtool.naming.address import Component, ModuleRef

#: Tensors of these parts say nothing about the architecture and are never the target of an adapter.
_ASIDE = ("first_stage_model.", "vae/", "vae.", "model_ema.", "safety_checker/", "image_encoder/")
_EMA = "model_ema."
_ENCODERS = ("cond_stage_model.", "conditioner.", "text_encoder")  # where keys of text encoders begin
_USUAL_NAMES = (
    "diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.bin", "pytorch_model.bin",
)  # fmt: skip
#: The kinds of weight files, the best first; torch's own are read as data, and nothing in them is run.
_KINDS = ("safetensors", "bin", "ckpt", "pt", "pth")


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A module's weight as it is stored; its values are `tensor` times `scale`."""

    tensor: LazyTensor
    scale: float = 1.0  # other than 1 only for scaled float8


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The weights of a base model or a tuned one."""

    path: Path
    architecture: Architecture
    fits: tuple[str, ...]  # every architecture that explains the keys equally well
    weights: Mapping[ModuleRef, Weight]
    biases: Mapping[ModuleRef, LazyTensor]
    others: Mapping[str, LazyTensor]  # keys that are no module's: VAE, embeddings, schedules
    files: tuple[SafetensorsFile, ...]
    notes: tuple[str, ...]  # what a reader should know about how it was read

    @property
    def components(self) -> frozenset[Component]:
        """The parts that it holds."""
        return frozenset(module.component for module in self.weights)

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def header_sha256(self) -> str:
        """SHA-256 of the files' headers: identifies the checkpoint's layout without reading its gigabytes."""
        digest = sha256()
        for file in self.files:
            header = file.described if isinstance(file, PickleFile) else FileBytes(file.file, 0, file.body_start)
            digest.update(file.file.view(header.start, header.stop))
        return digest.hexdigest()

    def read_as(self, architecture_id: str) -> Checkpoint:
        """The same checkpoint under another of the architectures that it fits."""
        if architecture_id == self.architecture.id:
            return self
        return replace(_assemble(self.path, _sources(self.path), architecture(architecture_id)), fits=self.fits)


@dataclass(frozen=True, slots=True, eq=False)
class _Sources:
    """The files of a checkpoint, and their tensors with the folder's name in front of the key."""

    files: tuple[SafetensorsFile, ...]
    tensors: Mapping[str, LazyTensor]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint: a safetensors or torch file, an index of shards, or a folder of either or of a diffusers pipeline.

    Raises:
        FileProblem: a file is missing, damaged, of another kind, or a pickle that asks for more than tensors.
        CheckpointProblem: the folder holds no weights, or no known architecture explains the keys.
    """
    sources = _sources(path)
    fits = _fitting(sources.tensors)
    if not fits:
        _refuse(path, sources)
    return replace(_assemble(path, sources, architecture(fits[0])), fits=fits)


def _assemble(path: Path, sources: _Sources, target: Architecture) -> Checkpoint:
    kinds: dict[str, dict[ModuleRef, LazyTensor]] = {"weight": {}, "bias": {}, "scale": {}}
    others: dict[str, LazyTensor] = {}
    for key, tensor in sources.tensors.items():
        found = None if key.startswith(_ASIDE) else place(target, key)
        if found is None:
            others[key] = tensor
            continue
        for module, part in _parts(found, tensor, target):
            kinds[found.kind].setdefault(module, part)
    scales = {module: _scale(path, module, tensor) for module, tensor in kinds["scale"].items()}
    weights = {module: Weight(tensor, scales.get(module, 1.0)) for module, tensor in kinds["weight"].items()}
    notes = sources.notes
    averaged = sum(key.startswith(_EMA) for key in others)
    if averaged:
        notes += (f"{path.name} holds {averaged} averaged (EMA) tensors beside the weights; they are not compared.",)
    return Checkpoint(path, target, (target.id,), weights, kinds["bias"], others, sources.files, notes)


def _parts(found: Place, tensor: LazyTensor, target: Architecture) -> list[tuple[ModuleRef, LazyTensor]]:
    """A stacked tensor cut into its modules' rows; a scalar (a scale) belongs to each."""
    if found.swapped and tensor.shape and not tensor.shape[0] % 2:
        tensor = _halves_swapped(tensor)
    if len(found.modules) == 1 or not tensor.shape:
        return [(module, tensor) for module in found.modules]
    parts, start = [], 0
    for module in found.modules:
        rows = (target.shape(module) or (0,))[0]
        if start + rows > tensor.shape[0]:
            return []
        parts.append((module, tensor.rows(start, start + rows)))
        start += rows
    return parts


def _halves_swapped(tensor: LazyTensor) -> LazyTensor:
    """The second half of the rows first, once somebody looks at them."""
    half = tensor.shape[0] // 2
    upper, lower = tensor.rows(0, half), tensor.rows(half, 2 * half)
    return replace(tensor, data=lambda: memoryview(bytes(lower.view()) + bytes(upper.view())))


def _scale(path: Path, module: ModuleRef, tensor: LazyTensor) -> float:
    """The number that a module's float8 weight is multiplied with.

    Raises:
        CheckpointProblem: there are several.
    """
    if prod(tensor.shape) != 1:
        message = (
            f"{path.name} scales {module.path} by {list(tensor.shape)} numbers; only one for each weight is understood."
        )
        raise CheckpointProblem(path, message, hint="Use the checkpoint in bf16 or fp16.")
    return tensor.scalar()


# ---------------------------------------------------------------- architecture


def _fitting(tensors: Mapping[str, LazyTensor]) -> tuple[str, ...]:
    """Ids of the architectures that explain the most weights by name and shape, if that is half of them; the likeliest first."""
    matrices = {key: tensor for key, tensor in tensors.items() if _is_matrix(key, tensor)}
    denoiser = [key.replace("/", ".").removesuffix(".weight") for key in matrices if not key.startswith(_ENCODERS)]
    explained = {id: _explained(architecture(id), matrices) for id in shortlist(denoiser)}
    best = max((len(modules) for modules in explained.values()), default=0)
    if not best or 2 * best < len(matrices):
        return ()
    ties = [architecture(id) for id, modules in explained.items() if len(modules) == best]
    ties.sort(key=lambda target: (-_whole_families(target, explained[target.id]), target.prior))
    return tuple(target.id for target in ties)


def _is_matrix(key: str, tensor: LazyTensor) -> bool:
    return len(tensor.shape) >= 2 and key.endswith("weight") and not key.startswith(_ASIDE)


def _explained(target: Architecture, matrices: Mapping[str, LazyTensor]) -> list[tuple[ModuleRef, ...]]:
    """The modules of each weight that has a name and a shape of this architecture."""
    places = ((place(target, key), tensor) for key, tensor in matrices.items())
    return [found.modules for found, tensor in places if found is not None and _has_shape(target, found, tensor)]


def _has_shape(target: Architecture, found: Place, tensor: LazyTensor) -> bool:
    if len(found.modules) > 1:
        shapes = [target.shape(module) or (0,) for module in found.modules]
        return tensor.shape == (sum(shape[0] for shape in shapes), *shapes[0][1:])
    return any(same_extent(tensor.shape, shape) for shape in target.shapes(found.modules[0]))


def _whole_families(target: Architecture, explained: list[tuple[ModuleRef, ...]]) -> int:
    """How many kinds of denoiser modules are there in full: tells a model from one with more blocks."""
    there = Counter(family(module.path) for modules in explained for module in modules)
    return sum(there[name] == count for name, count in Counter(map(family, target.modules)).items())


def same_extent(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether two weights have as many rows and columns (a 1×1 convolution is a linear layer).

    >>> same_extent((320, 320, 1, 1), (320, 320))
    True
    """
    return (first[:1], prod(first[1:])) == (second[:1], prod(second[1:]))


def _refuse(path: Path, sources: _Sources) -> None:
    if any(".lora_" in key or key.startswith("lora_") for key in sources.tensors):
        raise CheckpointProblem(
            path,
            f"{path.name} is a LoRA, not a checkpoint.",
            hint="Name a whole model's weights there; `hubtool bake` takes them first, the LoRAs after.",
        )
    if sources.tensors and all(key.startswith(_EMA) for key in sources.tensors):
        message = f"{path.name} holds nothing but averaged (EMA) weights, under names that no program loads."
        raise CheckpointProblem(path, message, hint="Use the checkpoint that they belong to.")
    raise CheckpointProblem(
        path,
        f"The weights of {path.name} fit no architecture that is known.",
        hint="`hubtool inspect` says what it holds.",
    )


# ---------------------------------------------------------------- files


def _sources(path: Path) -> _Sources:
    if not path.is_dir():
        files = _shards(path) if path.name.endswith(".json") else [path]
        return _opened(path, {"": files}, ())
    folders = {f"{folder.name}/": folder for folder in sorted(path.iterdir()) if folder.is_dir()}
    notes: list[str] = []
    found = {prefix: _weight_files(folder, notes) for prefix, folder in folders.items()}
    found = {prefix: files for prefix, files in found.items() if files} or {"": _weight_files(path, notes)}
    if not any(found.values()):
        raise CheckpointProblem(
            path,
            f"{path} holds no weights.",
            hint="Name a checkpoint file, or a diffusers folder with unet/ or transformer/ in it.",
        )
    return _opened(path, found, tuple(notes))


def _opened(path: Path, found: Mapping[str, list[Path]], notes: tuple[str, ...]) -> _Sources:
    files: list[SafetensorsFile] = []
    tensors: dict[str, LazyTensor] = {}
    for prefix, paths in found.items():
        for shard in paths:
            files.append(read_pickle(shard) if is_torch_file(shard) else read_safetensors(shard))
            tensors.update((prefix + key, tensor) for key, tensor in files[-1].tensors.items())
    if not tensors:
        raise CheckpointProblem(path, f"{path.name} holds no tensors.", hint="Check the file.")
    return _Sources(tuple(files), tensors, notes)


def _weight_files(folder: Path, notes: list[str]) -> list[Path]:
    """The files of one component: its shards, or its one file; of several variants the one in full precision."""
    kind = next((kind for kind in _KINDS if any(folder.glob(f"*.{kind}"))), _KINDS[0])
    indices = sorted(folder.glob(f"*.{kind}.index*.json")) + sorted(folder.glob(f"*.{kind}.*.index.json"))
    if indices:
        return _shards(indices[0])
    files = sorted(folder.glob(f"*.{kind}"))
    usual = [file for file in files if file.name in _USUAL_NAMES]
    chosen = (usual or files)[:1]
    if len(files) > 1:
        notes.append(f"{folder.name} holds {len(files)} variants of its weights; {chosen[0].name} was read.")
    return chosen


def _shards(index: Path) -> list[Path]:
    """The files that an index lists, all in its own folder."""
    try:
        table = json.loads(index.read_text("utf-8"))
        names = sorted(set(table["weight_map"].values()))
    except FileNotFoundError as error:
        raise FileMissing(index, f"There is no file {index}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointProblem(
            index, f"{index.name} is no index of shards.", hint="Download the folder again."
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointProblem(index, f"{index.name} points outside its folder.", hint="Do not trust this folder.")
    return [index.parent / name for name in names]
