"""LoRA files whose container is sound: faults of modules, values and metadata, and odd ones without any fault."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bad_files import BAD, BROKEN, CONV, OK, REFUSED, WARNING, Case, K, Q, Tensors, good, of_bytes, of_tensors, split
from support.files import Raw, container, floats, number, packed, random_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator


def bad_adapters() -> list[Case]:
    """Faults of meaning, and sound files that guard against a tool that refuses too much."""
    return [case for group in (_modules, _values, _models, _metadata, _sound) for case in group()]


def _without(*endings: str) -> Tensors:
    return {key: raw for key, raw in good().items() if not key.endswith(endings)}


def _modules() -> Iterator[Case]:
    yield of_tensors("no down", BROKEN, _without(f"{Q}.lora_down.weight"))
    yield of_tensors("no up", BROKEN, _without(f"{K}.lora_up.weight"))
    yield of_tensors("no down anywhere", BROKEN, _without(".lora_down.weight"))
    yield of_tensors(
        "an alpha of nothing", frozenset({OK, WARNING}), _without(f"{Q}.lora_down.weight", f"{Q}.lora_up.weight")
    )
    yield of_tensors("strangers", WARNING, {**good(), **{f"ema.shadow.{i}": number(i) for i in range(5)}})
    yield of_tensors("an empty stranger", frozenset({OK, WARNING}), {**good(), "x": Raw("F32", (0, 768), b"")})
    turned = {f"{Q}.lora_down.weight": random_tensor(1, (320, 4)), f"{Q}.lora_up.weight": random_tensor(2, (4, 320))}
    yield of_tensors("transposed", BROKEN, {**good(), **turned})
    yield of_tensors("factors of different rank", BROKEN, {**good(), f"{Q}.lora_up.weight": random_tensor(1, (320, 8))})
    yield of_tensors(
        "a factor of one dimension", BROKEN, {**good(), f"{Q}.lora_down.weight": random_tensor(1, (1280,))}
    )
    yield of_tensors("a factor of no dimension", BROKEN, {**good(), f"{Q}.lora_down.weight": number(1, "F16")})
    empty = {f"{Q}.lora_down.weight": Raw("F16", (0, 320), b""), f"{Q}.lora_up.weight": Raw("F16", (320, 0), b"")}
    yield of_tensors("rank 0", BROKEN, {**good(), **empty})
    wide = {f"{Q}.lora_down.weight": random_tensor(1, (400, 320)), f"{Q}.lora_up.weight": random_tensor(2, (320, 400))}
    yield of_tensors("a rank above the layer's", frozenset({OK, WARNING}), {**good(), **wide})
    yield of_tensors("made for another width", BROKEN, {**good(), f"{K}.lora_down.weight": random_tensor(1, (4, 999))})
    other = {f"{base}.lora_down.weight": random_tensor(1, (4, 999)) for base in (Q, K)}
    yield of_tensors("made for another width throughout", BROKEN, {**good(), **other})
    yield of_tensors(
        "weights of truth values", BROKEN, {**good(), f"{Q}.lora_up.weight": Raw("BOOL", (320, 4), bytes(1280))}
    )
    yield of_tensors("weights of bytes", WARNING, {**good(), f"{Q}.lora_up.weight": Raw("I8", (320, 4), b"\1" * 1280)})
    flux = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": random_tensor(1, (4, 3072)),
            "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": random_tensor(2, (9216, 4))}  # fmt: skip
    yield of_tensors("two base models", BROKEN, {**good(), **flux})
    yield from _families()
    yield from _two_dialects()


def _families() -> Iterator[Case]:
    hada = {
        f"{Q}.hada_w{n}_{side}": random_tensor(n, (320, 4) if side == "a" else (4, 320))
        for n in (1, 2)
        for side in "ab"
    }
    yield of_tensors("a whole LoHa", OK, hada)
    yield of_tensors(
        "a LoHa without its last factor", BROKEN, {k: v for k, v in hada.items() if not k.endswith("w2_b")}
    )
    yield of_tensors("a LoHa of two ranks", BROKEN, {**hada, f"{Q}.hada_w2_b": random_tensor(5, (8, 320))})
    lokr = {
        f"{Q}.lokr_w1": random_tensor(1, (8, 8)),
        f"{Q}.lokr_w2_a": random_tensor(2, (40, 4)),
        f"{Q}.lokr_w2_b": random_tensor(3, (4, 40)),
    }
    yield of_tensors("a whole LoKr", OK, lokr)
    yield of_tensors("a LoKr without w2", BROKEN, {f"{Q}.lokr_w1": lokr[f"{Q}.lokr_w1"]})
    yield of_tensors("a LoKr with half of w2", BROKEN, {k: v for k, v in lokr.items() if not k.endswith("_b")})
    yield of_tensors("a LoKr of another size", BROKEN, {**lokr, f"{Q}.lokr_w2_a": random_tensor(2, (41, 4))})
    yield of_tensors("a LoKr factor of no dimension", BROKEN, {**lokr, f"{Q}.lokr_w2_b": number(1, "F16")})


def _two_dialects() -> Iterator[Case]:
    base = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    peft = {f"{base}.lora_A.weight": random_tensor(7, (4, 768)), f"{base}.lora_B.weight": random_tensor(8, (320, 4))}
    yield of_tensors("one module in two dialects", BROKEN, {**good(), **peft})
    kohya = {key: raw for key, raw in good().items() if key.startswith(Q)}
    yield of_tensors("two dialects", frozenset({WARNING, BROKEN}), {**kohya, **peft})
    lone = {key: raw for key, raw in peft.items() if "lora_A" in key}
    yield of_tensors("PEFT without B", BROKEN, lone)


def _filled(dtype: str, pattern: bytes, place: int = -1) -> Tensors:
    """Q's up in this dtype with one element of these bytes."""
    raw = random_tensor(1, (320, 4), dtype)
    size = len(pattern)
    start = len(raw.data) - size if place < 0 else place * size
    return {**good(), f"{Q}.lora_up.weight": raw._replace(data=raw.data[:start] + pattern + raw.data[start + size :])}


