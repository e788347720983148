"""Random adapters, and the reference libraries' own models at their real widths.

Models are allocated but never filled: pages of weights that nobody reads cost no memory.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.layer import Layer
from hubtool.adapters.tensors import from_torch
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.architecture import architecture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hubtool.formats.tensor import LazyTensor

#: (rank, alpha): scales that are powers of two, so that folding is exact.
FOLDABLE = ((4, 4.0), (8, 2.0), (2, 8.0), (1, 1.0))
#: Scales that are not, so that they must be recorded.
RECORDED = ((4, 3.0), (8, 8.0), (5, 1.0), (3, 7.0))


def empty(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """A model on the CPU whose weights are never touched."""
    with torch.device("meta"):
        model = build()
    return model.to_empty(device="cpu")


def sd1_unet() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": 64,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "block_out_channels": (320, 640, 1280, 1280),
    }
    return empty(lambda: UNet2DConditionModel.from_config(config))


def sdxl_unet() -> torch.nn.Module:
    """SDXL's widths with two instead of ten transformer layers where it is deepest."""
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2, 2],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    return empty(lambda: UNet2DConditionModel.from_config(config))


def flux_transformer() -> torch.nn.Module:
    """FLUX.1's widths with one block of each kind."""
    from diffusers import FluxTransformer2DModel

    return empty(lambda: FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True))


def clip_l() -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return empty(lambda: CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=2)))


def clip_g() -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=2, num_attention_heads=20, projection_dim=1280
    )
    return empty(lambda: CLIPTextModelWithProjection(config))


def lora(shape: tuple[int, ...], rank: int, alpha: float, generator: torch.Generator) -> Layer:
    """A float32 LoRA of random values for a weight of this shape."""
    kernel = shape[2:]
    down = torch.randn((rank, shape[1], *kernel), generator=generator)
    up = torch.randn((shape[0], rank, *(1,) * len(kernel)), generator=generator)
    tensors: dict[Role, LazyTensor] = {
        Role.DOWN: from_torch(down),
        Role.UP: from_torch(up),
        Role.ALPHA: from_torch(torch.tensor(alpha)),
    }
    return Layer(tensors)


def adapter_for(
    architecture_id: str, modules: Iterable[ModuleRef], scales: Iterable[tuple[int, float]] = FOLDABLE
) -> Adapter:
    """A random LoRA of the modules named, ranks and alphas taking turns."""
    target, generator = architecture(architecture_id), torch.Generator().manual_seed(7)
    turns = itertools.cycle(scales)
    layers = {}
    for module in modules:
        shape = target.shape(module)
        assert shape is not None, module
        layers[module] = lora(shape, *next(turns), generator)
    return Adapter(target, layers)


def weights_of(
    architecture_id: str, component: Component, named: Iterable[str], below: tuple[str, ...] = ("",)
) -> list[ModuleRef]:
    """The modules of a component that a model of the reference library has too, norms left out.

    `below` limits them to some blocks: the wide ones cost seconds and are named like the others.
    """
    target = architecture(architecture_id)
    modules = target.modules if component is Component.DENOISER else target.encoders[component].modules
    present = set(named) | {f"text_model.{name}" for name in named}
    weights = [path for path, shape in modules.items() if len(shape) > 1 and path in present]
    return [ModuleRef(component, path) for path in weights if path.startswith(below)]


def error(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    """Relative difference in the Frobenius norm."""
    return float((theirs - ours).norm() / ours.norm())
