"""Commands that change a library, killed with SIGKILL at random moments, and what must hold after each.

    PYTHONPATH=tests python tests/soak/kills.py [--kills 500] [--seed 1] [--seconds 200]

Half of the kills come in front of a random step on the library's files (a rename, link, removal, opened file …), the other half
after a random time. `tests/soak/test_kills.py` is the short form that the suite runs.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from unit.library.small_lora import write_lora

MODELS = 8
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(40)
#: Runs the command line, and dies in front of the n-th event that concerns a path below the root.
DYING = """
import os, signal, sys
root, limit = sys.argv[1], int(sys.argv[2])
sys.argv = ["hubtool", *sys.argv[3:]]
count = 0
def look(event, arguments):
    global count
    if event in {"open", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}:
        if any(isinstance(one, (str, bytes, os.PathLike)) and root in os.fsdecode(one) for one in arguments):
            count += 1
            if count == limit:
                os.kill(os.getpid(), signal.SIGKILL)
from hubtool.cli import main
sys.addaudithook(look)
main()
"""
#: Everything that `verify` and `doctor` find, and what the index lists, as one JSON document.
LOOKING = """
import json, sys
from hubtool.library.doctor import examine
from hubtool.library.scan import fresh_index
from hubtool.library.verify import verify
from hubtool.settings import load
from dataclasses import replace
from pathlib import Path
with fresh_index(replace(load(None), library=Path(sys.argv[1])), lambda text: None) as index:
    models = index.adapters()
    found = [*verify(index, models, full=sys.argv[2] == "full"), *examine(index)]
    print(json.dumps({
        "findings": [f"{one.code}: {one.message}" for one in found],
        "models": {str(one.path): one.digests.sha256 for one in models},
    }))
