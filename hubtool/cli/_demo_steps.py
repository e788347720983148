"""The steps of the demonstration: what a person would type, and how to see that it did what it says.

Paths are relative to the demonstration's folder. Every check looks at the files or the printed answer, never at our own
bookkeeping.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError
from hubtool.formats.hashing import hash_file
from hubtool.formats.safetensors import read_safetensors
from hubtool.hubs.sample.catalogue import offers
from hubtool.hubs.sample.made import made
from hubtool.operations.inspect import inspect

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubtool.hubs.sample.catalogue import Offer

_SAMPLE = ("--hub", "sample")
_LORAS = Path("models/Lora")  # where A1111 keeps them
_EXTRACTED = Path("extracted.safetensors")
_MAX_ERROR = 0.02  # relative; what is left is the rounding of the checkpoints to F16
_FOUND, _FREE = 3005, 3008  # ids of files: the one that is searched for and installed, and one to download
_FOLDED = 3007  # has alpha = rank / 2


@dataclass(frozen=True, slots=True)
class Output:
    """What a command left: exit code, stdout, stderr."""

    code: int
    answer: str
    talk: str


def _nothing() -> None:
    """Most steps need no preparation."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command line without the `hubtool`, and its check."""

    name: str
    arguments: tuple[str, ...]
    check: Callable[[Output], str]  # says what was found to be true; raises Unmet
    prepare: Callable[[], None] = _nothing
    note: str = ""  # what was prepared


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps for this machine."""

    steps: tuple[Step, ...]
    left_out: tuple[str, ...]


class Unmet(HubtoolError):
    """A command did not do what it promised."""


def steps(*, has_torch: bool) -> Plan:
    """Search to prompt; what needs torch only where it is."""
    installed = [_offer(_FOUND), *([_offer(_FOLDED)] if has_torch else [])]
    sources = [_LORAS / offer.file.name for offer in installed]
    renamed = [Path(f"{path.stem}.diffusers.safetensors") for path in sources]
    back = [Path(f"{path.stem}.kohya.safetensors") for path in renamed]
    name = sources[0].stem
    plan = [
        Step("Find a LoRA", (*_SAMPLE, "search", "lantern", "--base", "SDXL 1.0"), _check_search),
        Step("Read about it", (*_SAMPLE, "info", str(installed[0].model.id)), _check_info),
        Step(
            "Download another one, verified",
            (*_SAMPLE, "download", f"v:{_offer(_FREE).version.id}", "-o", "downloads"),
            partial(_check_file, Path("downloads") / _offer(_FREE).file.name, _offer(_FREE)),
        ),
        Step(
            "Install into the folder that A1111 reads, with sidecars and preview",
            (*_SAMPLE, "install", *(str(offer.model.id) for offer in installed)),
            partial(_check_installed, sources, installed),
        ),
        Step("See what is installed", ("list",), partial(_check_listed, sources)),
        Step("See what a file is", ("inspect", str(sources[0])), partial(_check_inspected, sources[0])),
        Step("See whether it is sound", ("validate", str(sources[0]), "--values"), partial(_check_valid, sources[0])),
        Step(
            "Rewrite in diffusers' names",
            ("convert", *map(str, sources), "--to", "diffusers", "-o", "."),
            partial(_check_dialect, renamed, "diffusers"),
        ),
        Step(
            "And back: the same bytes",
            ("convert", *map(str, renamed), "--to", "kohya", "-o", "."),
            partial(_check_same, sources, back),
        ),
    ]
    if has_torch:
        plan.append(
            Step(
                "Extract a LoRA from a tuned checkpoint",
                ("extract", "tuned.safetensors", "--base", "base.safetensors", "-o", str(_EXTRACTED), "--rank", "4"),
                _check_extracted,
                _write_checkpoints,
                "base.safetensors and tuned.safetensors were made on the spot: a few modules with SD 1.5's names and shapes",
            )
        )
    text = f"a quiet street, paper lantern glow <lora:{name}:0.8>"
    plan.append(Step("See what a prompt uses", ("prompt", "parse", text), partial(_check_prompt, sources[0])))
    left_out = () if has_torch else ("converting a file whose alphas must be folded", "extracting from checkpoints")
    return Plan(tuple(plan), left_out)


def _offer(file_id: int) -> Offer:
    return next(offer for offer in offers() if offer.file.id == file_id)


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001  # the claim itself
    if not holds:
        raise Unmet(otherwise)


# ---------------------------------------------------------------- checks


def _check_search(output: Output) -> str:
    found = _offer(_FOUND).model
    _require(str(found.id) in output.answer and found.name in output.answer, f"{found.name} was not found.")
    return f"{found.name} is model {found.id} of the sample hub"


def _check_info(output: Output) -> str:
    digest = made(_offer(_FOUND)).hashes["SHA256"].lower()
    _require(digest in output.answer, "The hash that the hub publishes is not shown.")
    return "the SHA-256 shown is that of the file"


def _check_file(path: Path, offer: Offer, _: Output) -> str:
    published = made(offer).hashes["SHA256"].lower()
    _require(hash_file(path).sha256 == published, f"{path} is not the file that the hub has.")
    return f"{path.name} has the published SHA-256 {published[:12]}…"


def _check_installed(paths: list[Path], offered: list[Offer], output: Output) -> str:
    for path, offer in zip(paths, offered, strict=True):
        _check_file(path, offer, output)
        for sidecar in (".json", ".civitai.info", ".preview.png"):
            _require(path.with_name(path.stem + sidecar).is_file(), f"{path.stem}{sidecar} is missing.")
    return f"{_counted(len(paths), 'file')} with the published SHA-256, each with .json, .civitai.info and .preview.png"


def _check_listed(paths: list[Path], output: Output) -> str:
    for path in paths:
        _require(path.stem in output.answer, f"{path.stem} is not listed.")
    return f"{_counted(len(paths), 'file')} in the index, with base model and trigger words"


def _check_inspected(path: Path, _: Output) -> str:
    found = inspect(path)
    recipe = _offer(_FOUND).file.recipe
    _require(found.architecture == recipe.architecture, f"The architecture is not {recipe.architecture}.")
    _require(found.dialect == recipe.dialect, f"The dialect is not {recipe.dialect}.")
    _require(found.coverage == 1, "Some tensors were not understood.")
    return f"{found.architecture} in the {found.dialect} dialect, every one of its {found.tensors} tensors understood"


def _check_valid(path: Path, output: Output) -> str:
    _require(f"{path}: ok" in output.answer, "The file is not found sound.")
    return "no problem in header, keys, shapes or values"


def _check_dialect(paths: list[Path], dialect: str, _: Output) -> str:
    for path in paths:
        found = inspect(path)
        _require(found.dialect == dialect, f"{path.name} is not in the {dialect} dialect.")
        _require(found.coverage == 1, f"Some tensors of {path.name} were not understood.")
    return f"{_counted(len(paths), 'file')} in the {dialect} dialect, every tensor understood"


def _check_same(sources: list[Path], back: list[Path], _: Output) -> str:
    count = 0
    for source, returned in zip(sources, back, strict=True):
        first, second = read_safetensors(source), read_safetensors(returned)
        _require(first.tensors.keys() == second.tensors.keys(), f"{returned.name} has other keys than {source.name}.")
        for key, tensor in first.tensors.items():
            other = second.tensors[key]
            same = (tensor.dtype, tensor.shape, tensor.view()) == (other.dtype, other.shape, other.view())
            _require(same, f"{key} of {returned.name} differs.")
        count += len(first.tensors)
    return f"byte-equal: {count} tensors have the same keys, shapes, alphas and bytes as before"


def _write_checkpoints() -> None:
    from hubtool.hubs.sample.checkpoints import write_pair

    write_pair(Path())


def _check_extracted(_: Output) -> str:
    from hubtool.hubs.sample.checkpoints import Pair, missed

    found = inspect(_EXTRACTED)
    _require(
        (found.architecture, found.dialect) == ("sd1", "kohya"),
        "What was extracted is no SD 1.5 LoRA in kohya's names.",
    )
    error = missed(Pair(Path("base.safetensors"), Path("tuned.safetensors")), _EXTRACTED)
    _require(error < _MAX_ERROR, f"The LoRA misses the difference by {error:.1%}.")
    return f"{found.modules} modules of sd1; what the LoRA adds is the difference of the two up to {error:.2%}"


def _check_prompt(path: Path, output: Output) -> str:
    _require(path.name in output.answer, f"The tag does not lead to {path}.")
    return "the tag leads to the installed file"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
