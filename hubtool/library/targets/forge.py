"""Forge, which kept A1111's names and sidecars but no longer lists `models/LyCORIS`."""

from hubtool.library.target import Target
from hubtool.library.ui_settings import from_command_line

TARGET = Target(
    id="forge",
    title="Forge",
    source="stable-diffusion-webui-forge extensions-builtin/sd_forge_lora/networks.py",
    folder="models/Lora",
    extensions=frozenset({".safetensors", ".pt", ".ckpt"}),
    sidecars=("a1111", "civitai_info"),
    markers=(("webui.py", "modules_forge"),),
    flat_names=True,
    grammar="forge",
    named=from_command_line,
)
