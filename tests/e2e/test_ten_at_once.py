"""Ten processes that install, mark, move and scan one library at the same time wait for each other, and all succeed."""

import os
import subprocess
import sys

from unit.library.small_lora import write_lora

from hubtool.library.doctor import examine
from hubtool.library.scan import fresh_index
from hubtool.library.verify import verify
from hubtool.settings import Directories, Settings

#: One process: its own number of a series, each command by the command line's own entry.
WORK = """
import sys
from hubtool.cli import root
from hubtool.cli._errors import run_guarded
number, source = sys.argv[1], sys.argv[2]
commands = [
    ["install", source, "--name", f"mine {number}"],
    ["mark", f"mine {number}", "--tag", f"tag{number}", "--rating", "4"],
    ["mark", "shared", "--tag", f"tag{number}"],
    ["scan"],
    ["rename", f"mine {number}", f"yours {number}"],
    ["trash", f"yours {number}"],
    ["restore", f"yours {number}"],
    ["list", "tag" + number],
]
for command in commands:
    if code := run_guarded(root, command):
        sys.exit(f"{command}: {code}")
"""


def test_ten_processes_at_once_all_succeed_and_nothing_is_lost(tmp_path):
    folder = tmp_path / "models" / "Lora"
    write_lora(folder / "shared.safetensors", 99)
    sources = [write_lora(tmp_path / "sources" / f"{number}.safetensors", number) for number in range(10)]
    environment = os.environ | {"HUBTOOL_HOME": str(tmp_path / "home"), "PYTHONFAULTHANDLER": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, str(number), str(source)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for number, source in enumerate(sources)
    ]
    said = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 10, said
    home = tmp_path / "home"
    settings = Settings(Directories(home / "config", home / "data", home / "cache"), library=tmp_path)
    with fresh_index(settings, print) as index:
        models = index.adapters()
        own = {model.name: model.own for model in models}
        assert own.keys() == {"shared", *(f"yours {number}" for number in range(10))}
        assert all(own[f"yours {number}"].tags == (f"tag{number}",) for number in range(10))
        assert [*verify(index, models, full=True), *examine(index)] == []
        assert own["shared"].tags, "the last to write is heard"
        assert len(own["shared"].tags) == 10, "and so is everybody before"
