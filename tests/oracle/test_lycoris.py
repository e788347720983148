"""Our weight changes are those of LyCORIS's modules in training: their forward pass on unit inputs.

Not `get_diff_weight`, which multiplies the scale in twice for LoHa and LoKr.
"""

from __future__ import annotations

import pytest
import torch
from oracle.models import error

from hubtool.adapters.layer import Layer
from hubtool.adapters.tensors import from_torch
from hubtool.naming.address import Role
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
    ("locon", "1x1", {"lora_dim": 4, "alpha": 2}),
    ("loha", "1x1", {"lora_dim": 4, "alpha": 2}),
    ("lokr", "1x1", {"lora_dim": 2, "alpha": 1, "factor": 4}),
    ("lokr", "linear", {"lora_dim": 2, "alpha": 1, "factor": 4, "full_matrix": True}),
    ("lokr", "linear", {"lora_dim": 2, "alpha": 1, "factor": 4, "unbalanced_factorization": True}),
    ("lokr", "linear", {"lora_dim": 2, "alpha": 1, "factor": 4, "rs_lora": True}),
    ("lokr", "conv", {"lora_dim": 1, "alpha": 3, "factor": 6, "decompose_both": True, "use_tucker": True}),
    ("loha", "linear", {"lora_dim": 4, "alpha": 2, "rs_lora": True}),
    ("diag-oft", "conv", {"lora_dim": 4, "alpha": 1e-2, "constraint": 1e-2, "rescaled": True}),
    ("boft", "linear", {"lora_dim": 4, "alpha": 1e-2, "constraint": 1e-2, "rescaled": True}),
    ("ia3", "conv", {"train_on_input": False}),
    ("full", "linear", {}),
    ("full", "conv", {}),
    *(
        (family, kind, {**options, "weight_decompose": True, "wd_on_out": on_out})
        for family, options in {
            "locon": {"lora_dim": 4, "alpha": 2},
            "loha": {"lora_dim": 4, "alpha": 2},
            "lokr": {"lora_dim": 2, "alpha": 1, "factor": 4},
        }.items()
        for kind in ("linear", "conv")
        for on_out in (True, False)
    ),
]


def module_of(family: str, base: torch.nn.Module, options: dict[str, object]) -> torch.nn.Module:
    from lycoris import modules

    names = {"locon": "LoConModule", "loha": "LohaModule", "lokr": "LokrModule", "diag-oft": "DiagOFTModule"}
    names |= {"boft": "ButterflyOFTModule", "ia3": "IA3Module", "glora": "GLoRAModule", "full": "FullModule"}
    module = getattr(modules, names[family])("x", base, multiplier=1.0, **options)
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    base.bias.data.zero_()
    module.apply_to()
    if family == "full":
        module.bias.data.zero_()
    return module


def change(module: torch.nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """(out, in · kernel): what comes out for each unit input, less what the base weight does."""
    units = torch.eye(weight[0].numel()).reshape(-1, *weight.shape[1:])
    with torch.no_grad():
        return module(units).flatten(1).T - weight.flatten(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "kind", "options"), CASES)
def test_a_change_is_what_training_sees(family, kind, options):
    base = base_of(kind, 32 if family == "boft" else 36)  # butterflies need a power of two
    weight = base.weight.detach().clone()
    module = module_of(family, base, options)
    layer = layer_of(module.custom_state_dict() if family == "full" else module.state_dict())
    assert ("dora" in layer.modifiers) == ("wd_on_out" in options)
    theirs = change(module, weight)
    ours = layer.change(tuple(weight.shape), weight).reshape(theirs.shape)
    assert error(theirs, ours) < 2e-6


def base_of(kind, rows):
    if kind == "linear":
        return torch.nn.Linear(24, rows)
    return torch.nn.Conv2d(16, rows, 3 if kind == "conv" else 1)


def layer_of(state):
    layer = Layer({ROLE_OF[f".{name}"]: from_torch(value.clone()) for name, value in state.items()}, "x")
    assert layer.parametrization is not None
    return layer


@pytest.mark.parametrize("kind", ["linear", "conv", "1x1"])
@pytest.mark.parametrize("block", [1, 4])
def test_dylora_is_read_as_every_loader_does_and_lycoris_itself_trains_it_block_size_times_stronger(kind, block):
    """`get_weight` there divides alpha by the number of blocks where that of directions is meant."""
    from lycoris.modules import DyLoraModule

    base = base_of(kind, 36)
    module = DyLoraModule("x", base, lora_dim=8, alpha=2, block_size=block)
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    layer = layer_of(module.custom_state_dict())
    with torch.no_grad():
        theirs = module.get_diff_weight(rank=8 - block)[0]
    assert error(theirs, block * layer.delta(tuple(base.weight.shape))) < 2e-6


def test_a_norms_change_is_what_training_adds():
    from lycoris.modules import NormModule

    base = torch.nn.GroupNorm(4, 16)
    base.weight.data.normal_()
    module = NormModule("x", base)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.3)
    layer = layer_of(module.state_dict())
    weight, bias = module.make_weight(1, "cpu")
    assert error(weight.detach() - base.weight.detach(), layer.delta((16,))) < 2e-6
    assert error(bias.detach() - base.bias.detach(), layer.float(Role.NORM_BIAS)) < 2e-6
