"""SD.Next, whose `<name>.json` is the hub's answer for the whole model; it shares the file with A1111's keys."""

from hubtool.library.target import Target
from hubtool.library.ui_settings import from_sdnext

TARGET = Target(
    id="sdnext",
    title="SD.Next",
    source="vladmandic/sdnext modules/lora/network_load.py, modules/ui_extra_networks.py",
    folder="models/Lora",
    extensions=frozenset({".safetensors", ".pt", ".ckpt"}),
    sidecars=("a1111", "sdnext", "civitai_info"),
    markers=(("webui.py", "installer.py", "modules/lora"), ("webui.py", "installer.py", "extensions-builtin")),
    grammar="sdnext",
    flat_names=True,
    named=from_sdnext,
)
