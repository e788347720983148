"""ComfyUI, whose own nodes read no sidecar; its LoRA managers and SwarmUI read those of A1111 and Civitai Helper."""

from hubtool.library.target import Target
from hubtool.library.ui_settings import from_comfyui

TARGET = Target(
    id="comfyui",
    title="ComfyUI",
    source="ComfyUI folder_paths.py, folder_names_and_paths and supported_pt_extensions",
    folder="models/loras",
    extensions=frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".pkl"}),
    sidecars=("a1111", "civitai_info"),
    markers=(("folder_paths.py", "comfy"), ("ComfyUI/folder_paths.py",)),
    grammar="comfyui",
    named=from_comfyui,
)