"""


@dataclass
class Soak:
    """A library in a folder of its own, with a project beside it that is synced from it."""

    root: Path
    chance: random.Random
    killed: collections.Counter[str] = field(default_factory=collections.Counter)
    ended: collections.Counter[str] = field(default_factory=collections.Counter)
    hashes: dict[str, str] = field(default_factory=dict)  # SHA-256 → stem of the source

    @property
    def folder(self) -> Path:
        return self.root / "models" / "Lora"

    @property
    def project(self) -> Path:
        return self.root / "project"

    def prepare(self) -> None:
        """Sources with sidecars, a library of half of them, and a project that was adopted."""
        for number in range(MODELS):
            source = write_lora(self.root / "sources" / f"source {number}é.safetensors", number)
            self.hashes[hashlib.sha256(source.read_bytes()).hexdigest()] = source.stem
            version = {"id": number + 1, "modelId": 1, "baseModel": f"Base {number % 3}", "model": {"name": "x"}}
            source.with_suffix(".civitai.info").write_text(json.dumps(version))
            source.with_suffix(".json").write_text(json.dumps({"notes": f"note {number}"}))
            source.with_suffix(".preview.png").write_bytes(PICTURE)
        for number in range(MODELS):
            self.run(["install", self._source(number)])
        names = [str(self._source(number)) for number in range(3)]
        self.run(["install", *names, "--library", str(self.project)])
        self.run(["adopt", str(self.project / "models" / "Lora")], cwd=self.project)

    def round(self, *, full: bool = False) -> bool:
        """One command, killed; whether it was in time. Everything is looked at afterwards."""
        name, arguments, cwd = self._command()
        before = self._contents()
        died = self._kill(arguments, cwd)
        (self.killed if died else self.ended)[name] += 1
        self.check(before, f"{name} {arguments}", full=full)
        return died

    def check(self, before: set[str], what: str, *, full: bool) -> None:
        """What must hold, whatever was cut off."""
        looked = self._look(full=full)
        assert looked["findings"] == [], (what, looked["findings"])
        on_disk = {str(path) for path in self._models() if ".hubtool-trash" not in path.parts}
        assert set(looked["models"]) == on_disk, what
        lost = before - self._contents()
        assert not lost, (what, [self.hashes[one] for one in lost])
        for path in self._models():
            beside = {
                entry.name[len(path.stem) :] for entry in path.parent.iterdir() if entry.stem.startswith(path.stem)
            }
            assert {".json", ".civitai.info"} <= beside, (what, path, beside)
        for sidecar in self.root.rglob("*.civitai.info"):
            assert sidecar.with_name(sidecar.name.removesuffix(".civitai.info") + ".safetensors").exists(), (
                what,
                sidecar,
            )
        notes = self.root / "home" / "data" / "moves"
        assert {note.name for note in notes.glob("[!.]*")} <= {"last-moves.json"}, what

    def run(self, arguments: list[object], cwd: Path | None = None) -> None:
        """A command that must succeed."""
        command = [sys.executable, "-c", "from hubtool.cli import main; main()", *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd or self.root, env=self._environment, capture_output=True, check=False)
        assert done.returncode == 0, (arguments, done.stderr.decode())

    # ------------------------------------------------------------ steps

    def _command(self) -> tuple[str, list[str], Path]:
        there = [path for path in self._models() if self.folder in path.parents]
        live = [str(path) for path in there if ".hubtool-trash" not in path.parts]
        binned = [path.stem for path in there if ".hubtool-trash" in path.parts]
        name = self.chance.choice(
            ["install", "install", "organize", "undo", "trash", "restore", "rename", "sync", "mark"]
        )
        few = {"trash": 2, "rename": 2, "organize": 1, "mark": 1}  # without names, `organize` means the project's, too
        if len(live) < few.get(name, 0) or (name == "restore" and not binned):
            name = "install"
        if name == "install":
            return name, self._installation(), self.root
        if name == "sync":
            self._disturb()
            return name, ["sync", "--prune", "--offline"], self.project
        commands = {
            "organize": [
                "organize",
                *live,
                "--template",
                self.chance.choice(["{base_model}", "{architecture}/{version_id}", "{hub}"]),
            ],
            "undo": ["organize", "--undo"],
            "trash": ["trash", *self.chance.sample(live, min(len(live), 2))],
            "restore": ["restore"],
            "rename": ["rename", self.chance.choice(live or [""]), f"new {self.chance.randrange(10**6)} 🎨"],
            "mark": [
                "mark",
                self.chance.choice(live or [""]),
                "--tag",
                f"t{self.chance.randrange(9)}",
                "--rating",
                "3",
            ],
        }
        return name, commands[name], self.root

    def _installation(self) -> list[str]:
        """Something that is not there: a model of the library is thrown away for it, or the project's."""
        number = self.chance.randrange(MODELS)
        digest = next(digest for digest, stem in self.hashes.items() if stem == f"source {number}é")
        for path in self._models():
            if self.folder in path.parents and _sha256(path) == digest:
                _remove(path)
        return ["install", str(self._source(number)), "--subdir", self.chance.choice(["", "{base_model}"])]

    def _disturb(self) -> None:
        """Take one of the project's files away, or put a stranger beside them."""
        mine = sorted((self.project / "models" / "Lora").glob("*.safetensors"))
        if mine and self.chance.random() < 0.7:
            _remove(self.chance.choice(mine))

    def _kill(self, arguments: list[str], cwd: Path) -> bool:
        by_step = self.chance.random() < 0.5
        limit = 1 + int(self.chance.expovariate(1 / 40)) if by_step else 10**9
        command = [sys.executable, "-c", DYING, str(self.root), str(limit), *arguments]
        with subprocess.Popen(
            command,
            cwd=cwd,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            if not by_step:
                time.sleep(self.chance.uniform(0.1, 0.9))
                process.kill()
            _, said = process.communicate()
        assert b"Traceback" not in said, said.decode()
        return process.returncode == -9

    def _look(self, *, full: bool) -> dict[str, dict[str, str]]:
        command = [sys.executable, "-c", LOOKING, str(self.root), "full" if full else "quick"]
        done = subprocess.run(command, cwd=self.root, env=self._environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def _models(self) -> list[Path]:
        roots = (self.folder, self.project / "models" / "Lora")
        return sorted(path for root in roots for path in root.rglob("*.safetensors") if not path.name.startswith("."))

    def _contents(self) -> set[str]:
        return {_sha256(path) for path in self._models()}

    def _source(self, number: int) -> Path:
        return self.root / "sources" / f"source {number}é.safetensors"

    @property
    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HUBTOOL", "CIVITAI"))}
        return kept | {"HUBTOOL_HOME": str(self.root / "home"), "NO_COLOR": "1"}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _remove(model: Path) -> None:
    """By hand, with everything beside it."""
    for path in model.parent.iterdir():
        if path.name.startswith(f"{model.stem}."):
            path.unlink()


def soak(root: Path, kills: int, seed: int, seconds: float = float("inf")) -> Soak:
    """Kill commands until so many died, or the time is up; whatever does not hold is an AssertionError."""
    deadline = time.monotonic() + seconds
    one = Soak(root, random.Random(seed))
    one.prepare()
    rounds = 0
    while sum(one.killed.values()) < kills and time.monotonic() < deadline:
        rounds += 1
        one.round(full=rounds % 25 == 0)
    one.check(one._contents(), "at the end", full=True)
    return one


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="hubtool-kills-"))
    result = soak(place, options.kills, options.seed, options.seconds)
    print(f"{sum(result.killed.values())} killed: {dict(result.killed)}; ended before: {dict(result.ended)}")
    litter = [path for path in place.rglob(".hubtool-*") if path.name != ".hubtool-trash"]
    print(f"{len(litter)} temporary files left to be cleaned up when they are an hour old")
    shutil.rmtree(place)
