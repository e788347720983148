"""diffusers since 0.23: `unet.` or `transformer.` + the dotted path + PEFT's suffixes.

There is no alpha tensor; the header's `lora_adapter_metadata` may hold rank and alpha since 0.35.
"""

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import LYCORIS, PEFT, joined

_READ = joined(PEFT, LYCORIS)

DIALECT = Dialect(
    id="diffusers",
    source="huggingface/diffusers loaders/lora_pipeline.py, save_lora_weights",
    rank_order=20,
    spellings=(
        Spelling(PEFT, ("{denoiser}.",), ("{diffusers}.",)),
        # LyCORIS tensors under diffusers' names; read, never written
        Spelling(_READ, ("{denoiser}.",), ("{diffusers}.",), malformed=True),
    ),
)
