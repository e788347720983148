"""What `convert` and `normalize` share: options, output names, the text of a result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.adapters.peft_directory import MODEL_NAME
from hubtool.errors import UsageProblem
from hubtool.operations.convert import ConvertOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.cli._output import Row


def convert_options(options: Mapping[str, object], dtypes: Mapping[str, str]) -> ConvertOptions:
    """The operation's options from the command's."""
    given = dict(options)
    dtype = given.pop("dtype", None)
    return ConvertOptions(**given, dtype=dtypes[str(dtype)] if dtype else None)  # type: ignore[arg-type]  # click checked each


def output_for(path: Path, to: str, output: str | None, *, several: bool) -> Path:
    """Where one input goes: the file named, or a name of its own in the folder named, or beside the input.

    A folder is what exists as one, ends in a slash, or is named for several inputs. In PEFT's dialect an output without an
    extension is a folder too, and gets the file names that PEFT looks for; each of several inputs has its own.
    """
    name = f"{path.stem}.{to}.safetensors"
    if output is None:
        return path.with_name(name)
    wanted = Path(output)
    if several and wanted.is_file():
        raise UsageProblem(f"Several inputs need a folder, and {wanted} is a file.", hint="Name a folder with `-o`.")
    is_folder = several or wanted.is_dir() or output.endswith(("/", os.sep))
    if to == "peft" and (is_folder or not wanted.suffix):
        return (wanted / path.stem if several else wanted) / MODEL_NAME
    return wanted / name if is_folder else wanted


def conversion_text(row: Row) -> str:
    """One conversion in a line or two."""
    known = row["architecture"] or "unknown architecture"
    lines = [
        f"{row['output']}",
        f"  {known}, {row['modules']} modules, {row['from']} → {row['to']}, alpha {row['alpha']}",
    ]
    if row["fused"] or row["split"]:
        lines.append(f"  {row['split']} fused modules split, {row['fused']} joined")
    lossy, leftovers = row["lossy"], row["leftovers"]
    if isinstance(lossy, list) and lossy:
        worst = max(lossy, key=lambda loss: float(loss["error"]))
        error = f"{float(worst['error']):.1e} ({worst['module']})"
        lines.append(f"  {len(lossy)} modules are not exact, relative error at most {error}")
    else:
        lines.append("  exact")
    if isinstance(leftovers, list) and leftovers:
        lines.append(f"  {len(leftovers)} tensors were not understood and were copied as they are")
    notes = row["notes"]
    lines += [f"  {note}" for note in notes] if isinstance(notes, list) else []
    return "\n".join(lines)
