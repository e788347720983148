"""Write the generated parts of the docs and the index of outlines, or with --check say which are out of date.

A generated part stands between `<!-- begin NAME -->` and `<!-- end NAME -->` in a Markdown file.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from format_tables import FORMAT_TABLES
from loader_tables import LOADER_TABLES

from hubtool.cli import root
from hubtool.cli._errors import EXITS
from hubtool.naming.outline import INDEX, index_text
from hubtool.operations.rules.problem import CODES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
_PART = re.compile(r"(<!-- begin (?P<name>[\w-]+) -->\n)(.*?)(<!-- end (?P=name) -->)", re.DOTALL)


def commands() -> str:
    """The help text of every command."""
    os.environ["COLUMNS"] = "100"
    parts = [_section(path, command) for path, command in _walk(root, ())]
    return "\n".join(parts)


def _walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1] if path else "hubtool")
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _walk(child, (*path, name))


def _section(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(("hubtool", *path)), max_content_width=100, terminal_width=100)
    text = command.get_help(context)
    if path:  # the global options are the same everywhere: shown once
        text = text.split("\nGlobal options:")[0]
    title = " ".join(("hubtool", *path))
    return f"## {title}\n\n```text\n{text.rstrip()}\n```\n"


def command_table() -> str:
    """One line a command."""
    rows = ["| command | what it does |", "|---|---|"]
    for path, command in _walk(root, ()):
        if path and not isinstance(command, click.Group):
            rows.append(f"| `{' '.join(path)}` | {command.get_short_help_str(200)} |")
    return "\n".join(rows) + "\n"


def exits() -> str:
    """Exit codes and the error codes that lead to them."""
    rows = ["| exit | code | when |", "|---|---|---|", "| 0 | | fine |"]
    rows += [
        f"| {number} | `{code}` | {when} |" for code, (number, when) in sorted(EXITS.items(), key=lambda r: r[1][0])
    ]
    return "\n".join(rows) + "\n"


def problems() -> str:
    """Everything that validation can say."""
    rows = ["| code | severity | what it means | what to do |", "|---|---|---|---|"]
    rows += [f"| `{code}` | {row.severity} | {row.sentence} | {row.fix} |" for code, row in CODES.items()]
    return "\n".join(rows) + "\n"


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "command-table": command_table,
    "exits": exits,
    "problems": problems,
    **FORMAT_TABLES,
    **LOADER_TABLES,
}


def main() -> int:
    """Write or check every generated part."""
    stale = []
    index = index_text()
    if not INDEX.exists() or INDEX.read_text("utf-8") != index:
        stale.append(INDEX)
        if "--check" not in sys.argv:
            INDEX.write_text(index, "utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text("utf-8")
        fresh = _PART.sub(lambda found: f"{found[1]}{PARTS[found['name']]()}{found[4]}", text)
        if fresh != text:
            stale.append(path)
            if "--check" not in sys.argv:
                path.write_text(fresh, "utf-8")
    if stale and "--check" in sys.argv:
        sys.stderr.write(f"Out of date: {', '.join(str(p.relative_to(ROOT)) for p in stale)}. Run scripts/docs.py.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
