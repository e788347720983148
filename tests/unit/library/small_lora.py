"""Small but whole LoRA files: real SD 1.x names and widths at a low rank."""

from __future__ import annotations

import json
import random
import struct
from typing import TYPE_CHECKING

from hubtool.library.index import Index
from hubtool.library.install import Arrival, Installer, Wish
from hubtool.library.record import Folder
from hubtool.library.scan import Report, scan_folder
from hubtool.library.sidecar import all_sidecars
from hubtool.library.target import Place, target_named

if TYPE_CHECKING:
    from pathlib import Path

    from hubtool.library.install import Installation
    from hubtool.library.record import Installed

#: module → (outputs, inputs)
MODULES = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (320, 320),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (320, 768),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v": (1280, 1280),
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (768, 768),
}


def small_lora(seed: int = 0, metadata: dict[str, str] | None = None, value: float | None = None) -> bytes:
    """The bytes of a kohya LoRA for SD 1.x, different for each seed; `value` fills every factor with one number."""
    numbers = random.Random(seed)
    table: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    body = b""
    for module, (outputs, inputs) in MODULES.items():
        shapes = {".alpha": (), ".lora_down.weight": (2, inputs), ".lora_up.weight": (outputs, 2)}
        for suffix, shape in shapes.items():
            count = shape[0] * shape[1] if shape else 1
            elements = [2.0] if not shape else [numbers.uniform(-1, 1) if value is None else value] * count
            data = struct.pack(f"<{count}e", *elements)
            table[module + suffix] = {
                "dtype": "F16",
                "shape": list(shape),
                "data_offsets": [len(body), len(body) + len(data)],
            }
            body += data
    header = json.dumps(table).encode()
    return len(header).to_bytes(8, "little") + header + body


def write_lora(path: Path, seed: int = 0, metadata: dict[str, str] | None = None) -> Path:
    """A LoRA file on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_lora(seed, metadata))
    return path


class Shelf:
    """A LoRA folder with its index, both in a temporary folder."""

    def __init__(self, root: Path, target: str = "a1111") -> None:
        self.folder = root / target_named(target).folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.place = Place(target_named(target), self.folder)
        self.index_path = root / "home" / "index.sqlite"
        self.report = Report()

    def install(self, path: Path, **wish: object) -> Installation:
        wish.setdefault("sidecars", tuple(all_sidecars()[id] for id in ("a1111", "civitai_info")))
        with Index(self.index_path) as index:
            return Installer.at(index, self.place, Wish(**wish)).install(Arrival(path, path.name))

    def scan(self) -> list[Installed]:
        """Everything in the folder, after a rescan; `report` says what changed."""
        self.report = Report()
        with Index(self.index_path) as index:
            with index.writing():
                folder = index.remember(Folder(self.folder, self.place.target.id))
            scan_folder(index, folder, self.report)
            return index.adapters(self.folder)

    def files(self) -> set[str]:
        """Names of all files in the folder and below, hidden ones too."""
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if not path.is_dir()}
