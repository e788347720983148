"""AUTOMATIC1111's web UI."""

from hubtool.library.target import Target

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
)
