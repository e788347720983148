"""diffusers: no UI but a library, which takes any folder; `pipe.load_lora_weights(FOLDER, weight_name=NAME)`."""

from hubtool.library.target import Target

TARGET = Target(
    id="diffusers",
    title="diffusers",
    source="huggingface/diffusers loaders/lora_base.py",
    folder="loras",
    extensions=frozenset({".safetensors", ".bin"}),
    sidecars=(),
)
