"""Parameter suffixes: how a key ends, and the role that this ending means.

Sources: kohya-ss/sd-scripts networks/lora.py, KohakuBlueleaf/LyCORIS modules/*.py, huggingface/peft tuners/*/layer.py,
huggingface/diffusers loaders, comfyanonymous/ComfyUI comfy/lora.py and weight_adapter/*.py.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hubtool.naming.address import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

Suffixes = tuple[str, ...]  # spellings of one role; the first is the one written

#: Shared by every toolchain that stores LyCORIS tensors.
LYCORIS: Mapping[Role, Suffixes] = {
    Role.ALPHA: (".alpha",),
    Role.SCALE: (".scale",),
    Role.MAGNITUDE: (".dora_scale",),
    Role.RESCALE: (".rescale",),
    Role.HADA_W1_A: (".hada_w1_a",),
    Role.HADA_W1_B: (".hada_w1_b",),
    Role.HADA_W2_A: (".hada_w2_a",),
    Role.HADA_W2_B: (".hada_w2_b",),
    Role.HADA_T1: (".hada_t1",),
    Role.HADA_T2: (".hada_t2",),
    Role.LOKR_W1: (".lokr_w1",),
    Role.LOKR_W1_A: (".lokr_w1_a",),
    Role.LOKR_W1_B: (".lokr_w1_b",),
    Role.LOKR_W2: (".lokr_w2",),
    Role.LOKR_W2_A: (".lokr_w2_a",),
    Role.LOKR_W2_B: (".lokr_w2_b",),
    Role.LOKR_T1: (".lokr_t1",),
    Role.LOKR_T2: (".lokr_t2",),
    Role.OFT_BLOCKS: (".oft_blocks",),
    Role.OFT_DIAG: (".oft_diag",),
    Role.IA3_WEIGHT: (".weight",),  # only beside `.on_input`; a checkpoint's keys end so too
    Role.IA3_ON_INPUT: (".on_input",),
    Role.GLORA_A1: (".a1.weight",),
    Role.GLORA_A2: (".a2.weight",),
    Role.GLORA_B1: (".b1.weight",),
    Role.GLORA_B2: (".b2.weight",),
    Role.GLORA_BM: (".bm.weight",),
    Role.DIFF: (".diff",),
    Role.DIFF_BIAS: (".diff_b",),
    Role.DIFF_MODULATION: (".diff_m",),
    Role.SET_WEIGHT: (".set_weight",),
    Role.RESHAPE_WEIGHT: (".reshape_weight",),
    Role.NORM_WEIGHT: (".w_norm",),
    Role.NORM_BIAS: (".b_norm",),
    Role.SPARSE_INDICES: (".bias_indices",),
    Role.SPARSE_VALUES: (".bias_values",),
    Role.SPARSE_SIZE: (".bias_size",),
}

_LOW_RANK: Mapping[Role, Suffixes] = {
    Role.DOWN: (".lora_down.weight",),
    Role.UP: (".lora_up.weight",),
    Role.MID: (".lora_mid.weight",),
}

#: sd-scripts and everything that follows it; OneTrainer keeps PEFT's names of its OFT here.
KOHYA: Mapping[Role, Suffixes] = {
    **LYCORIS,
    **_LOW_RANK,
    Role.OFT_R: (".oft_R.weight",),
    Role.OFT_SCALED: (".oft_R.scaled_oft",),
}

#: ComfyUI reads both spellings of the factors; only `lora_down/up` may have a Tucker core and it honours `.alpha`.
COMFYUI: Mapping[Role, Suffixes] = {
    **KOHYA,
    Role.DOWN: (".lora_down.weight", ".lora_A.weight"),
    Role.UP: (".lora_up.weight", ".lora_B.weight"),
    Role.UP_BIAS: (".lora_B.bias",),
}

#: What PEFT's `save_pretrained` and diffusers' `save_lora_weights` write: no alpha, no Tucker core.
PEFT: Mapping[Role, Suffixes] = {
    Role.DOWN: (".lora_A.weight", ".lora_A"),
    Role.UP: (".lora_B.weight", ".lora_B"),
    Role.UP_BIAS: (".lora_B.bias",),
    Role.MAGNITUDE: (".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".magnitude"),
    Role.EMBEDDING_DOWN: (".lora_embedding_A",),
    Role.EMBEDDING_UP: (".lora_embedding_B",),
    Role.OFT_R: (".oft_R.weight",),
    Role.OFT_SCALED: (".oft_R.scaled_oft",),
    Role.BOFT_R: (".boft_R",),
    Role.BOFT_S: (".boft_s",),
    Role.IA3_L: (".ia3_l",),
    **{role: LYCORIS[role] for role in Role if role.value.startswith(("hada", "lokr"))},
}

#: A raw `state_dict()` keeps PEFT's adapter name; `split_key` writes it as `*`.
PEFT_NAMED: Mapping[Role, Suffixes] = {
    Role.DOWN: (".lora_A.*.weight",),
    Role.UP: (".lora_B.*.weight",),
    Role.UP_BIAS: (".lora_B.*.bias",),
    Role.MAGNITUDE: (".lora_magnitude_vector.*.weight", ".lora_magnitude_vector.*"),
    Role.EMBEDDING_DOWN: (".lora_embedding_A.*",),
    Role.EMBEDDING_UP: (".lora_embedding_B.*",),
    Role.OFT_R: (".oft_R.*.weight",),
    Role.BOFT_R: (".boft_R.*",),
    Role.BOFT_S: (".boft_s.*",),
    Role.IA3_L: (".ia3_l.*",),
    **{role: (f"{LYCORIS[role][0]}.*",) for role in Role if role.value.startswith(("hada", "lokr"))},
}

#: diffusers 0.2x for denoisers, and its text-encoder twin.
DIFFUSERS_LORA: Mapping[Role, Suffixes] = {Role.DOWN: (".lora.down.weight",), Role.UP: (".lora.up.weight",)}
DIFFUSERS_LINEAR_LAYER: Mapping[Role, Suffixes] = {
    Role.DOWN: (".lora_linear_layer.down.weight",),
    Role.UP: (".lora_linear_layer.up.weight",),
}

#: diffusers up to 0.19: the module path itself ends in `_lora`.
PLAIN: Mapping[Role, Suffixes] = {Role.DOWN: (".down.weight",), Role.UP: (".up.weight",)}


#: cloneofsimo/lora: the module is a number, the factor comes after a colon.
NUMBERED: Mapping[Role, Suffixes] = {Role.DOWN: (":down",), Role.UP: (":up",)}


def joined(*tables: Mapping[Role, Suffixes]) -> Mapping[Role, Suffixes]:
    """One table that reads what any of them reads and writes what the first writes."""
    roles = dict.fromkeys(role for table in tables for role in table)
    return {role: tuple(dict.fromkeys(s for table in tables for s in table.get(role, ()))) for role in roles}


_TABLES = (KOHYA, COMFYUI, PEFT, PEFT_NAMED, DIFFUSERS_LORA, DIFFUSERS_LINEAR_LAYER, PLAIN, NUMBERED)
_KNOWN = frozenset(suffix for table in _TABLES for row in table.values() for suffix in row)
_LONGEST = max(suffix.count(".") for suffix in _KNOWN)
_NAMED = "|".join(
    re.escape(suffix[1:].partition(".*")[0]) for row in PEFT_NAMED.values() for suffix in row
)  # lora_A, lora_B, …
_ADAPTER_NAME = re.compile(rf"\.({_NAMED})\.(?!(?:weight|bias|scaled_oft)$)([^.]+)(\.weight|\.bias)?$")


class SplitKey(NamedTuple):
    """A key cut before its parameter suffix; `suffix` has `*` for a PEFT adapter's name."""

    base: str
    suffix: str


def split_key(key: str) -> SplitKey | None:
    """Cut a key before the longest suffix that any toolchain writes; None if it ends in none.

    >>> split_key("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight")
    SplitKey(base='lora_unet_mid_block_attentions_0_proj_in', suffix='.lora_down.weight')
    >>> split_key("base_model.model.x.lora_A.default.weight").suffix
    '.lora_A.*.weight'
    """
    if (named := _ADAPTER_NAME.search(key)) and (suffix := f".{named[1]}.*{named[3] or ''}") in _KNOWN:
        return SplitKey(key[: named.start()], suffix)
    parts = key.rsplit(".", _LONGEST)
    for count in range(1, len(parts)):
        suffix = "." + ".".join(parts[count:])
        if suffix in _KNOWN:
            return SplitKey(".".join(parts[:count]), suffix)
    base, colon, factor = key.rpartition(":")
    return SplitKey(base, f":{factor}") if colon + factor in _KNOWN else None


#: The role a suffix means; no suffix means two.
ROLE_OF: Mapping[str, Role] = {suffix: role for table in _TABLES for role, row in table.items() for suffix in row}
