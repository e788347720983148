"""From exceptions to exit codes: the one table, and the only place that catches.

The codes are those of the official civitai tool (0–6) with our own from 10 on; docs/exit-codes.md is generated from here.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import click

from hubtool.cli._context import Run, current_run
from hubtool.errors import HubtoolError, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

#: JSON `code` → (exit code, when).
EXITS: Mapping[str, tuple[int, str]] = {
    "error": (1, "anything else"),
    "exists": (1, "the output is already there"),
    "storage": (1, "the disk refused"),
    "disk_full": (1, "no space left"),
    "missing_extra": (1, "an optional package is not installed"),
    "library": (1, "the library, its trash or its records do not allow it"),
    "usage": (2, "wrong arguments"),
    "unknown_dialect": (2, "no dialect has this id"),
    "needs_token": (3, "login needed"),
    "forbidden": (3, "logged in and still refused"),
    "browser_needed": (3, "the host hands its files to browsers only"),
    "not_found": (4, "the hub has no such thing"),
    "file_not_found": (4, "no file at this path"),
    "not_installed": (4, "the library, or the manifest, has nothing of that name"),
    "network": (5, "no connection, or a hub that fails"),
    "bad_answer": (5, "an answer that is not the hub's API"),
    "hub": (5, "any other failure of a hub"),
    "rate_limited": (6, "too many requests"),
    "broken_file": (10, "the file is damaged"),
    "truncated_file": (10, "the file ends too early"),
    "hash_mismatch": (10, "not the bytes the hub promised"),
    "wrong_file": (10, "a web page or archive instead of the file"),
    "broken_adapter": (10, "tensors of a module are missing or do not go together"),
    "non_finite": (10, "NaN or infinity among the values"),
    "early_access": (11, "paid for now"),
    "not_convertible": (12, "the target cannot say this"),
    "not_an_adapter": (12, "no LoRA-family file"),
    "unknown_architecture": (12, "no architecture explains the file"),
    "incompatible_checkpoints": (12, "two checkpoints that do not belong together"),
    "incompatible_adapters": (12, "adapters of different base models"),
    "checkpoint": (12, "a checkpoint that cannot be used"),
    "key_clash": (12, "two tensors would get one key"),
    "adapter": (12, "any other problem of an adapter"),
    "naming": (12, "any other problem of a name"),
    "ambiguous": (13, "it can mean several things"),
    "offline": (14, "offline and not at hand"),
    "unsafe_file": (15, "a file that could run code, or is not what its name says"),
    "not_a_file": (15, "a folder, pipe or device"),
    "unsafe_address": (15, "an answer that points where it must not"),
    "lock_out_of_date": (16, "the lock file is not what the manifest asks for"),
    "partial": (17, "some of several failed"),
    "interrupted": (130, "Ctrl-C"),
    "terminated": (143, "SIGTERM"),
}
EXITS_OF_BASES = {"file": 10}

#: What steers a terminal, or is half a character: controls but for newline and tab, line separators, Unicode's Bidi_Control.
#: Not "what cannot be printed": joiners, variation selectors and wide blanks are invisible, and text is another without them.
STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def exit_code(code: str) -> int:
    """The process exit code of an error code."""
    if code in EXITS:
        return EXITS[code][0]
    return EXITS_OF_BASES.get(code, 1)


def describe(error: HubtoolError) -> dict[str, object]:
    """The contract's error object."""
    hint = _hint(error, current_run().command)
    return {"code": error.code, "exit": exit_code(error.code), "message": str(error), "hint": hint}


def run_guarded(command: click.Command, arguments: list[str] | None) -> int:
    """Run a command; report whatever it raises; return the exit code."""
    run = Run()
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with command.make_context("hubtool", list(arguments), obj=run) as context:
            command.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except BrokenPipeError:
        # the reader of our output went away, as `head` does: nothing to report, nobody to report to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # the outermost border: no traceback unasked
        return _report(run, arguments, error)
    return 0


def _hint(error: HubtoolError, command: str) -> str:
    """What to try next; an error that nobody gave a hint refers to the command that runs."""
    return f"See `{f'hubtool {command}'.strip()} --help`." if error.hint == UsageProblem.hint else error.hint


def _answer(run: Run, error: BaseException) -> tuple[str, str, str]:
    """(code, message, hint) of anything that ended a command."""
    if isinstance(error, HubtoolError):
        return error.code, str(error), _hint(error, run.command)
    if isinstance(error, Terminated):
        return "terminated", "Ended from outside; what was finished is kept.", ""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted", "Interrupted; what was finished is kept.", ""
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        message = " ".join(error.format_message().split())  # click lists choices on lines of their own
        hint = f"See `{context.command_path} --help`." if context else "See `hubtool --help`."
        return "usage", message if message.endswith((".", "?")) else f"{message}.", hint
    return _unforeseen(error)


def _unforeseen(error: BaseException) -> tuple[str, str, str]:
    """(code, message, hint) of what no part of hubtool turned into a sentence."""
    if isinstance(error, OSError):
        code = "disk_full" if error.errno == errno.ENOSPC else "storage"
        name = f"{error.filename}: " if error.filename else ""
        return code, f"{name}{error.strerror or error}.", "Check the disk and permissions."
    if isinstance(error, MemoryError):
        return "error", "There is not enough memory.", "Close other programs, or work on fewer files at once."
    message = f"hubtool failed in a way it should not: {type(error).__name__}: {error}"
    return "error", message, "Please report it, with what `--debug` shows."


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything is put in order as after Ctrl-C."""


def _terminate(*_: object) -> None:
    raise Terminated


def _report(run: Run, arguments: list[str], error: BaseException) -> int:
    code, message, hint = _answer(run, error)
    if run.debug:
        import traceback

        traceback.print_exception(error)
    if run.json or "--json" in arguments:
        context = getattr(error, "ctx", None)  # of an error in the arguments, before anything ran
        command = run.command or (context.command_path.removeprefix("hubtool").strip() if context else "")
        fault = {"code": code, "exit": exit_code(code), "message": message, "hint": hint}
        click.echo(json.dumps({"schema": 1, "command": command, "error": fault}))
    else:
        click.echo(printable_lines(message), err=True)
        if hint:
            click.echo(f"Hint: {printable_lines(hint)}", err=True)
    return exit_code(code)


def printable_lines(text: str) -> str:
    """Text that may quote a file or a hub, safe for the terminal (newlines and tabs stay).

    >>> printable_lines("a\x1b[2J\\r\\nb")
    'a\ufffd[2J\\nb'
    """
    if text.isprintable():  # nearly always, and a long list has many
        return text
    return STEERING.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
