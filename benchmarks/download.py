"""Downloads from a hub on loopback, verified and on disk, beside `curl` + `sha256sum` and beside other programs.

    python benchmarks/download.py large|small|capped [--peers VENV] [--runs 3] [--size-mb 1024]

`large`: one file. `small`: 200 files of 5 MB. `capped`: one file from a server that gives each connection 20 MB/s. VENV is an
environment with civitai-hub, civitdl, comfy-cli and huggingface_hub; without it they are left out. nginx hands out the bytes
(benchmarks/hub_server.py), in a process of its own on the same machine. Prints medians of wall and CPU seconds and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
HUBTOOL = Path(sys.executable).with_name("hubtool")
SMALL_FILES, SMALL_MB = 200, 5
FEW_FILES = 24  # of the 200, for those that would take minutes; compare the time a file


@dataclass(frozen=True)
class Contender:
    """A way to download; `command` is run by a shell in an empty folder."""

    name: str
    command: str
    files: int = 1


@dataclass(frozen=True)
class Cost:
    """Of one run."""

    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class Place:
    """Where the hub is, and the peers."""

    api: str
    storage: str
    peers: Path | None

    def peer(self, name: str, count: int, jobs: int) -> Contender:
        python, script = f"{self.peers}/bin/python", HERE / "download_peers.py"
        return Contender(name, f"{python} {script} {name} {self.api} . {count} {jobs}", count)

    def comfy(self, url: str) -> str:
        tool = f"{self.peers}/bin/comfy --skip-prompt --no-enable-telemetry --workspace ."
        return f"{tool} model download --url {url} --relative-path models/loras --filename"


def write_file(path: Path, size_bytes: int) -> None:
    """A safetensors file of random bytes that repeat every 4 MiB."""
    size = size_bytes // 8 * 8
    key = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
    header = json.dumps({key: {"dtype": "F16", "shape": [4, size // 8], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    noise = os.urandom(4 << 20)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for start in range(0, size, len(noise)):
            file.write(noise[: size - start])


def measured(contender: Contender, work: Path, size_bytes: int) -> Cost:
    """Run it in a fresh folder; what it left must be as long as what it should have fetched."""
    folder = work / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    environment = os.environ | {"HOME": str(work / "home"), "HUBTOOL_HOME": str(work / "home")}
    started = time.perf_counter()
    process = subprocess.Popen(
        ["sh", "-c", contender.command],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    found = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if status or found < contender.files * size_bytes:
        raise SystemExit(f"{contender.name} ended with {status}, {found} bytes are there: {contender.command}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def ours(place: Place, *options: str) -> str:
    return " ".join([str(HUBTOOL), "download", "--hub", place.api, "-q", *options])


def large(place: Place) -> list[Contender]:
    url = f"{place.api}/api/download/models/2000"
    found = [
        Contender("curl, sha256sum", f"curl -sSfLo a.safetensors {url} && sha256sum a.safetensors"),
        Contender("curl alone", f"curl -sSfLo a.safetensors {url}"),
        Contender("hubtool, 1 connection", ours(place, "v:2000", "--connections 1")),
        Contender("hubtool, 2 connections", ours(place, "v:2000", "--connections 2")),
    ]
    if place.peers:
        comfy = f"mkdir -p models/loras && {place.comfy(f'{place.storage}/f000.safetensors')} a.safetensors"
        found += [place.peer(name, 1, 1) for name in ("civitai-hub", "civitdl", "huggingface_hub")]
        found.append(Contender("comfy-cli", comfy))
    return found


def small(place: Place) -> list[Contender]:
    specs = "seq -f 'v:%.0f' 2000 2199 |"
    found = [Contender("hubtool, 8 jobs", f"{specs} {ours(place, '-', '--jobs 8')}", SMALL_FILES)]
    if place.peers:
        each = place.comfy(f"{place.storage}/f{{}}.safetensors")
        comfy = f"mkdir -p models/loras && seq -w 000 {FEW_FILES - 1:03} | xargs -P 8 -I{{}} {each} {{}}.safetensors"
        found += [place.peer(name, SMALL_FILES, 8) for name in ("civitai-hub", "huggingface_hub")]
        found += [place.peer("civitdl", FEW_FILES, 1), Contender("comfy-cli", comfy, FEW_FILES)]
    return found


def capped(place: Place) -> list[Contender]:
    url = f"{place.api}/api/download/models/2000"
    found = [Contender("curl, sha256sum", f"curl -sSfLo a.safetensors {url} && sha256sum a.safetensors")]
    numbers = ("1", "4", "auto")
    return found + [Contender(f"hubtool, {n}", ours(place, "v:2000", "--connections", n)) for n in numbers]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["large", "small", "capped"])
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size-mb", type=int, default=1024)
    wanted = parser.parse_args()
    count, size = (SMALL_FILES, SMALL_MB << 20) if wanted.what == "small" else (1, wanted.size_mb << 20)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "files").mkdir()
        for index in range(count):
            write_file(work / "files" / f"f{index:03}.safetensors", size)
        rate = ["20m"] if wanted.what == "capped" else []
        server = subprocess.Popen(
            [sys.executable, HERE / "hub_server.py", work / "files", *rate],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            place = Place(**json.loads(server.stdout.readline()), peers=wanted.peers)
            contenders = {"large": large, "small": small, "capped": capped}[wanted.what](place)
            runs = {each: [] for each in contenders}
            for _ in range(wanted.runs):
                for each in contenders:
                    runs[each].append(measured(each, work, size))
            report(runs)
        finally:
            server.stdin.close()
            server.wait()


def report(runs: dict[Contender, list[Cost]]) -> None:
    """A table; the ratio is of the first row's wall time a file to this one's: above 1 is faster than the first."""
    first, *_ = runs
    base = statistics.median(cost.wall_s for cost in runs[first]) / first.files
    print(f"{'':28} {'files':>5} {'wall s':>8} {'CPU s':>7} {'MB peak':>8} {'speed':>6}")
    for each, costs in runs.items():
        wall, cpu = (statistics.median(figures) for figures in ([c.wall_s for c in costs], [c.cpu_s for c in costs]))
        peak = max(cost.peak_mb for cost in costs)
        print(f"{each.name:28} {each.files:5} {wall:8.2f} {cpu:7.2f} {peak:8.0f} {base / (wall / each.files):6.2f}")


if __name__ == "__main__":
    main()
