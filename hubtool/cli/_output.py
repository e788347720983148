"""The answer on stdout: one JSON document, or text for people; talk goes to stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import click

from hubtool.cli._context import current_run
from hubtool.cli._errors import STEERING, describe, exit_code, printable_lines
from hubtool.errors import HubtoolError

if TYPE_CHECKING:
    from typing import TypeVar

    Input = TypeVar("Input")

Row = dict[str, object]
_JSON_TYPES = frozenset({str, int, float, bool, type(None)})


def plain(value: object) -> object:
    """Anything our operations return, as JSON knows it; a trailing `_` (from_) is dropped from field names."""
    kind: type = type(value)
    if kind in _JSON_TYPES:
        return value
    if fields := _fields(kind):
        return {shown: plain(getattr(value, name)) for name, shown in fields}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        entries = [plain(entry) for entry in value]
        return sorted(entries, key=str) if isinstance(value, (set, frozenset)) else entries
    value = value.value if isinstance(value, enum.Enum) else value
    return str(value) if isinstance(value, PurePath) else value


@functools.cache
def _fields(record: type) -> list[tuple[str, str]]:
    """Names of a dataclass' fields, as they are and as they are shown; none of another type."""
    if not dataclasses.is_dataclass(record):
        return []
    return [(field.name, field.name.rstrip("_")) for field in dataclasses.fields(record)]


def row_of(value: object) -> Row:
    """The JSON object of a dataclass or mapping."""
    table = plain(value)
    if not isinstance(table, dict):
        raise TypeError(f"{type(value).__name__} is no record")
    return table


def answer(fields: Mapping[str, object], text: Callable[[], str]) -> None:
    """Print the contract's document with --json, else what `text` returns (built only then)."""
    command = _command_name()
    if current_run().json:
        document = {"schema": 1, "command": command} | {key: plain(value) for key, value in fields.items()}
        click.echo(safe_json(document).encode("utf-8"))
        return
    _show(text(), fields)


def safe_json(document: object) -> str:
    """JSON on one line, Unicode as it is but for what could steer a terminal or is half a character: that is escaped."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, default=str)
    return text if text.isprintable() else STEERING.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _show(shown: str, fields: Mapping[str, object]) -> None:
    """Print text for people; a bare value (a path, a prompt, or one a line) goes into a pipe byte by byte, for programs."""
    if not shown:
        return
    if (safe := printable_lines(shown)) != shown and not sys.stdout.isatty() and _is_bare(shown, fields):
        with contextlib.suppress(UnicodeEncodeError):  # half a character, which no file name can have
            click.echo(shown.encode("utf-8", "surrogateescape"))
            return
    click.echo(safe)


def _is_bare(shown: str, fields: Mapping[str, object]) -> bool:
    """Whether a text is nothing but values of the answer, as they are in its JSON."""
    lists = [plain(value) for value in fields.values()]
    values = {
        entry for value in lists for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str)
    }
    return shown in values or values.issuperset(shown.split("\n"))


def answer_each(
    inputs: Sequence[Input], work: Callable[[Input], Row], text: Callable[[Row], str], *, name: str = "path"
) -> None:
    """Answer `results`, one row an input in input order; a failed row carries its error, and decides the exit code.

    `work` returns a row without `error`; `text` turns a good row into lines for people. A row may carry its own
    `_exit` code (validate's verdicts do), which is not printed.
    """
    rows: list[Row] = []
    codes: list[int] = []
    for entry in inputs:
        try:
            row = work(entry)
            codes.append(int(str(row.pop("_exit", 0))))
            rows.append(row | {"error": None})
        except HubtoolError as error:
            if current_run().debug:
                import traceback

                traceback.print_exception(error)
            rows.append({name: plain(entry), "error": describe(error)})
            codes.append(exit_code(error.code))
    show_rows(rows, text)
    finish(codes)


def show_rows(rows: Sequence[Row], text: Callable[[Row], str]) -> None:
    """Print result rows: JSON as a whole, or good rows as text and failed ones as a sentence on stderr."""
    if current_run().json:
        answer({"results": rows}, str)
        return
    for row in rows:
        fault = row.get("error")
        if isinstance(fault, Mapping):
            name, message = str(next(iter(row.values()))), str(fault["message"])
            say(message if len(rows) == 1 or name in message else f"{name}: {message}", always=True)
            if fault.get("hint"):
                say(f"Hint: {fault['hint']}", always=True)
            continue
        _show(text(row), row)


def finish(codes: Sequence[int]) -> None:
    """Exit as the contract says."""
    if code := verdict(codes):
        raise click.exceptions.Exit(code)


def verdict(codes: Sequence[int]) -> int:
    """The exit code of several attempts: all the same code → that code; some failed → 17; none → 0."""
    different = set(codes)
    return 17 if len(different) > 1 else next(iter(different), 0)


def verdict_of(attempts: int, errors: Sequence[HubtoolError]) -> int:
    """The exit code of so many attempts, of which some failed."""
    return verdict([*(exit_code(error.code) for error in errors), *[0] * (attempts - len(errors))])


def say(text: str, *, always: bool = False) -> None:
    """Talk to the person, on stderr; silent with --quiet unless `always`."""
    if always or not current_run().quiet:
        click.echo(printable_lines(text), err=True)


def shown(value: object) -> str:
    """A value of a row as people read it."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def table(rows: Sequence[Sequence[object]], headings: Sequence[str]) -> str:
    """Columns for people, cut to the terminal's width; plain text, safe for hostile content. A pipe sees whole values."""
    if not sys.stdout.isatty():
        return _aligned([headings, *rows])
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        grid.add_column(
            heading, overflow="fold" if heading == headings[0] else "ellipsis", no_wrap=heading != headings[0]
        )
    for row in rows:
        grid.add_row(*(Text(printable_lines(str(cell))) for cell in row))
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _aligned(rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, one line a row; tens of thousands of rows a second."""
    from rich.cells import cell_len

    cells = [[" ".join(printable_lines(str(cell)).split("\n")) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def show_progress() -> bool:
    """Whether progress bars are wanted: a terminal on stderr and nothing that forbids them."""
    run = current_run()
    return sys.stderr.isatty() and not (run.quiet or run.no_progress or run.json)


def _command_name() -> str:
    context = click.get_current_context()
    return context.command_path.removeprefix("hubtool").strip() or context.info_name or ""
