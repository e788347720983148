"""SwarmUI: one folder or several in its settings; it reads nearly everybody's sidecars, its own first."""

from hubtool.library.target import Target
from hubtool.library.ui_settings import from_swarmui

TARGET = Target(
    id="swarmui",
    title="SwarmUI",
    source="mcmonkeyprojects/SwarmUI src/Core/Settings.cs (SDLoraFolder), src/Text2Image/T2IModelHandler.cs, T2IModel.cs",
    folder="Models/Lora",
    extensions=frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pth"}),
    sidecars=("swarm", "civitai_info"),
    markers=(("src/SwarmUI.csproj",), ("SwarmUI.sln",)),
    grammar="swarmui",
    pictures=frozenset({".jpg", ".jpeg", ".png"}),
    named=from_swarmui,
)
