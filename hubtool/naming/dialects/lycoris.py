"""LyCORIS's wrapper around one model: `lycoris_` + diffusers' path with underscores.

The prefix is the user's to choose (`LycorisNetwork.LORA_PREFIX`): any one word is read, `lycoris_` is written. Text encoders have
no place of their own in it.
"""

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import KOHYA

DIALECT = Dialect(
    id="lycoris",
    source="KohakuBlueleaf/LyCORIS lycoris/wrapper.py; bghira/SimpleTuner and ostris/ai-toolkit write it",
    rank_order=45,
    spellings=(
        Spelling(KOHYA, ("lycoris_",), (), "_"),
        Spelling(KOHYA, ("lycoris_",), (), "_", "original"),
        Spelling(KOHYA, (), (), "_", any_word=True),
    ),
)
