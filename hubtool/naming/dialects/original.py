"""Bare module names without any prefix, the authors' or diffusers' (lightx2v, LTX, Mochi)."""

from collections.abc import Mapping

from hubtool.naming.address import Role
from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import COMFYUI, Suffixes

#: `.scale` after a bare name is a norm of the model itself (see bfl), not a factor of an update.
_BARE: Mapping[Role, Suffixes] = {role: row for role, row in COMFYUI.items() if role is not Role.SCALE}

DIALECT = Dialect(
    id="original",
    source="ModelTC/Qwen-Image-Lightning, Lightricks/LTX-Video: published files",
    rank_order=60,
    spellings=(
        Spelling(_BARE, ("",), naming="original"),
        Spelling(_BARE, ("",), naming="diffusers"),
    ),
)
