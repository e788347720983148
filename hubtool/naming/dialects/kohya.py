"""kohya's flat keys: `lora_unet_` + the module path with underscores + `.lora_down.weight`.

Which names the path follows is the architecture's business: diffusers' for SD 1.x and 2.x, the authors' for SDXL and FLUX.
LyCORIS writes its own suffixes after the same prefixes.
"""

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import KOHYA, PEFT, joined

_HYBRID = joined(KOHYA, PEFT)

DIALECT = Dialect(
    id="kohya",
    source="kohya-ss/sd-scripts networks/lora.py, lora_flux.py; KohakuBlueleaf/LyCORIS lycoris/kohya.py",
    rank_order=10,
    spellings=(
        # `lora_unet__` comes from Wan-Fun and some Z-Image tools, `oft_unet_` from sd-scripts networks/oft.py, `lora_prior_unet_`
        # from trainers of Stable Cascade
        Spelling(
            KOHYA,
            ("lora_unet_", "lora_unet__", "oft_unet_", "lora_prior_unet_"),
            ("lora_{kohya}_", "lora_prior_{kohya}_"),
            "_",
            "kohya",
        ),
        # SDXL with diffusers' names: LECO, OneTrainer's old default, diffusers' own export
        Spelling(KOHYA, ("lora_unet_",), (), "_", "diffusers"),
        Spelling(KOHYA, ("lora_unet_",), (), "_", "original"),
        # diffusers' export flattened only the low-rank keys and left dots in the others (ComfyUI issue 3494)
        Spelling(_HYBRID, ("lora_unet_",), ("lora_{kohya}_",), "_", "kohya", malformed=True),
        Spelling(_HYBRID, ("lora_unet_",), (), "_", "diffusers", malformed=True),
    ),
)
