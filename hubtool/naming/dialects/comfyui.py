"""ComfyUI's own names: `diffusion_model.` + the authors' path, `text_encoders.NAME.transformer.` for encoders.

ai-toolkit, diffusion-pipe and OneTrainer write PEFT's factor names here, ComfyUI's trainer kohya's; ComfyUI reads both, and
alpha.
"""

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import COMFYUI

_ENCODER = ("text_encoders.{comfyui}.transformer.{root}", "text_encoders.{comfyui}.transformer.")

DIALECT = Dialect(
    id="comfyui",
    source="comfyanonymous/ComfyUI comfy/lora.py, model_lora_keys_unet and model_lora_keys_clip",
    rank_order=25,
    spellings=(
        Spelling(COMFYUI, ("diffusion_model.", "model.diffusion_model."), _ENCODER, naming="original"),
        Spelling(COMFYUI, ("diffusion_model.",), (), naming="diffusers"),
        # what Ideogram 4's authors call the one of their two transformers that reads the prompt
        Spelling(COMFYUI, ("conditional_transformer.",), (), naming="original", only=("ideogram4",)),
        # diffusion-pipe's HunyuanVideo files: the authors' names after diffusers' prefix
        Spelling(COMFYUI, ("{denoiser}.",), (), naming="second", only=("hunyuanvideo", "hunyuanvideo15")),
    ),
)
