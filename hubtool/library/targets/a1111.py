"""AUTOMATIC1111's web UI."""

from hubtool.library.target import Target
from hubtool.library.ui_settings import from_command_line

TARGET = Target(
    id="a1111",
    title="A1111",
    source="stable-diffusion-webui extensions-builtin/Lora/networks.py, list_available_networks",
    folder="models/Lora",
    extensions=frozenset({".safetensors", ".pt", ".ckpt"}),
    sidecars=("a1111", "civitai_info"),
    markers=(("webui.py", "extensions-builtin/Lora"),),
    also_read=("models/LyCORIS",),  # --lyco-dir-backcompat
    flat_names=True,
    named=from_command_line,
)