def _values() -> Iterator[Case]:
    patterns = {"NaN in F16": ("F16", b"\x01\x7e"), "infinity in F16": ("F16", b"\x00\xfc"), "NaN in BF16": ("BF16", b"\xc1\x7f"),
                "infinity in BF16": ("BF16", b"\x80\xff"), "NaN in F32": ("F32", b"\x01\x00\x80\x7f"),
                "NaN in F64": ("F64", b"\x01" + bytes(5) + b"\xf0\x7f"), "NaN in F8_E4M3": ("F8_E4M3", b"\xff"),
                "infinity in F8_E5M2": ("F8_E5M2", b"\x7c")}  # fmt: skip
    for name, (dtype, pattern) in patterns.items():
        yield of_tensors(name, BROKEN, _filled(dtype, pattern))
    yield of_tensors("NaN at the very first", BROKEN, _filled("F16", b"\x00\x7e", 0))
    largest = {
        "F16": b"\xff\x7b",
        "BF16": b"\x7f\x7f",
        "F32": b"\xff\xff\x7f\x7f",
        "F64": b"\xff" * 6 + b"\xef\x7f",
        "F8_E4M3": b"\x7e",
        "F8_E5M2": b"\x7b",
    }
    for dtype, pattern in largest.items():
        yield of_tensors(f"the largest {dtype}", OK, _filled(dtype, pattern))
    zeros = {key: raw._replace(data=bytes(len(raw.data))) if "lora_up" in key else raw for key, raw in good().items()}
    yield of_tensors("every up of zeros", frozenset({OK, WARNING}), zeros)
    half = {
        key: raw._replace(data=bytes(len(raw.data))) if key.startswith(K) and raw.shape else raw
        for key, raw in good().items()
    }
    yield of_tensors("an end of zeros", frozenset({WARNING, BROKEN}), half)
    nowhere = (float("nan"), float("inf"))
    alphas = {"0": (0, {WARNING, BROKEN}), "below 0": (-4, {WARNING}), "a million": (1e6, {WARNING, BROKEN})}
    alphas |= {f"{value}": (value, BAD) for value in nowhere}
    for name, (value, allowed) in alphas.items():
        yield of_tensors(f"alpha {name}", frozenset(allowed), {**good(), f"{Q}.alpha": number(value)})
    yield of_tensors("alpha of four numbers", BROKEN, {**good(), f"{Q}.alpha": number(4, "F32", (4,))})
    yield of_tensors("alpha of no number", BROKEN, {**good(), f"{Q}.alpha": Raw("F32", (0,), b"")})
    yield of_tensors(
        "alpha in F8", frozenset({OK, WARNING, BROKEN}), {**good(), f"{Q}.alpha": Raw("F8_E4M3", (), b"\x40")}
    )


