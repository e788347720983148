"""ComfyUI LoRA Manager's own scanner over a tree, for `benchmarks/library.py`; run in an environment with its requirements.

    python benchmarks/library_peer.py CHECKOUT TREE [--without-hashes]

CHECKOUT is a clone of willmiao/ComfyUI-Lora-Manager. It writes a .metadata.json beside each file: give it a copy of the tree.
Prints seconds of a first scan, and of a second one that finds those files.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import resource
import sys
import time
import types


async def scan() -> tuple[int, float]:
    """(files found, seconds) of one pass."""
    scanner = await importlib.import_module("py.services.lora_scanner").LoraScanner.get_instance()
    started = time.perf_counter()
    found = await scanner._gather_model_data()  # noqa: SLF001
    return len(found.raw_data), time.perf_counter() - started


async def no_hash(*_: object, **__: object) -> str:
    """A stand-in for reading the whole file."""
    return "0" * 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout")
    parser.add_argument("tree")
    parser.add_argument("--without-hashes", action="store_true")
    arguments = parser.parse_args()
    os.environ["LORA_MANAGER_STANDALONE"] = "1"
    sys.path.insert(0, arguments.checkout)
    folders = types.ModuleType("folder_paths")
    folders.get_folder_paths = lambda name: [arguments.tree] if name == "loras" else []
    folders.folder_names_and_paths = {}
    sys.modules["folder_paths"] = folders
    logging.disable(logging.CRITICAL)
    importlib.import_module("py.services.lora_scanner")
    if arguments.without_hashes:
        for module in [module for name, module in sys.modules.items() if name.startswith("py.")]:
            if hasattr(module, "calculate_sha256"):
                module.calculate_sha256 = no_hash
    for _ in range(2):
        count, seconds = asyncio.run(scan())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{count} files, {seconds:.2f} s, {count / seconds:.0f} files/s, {peak:.0f} MB")


if __name__ == "__main__":
    main()
