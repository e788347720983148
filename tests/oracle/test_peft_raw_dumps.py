"""PEFT's raw `state_dict()` keeps the adapter's name in every key: it is cut off, for every family and any name."""

from __future__ import annotations

import pytest
import torch

from hubtool.naming.suffixes import ROLE_OF, split_key

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")


class Small(torch.nn.Module):
    """One layer of each kind that adapters change."""

    def __init__(self) -> None:
        super().__init__()
        self.q = torch.nn.Linear(16, 16, bias=False)
        self.ff = torch.nn.Linear(16, 16)
        self.c = torch.nn.Conv2d(4, 8, 3)
        self.e = torch.nn.Embedding(10, 16)


CONFIGS = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=["q", "c", "e"]),
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, target_modules=["q", "c"]),
    "bias": lambda: peft.LoraConfig(r=4, lora_bias=True, target_modules=["ff"]),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=["q", "c"]),
    "lokr": lambda: peft.LoKrConfig(r=4, target_modules=["q", "c"]),
    "oft": lambda: peft.OFTConfig(oft_block_size=4, target_modules=["q"], use_cayley_neumann=False),
    "boft": lambda: peft.BOFTConfig(boft_block_size=4, target_modules=["q"]),
    "ia3": lambda: peft.IA3Config(target_modules=["q", "ff"], feedforward_modules=["ff"]),
}


@pytest.mark.parametrize("name", ["default", "my_style"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_raw_dump_has_the_modules_and_roles_of_what_save_pretrained_writes(family, name):
    model = peft.get_peft_model(Small(), CONFIGS[family](), adapter_name=name)
    raw = [split_key(key) for key in model.state_dict() if f".{name}" in key]
    saved = [split_key(key) for key in peft.get_peft_model_state_dict(model, adapter_name=name)]
    assert raw
    assert None not in raw
    assert {(cut.base, ROLE_OF[cut.suffix]) for cut in raw} == {(cut.base, ROLE_OF[cut.suffix]) for cut in saved}