def _models() -> Iterator[Case]:
    sets = {
        "a checkpoint": {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "cond_stage_model.x.weight": (9, 9)},
        "a diffusers UNet": {"down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3), "conv_in.weight": (320, 4)},
        "a VAE": {"decoder.conv_in.weight": (9, 4, 3, 3), "encoder.conv_in.weight": (9, 3, 3, 3), "post_quant_conv.weight": (4,)},
        "an embedding": {"emb_params": (8, 768)},
        "an SDXL embedding": {"clip_l": (8, 768), "clip_g": (8, 1280)},
        "a ControlNet": {"control_model.input_blocks.0.0.weight": (320, 4), "control_model.zero_convs.0.0.weight": (320, 320)},
        "a language model": {"model.layers.0.self_attn.q_proj.weight": (64, 64), "lm_head.weight": (99, 64)},
        "anything": {"a": (1,), "b.c": (2,)},
    }  # fmt: skip
    for name, shapes in sets.items():
        yield of_tensors(
            name, frozenset({REFUSED}), {key: random_tensor(i, shape) for i, (key, shape) in enumerate(shapes.items())}
        )
    unet = {f"model.diffusion_model.input_blocks.{i}.0.weight": random_tensor(i, (4, 4)) for i in range(30)}
    yield of_tensors("a checkpoint with a stray LoRA", frozenset({REFUSED}), {**unet, **good()})


def _metadata() -> Iterator[Case]:
    lenient = frozenset({OK, WARNING})
    tags = json.dumps({"dataset": {f"tag number {i}": i for i in range(300_000)}})
    texts = {
        "a million tags": {"ss_tag_frequency": tags},
        "tags that are no JSON": {"ss_tag_frequency": "{'a': 1"},
        "tags nested deep": {"ss_tag_frequency": "[" * 90_000 + "]" * 90_000},
        "data sets nested deep": {"ss_datasets": "[" * 90_000 + "]" * 90_000},
        "data sets of brackets": {"ss_datasets": "[" + "{}," * 900_000 + "{}]"},
        "trigger words of commas": {"trigger_words": "," * 3_000_000},
        "tags of wrong types": {"ss_tag_frequency": '{"a":[null,NaN,-1,1e999],"b":7}'},
        "SQL": {"ss_output_name": "'; DROP TABLE files;--", "trigger_words": '" OR 1=1 *'},
        "a web page": {"modelspec.description": "<script>alert(1)</script><img src=x onerror=alert(1)>"},
        "escape sequences": {"modelspec.title": "\x1b[2J\x9b31m\x1b]8;;file:///etc\x07"},
        "a path as its title": {"modelspec.title": "../../../../.bashrc", "ss_output_name": "CON"},
        "markup": {"modelspec.title": "[/red][bold]x"},
        "numbers that are none": {"ss_network_dim": "None", "ss_network_alpha": "1e999", "ss_epoch": "9" * 5000},
        "another rank": {"ss_network_dim": "128"},
        "another alpha": {"ss_network_alpha": "128"},
        "a hash that is wrong": {"sshs_model_hash": "0" * 64},
        "a hash that is none": {"sshs_model_hash": "zz", "modelspec.hash_sha256": "0x"},
        "a picture with a script": {"modelspec.thumbnail": "data:image/svg+xml,<svg onload=alert(1)>"},
        "other scripts": {"modelspec.title": "スタイル \U0001f600 e\u0301 \u05d0"},
        "a configuration of patterns": {"lora_adapter_metadata": '{"unet.lora_alpha":4,"unet.alpha_pattern":{"(a+)+$":1}}'},
        "records of ours": {"hubtool.alpha": '[{"alpha":1,"dtype":"X","shape":[9],"folded":0}]', "hubtool.fused": '{"x":[-1]}'},
    }  # fmt: skip
    for name, metadata in texts.items():
        yield of_tensors(f"metadata with {name}", lenient, good(), metadata)
    yield of_tensors(
        "metadata of another model", frozenset({WARNING, BROKEN}), good(), {"ss_base_model_version": "sdxl_base_v1-0"}
    )
    anything = frozenset({OK, WARNING, BROKEN, REFUSED})
    yield of_tensors("metadata of 20 MB", anything, good(), {"ss_tag_frequency": "x" * 20_000_000})
    yield of_tensors("metadata of 20 MB of emoji", anything, good(), {"comment": "\U0001f600" * 5_000_000})
    yield of_tensors("metadata of 200,000 keys", anything, good(), {f"k{i}": "" for i in range(200_000)})


def _sound() -> Iterator[Case]:
    """Odd, and nothing wrong with them: these guard against a tool that refuses too much."""
    yield of_tensors("good", OK, good())
    yield of_bytes("good, unpadded", OK, packed(good(), pad=1))
    header, body = split(packed(good()))
    yield of_bytes("good, padded by spaces", OK, container(json.dumps(header) + " " * 5000, body))
    yield of_bytes("good, listed backwards", OK, container(dict(reversed(header.items())), body))
    yield of_bytes("good, escaped", OK, container(json.dumps(header).replace("lora", "\\u006cora"), body))
    yield of_tensors("good without alphas", OK, _without(".alpha"))
    for dtype, shape in (("I64", ()), ("F32", (1,)), ("BF16", ()), ("F64", ())):
        yield of_tensors(f"good with alphas of {dtype} {shape}", OK, {**good(), f"{Q}.alpha": number(4, dtype, shape)})
    for dtype in ("F64", "F32", "BF16", "F8_E4M3", "F8_E5M2"):
        recast = {
            k: Raw(dtype, r.shape, floats([0.01] * (len(r.data) // 2), dtype)) if r.shape else r
            for k, r in good().items()
        }
        yield of_tensors(f"good in {dtype}", OK, recast)
    ranks = {f"{Q}.lora_down.weight": random_tensor(1, (7, 320)), f"{Q}.lora_up.weight": random_tensor(2, (320, 7))}
    yield of_tensors("good with ranks of its own", OK, {**good(), **ranks})
    core = {f"{CONV}.lora_down.weight": random_tensor(1, (4, 320, 1, 1)),
            f"{CONV}.lora_up.weight": random_tensor(2, (320, 4, 1, 1)),
            f"{CONV}.lora_mid.weight": random_tensor(3, (4, 4, 3, 3))}  # fmt: skip
    yield of_tensors("good with a Tucker core", OK, {**good(), **core})
    for shape in ((320, 1), (1, 768)):
        yield of_tensors(
            f"good with a magnitude of {shape}", OK, {**good(), f"{K}.dora_scale": random_tensor(1, shape)}
        )
    te = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    alone = {f"{te}.lora_down.weight": random_tensor(1, (4, 768)), f"{te}.lora_up.weight": random_tensor(2, (3072, 4))}
    yield of_tensors("good, a text encoder alone", frozenset({OK, WARNING}), alone)
    base = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    peft = {f"{base}.lora_A.weight": random_tensor(1, (4, 768)), f"{base}.lora_B.weight": random_tensor(2, (320, 4))}
    yield of_tensors("good, PEFT", OK, peft)
