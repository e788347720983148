"""An SDXL LoKr rewritten as LoRA through the SVD of its factors, beside the way through the whole weight, in the same run.

    python benchmarks/as_lora.py [--rank 32] [--factor 8] [--decompose N]

The file has every linear layer and convolution of SDXL's denoiser and text encoders at their real shapes, half precision.
`hubtool convert` is timed as a user runs it, start and writing included. The other way (make ΔW, `torch.linalg.svd` of it, thin)
is timed on one module of each shape with one thread and multiplied by how often the shape occurs; its row is therefore a sum of
measured times, not one run. Prints CPU seconds, wall seconds and the ratio, and what the two ways differ by.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from math import prod
from pathlib import Path

import torch

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.codec import write_adapter
from hubtool.adapters.layer import Layer
from hubtool.adapters.tensors import from_torch
from hubtool.formats.tensor import scalar_tensor
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.architecture import architecture
from hubtool.operations.as_lora import rank_rule, spectrum

SDXL = architecture("sdxl")


def modules() -> dict[ModuleRef, tuple[int, ...]]:
    found = {ModuleRef(Component.DENOISER, path): shape for path, shape in SDXL.modules.items()}
    for encoder in SDXL.encoders.values():
        found |= {ModuleRef(encoder.component, path): shape for path, shape in encoder.modules.items()}
    return {module: shape for module, shape in found.items() if len(shape) > 1}


def lokr(shape: tuple[int, ...], factor: int, rank: int | None, seed: int) -> Layer:
    """A LoKr whose small factor has sides up to `factor`; the large one whole, or of `rank`."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*sides: int) -> torch.Tensor:
        return (torch.randn(*sides, generator=generator) * 0.05).half()

    o1, i1 = (next(n for n in range(factor, 0, -1) if side % n == 0) for side in shape[:2])
    o2, i2, kernel = shape[0] // o1, shape[1] // i1, shape[2:]
    tensors = {Role.LOKR_W1: noise(o1, i1), Role.ALPHA: torch.tensor(1.0)}
    if rank and rank < min(o2, i2):
        tensors |= {Role.LOKR_W2_A: noise(o2, rank), Role.LOKR_W2_B: noise(rank, i2 * prod(kernel))}
    else:
        tensors[Role.LOKR_W2] = noise(o2, i2, *kernel)
    return Layer({role: from_torch(tensor) for role, tensor in tensors.items()} | {Role.ALPHA: scalar_tensor(1)}, "m")


def timed(command: list[str]) -> tuple[float, float, float]:
    """(CPU seconds, wall seconds, peak memory in MB) of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - started, usage.ru_maxrss / 1024


def through_the_weight(layer: Layer, shape: tuple[int, ...], rank: int) -> tuple[float, float]:
    """(CPU seconds, relative error of the LoRA) of making ΔW and its whole SVD."""
    started = time.thread_time()
    weight = layer.delta(shape).reshape(shape[0], -1)
    _, values, _ = torch.linalg.svd(weight, full_matrices=False)
    seconds = time.thread_time() - started
    energies = values.double().square()
    return seconds, float(energies[rank:].sum() / energies.sum()) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--factor", type=int, default=8)
    parser.add_argument(
        "--decompose", type=int, default=None, metavar="N", help="rank of the large factor (whole if not given)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    layers = {
        module: lokr(shape, options.factor, options.decompose, seed)
        for seed, (module, shape) in enumerate(modules().items())
    }
    with tempfile.TemporaryDirectory(dir=".") as folder:
        source, target = Path(folder, "lokr.safetensors"), Path(folder, "lora.safetensors")
        write_adapter(source, Adapter(SDXL, layers), "kohya")
        size = source.stat().st_size / 1e6
        print(f"SDXL LoKr, factor {options.factor}, {len(layers)} modules, {size:.0f} MB, to rank {options.rank}")
        command = [sys.executable, "-m", "hubtool", "convert", str(source), "--to", "kohya", "-o", str(target)]
        command += ["--parametrization", "lora", "--rank", str(options.rank)]
        cpu, wall, peak = timed(command)
        start, _, _ = timed([sys.executable, "-c", "import torch"])
    print(
        f"  hubtool convert        {cpu:8.1f} CPU s {wall:8.1f} s   (of which importing torch {start:.1f} s), {peak:.0f} MB"
    )
    total = worst = 0.0
    shapes = modules()
    counts = Counter(shapes.values())
    for shape, count in counts.items():
        layer = layers[next(module for module, other in shapes.items() if other == shape)]
        seconds, optimum = through_the_weight(layer, shape, options.rank)
        total += seconds * count
        ours = spectrum(layer, shape, rank_rule(options.rank, None))
        excess = (ours.remainder / ours.squared_norm) ** 0.5 - optimum
        worst = max(worst, abs(excess))
    print(f"  weight, then SVD       {total:8.1f} CPU s   ({len(counts)} shapes measured, times how often each occurs)")
    print(f"  ratio                  {total / cpu:8.1f}")
    print(f"  errors of the two ways differ by at most {worst:.1e} of ‖ΔW‖")


if __name__ == "__main__":
    main()
