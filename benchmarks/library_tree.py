"""A tree of LoRA files with real headers and no weights, as large as wanted, for `benchmarks/library.py`.

    python benchmarks/library_tree.py FOLDER [--files 50000]

Headers are those of `fixtures/keys`, each at six ranks and three dtypes, with a trainer's metadata that no two files share.
Tensors are holes in the file, so that 50,000 files take the room of their headers (5 GB) only.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.files import ITEM_BYTES
from support.keylists import at_rank, expectations, key_list, size

RANKS = (4, 8, 16, 32, 64, 128)
DTYPES = ("F16", "BF16", "F32")
BASES = ("SD 1.5", "SDXL 1.0", "Pony", "Illustrious", "Flux.1 D", "Wan Video")
TAGS = 60  # of the training images, in each header
PER_FOLDER = 100


@cache
def tensor_table(name: str, rank: int, dtype: str) -> tuple[str, int]:
    """The part of a header that lists tensors, without its braces, and how many bytes they take."""
    rows, position = [], 0
    for key, shape in at_rank(key_list(name).shapes, rank).items():
        stop = position + size({key: shape}) * ITEM_BYTES[dtype]
        row = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, stop]}
        rows.append(f"{json.dumps(key)}:{json.dumps(row, separators=(',', ':'))}")
        position = stop
    return ",".join(rows), position


def metadata(numbers: random.Random, name: str) -> dict[str, str]:
    """What sd-scripts writes, shortened."""
    tags = {f"tag {numbers.randrange(20_000)}": numbers.randrange(1, 300) for _ in range(TAGS)}
    return {
        "ss_output_name": name,
        "ss_base_model_version": "",
        "ss_network_module": "networks.lora",
        "ss_training_comment": f"made by nobody, {numbers.random()}",
        "ss_sd_model_name": f"model-{numbers.randrange(300)}.safetensors",
        "ss_new_sd_model_hash": f"{numbers.getrandbits(256):064x}",
        "ss_tag_frequency": json.dumps({"10_subject": tags}),
        "sshs_model_hash": f"{numbers.getrandbits(256):064x}",
        "modelspec.title": name.replace("-", " "),
        "modelspec.trigger_phrase": f"word{numbers.randrange(9_000)}, style{numbers.randrange(500)}",
    }


def write(path: Path, table: str, body: int, entries: dict[str, str]) -> None:
    """One file; the tensors are a hole."""
    text = f'{{"__metadata__":{json.dumps(entries)},{table}}}'.encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.truncate(8 + len(text) + body)


def make(folder: Path, files: int) -> None:
    """Fill the folder, a hundred files a subfolder; the same files for the same number."""
    numbers = random.Random(files)
    names = sorted(expectations())
    for number in range(files):
        parent = folder / BASES[number // PER_FOLDER % len(BASES)] / f"creator-{number // PER_FOLDER:04}"
        if number % PER_FOLDER == 0:
            parent.mkdir(parents=True, exist_ok=True)
        table, body = tensor_table(names[number % len(names)], numbers.choice(RANKS), numbers.choice(DTYPES))
        name = (
            f"{numbers.choice(('ink', 'pixel', 'neon', 'oil', 'film', 'anime'))}-{numbers.randrange(10**6):06}-{number}"
        )
        write(parent / f"{name}.safetensors", table, body, metadata(numbers, name))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=50_000)
    arguments = parser.parse_args()
    make(arguments.folder, arguments.files)
