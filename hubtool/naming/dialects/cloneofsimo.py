"""The first LoRA trainer for diffusion models: modules by number, `unet:17:up` and `text_encoder:3:down`.

Which module a number means depends on the version of diffusers that trained it and on the classes that were asked for; read are
the defaults (`traversal.py`), with sizes as the check. It is not written: a file has to number every module there is.
"""

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import NUMBERED

DIALECT = Dialect(
    id="cloneofsimo",
    source="cloneofsimo/lora lora_diffusion/lora.py, save_safeloras_with_embeds",
    rank_order=80,
    spellings=(
        Spelling(NUMBERED, ("{denoiser}:",), ("{diffusers}:",), naming="numbered", read_only=True, only=("sd1", "sd2")),
    ),
)
