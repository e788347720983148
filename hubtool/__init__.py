"""Find, verify, convert, extract and install LoRA files; the command line's functions for use from Python.

Names are imported when first used, so that `import hubtool` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubtool.adapters.codec import read_adapter as read_adapter
    from hubtool.formats.safetensors import read_safetensors as read_safetensors
    from hubtool.operations.bake import bake as bake
    from hubtool.operations.conflicts import conflicts as conflicts
    from hubtool.operations.convert import convert as convert
    from hubtool.operations.diff import diff as diff
    from hubtool.operations.extract import extract as extract
    from hubtool.operations.inspect import inspect as inspect
    from hubtool.operations.merge import merge as merge
    from hubtool.operations.resize import resize as resize
    from hubtool.operations.stats import stats as stats
    from hubtool.operations.validate import validate as validate

__version__ = "0.1.0"

_HOMES = {
    "read_adapter": "hubtool.adapters.codec",
    "read_safetensors": "hubtool.formats.safetensors",
    "bake": "hubtool.operations.bake",
    "conflicts": "hubtool.operations.conflicts",
    "convert": "hubtool.operations.convert",
    "diff": "hubtool.operations.diff",
    "extract": "hubtool.operations.extract",
    "inspect": "hubtool.operations.inspect",
    "merge": "hubtool.operations.merge",
    "resize": "hubtool.operations.resize",
    "stats": "hubtool.operations.stats",
    "validate": "hubtool.operations.validate",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hubtool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
