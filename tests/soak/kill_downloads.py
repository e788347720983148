"""Downloads killed with SIGKILL at random moments, over and over, until each is complete.

    python tests/soak/kill_downloads.py [--kills 1000] [--seed 0]

After every kill, nothing may lie in the folder that is not hidden or right; the run after it may ask the server for no more
than 1 MiB of what is on disk by then (the part is compared with the true bytes; what is asked for is in the server's log); and
in the end the folder holds the right file and nothing else. Prints one JSON line; exit 1 if any of this does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from contract.faulty_hub import NAME, VERSION, FaultyHub, lora

from hubtool.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (1_500_000, 6_000_000, 20_000_000)
RATES = ("4M", "12M", "40M", "none")
BLOCK = 4096
ALLOWED_BYTES = 1 << 20
MOST_KILLS = 6  # of one download; the run after them may finish


class Log(list[object]):
    """Requests to the storage, a line each, for the process that asks for them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("a", buffering=1)

    def append(self, seen: object) -> None:
        if seen.port == "storage":
            self._file.write(seen.headers.get("range", "bytes=0-") + "\n")


def serve(folder: Path) -> tuple[int, list[str]]:
    """One hub a size, in a process of their own: this one forks, and must have no threads."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader) as pipe:
            return child, json.loads(pipe.readline())
    os.close(reader)
    hubs = [FaultyHub(lora(number, size)).__enter__() for number, size in enumerate(SIZES)]
    for number, hub in enumerate(hubs):
        hub.seen = Log(folder / f"log{number}")
    os.write(writer, json.dumps([hub.api for hub in hubs]).encode() + b"\n")
    while os.getppid() != 1:
        time.sleep(0.2)
    os._exit(0)


@dataclass
class Tally:
    """What was seen."""

    kills: int = 0
    runs: int = 0
    downloads: int = 0
    resumed: int = 0  # runs that found something
    most_again: int = 0  # bytes asked for again in one run
    again: int = 0  # in all
    kept: int = 0  # bytes found on disk, over all runs
    faults: list[str] = field(default_factory=list)


@dataclass
class Case:
    """One download, from nothing to the end."""

    api: str
    log: Path
    content: bytes
    folder: Path
    connections: int
    rate: str

    def start(self) -> int:
        arguments = ["download", f"v:{VERSION}", "--hub", self.api, "-o", str(self.folder), "-q"]
        arguments += ["--connections", str(self.connections), "--limit-rate", self.rate]
        child = os.fork()
        if child:
            return child
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            main(arguments)
        except SystemExit as end:
            os._exit(int(end.code or 0))
        os._exit(0)

    def wait(self, chance: random.Random) -> None:
        """Until a random moment, or (mostly) until a random further share of the file is there."""
        if chance.random() < 0.25:
            time.sleep(chance.uniform(0, 0.3))
            return
        goal = self.size_on_disk() + chance.uniform(0, 0.5) * len(self.content)
        deadline = time.monotonic() + 3
        while self.size_on_disk() < goal and time.monotonic() < deadline and not self.is_complete():
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.003))

    def size_on_disk(self) -> int:
        """Of the part, holes not counted."""
        for path in self.folder.glob(".hubtool-*.part"):
            with contextlib.suppress(FileNotFoundError):
                return path.stat().st_blocks * 512
        return 0

    def is_complete(self) -> bool:
        return (self.folder / NAME).exists()

    def on_disk(self) -> list[tuple[int, int]]:
        """Runs of the part that hold what they should, in whole blocks."""
        parts = list(self.folder.glob(".hubtool-*.part")) if self.folder.exists() else []
        found = parts[0].read_bytes() if parts else b""
        runs: list[tuple[int, int]] = []
        for start in range(0, len(found), BLOCK):
            end = min(start + BLOCK, len(found))
            if found[start:end] == self.content[start:end]:
                if runs and runs[-1][1] == start:
                    runs[-1] = (runs[-1][0], end)
                else:
                    runs.append((start, end))
        return runs

    def asked_for(self, since: int) -> list[tuple[int, int]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = [re.fullmatch(r"bytes=(\d+)-(\d*)", line) for line in lines[since:]]
        return [(int(m[1]), int(m[2]) + 1 if m[2] else len(self.content)) for m in found if m]

    def requests(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def half_named(self) -> list[str]:
        if not self.folder.exists():
            return []
        return [
            path.name
            for path in self.folder.iterdir()
            if not path.name.startswith(".hubtool-") and path.read_bytes() != self.content
        ]


def overlap(asked: Sequence[tuple[int, int]], there: Sequence[tuple[int, int]]) -> int:
    return sum(
        max(0, min(end, there_end) - max(start, there_start))
        for start, end in asked
        for there_start, there_end in there
    )


def walk(case: Case, tally: Tally, chance: random.Random, kills_left: int) -> None:
    """Kill it a few times, let it finish, and look at everything in between."""
    tally.downloads += 1
    planned = min(kills_left, chance.randint(1, MOST_KILLS))
    for turn in range(planned + 1):
        there, since = case.on_disk(), case.requests()
        child = case.start()
        tally.runs += 1
        ended = None
        if turn < planned:
            case.wait(chance)
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                ended = status
            else:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                tally.kills += 1
        else:
            ended = os.waitpid(child, 0)[1]
        judge(case, tally, there, case.asked_for(since), ended)
        if ended is not None:
            return


def judge(
    case: Case, tally: Tally, there: list[tuple[int, int]], asked: list[tuple[int, int]], ended: int | None
) -> None:
    size, again = sum(end - start for start, end in there), overlap(asked, there)
    tally.kept += size
    tally.resumed += bool(size)
    tally.again += again
    tally.most_again = max(tally.most_again, again)
    what = f"{len(case.content)} bytes over {case.connections} at {case.rate}"
    if again > ALLOWED_BYTES:
        tally.faults.append(f"{what}: {again} bytes again; there were {there}, asked for were {asked}")
    if names := case.half_named():
        tally.faults.append(f"{what}: half-named {names}")
    if ended is not None:
        left = sorted(path.name for path in case.folder.iterdir())
        if ended != 0 or left != [NAME] or (case.folder / NAME).read_bytes() != case.content:
            tally.faults.append(f"{what}: ended with {ended}, and left {left}")


def soak(kills: int, seed: int, work: Path) -> Tally:
    os.environ["HUBTOOL_HOME"] = str(work / "home")
    server, apis = serve(work)
    contents = [lora(number, size) for number, size in enumerate(SIZES)]
    chance, tally = random.Random(seed), Tally()
    try:
        while tally.kills < kills and len(tally.faults) < 5:
            number = chance.randrange(len(SIZES))
            folder = work / f"out{tally.downloads}"
            case = Case(
                apis[number],
                work / f"log{number}",
                contents[number],
                folder,
                chance.choice([1, 4]),
                chance.choice(RATES),
            )
            walk(case, tally, chance, kills - tally.kills)
            for path in folder.iterdir():
                path.unlink()
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    import hubtool.hubs.batch
    import hubtool.hubs.link_lists
    import hubtool.hubs.opening  # noqa: F401  # once, before forking

    with tempfile.TemporaryDirectory() as work_folder:
        seen = soak(wanted.kills, wanted.seed, Path(work_folder))
    print(json.dumps(vars(seen)))
    sys.exit(1 if seen.faults else 0)
