"""The library at scale: first scan, rescan and searches of a tree of LoRA files, beside what others need for the same.

    python benchmarks/library.py [--files 50000] [--tree FOLDER] [--lora-manager CHECKOUT --peer-python PYTHON] [--only scan,list]

Makes the tree where there is none (5 GB for 50,000 files, see `library_tree.py`) and reads every header once, so that the page
cache is warm. Beside the first scan: a loop that opens each file and gives its header to `json.loads`. Beside the rescan: `find`
with its `-printf` of size and time, which calls stat for every file. Beside both, on a tenth of the tree: ComfyUI LoRA Manager's
own scanner, with its hashing of whole files replaced by nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from library_tree import make

from hubtool.library.index import Index
from hubtool.library.listing import Question, listing
from hubtool.library.scan import add_folders, refresh
from hubtool.library.searching import Filter
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What people ask; a page of 50.
QUESTIONS = {
    "a word that an eighth of the names begin with": Question("ink", limit=50),
    "a rare word": Question("word123", limit=50),
    "two words": Question("film 0001", limit=50),
    "a part of a word (no word begins so)": Question("ilm-00", limit=50),
    "everything": Question(limit=50),
    "base model": Question(wanted=Filter(base="sd"), limit=50),
    "architecture": Question(wanted=Filter(architecture="sdxl"), limit=50),
    "architecture and dialect, the newest first": Question(
        "", Filter(architecture="flux1", dialect="kohya"), "newest", 50
    ),
    "a word and an architecture": Question("pixel", Filter(architecture="sdxl"), limit=50),
    "parametrization": Question(wanted=Filter(parametrization="loha"), limit=50),
    "favourites": Question(wanted=Filter(favourite=True), limit=50),
    "a tag": Question(wanted=Filter(tag="style"), limit=50),
    "without trigger words": Question(wanted=Filter(no_triggers=True), limit=50),
    "unused": Question("", Filter(unused=True), "used", 50),
    "the first 1,000": Question(limit=1000),
}


@contextmanager
def timed(what: str, files: int = 0) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    rate = f", {files / seconds:,.0f} files/s" if files else ""
    print(f"{what}: {seconds:.2f} s{rate}", flush=True)


def plain_loop(tree: Path) -> None:
    """Open each file, read its header, parse it."""
    for folder, _, names in os.walk(tree):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:  # noqa: PTH118, PTH123
                json.loads(file.read(int.from_bytes(file.read(8), "little")))


def warm(tree: Path) -> None:
    """Bring every header into the page cache."""
    for path in tree.rglob("*.safetensors"):
        with path.open("rb") as file:
            file.read(int.from_bytes(file.read(8), "little"))


def in_a_process(code: str, *arguments: object) -> None:
    """Run a part on its own, so that its peak of memory is its own."""
    script = f"import library; library.{code}"
    subprocess.run([sys.executable, "-c", script, *map(str, arguments)], cwd=Path(__file__).parent, check=True)


def opened(home: Path) -> tuple[Settings, Index]:
    settings = Settings(Directories(home, home, home), library=home / "none")
    return settings, Index(settings.index_path)


def first_scan() -> None:
    tree, home = map(Path, sys.argv[1:])
    settings, index = opened(home)
    add_folders(index, settings, [tree], None)
    with timed("hubtool, first scan", len(list(tree.rglob("*.safetensors")))):
        refresh(index, settings)
    print(f"  peak memory {peak_mb():.0f} MB, index {settings.index_path.stat().st_size >> 20} MiB")


def rescan() -> None:
    settings, index = opened(Path(sys.argv[1]))
    with timed("hubtool, rescan of the unchanged tree"):
        refresh(index, settings)
    with timed("hubtool, a glance at its folders (as `list` does)"):
        refresh(index, settings, glance=True)
    print(f"  peak memory {peak_mb():.0f} MB")


def questions() -> None:
    started = time.perf_counter()
    _, index = opened(Path(sys.argv[1]))
    print(f"opening the index: {1000 * (time.perf_counter() - started):.1f} ms")
    for what, question in QUESTIONS.items():
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            rows = listing(index, question)
            taken.append(1000 * (time.perf_counter() - started))
        print(f"  {what}: {sorted(taken)[1]:.0f} ms, {len(rows)} rows")
    with timed("  all rows at once"):
        listing(index, Question())
    print(f"  peak memory {peak_mb():.0f} MB")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def beside_lora_manager(tree: Path, home: Path, checkout: Path, python: str) -> None:
    """Both scanners on a tenth of the tree."""
    with tempfile.TemporaryDirectory(dir=tree.parent) as place:
        tenth = Path(place) / "tenth"
        for folder in sorted(path for path in tree.glob("*/*") if path.is_dir())[::10]:
            shutil.copytree(folder, tenth / folder.relative_to(tree), copy_function=os.link)
        warm(tenth)
        with timed("a tenth: the plain loop", len(list(tenth.rglob("*.safetensors")))):
            plain_loop(tenth)
        in_a_process("first_scan()", tenth, home / "tenth")
        in_a_process("rescan()", home / "tenth")
        print("a tenth: LoRA Manager, first scan and second", flush=True)
        script = Path(__file__).parent / "library_peer.py"
        environment = {**os.environ, "HOME": str(home)}
        subprocess.run([python, script, checkout, tenth, "--without-hashes"], env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--tree", type=Path, default=Path(tempfile.gettempdir()) / "hubtool-library")
    parser.add_argument("--home", type=Path, help="Keep the index here, for a later run of another part.")
    parser.add_argument("--only", default="loop,scan,rescan,list,peer", help="Parts, separated by commas.")
    parser.add_argument("--lora-manager", type=Path)
    parser.add_argument("--peer-python", default=sys.executable)
    options = parser.parse_args()
    parts = options.only.split(",")
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    if not options.tree.exists():
        make(options.tree, options.files)
    home = options.home or Path(tempfile.mkdtemp(prefix="hubtool-library-home-"))
    warm(options.tree)
    if "loop" in parts:
        with timed("a loop of open, read, json.loads", options.files):
            plain_loop(options.tree)
    if "scan" in parts:
        in_a_process("first_scan()", options.tree, home)
    if "rescan" in parts:
        with timed("find -printf '%s %T@ %i'"):
            subprocess.run(
                ["find", "-L", options.tree, "-printf", "%s %T@ %i\\n"], stdout=subprocess.DEVNULL, check=True
            )
        in_a_process("rescan()", home)
    if "list" in parts:
        in_a_process("questions()", home)
    if "peer" in parts and options.lora_manager:
        beside_lora_manager(options.tree, home, options.lora_manager, options.peer_python)
    if not options.home:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
