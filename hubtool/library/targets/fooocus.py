"""Fooocus reads no sidecars; its prompts need a strength in every tag."""

from hubtool.library.target import Target
from hubtool.library.ui_settings import from_fooocus

TARGET = Target(
    id="fooocus",
    title="Fooocus",
    source="lllyasviel/Fooocus modules/config.py (path_loras, get_model_filenames), modules/util.py",
    folder="models/loras",
    extensions=frozenset({".safetensors", ".ckpt", ".pth", ".bin"}),
    sidecars=("a1111",),
    markers=(("fooocus_version.py",), ("Fooocus/fooocus_version.py",)),
    grammar="fooocus",
    named=from_fooocus,
)
