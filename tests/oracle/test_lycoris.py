"""Our weight changes are those of LyCORIS's modules in training: their forward pass on unit inputs.

Not `get_diff_weight`, which multiplies the scale in twice for LoHa and LoKr.
"""

from __future__ import annotations

import pytest
import torch
from oracle.models import error

from hubtool.adapters.layer import Layer
from hubtool.adapters.tensors import from_torch
from hubtool.naming.suffixes import ROLE_OF

pytest.importorskip("lycoris")

CASES = [
    ("locon", "linear", {"lora_dim": 4, "alpha": 2}),
    ("locon", "conv", {"lora_dim": 4, "alpha": 2}),
    ("locon", "conv", {"lora_dim": 4, "alpha": 2, "use_tucker": True}),
    ("locon", "linear", {"lora_dim": 4, "alpha": 2, "rs_lora": True}),
    ("loha", "linear", {"lora_dim": 4, "alpha": 2}),
    ("loha", "conv", {"lora_dim": 4, "alpha": 2}),
    ("loha", "conv", {"lora_dim": 4, "alpha": 2, "use_tucker": True}),
    ("lokr", "linear", {"lora_dim": 2, "alpha": 1, "factor": 4}),
    ("lokr", "linear", {"lora_dim": 10_000, "alpha": 1, "factor": 4}),
    ("lokr", "linear", {"lora_dim": 1, "alpha": 3, "factor": 6, "decompose_both": True}),
    ("lokr", "conv", {"lora_dim": 2, "alpha": 1, "factor": 4}),
    ("lokr", "conv", {"lora_dim": 2, "alpha": 1, "factor": 4, "use_tucker": True}),
    ("diag-oft", "linear", {"lora_dim": 4, "alpha": 0}),
    ("diag-oft", "linear", {"lora_dim": 4, "alpha": 1e-2, "constraint": 1e-2, "rescaled": True}),
    ("diag-oft", "conv", {"lora_dim": 4, "alpha": 0}),
    ("boft", "linear", {"lora_dim": 4, "alpha": 0}),
    ("boft", "conv", {"lora_dim": 4, "alpha": 0, "rescaled": True}),
    ("ia3", "linear", {"train_on_input": True}),
    ("ia3", "linear", {"train_on_input": False}),
    ("ia3", "conv", {"train_on_input": True}),
    ("glora", "linear", {"lora_dim": 4, "alpha": 2}),
    ("glora", "conv", {"lora_dim": 4, "alpha": 2}),
]


def module_of(family: str, base: torch.nn.Module, options: dict[str, object]) -> torch.nn.Module:
    from lycoris import modules

    names = {"locon": "LoConModule", "loha": "LohaModule", "lokr": "LokrModule", "diag-oft": "DiagOFTModule"}
    names |= {"boft": "ButterflyOFTModule", "ia3": "IA3Module", "glora": "GLoRAModule"}
    module = getattr(modules, names[family])("x", base, multiplier=1.0, **options)
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    base.bias.data.zero_()
    module.apply_to()
    return module


def change(module: torch.nn.Module, base: torch.nn.Module) -> torch.Tensor:
    """(out, in · kernel): what comes out for each unit input, less what the base weight does."""
    with torch.no_grad():
        if isinstance(base, torch.nn.Linear):
            return module(torch.eye(base.in_features)).T - base.weight
        count = base.weight[0].numel()
        units = torch.eye(count).reshape(count, *base.weight.shape[1:])
        return module(units)[:, :, 0, 0].T - base.weight.flatten(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "kind", "options"), CASES)
def test_a_change_is_what_training_sees(family, kind, options):
    rows = 32 if family == "boft" else 36  # butterflies need a power of two
    base = torch.nn.Linear(24, rows) if kind == "linear" else torch.nn.Conv2d(16, rows, 3)
    module = module_of(family, base, options)
    tensors = {ROLE_OF[f".{name}"]: from_torch(value.clone()) for name, value in module.state_dict().items()}
    layer = Layer(tensors, "x")
    assert layer.parametrization is not None
    theirs = change(module, base)
    ours = layer.delta(tuple(base.weight.shape), base.weight.detach()).reshape(theirs.shape)
    assert error(theirs, ours) < 2e-6
