"""Black Forest Labs' control LoRAs: bare names, PEFT's factors with a bias, and norms that replace the model's."""

from hubtool.naming.address import Role
from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import PEFT

_CONTROL = {
    Role.DOWN: PEFT[Role.DOWN],
    Role.UP: PEFT[Role.UP],
    Role.UP_BIAS: PEFT[Role.UP_BIAS],
    Role.SET_WEIGHT: (".scale",),  # the norm's own weight, not a change of it
}

DIALECT = Dialect(
    id="bfl",
    source="black-forest-labs: FLUX.1-Depth-dev-lora, FLUX.1-Canny-dev-lora",
    rank_order=70,
    spellings=(Spelling(_CONTROL, ("",), naming="original", only=("flux1",)),),
)
