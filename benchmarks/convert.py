"""A rename-only conversion and an inspection of a 1 GB file, beside `cp` + fsync of the same file in the same run.

    python benchmarks/convert.py [--size-mb 1000] [--runs 5]

Prints medians and ratios. The file is written to the current folder's disk and removed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hubtool.formats.safetensors import write_safetensors
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import Address, Component, Role
from hubtool.naming.architecture import architecture
from hubtool.naming.dialect import dialect


def make(path: Path, size_bytes: int) -> int:
    """A kohya SDXL LoRA of about this size; returns the number of tensors."""
    target, kohya = architecture("sdxl"), dialect("kohya")
    shapes = {p: s for p, s in target.modules.items() if ".attentions." in p and len(s) == 2}
    rank = max(1, size_bytes // (2 * sum(sum(s) for s in shapes.values())))
    noise = os.urandom(1 << 20)
    tensors = {}
    for module, (rows, columns) in shapes.items():
        for role, shape in ((Role.DOWN, (rank, columns)), (Role.UP, (rows, rank))):
            size = shape[0] * shape[1] * 2
            data = (noise * (size // len(noise) + 1))[:size]
            tensors[kohya.encode(target, Address(Component.DENOISER, module, role))] = LazyTensor("F16", shape, data)
        key = kohya.encode(target, Address(Component.DENOISER, module, Role.ALPHA))
        tensors[key] = scalar_tensor(rank, "F16")
    with path.open("wb") as out:
        write_safetensors(out, tensors, {"ss_base_model_version": "sdxl_base_v1-0"})
        os.fsync(out.fileno())
    return len(tensors)


def timed(command: list[str]) -> tuple[float, float]:
    """(wall seconds, peak memory in MB) of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def copied(source: Path, target: Path) -> float:
    """Seconds that `cp` to a new file plus fsync of it takes."""
    started = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mb", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    hubtool = [sys.executable, "-m", "hubtool"]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        source, target = Path(folder, "a.safetensors"), Path(folder, "b.safetensors")
        # in a process of its own: a child's peak memory would count this one's
        size = options.size_mb * 1_000_000
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import convert; from pathlib import Path; "
        code += f"print(convert.make(Path({str(source)!r}), {size}))"
        count = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        rows: dict[str, list[float]] = {}
        memory = 0.0
        for _ in range(options.runs):
            start, _ = timed([*hubtool, "--version"])
            rows.setdefault("start-up (--version)", []).append(start)
            rows.setdefault("cp + fsync", []).append(copied(source, target))
            target.unlink()
            seconds, peak = timed([*hubtool, "convert", str(source), "--to", "comfyui", "-o", str(target)])
            target.unlink()
            rows.setdefault("convert to comfyui", []).append(seconds)
            memory = max(memory, peak)
            seconds, _ = timed([*hubtool, "inspect", "--json", str(source)])
            rows.setdefault("inspect", []).append(seconds)
        print(f"{source.stat().st_size / 1e6:.0f} MB, {count} tensors, {options.runs} runs, medians")
        medians = {name: statistics.median(values) for name, values in rows.items()}
        for name, value in medians.items():
            print(f"  {name:<22} {value:6.3f} s   ({min(rows[name]):.3f} to {max(rows[name]):.3f})")
        convert, copy = medians["convert to comfyui"], medians["cp + fsync"]
        print(f"  convert / (cp + fsync)             {convert / copy:.2f}")
        print(f"  (convert - start-up) / (cp + fsync) {(convert - medians['start-up (--version)']) / copy:.2f}")
        print(f"  peak memory of convert              {memory:.0f} MB")


if __name__ == "__main__":
    main()
