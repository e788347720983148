"""How fast, how lean and how exact `hubtool extract` is, on a synthetic pair of real shapes.

    python benchmarks/extract.py                          Stable Diffusion 1.5's size, rank 32, convolutions rank 16
    python benchmarks/extract.py --architecture sdxl
    python benchmarks/extract.py --check 10               judge every tenth module against the Eckart-Young optimum
    python benchmarks/extract.py --against-peers          and time lycoris-lora and torch.linalg.svd on one module of each
                                                          shape (minutes: that is what they need)

Needs 4 GB (sdxl: 11 GB) of disk below --folder while it runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from pairs import Pair, write_pair

from hubtool.adapters.checkpoint import read_checkpoint
from hubtool.adapters.codec import read_adapter
from hubtool.adapters.tensors import to_torch

HUBTOOL = Path(sys.executable).with_name("hubtool")


class Cost(NamedTuple):
    """What one run took."""

    wall_s: float
    cpu_s: float
    anonymous_mb: float  # the most at any sample
    resident_mb: float


def main() -> None:
    """Make the pair, extract a few times, judge the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="sd1", choices=["sd1", "sdxl"])
    parser.add_argument("--folder", type=Path, help="keep the pair here and use it again")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--check", type=int, default=0, metavar="N", help="judge every N-th module (slow)")
    parser.add_argument("--against-peers", action="store_true")
    parser.add_argument("--option", action="append", default=[], help="passed to extract, such as --option=--jobs=1")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="hubtool-extract-"))
    try:
        pair = Pair(folder / "base.safetensors", folder / "tuned.safetensors")
        if not pair.tuned.exists():
            started = time.perf_counter()
            folder.mkdir(parents=True, exist_ok=True)
            write_pair(folder, given.architecture)
            print(f"made {2 * pair.base.stat().st_size / 1e9:.1f} GB in {time.perf_counter() - started:.0f} s")
        cpu_s = measure(pair, folder / "out.safetensors", given.runs, given.option)
        if given.check:
            judge(pair, folder / "out.safetensors", given.check)
        if given.against_peers:
            time_peers(pair, folder / "out.safetensors", cpu_s)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


def measure(pair: Pair, out: Path, runs: int, options: list[str]) -> float:
    """Run the command and print the best of several runs; returns the least CPU seconds."""
    ranks = [] if any("rank" in option or "energy" in option for option in options) else ["--rank=32", "--conv-rank=16"]
    command = [str(HUBTOOL), "extract", str(pair.tuned), "--base", str(pair.base), "-o", str(out), "--force"]
    costs = [run([*command, *ranks, *options]) for _ in range(runs)]
    for cost in costs:
        print("  ".join(f"{name} {value:.2f}" for name, value in cost._asdict().items()))
    wall, cpu, anonymous, _ = (min(column) for column in zip(*costs, strict=True))
    print(f"best: {wall:.1f} s, {cpu:.1f} CPU s, {anonymous:.0f} MB anonymous memory", flush=True)
    return cpu


def run(command: list[str]) -> Cost:
    """One process, its memory looked at 50 times a second."""
    before, started = os.times(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    anonymous = resident = 0
    while process.poll() is None:
        memory = _memory(process.pid)
        anonymous, resident = max(anonymous, memory.get("RssAnon", 0)), max(resident, memory.get("VmHWM", 0))
        time.sleep(0.02)
    wall, after = time.perf_counter() - started, os.times()
    if process.returncode:
        raise SystemExit(f"extract ended with {process.returncode}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(wall, cpu, anonymous / 1024, resident / 1024)


def _memory(process: int) -> dict[str, int]:
    """KiB by name; empty when the process is gone or this is no Linux."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}


def judge(pair: Pair, out: Path, step: int) -> None:
    """The file's error against the best possible at the same rank, module by module."""
    base, tuned = read_checkpoint(pair.base).weights, read_checkpoint(pair.tuned).weights
    excess, errors, optima = [], 0.0, 0.0
    for module, layer in list(read_adapter(out).layers.items())[::step]:
        weight = to_torch(base[module].tensor).float()
        change = (to_torch(tuned[module].tensor).float() - weight).flatten(1)
        error = float((change - layer.delta(tuple(weight.shape)).flatten(1)).double().square().sum())
        wide = change if change.shape[0] <= change.shape[1] else change.T
        energies = torch.linalg.eigvalsh((wide @ wide.T).double()).flip(0)
        optimum = float(energies[layer.rank or 0 :].sum())
        excess.append((error / optimum) ** 0.5 - 1)
        errors, optima = errors + error, optima + optimum
    values = torch.tensor(excess)
    print(
        f"{len(excess)} modules, error above the Eckart-Young optimum: median {values.median():.1e}, "
        f"95 % below {values.quantile(0.95):.1e}, largest {values.max():.1e}, whole file {(errors / optima) ** 0.5 - 1:.1e}"
    )


class Sample(NamedTuple):
    """One changed module of a shape."""

    change: torch.Tensor  # float32
    count: int  # modules of this shape


def samples(pair: Pair, out: Path) -> list[Sample]:
    """One of each shape that was extracted, the change as the two files have it."""
    base, tuned = read_checkpoint(pair.base).weights, read_checkpoint(pair.tuned).weights
    modules = list(read_adapter(out).layers)
    first = {base[module].tensor.shape: module for module in reversed(modules)}
    counts = Counter(base[module].tensor.shape for module in modules)
    changes = {s: to_torch(tuned[m].tensor).float() - to_torch(base[m].tensor).float() for s, m in first.items()}
    return [Sample(changes[shape].reshape(shape), count) for shape, count in counts.items()]


def time_peers(pair: Pair, out: Path, ours_s: float) -> None:
    """CPU time of the same modules in lycoris-lora and by plain SVD: one of each shape, times their number, one thread."""
    from lycoris.utils import extract_conv, extract_linear

    def lycoris(change: torch.Tensor) -> None:
        if change.dim() == 2:
            extract_linear(change, "fixed", 32)
        else:
            extract_conv(change, "fixed", 32 if change.shape[2:] == (1, 1) else 16)

    def thin(change: torch.Tensor) -> None:
        torch.linalg.svd(change.flatten(1), full_matrices=False)

    torch.set_num_threads(1)
    found = samples(pair, out)
    for name, work in (("torch.linalg.svd (thin)", thin), ("lycoris-lora extract_linear, extract_conv", lycoris)):
        total = 0.0
        for sample in found:
            started = time.process_time()
            work(sample.change)
            total += sample.count * (time.process_time() - started)
        print(
            f"{name}: {total:.0f} CPU s ({len(found)} shapes, {sum(s.count for s in found)} modules), "
            f"{total / ours_s:.0f} times ours",
            flush=True,
        )


if __name__ == "__main__":
    main()
