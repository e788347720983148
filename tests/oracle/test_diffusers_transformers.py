"""Every transformer that diffusers has a LoRA loader for: our `diffusers` file ends as the change that the source means.

The source is written in kohya's flat keys, which follow the authors' names for most of these: renames, fused projections and
swapped halves are all on the way. One or two blocks of the real width stand for all.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from oracle.models import FOLDABLE, adapter_for, empty, error

from hubtool.adapters.codec import read_adapter, write_adapter
from hubtool.adapters.fusion import fit
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.dialect import dialect
from hubtool.operations.convert import ConvertOptions, convert

diffusers = pytest.importorskip("diffusers")


class Case(NamedTuple):
    """An architecture, diffusers' class and loader, and how to build a small one."""

    id: str
    model: str
    loader: str
    options: dict[str, object]
    source: str = "kohya"


SD3 = {"num_layers": 2, "num_attention_heads": 24, "caption_projection_dim": 1536}
SD35 = {"num_layers": 2, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"}
WAN_SMALL = {"num_layers": 1, "num_attention_heads": 12, "ffn_dim": 8960}
TWO = {"num_layers": 1, "num_single_layers": 1}
ONE = {"num_layers": 1}
KANDINSKY = {"num_text_blocks": 1, "num_visual_blocks": 1, "in_visual_dim": 16, "out_visual_dim": 16}

CASES = [
    Case("sd3-medium", "SD3Transformer2DModel", "SD3LoraLoaderMixin", SD3),
    Case("sd35-large", "SD3Transformer2DModel", "SD3LoraLoaderMixin", SD35),
    Case("auraflow", "AuraFlowTransformer2DModel", "AuraFlowLoraLoaderMixin",
         {"num_mmdit_layers": 1, "num_single_dit_layers": 1}),
    Case("hunyuanvideo", "HunyuanVideoTransformer3DModel", "HunyuanVideoLoraLoaderMixin", {**TWO, "num_refiner_layers": 1}),
    Case("wan-14b", "WanTransformer3DModel", "WanLoraLoaderMixin", ONE),
    Case("wan21-1.3b", "WanTransformer3DModel", "WanLoraLoaderMixin", WAN_SMALL),
    Case("ltx-video-2b", "LTXVideoTransformer3DModel", "LTXVideoLoraLoaderMixin", ONE),
    Case("lumina2", "Lumina2Transformer2DModel", "Lumina2LoraLoaderMixin", {**ONE, "num_refiner_layers": 1}),
    Case("z-image", "ZImageTransformer2DModel", "ZImageLoraLoaderMixin", {"n_layers": 1, "n_refiner_layers": 1}),
    Case("qwen-image", "QwenImageTransformer2DModel", "QwenImageLoraLoaderMixin", ONE),
    Case("chroma", "ChromaTransformer2DModel", "FluxLoraLoaderMixin", {**TWO, "approximator_layers": 1}),
    Case("flux2", "Flux2Transformer2DModel", "Flux2LoraLoaderMixin", TWO),
    Case("sana", "SanaTransformer2DModel", "SanaLoraLoaderMixin", ONE),
    Case("cogvideox-5b", "CogVideoXTransformer3DModel", "CogVideoXLoraLoaderMixin", {**ONE, "num_attention_heads": 48}),
    Case("mochi1", "MochiTransformer3DModel", "Mochi1LoraLoaderMixin", ONE),
    Case("cosmos-predict2-2b", "CosmosTransformer3DModel", "CosmosLoraLoaderMixin", {**ONE, "num_attention_heads": 16}),
    Case("krea2", "Krea2Transformer2DModel", "Krea2LoraLoaderMixin", {**ONE}),
    Case("sd35-medium", "SD3Transformer2DModel", "SD3LoraLoaderMixin",
         {**SD3, "dual_attention_layers": (0,), "qk_norm": "rms_norm"}),
    Case("ltx-video-13b", "LTXVideoTransformer3DModel", "LTXVideoLoraLoaderMixin",
         {**ONE, "attention_head_dim": 128, "cross_attention_dim": 4096}),
    Case("ltx2", "LTX2VideoTransformer3DModel", "LTX2LoraLoaderMixin", ONE),
    Case("cogvideox-2b", "CogVideoXTransformer3DModel", "CogVideoXLoraLoaderMixin", ONE),
    Case("wan21-i2v-14b", "WanTransformer3DModel", "WanLoraLoaderMixin",
         {**ONE, "in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}),
    Case("wan22-5b", "WanTransformer3DModel", "WanLoraLoaderMixin",
         {**ONE, "num_attention_heads": 24, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48}),
    Case("wan21-vace-1.3b", "WanVACETransformer3DModel", "WanLoraLoaderMixin", {**WAN_SMALL, "vace_layers": [0]}),
    Case("flux2-klein-4b", "Flux2Transformer2DModel", "Flux2LoraLoaderMixin",
         {**TWO, "num_attention_heads": 24, "joint_attention_dim": 7680, "guidance_embeds": False}),
    Case("flux2-klein-9b", "Flux2Transformer2DModel", "Flux2LoraLoaderMixin",
         {**TWO, "num_attention_heads": 32, "joint_attention_dim": 12288, "guidance_embeds": False}),
    Case("hidream", "HiDreamImageTransformer2DModel", "HiDreamImageLoraLoaderMixin",
         {**TWO, "patch_size": 2, "in_channels": 16, "out_channels": 16, "caption_channels": [4096, 4096],
          "llama_layers": [0, 1], "axes_dims_rope": (64, 32, 32)}),
    Case("kandinsky5-video-lite", "Kandinsky5Transformer3DModel", "KandinskyLoraLoaderMixin",
         {**KANDINSKY, "model_dim": 1792, "ff_dim": 7168, "visual_cond": True}),
    Case("kandinsky5-image-lite", "Kandinsky5Transformer3DModel", "KandinskyLoraLoaderMixin",
         {**KANDINSKY, "model_dim": 2560, "ff_dim": 10240, "axes_dims": (32, 48, 48)}),
    Case("anima", "CosmosTransformer3DModel", "AnimaLoraLoaderMixin",
         {**ONE, "num_attention_heads": 16, "extra_pos_embed_type": None}),
    Case("ideogram4", "Ideogram4Transformer2DModel", "Ideogram4LoraLoaderMixin", ONE),
    Case("audio-ace-step", "AceStepTransformer1DModel", "AceStepLoraLoaderMixin", {"num_hidden_layers": 1}),
    Case("minimax-h3", "MiniMaxH3Transformer3DModel", "MiniMaxH3LoraLoaderMixin", {**ONE, "num_refiner_layers": 1}),
    Case("cogview4", "CogView4Transformer2DModel", "CogView4LoraLoaderMixin",
         {**ONE, "attention_head_dim": 128, "num_attention_heads": 32}, "comfyui"),
    Case("bria-fibo", "BriaFiboTransformer2DModel", "FluxLoraLoaderMixin", TWO, "onetrainer"),
]  # fmt: skip


def modules_of(case: Case, present: dict[str, torch.Tensor]) -> list[ModuleRef]:
    """The modules of the small model, fused where the source dialect writes them so, and of the same shape."""
    target = adapter_for(case.id, []).architecture

    def there(path: str) -> bool:
        return path in present and tuple(present[path].shape) == target.modules[path] and len(target.modules[path]) == 2

    chosen = []
    for module in dialect(case.source).written(target):
        fused = target.fused.get(module.path)
        if all(there(path) for path in (fused.parts if fused else [module.path])):
            chosen.append(module)
    return [module for module in chosen if module.component is Component.DENOISER]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_loader_ends_with_the_same_change(case, tmp_path):
    if not hasattr(diffusers, case.model) or not hasattr(diffusers.loaders, case.loader):
        pytest.skip("this diffusers has no such model")
    model = empty(lambda: getattr(diffusers, case.model)(**case.options))
    present = {name: layer.weight for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    modules = modules_of(case, present)
    assert len(modules) > 3

    write_adapter(tmp_path / "source.safetensors", adapter_for(case.id, modules, FOLDABLE), case.source)
    options = ConvertOptions(architecture=case.id)
    done = convert(tmp_path / "source.safetensors", "diffusers", tmp_path / "out.safetensors", options)
    assert done.exact
    loader = getattr(diffusers.loaders, case.loader)
    state = loader.lora_state_dict(tmp_path / "out.safetensors")
    state = state[0] if isinstance(state, tuple) else state
    alphas = [None] if case.loader == "FluxLoraLoaderMixin" else []
    loader.load_lora_into_transformer(state, *alphas, model, adapter_name="ours")

    layers = dict(model.named_modules())
    source = fit(read_adapter(tmp_path / "source.safetensors", architecture_id=case.id), "diffusers").adapter
    for module, layer in source.layers.items():
        loaded = layers[module.path]
        probe = torch.randn(source.architecture.modules[module.path][1], 8, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():  # the factors, not the whole change: it has up to 340 million numbers
            theirs = loaded.lora_B["ours"].weight @ (loaded.lora_A["ours"].weight @ probe) * loaded.scaling["ours"]
        ours = layer.float(Role.UP) @ (layer.float(Role.DOWN) @ probe) * layer.scale
        assert error(theirs, ours) < 1e-6, module.path
