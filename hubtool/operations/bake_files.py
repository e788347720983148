"""Writes a checkpoint as it was: one file, or a folder with everything that was in it, the changed files replaced."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import OutputExists, StorageProblem, UsageProblem
from hubtool.formats.atomic import atomic_output, reraise, sync_folder
from hubtool.formats.pickle import PickleFile
from hubtool.formats.safetensors import write_safetensors
from hubtool.formats.tensor import nbytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

    from hubtool.formats.safetensors import SafetensorsFile
    from hubtool.formats.tensor import LazyTensor


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A file of the checkpoint with what it is to hold."""

    source: SafetensorsFile
    tensors: Mapping[str, LazyTensor]
    metadata: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """About what it takes on the disk."""
        return self.source.body_start + sum(nbytes(tensor.dtype, tensor.shape) for tensor in self.tensors.values())


def gives_folder(path: Path) -> bool:
    """Whether what a checkpoint is baked to is a folder: it is one, or an index of shards."""
    return path.is_dir() or path.name.endswith(".json")


def check_folder(path: Path, output: Path) -> None:
    """A folder's copy has to be new, even with `--force`, for what is there may hold anything; and lie outside of it.

    Raises:
        UsageProblem: there is something, or the output would be copied into itself.
    """
    if path.is_dir() and path.resolve() in output.resolve().parents:
        message = f"{output} is inside of {path}, which is copied to it."
        raise UsageProblem(message, hint="Choose a place outside of it with `-o`.")
    if os.path.lexists(output):
        message = f"{output} exists, and a folder is written to a new place only."
        raise UsageProblem(message, hint="Choose another name with `-o`.")


def check_kind(files: Sequence[SafetensorsFile]) -> None:
    """What comes out is always safetensors, also in a folder.

    Raises:
        UsageProblem: it holds torch's files, whose names would say something else.
    """
    torch_files = [file.path.name for file in files if isinstance(file, PickleFile)]
    if torch_files:
        message = f"{torch_files[0]} is a torch file in a folder; only single ones can be baked into."
        raise UsageProblem(message, hint="Download the folder's safetensors files.")


def write_checkpoint(path: Path, files: Sequence[Written], output: Path, *, force: bool) -> None:
    """Write all files, all or nothing.

    Raises:
        OutputExists, DiskFull, StorageProblem: from the disk; nothing is left behind.
    """
    if not gives_folder(path):
        with atomic_output(output, force=force) as out:
            _write(out, files[0])
        return
    temporary = output.parent / f".hubtool-{os.urandom(6).hex()}.tmp"
    try:
        root = path if path.is_dir() else path.parent
        _copy_rest(path, temporary, {file.source.path.relative_to(root) for file in files})
        for file in files:
            with atomic_output(temporary / file.source.path.relative_to(root)) as out:
                _write(out, file)
        for index in temporary.rglob("*.index*.json"):
            _restate_size(index)
        if os.path.lexists(output):
            raise OutputExists(output)
        temporary.replace(output)
        sync_folder(output.parent)
    except StorageProblem as error:
        if isinstance(error.__cause__, OSError) and temporary in Path(error.path).parents:
            reraise(error.__cause__, output)  # nobody knows the temporary folder's name
        raise
    except OSError as error:
        reraise(error, output)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)


def _write(out: IO[bytes], file: Written) -> None:
    """The tensors in the order that they had; a torch file's in that of the reference writer."""
    order = sorted(file.tensors, key=lambda key: _start(file.source.tensors[key]))
    write_safetensors(out, file.tensors, file.metadata, None if isinstance(file.source, PickleFile) else order)


def _start(tensor: LazyTensor) -> int:
    return getattr(tensor.data, "start", 0)


def _copy_rest(path: Path, folder: Path, replaced: set[Path]) -> None:
    """Everything of a pipeline's folder but the files that are written anew; of an index, the index alone."""
    folder.mkdir(parents=True)
    if not path.is_dir():
        shutil.copy2(path, folder / path.name)
        return
    for source in sorted(path.rglob("*")):
        relative = source.relative_to(path)
        if source.is_dir():
            (folder / relative).mkdir(exist_ok=True)
        elif relative not in replaced and source.is_file():
            shutil.copy2(source, folder / relative)


def _restate_size(index: Path) -> None:
    """The total that an index states, true of the files beside it."""
    table = json.loads(index.read_text("utf-8"))
    stated = table.get("metadata", {}).get("total_size") if isinstance(table, dict) else None
    if stated is None:
        return
    total = sum(_body(index.parent / name) for name in sorted(set(table["weight_map"].values())))
    if total != stated:
        table["metadata"]["total_size"] = total
        index.write_text(json.dumps(table, indent=2) + "\n", "utf-8")


def _body(path: Path) -> int:
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")
