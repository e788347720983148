"""How fast and how exact `hubtool resize` and `hubtool merge` are, against making every weight and taking its SVD.

    python benchmarks/algebra.py                     SDXL's attention layers, four files of rank 32
    python benchmarks/algebra.py --architecture sd1
    python benchmarks/algebra.py --quick             no plain way, ours only

The files are synthetic: real keys and shapes, random factors whose singular values fall as i^-0.8, half precision. The plain
way is timed on one module of each shape and multiplied with their number; it would take half an hour otherwise.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch

from hubtool.adapters.codec import read_adapter
from hubtool.adapters.tensors import from_torch
from hubtool.formats.safetensors import write_safetensors
from hubtool.formats.tensor import scalar_tensor
from hubtool.naming.address import Address, Component, ModuleRef, Role
from hubtool.naming.architecture import architecture
from hubtool.naming.dialect import dialect
from hubtool.operations.merge import MergeOptions, merge
from hubtool.operations.resize import ResizeOptions, resize
from hubtool.operations.sources import Source

RANK = 32
FILES = 4
STRENGTHS = (0.7, 0.4, 1.0, -0.3)


class Cost(NamedTuple):
    """What one call took."""

    wall_s: float
    cpu_s: float


class Plain(NamedTuple):
    """CPU seconds of the product and its SVD, as the common tools call it, and without vectors that nobody needs."""

    default: float
    thin: float


def main() -> None:
    """Make the files, run ours, run the plain way on a sample, print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="sdxl", choices=["sd1", "sdxl", "flux1"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hubtool-algebra-") as name:
        folder = Path(name)
        shapes = targets(given.architecture)
        paths = [make(folder / f"{i}.safetensors", given.architecture, shapes, seed=i) for i in range(FILES)]
        print(f"{len(shapes)} modules, rank {RANK}, {paths[0].stat().st_size / 1e6:.0f} MB a file", flush=True)
        out = folder / "out.safetensors"
        halves = ResizeOptions(rank=RANK // 2, force=True)
        resized = best(lambda: resize(paths[0], out, halves), given.runs)
        resize_error = excess(out, paths[:1], (1.0,), RANK // 2)
        print("resize done", flush=True)
        sources = [Source(path, strength) for path, strength in zip(paths, STRENGTHS, strict=True)]
        to_rank = MergeOptions(method="svd", rank=RANK, force=True)
        merged = best(lambda: merge(sources, out, to_rank), given.runs)
        merge_error = excess(out, paths, STRENGTHS, RANK)
        print("merge done", flush=True)
        joined = best(lambda: merge(sources, out, MergeOptions(method="concat", force=True)), given.runs)
        plain = None if given.quick else plain_way(paths, shapes)
    report(resized, merged, joined, (resize_error, merge_error), plain)


def report(resized: Cost, merged: Cost, joined: Cost, errors: tuple[float, float], plain: Plain | None) -> None:
    """Print one paragraph for each operation."""
    for label, cost, error in (
        (f"resize rank {RANK} to {RANK // 2}", resized, errors[0]),
        (f"merge {FILES} x rank {RANK} to {RANK}", merged, errors[1]),
        (f"merge {FILES} x rank {RANK} by concatenation", joined, None),
    ):
        print(f"{label}: {cost.wall_s:.2f} s wall, {cost.cpu_s:.2f} CPU s (reading and writing included)")
        if error is not None:
            print(f"  error above the Eckart-Young optimum: {error:.1e} (largest of one module of each shape)")
        if plain is not None and error is not None:
            for name, seconds in plain._asdict().items():
                print(
                    f"  materialise and SVD ({name}): {seconds:.0f} CPU s, extrapolated; {seconds / cost.cpu_s:.0f} times ours"
                )


def targets(architecture_id: str) -> dict[ModuleRef, tuple[int, ...]]:
    """Attention layers and their projections, as trainers of LoRAs choose them."""
    target, wanted = architecture(architecture_id), ("attention", "transformer_blocks")
    return {
        ModuleRef(Component.DENOISER, path): shape
        for path, shape in target.modules.items()
        if len(shape) > 1 and any(word in path for word in wanted)
    }


def make(path: Path, architecture_id: str, shapes: dict[ModuleRef, tuple[int, ...]], *, seed: int) -> Path:
    """One LoRA file in kohya's (FLUX: diffusers') names."""
    target, spoken = architecture(architecture_id), dialect("diffusers" if architecture_id == "flux1" else "kohya")
    generator, tensors = torch.Generator().manual_seed(seed), {}
    values = torch.arange(1, RANK + 1) ** -0.4
    for module, shape in shapes.items():
        ones, columns = (1,) * len(shape[2:]), math.prod(shape[1:])
        up = torch.randn(shape[0], RANK, generator=generator) * values / math.sqrt(shape[0])
        down = torch.randn(RANK, columns, generator=generator) * values[:, None] / math.sqrt(columns)
        rows = {Role.UP: from_torch(up.half().reshape(shape[0], RANK, *ones))}
        rows[Role.DOWN] = from_torch(down.half().reshape(RANK, *shape[1:]))
        if spoken.says(Role.ALPHA):
            rows[Role.ALPHA] = scalar_tensor(RANK / 2)
        for role, tensor in rows.items():
            tensors[spoken.encode(target, Address(module.component, module.path, role))] = tensor
    with path.open("wb") as out:
        write_safetensors(out, tensors, {"ss_network_dim": str(RANK), "ss_network_alpha": str(RANK / 2)})
    return path


def best(call: object, runs: int) -> Cost:
    """The quickest of several calls, in this process: torch is already imported."""
    costs = []
    for _ in range(runs):
        before, started = os.times(), time.perf_counter()
        call()  # type: ignore[operator]
        after = os.times()
        cpu = after.user + after.system - before.user - before.system
        costs.append(Cost(time.perf_counter() - started, cpu))
    return min(costs)


def changes(paths: list[Path], strengths: tuple[float, ...], module: ModuleRef, shape: tuple[int, ...]) -> torch.Tensor:
    """The sum of the changes, made in full, in float64."""
    layers = [read_adapter(path).layers[module] for path in paths]
    products = (
        s * layer.scale * (layer.float(Role.UP).flatten(1).double() @ layer.float(Role.DOWN).flatten(1).double())
        for s, layer in zip(strengths, layers, strict=True)
    )
    return sum(products, torch.zeros(shape[0], math.prod(shape[1:]), dtype=torch.float64))


def excess(out: Path, paths: list[Path], strengths: tuple[float, ...], rank: int) -> float:
    """The largest error above the optimum, of one module of each shape; values as stored in half precision."""
    made, worst, seen = read_adapter(out), 0.0, set()
    for module, layer in made.layers.items():
        shape = made.architecture.shape(module) or ()
        if shape in seen:
            continue
        seen.add(shape)
        exact = changes(paths, strengths, module, shape)
        wide = exact if exact.shape[0] <= exact.shape[1] else exact.T
        energies = torch.linalg.eigvalsh(wide @ wide.T).flip(0)  # float64: good to 1e-16 of the largest
        optimum = float(energies[rank:].sum()) ** 0.5
        error = float(torch.linalg.vector_norm(exact - layer.delta(shape).reshape(exact.shape).double()))
        worst = max(worst, error / optimum - 1)
    return worst


def plain_way(paths: list[Path], shapes: dict[ModuleRef, tuple[int, ...]]) -> Plain:
    """The product and its SVD in float32, one module of each shape times their number, one thread."""
    torch.set_num_threads(1)
    adapter, totals = read_adapter(paths[0]), [0.0, 0.0]
    for shape, count in Counter(shapes.values()).items():
        module = next(module for module, other in shapes.items() if other == shape)
        for index, full in enumerate((True, False)):
            started = time.process_time()
            weight = adapter.layers[module].delta(shape).reshape(shape[0], -1)
            torch.linalg.svd(weight, full_matrices=full)
            totals[index] += count * (time.process_time() - started)
    return Plain(*totals)


if __name__ == "__main__":
    main()
