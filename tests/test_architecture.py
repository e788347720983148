"""The promises of the layout: small files and functions, lazy start-up, every part findable and documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hubtool.cli import root
from hubtool.errors import HubtoolError
from hubtool.naming.architecture import architecture, architecture_ids
from hubtool.naming.dialect import dialects

PROJECT = Path(__file__).parent.parent
SOURCES = sorted((PROJECT / "hubtool").rglob("*.py"))
HEAVY = {"torch", "numpy", "httpx", "pydantic"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_files_and_functions_are_short_and_annotated(path):
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
            assert node.returns is not None, node.name


def test_half_of_the_files_are_shorter_than_150_lines():
    lengths = sorted(path.read_text("utf-8").count("\n") for path in SOURCES)
    assert lengths[len(lengths) // 2] <= 150


def loaded_by(*arguments: str, home: Path) -> set[str]:
    """Heavy packages that a command imports."""
    code = (
        "import sys\nfrom hubtool.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', *sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=home,
        env={"HUBTOOL_HOME": str(home), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    line = next(line for line in run.stderr.splitlines() if line.startswith("LOADED"))
    return set(line.split()[1:])


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["list"], ["inspect", "x.safetensors"], ["prompt", "parse", "<lora:x:1>"]]
)
def test_light_commands_import_nothing_heavy(arguments, tmp_path):
    assert loaded_by(*arguments, home=tmp_path) == set()


def every_command() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []

    def walk(name: str, command: click.Command) -> None:
        found.append((name, command))
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                walk(f"{name} {child}".strip(), command.get_command(context, child))

    walk("", root)
    return found[1:]


@pytest.mark.parametrize(
    ("name", "command"), every_command(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_has_help_with_an_example(name, command):
    assert command.help
    assert isinstance(command, click.Group) or f"hubtool {name}" in command.help


def test_every_command_is_in_the_reference():
    reference = (PROJECT / "docs" / "commands.md").read_text("utf-8")
    for name, _ in every_command():
        assert f"## hubtool {name}\n" in reference


@pytest.mark.parametrize("id", architecture_ids())
def test_no_two_modules_of_an_architecture_share_a_flat_name(id):
    target = architecture(id)
    names = [*target.original.values(), *target.fused]
    for paths in (list(target.modules), names):
        flat = {path.replace(".", "_") for path in paths}
        assert len(flat) == len(set(paths)) == len(paths)


@pytest.mark.parametrize("id", architecture_ids())
@pytest.mark.parametrize("dialect_id", dialects())
def test_a_dialect_never_spells_two_modules_alike(id, dialect_id):
    written = dialects()[dialect_id].written(architecture(id))
    assert len(set(written.values())) == len(written)


def test_every_error_has_a_code_with_an_exit():
    from hubtool.cli._errors import EXITS, EXITS_OF_BASES

    def below(kind: type[HubtoolError]) -> list[type[HubtoolError]]:
        return [kind, *(entry for child in kind.__subclasses__() for entry in below(child))]

    for kind in below(HubtoolError):
        assert kind.code in EXITS or kind.code in EXITS_OF_BASES, kind


def test_nothing_unpickles():
    """Words are put together here so that this file does not contain them."""
    banned = ["torch" + ".load(", "pickle" + ".load", "import " + "pickle\n"]  # pickletools only names opcodes
    for path in SOURCES:
        text = path.read_text("utf-8")
        assert not [word for word in banned if word in text], path


def test_hints_name_only_commands_that_exist():
    known = {name for name, _ in every_command()}
    for path in SOURCES:
        for mention in re.findall(r"`hubtool ([a-z][a-z-]*)", path.read_text("utf-8")):
            assert mention in known, f"{path}: {mention}"
