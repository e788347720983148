"""The options that every command takes, and what one run does with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import augment_usage_errors

if TYPE_CHECKING:
    from hubtool.settings import Settings


@dataclass(slots=True)
class Run:
    """One invocation: the global options as typed, before or after the command's name."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    no_progress: bool = False
    offline: bool = False
    config: Path | None = None
    library: Path | None = None
    hub: list[str] = field(default_factory=list)
    jobs: int | None = None
    timeout: float | None = None
    command: str = ""  # what runs, for the document that answers

    def settings(self) -> Settings:
        """Config and environment with this run's flags on top."""
        from hubtool.errors import FileMissing
        from hubtool.settings import load

        if self.config and not self.config.exists():
            raise FileMissing(
                self.config, f"There is no config file {self.config}.", hint="`hubtool config set` writes one."
            )
        settings = load(self.config)
        if self.library:
            settings = replace(settings, library=self.library)
        if self.jobs:
            settings = replace(settings, jobs=self.jobs)
        if self.timeout:
            settings = replace(settings, timeout_s=self.timeout)
        if self.hub:
            settings = replace(settings, hub=self.hub[0], further_hubs=tuple(self.hub[1:]))
        return replace(settings, offline=True) if self.offline else settings


def current_run() -> Run:
    """The run that the current command belongs to."""
    return click.get_current_context().find_root().ensure_object(Run)


def _refuse_no_number(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """click's numbers may be `nan` and `inf`, which compare as no range expects and no file can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite number.", context, parameter)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    _refuse_no_number(context, parameter, value)
    if value is None or value is False or value == ():
        return
    run = context.find_root().ensure_object(Run)
    name = str(parameter.name).removeprefix("global_")
    if name == "hub":
        run.hub.extend(str(entry) for entry in value if isinstance(value, tuple))  # type: ignore[attr-defined]  # a tuple: multiple=True
    else:
        setattr(run, name, value)


def global_options() -> list[click.Option]:
    """Fresh option objects, for the root group and for each command."""
    kind = Path
    rows: list[tuple[tuple[str, ...], dict[str, object]]] = [
        (("--json", "global_json"), {"is_flag": True, "help": "Answer with one JSON document on stdout."}),
        (("-q", "--quiet", "global_quiet"), {"is_flag": True, "help": "Say nothing but the answer."}),
        (("-v", "--verbose", "global_verbose"), {"is_flag": True, "help": "Say more on stderr."}),
        (("--debug", "global_debug"), {"is_flag": True, "help": "Show tracebacks."}),
        (("--no-progress", "global_no_progress"), {"is_flag": True, "help": "No progress bars."}),
        (("--offline", "global_offline"), {"is_flag": True, "help": "Use nothing but what is at hand."}),
        (
            ("--config", "global_config"),
            {"type": click.Path(path_type=kind), "metavar": "FILE", "help": "Read this config file."},
        ),
        (
            ("--library", "global_library"),
            {"type": click.Path(path_type=kind), "metavar": "DIR", "help": "Root of the library."},
        ),
        (
            ("--hub", "global_hub"),
            {"multiple": True, "metavar": "NAME|URL", "help": "Hub to ask (repeatable)."},
        ),
        (
            ("--jobs", "global_jobs"),
            {"type": click.IntRange(1, 64), "metavar": "N", "help": "Files handled at the same time."},
        ),
        (
            ("--timeout", "global_timeout"),
            {
                "type": click.FloatRange(0.1, 3600),
                "metavar": "S",
                "help": "Silence that makes a transfer reconnect.",
            },
        ),
    ]
    return [
        click.Option(names, expose_value=False, callback=_remember, **attributes)  # type: ignore[arg-type]  # mypy cannot follow **attributes
        for names, attributes in rows
    ]


GLOBAL_NAMES = frozenset(str(option.name) for option in global_options())


class HubtoolCommand(click.Command):
    """A command that takes the global options too, and lists them apart in its help."""

    def __init__(self, *arguments: object, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]  # passed through as they are
        self.params.extend(global_options())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, and every error knows its command; a number is finite."""
        with augment_usage_errors(ctx):
            left = super().parse_args(ctx, args)
        for parameter in self.params:
            _refuse_no_number(ctx, parameter, ctx.params.get(str(parameter.name)))
        return left

    def invoke(self, ctx: click.Context) -> object:
        """Run it, remembering its name for the answer."""
        ctx.find_root().ensure_object(Run).command = ctx.command_path.removeprefix("hubtool").strip()
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Own options first; the global ones under their own heading."""
        write_options(self, ctx, formatter)


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write a command's options in two sections."""
    own: list[tuple[str, str]] = []
    shared: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
        if record is not None:
            (shared if parameter.name in GLOBAL_NAMES else own).append(record)
    for title, records in (("Options", own), ("Global options", shared)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
