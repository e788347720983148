"""What a key means, whatever it is called: a component, a module path and a role.

The canonical module path is diffusers' at the finest granularity (q, k and v apart). A module that the authors'
own code keeps fused is addressed by its original path; the architecture says which canonical modules it stacks.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Component(str, Enum):
    """The part of a pipeline that a module belongs to."""

    DENOISER = "denoiser"  # the UNet or transformer
    CLIP_L = "clip_l"
    CLIP_G = "clip_g"  # OpenCLIP bigG
    CLIP_H = "clip_h"  # OpenCLIP ViT-H
    T5 = "t5"
    BERT = "bert"
    LLAMA = "llama"
    GEMMA = "gemma"
    QWEN = "qwen"


class Role(str, Enum):
    """What a tensor is to its module. Shapes: facts of the field, stated at each parametrization."""

    # low rank
    DOWN = "down"  # (rank, in, *kernel); "A" in PEFT
    UP = "up"  # (out, rank, 1…); "B" in PEFT
    MID = "mid"  # (rank, rank, *kernel): Tucker core
    ALPHA = "alpha"
    SCALE = "scale"  # replaces alpha / rank where present
    EMBEDDING_DOWN = "embedding_down"
    EMBEDDING_UP = "embedding_up"
    UP_BIAS = "up_bias"  # PEFT lora_bias, scaled like the update
    # modifiers
    MAGNITUDE = "magnitude"  # DoRA
    RESCALE = "rescale"
    # Hadamard product
    HADA_W1_A = "hada_w1_a"
    HADA_W1_B = "hada_w1_b"
    HADA_W2_A = "hada_w2_a"
    HADA_W2_B = "hada_w2_b"
    HADA_T1 = "hada_t1"
    HADA_T2 = "hada_t2"
    # Kronecker product
    LOKR_W1 = "lokr_w1"
    LOKR_W1_A = "lokr_w1_a"
    LOKR_W1_B = "lokr_w1_b"
    LOKR_W2 = "lokr_w2"
    LOKR_W2_A = "lokr_w2_a"
    LOKR_W2_B = "lokr_w2_b"
    LOKR_T1 = "lokr_t1"
    LOKR_T2 = "lokr_t2"
    # orthogonal
    OFT_BLOCKS = "oft_blocks"
    OFT_DIAG = "oft_diag"
    OFT_R = "oft_r"  # PEFT: the strict upper triangles
    OFT_SCALED = "oft_scaled"
    BOFT_R = "boft_r"
    BOFT_S = "boft_s"
    # (IA)³
    IA3_WEIGHT = "ia3_weight"
    IA3_ON_INPUT = "ia3_on_input"
    IA3_L = "ia3_l"  # PEFT
    # GLoRA
    GLORA_A1 = "glora_a1"
    GLORA_A2 = "glora_a2"
    GLORA_B1 = "glora_b1"
    GLORA_B2 = "glora_b2"
    GLORA_BM = "glora_bm"
    # plain differences
    DIFF = "diff"
    DIFF_BIAS = "diff_b"
    DIFF_MODULATION = "diff_m"
    SET_WEIGHT = "set_weight"
    RESHAPE_WEIGHT = "reshape_weight"
    NORM_WEIGHT = "w_norm"
    NORM_BIAS = "b_norm"
    # LyCORIS's sparse remainder of an extraction
    SPARSE_INDICES = "bias_indices"
    SPARSE_VALUES = "bias_values"
    SPARSE_SIZE = "bias_size"


class ModuleRef(NamedTuple):
    """A module of a component: a canonical path, or the original path of a fused module."""

    component: Component
    path: str


class Address(NamedTuple):
    """What one key means."""

    component: Component
    module: str
    role: Role
