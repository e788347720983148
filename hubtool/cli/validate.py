"""`hubtool validate`: is a file sound?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import files_argument
from hubtool.cli._output import Row, answer_each, row_of

if TYPE_CHECKING:
    from pathlib import Path

_EXITS = {"ok": 0, "warning": 0, "broken": 10, "refused": 15}


@click.command(cls=HubtoolCommand)
@files_argument
@click.option("--values", is_flag=True, help="Look at every value, in files above 256 MB too.")
def command(files: tuple[Path, ...], *, values: bool) -> None:
    """Say whether files are sound, and what is wrong with them.

    Exits with 0 for ok and warning, 10 for broken, 15 for refused.

    \b
    hubtool validate style.safetensors
    hubtool validate --values *.safetensors
    """
    from hubtool.operations.validate import validate

    def work(path: Path) -> Row:
        found = validate(path, check_all_values=values)
        return row_of(found) | {"_exit": _EXITS[found.verdict]}

    answer_each(files, work, _text)


def _text(row: Row) -> str:
    problems = row["problems"]
    lines, told = [f"{row['path']}: {row['verdict']}"], set[object]()
    for found in problems if isinstance(problems, list) else []:
        lines.append(f"  {found['severity']:<8} {found['message']} [{found['code']}]")
        if found["fix"] not in told:
            lines.append(f"           {found['fix']}")
        told.add(found["fix"])
    return "\n".join(lines)
