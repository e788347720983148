"""Tencent's own LoRA trainer for HunyuanVideo-I2V: `Hunyuan_video_I2V_lora_` + its model's path with underscores."""

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import KOHYA

DIALECT = Dialect(
    id="hunyuan",
    source="Tencent/HunyuanVideo-I2V issue 61, where the keys are quoted; deepbeepmeep/Wan2GP reads them",
    rank_order=55,
    spellings=(Spelling(KOHYA, ("Hunyuan_video_I2V_lora_",), (), "_", "second", only=("hunyuanvideo",)),),
)
