"""Runs the demonstration: real commands in this process, in a folder and with a home of their own, each result checked."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shlex
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.cli import root
from hubtool.cli._demo_steps import Output, Step, steps
from hubtool.cli._errors import run_guarded
from hubtool.errors import HubtoolError, OutputExists
from hubtool.formats.atomic import reraise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hubtool.cli._demo_steps import Plan

_HOME = "home"  # config, index and cache of the demonstration, in its folder
_OURS = ("HUBTOOL_", "CIVITAI_")  # variables that would lead the commands elsewhere
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did."""

    number: int
    of: int
    name: str
    note: str  # what was prepared for it, if anything
    command: str  # as a person would type it
    ok: bool
    seconds: float
    output: tuple[str, ...]  # what the command said and answered
    checked: str  # what was found to be true; or what went wrong


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The whole demonstration."""

    ok: bool  # every step was run, and what it promised was found
    steps: tuple[StepResult, ...]
    left_out: tuple[str, ...]  # for want of torch
    folder: Path | None  # None if it was removed
    seconds: float


def plan_here() -> Plan:
    """The steps that this installation can do."""
    return steps(has_torch=importlib.util.find_spec("torch") is not None)


def run_demo(plan: Plan, keep: Path | None, watch: Callable[[StepResult], None]) -> DemoReport:
    """Walk through the steps, telling `watch` of each; the first that fails is the last.

    Raises:
        OutputExists: the folder to be kept is not empty.
        StorageProblem: it cannot be made.
    """
    began = time.perf_counter()
    done: list[StepResult] = []
    with _workplace(keep) as folder, _at_home(folder):
        for step in plan.steps:
            done.append(_run(step, len(done) + 1, len(plan.steps)))
            watch(done[-1])
            if not done[-1].ok:
                break
    ok = len(done) == len(plan.steps) and done[-1].ok
    return DemoReport(ok, tuple(done), plan.left_out, folder if keep else None, _seconds_since(began))


def _run(step: Step, number: int, of: int) -> StepResult:
    began = time.perf_counter()
    output, ok = Output(0, "", ""), False
    try:
        step.prepare()
        output = _invoke(step.arguments)
        checked = step.check(output) if not output.code else f"It ended with exit code {output.code}."
        ok = not output.code
    except HubtoolError as error:
        checked = str(error)
    lines = tuple(line.rstrip() for text in (output.talk, output.answer) for line in text.splitlines())
    command = shlex.join(["hubtool", *step.arguments])
    return StepResult(number, of, step.name, step.note, command, ok, _seconds_since(began), lines, checked)


def _invoke(arguments: tuple[str, ...]) -> Output:
    """Run a command line as `hubtool` does, and catch what it writes."""
    answer, talk = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace") for _ in range(2))
    with contextlib.redirect_stdout(answer), contextlib.redirect_stderr(talk):
        code = run_guarded(root, list(arguments))
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    return Output(code, _written(answer), _written(talk))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


@contextlib.contextmanager
def _workplace(keep: Path | None) -> Iterator[Path]:
    """An empty folder: the one to keep, or one that is removed in the end."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="hubtool-demo-", ignore_cleanup_errors=True) as folder:
            yield Path(folder).resolve()
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise OutputExists(keep)
    except OSError as error:
        reraise(error, keep)
    yield keep.resolve()


@contextlib.contextmanager
def _at_home(folder: Path) -> Iterator[None]:
    """Be in this folder, with nothing of the user's settings, index or tokens in reach."""
    before, environment = Path.cwd(), dict(os.environ)
    try:
        for name in environment:
            if name.startswith(_OURS):
                del os.environ[name]
        os.environ["HUBTOOL_HOME"] = str(folder / _HOME)
        os.chdir(folder)
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


def _seconds_since(began: float) -> float:
    return round(time.perf_counter() - began, 2)
