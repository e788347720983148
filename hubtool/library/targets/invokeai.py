"""InvokeAI imports models into its own database ("Scan Folder" in its model manager); this is the folder to scan.

It reads A1111's keys and `<name>.png` on import, and has no words in prompts for LoRAs.
"""

from hubtool.library.target import Target
from hubtool.library.ui_settings import from_invokeai

TARGET = Target(
    id="invokeai",
    title="InvokeAI",
    source="invoke-ai/InvokeAI invokeai/backend/model_manager/metadata/lora_metadata_extractor.py",
    folder="autoimport/lora",
    extensions=frozenset({".safetensors", ".pt", ".ckpt"}),
    sidecars=("a1111",),
    markers=(("invokeai.yaml",),),
    preview="",
    pictures=frozenset({".png", ".jpg", ".jpeg", ".webp"}),
    grammar="invokeai",
    named=from_invokeai,
    keeps_paths=True,  # also of files that it imported in their place
)
