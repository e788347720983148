"""Questions to the naming tables that tests ask often."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubtool.naming.address import ModuleRef
    from hubtool.naming.architecture import Architecture
    from hubtool.naming.dialect import Dialect


def readings(spoken: Dialect, target: Architecture, base: str) -> list[ModuleRef]:
    """Every module that a base can mean in properly spelt keys, in the order in which meanings are tried."""
    found = []
    for prefix, paths, _ in spoken.readers(target):
        if base.startswith(prefix) and base[len(prefix) :] in paths:
            found.append(paths[base[len(prefix) :]])
    return found
