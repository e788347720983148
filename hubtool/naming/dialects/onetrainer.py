"""OneTrainer's own flat keys: `lora_transformer_` + diffusers' path, text encoders counted from te1 without gaps."""

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import KOHYA

DIALECT = Dialect(
    id="onetrainer",
    source="Nerogar/OneTrainer modules/util/convert_lora_util.py, the legacy format",
    rank_order=15,
    spellings=(Spelling(KOHYA, ("lora_transformer_",), ("lora_{onetrainer}_",), "_"),),
)
