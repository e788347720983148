"""Files that must not be believed: each is an otherwise good SD 1.x LoRA with one fault, or something else altogether.

A fault on top of a good file cannot be refused by accident. `verdicts` are the answers that a sound tool may give.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from support.files import Raw, container, entry, floats, number, packed, random_tensor

OK, WARNING, BROKEN, REFUSED = "ok", "warning", "broken", "refused"
BAD = frozenset({BROKEN, REFUSED})
Tensors = dict[str, Raw]

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"  # 320 → 320
K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"  # 768 → 320
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"  # 320 → 320, 3×3


class Case(NamedTuple):
    """One bad file: how it is made, and what may be said of it."""

    name: str
    verdicts: frozenset[str]
    make: Callable[[Path], None]
    extension: str = ".safetensors"


def good() -> Tensors:
    """Two linear modules at rank 4 with alphas."""
    tensors: Tensors = {}
    for seed, (base, inputs) in enumerate({Q: 320, K: 768}.items()):
        tensors[f"{base}.alpha"] = number(4)
        tensors[f"{base}.lora_down.weight"] = random_tensor(seed, (4, inputs))
        tensors[f"{base}.lora_up.weight"] = random_tensor(seed + 9, (320, 4))
    return tensors


def all_cases() -> list[Case]:
    """Every case, in groups."""
    groups = (
        _raw,
        _json,
        _layout,
        _entries,
        _strange_names,
        _other_kinds,
        _specials,
        _modules,
        _values,
        _models,
        _metadata,
        _sound,
    )
    return [case for group in groups for case in group()]


def _bytes(name: str, verdicts: frozenset[str] | str, raw: bytes, extension: str = ".safetensors") -> Case:
    allowed = frozenset({verdicts}) if isinstance(verdicts, str) else verdicts
    return Case(name, allowed, lambda path: _write(path, raw), extension)


def _write(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)


def _file(name: str, verdicts: frozenset[str] | str, tensors: Tensors, metadata: dict[str, str] | None = None) -> Case:
    return _bytes(name, verdicts, packed(tensors, metadata))


def _split(raw: bytes) -> tuple[dict[str, object], bytes]:
    (length,) = struct.unpack_from("<Q", raw)
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


# ---------------------------------------------------------------- bytes


def _raw() -> Iterator[Case]:
    raw = packed(good())
    length = int.from_bytes(raw[:8], "little")
    yield _bytes("nothing", BROKEN, b"")
    yield _bytes("five bytes", BROKEN, raw[:5])
    yield _bytes("only the length", BROKEN, raw[:8])
    yield _bytes("half a header", BROKEN, raw[: length // 2])
    yield _bytes("header and no body", BROKEN, raw[: 8 + length])
    yield _bytes("half a body", BROKEN, raw[: (8 + length + len(raw)) // 2])
    yield _bytes("one byte short", BROKEN, raw[:-1])
    yield _bytes("one byte too many", BROKEN, raw + b"\0")
    yield _bytes("twice", BROKEN, raw + raw)
    yield _bytes("an error page appended", BROKEN, raw + b"<html>403</html>")
    yield _bytes("an archive appended", BROKEN, raw + _zip({"evil": b"x"}))
    yield _bytes("a block repeated", BROKEN, raw[:9000] + raw[5000:])
    yield _bytes("zeros of the right length", BROKEN, bytes(len(raw)))
    for name, claim in {
        "0": 0,
        "1": 1,
        "to the end": len(raw) - 8,
        "past the end": len(raw),
        "2^63": 1 << 63,
        "all ones": (1 << 64) - 1,
    }.items():
        yield _bytes(f"length {name}", BAD, struct.pack("<Q", claim) + raw[8:])
    yield _bytes("length big-endian", BROKEN, struct.pack(">Q", length) + raw[8:])


def _json() -> Iterator[Case]:
    header, body = _split(packed(good()))
    text = json.dumps(header)
    texts: dict[str, str | bytes] = {
        "plain words": "not a header" * 40,
        "a list": json.dumps([header]),
        "null": "null",
        "a byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": text.encode("utf-16-le"),
        "UTF-32": text.encode("utf-32-le"),
        "a space first": " " + text,
        "a trailing comma": text[:-1] + ",}",
        "single quotes": text.replace('"', "'"),
        "two objects": text + text,
        "NULs behind": text.encode() + bytes(16),
        "NaN": text[:-1] + ',"__metadata__":{"a":NaN}}',
        "half a character": text.replace(Q, "\\ud800" + Q, 1),
        "broken UTF-8": text.encode().replace(Q.encode(), b"\xff" + Q.encode(), 1),
        "deep lists": text[:-1] + ',"x":' + "[" * 99_999 + "]" * 99_999 + "}",
        "deep objects": text[:-1] + ',"__metadata__":' + '{"a":' * 70_000 + "1" + "}" * 70_001,
        "a number of 9000 digits": text.replace("[0,", f"[{'9' * 9000},", 1).replace("[0, ", f"[{'9' * 9000}, ", 1),
        "one key twice": text[:-1] + f',"{Q}.alpha":{json.dumps(header[f"{Q}.alpha"])}}}',
        "one key twice, escaped": text[:-1] + f',"\\u006c{Q[1:]}.alpha":{json.dumps(header[f"{Q}.alpha"])}}}',
        "metadata twice": text[:-1] + ',"__metadata__":{"a":"1"},"__metadata__":{"a":"2"}}',
        "one metadata key twice": text[:-1] + ',"__metadata__":{"a":"1","a":"2"}}',
        "a comment": "/* */" + text,
        "a control character": text.replace(Q, Q[:4] + "\n" + Q[4:], 1),
        "octal": text.replace("[0,", "[00,", 1),
        "plus": text.replace("[0,", "[+0,", 1),
    }
    for name, changed in texts.items():
        yield _bytes(f"json with {name}", BROKEN, container(changed, body))


def _layout() -> Iterator[Case]:
    header, body = _split(packed(good()))
    key, last = f"{Q}.lora_down.weight", f"{K}.lora_up.weight"
    start, stop = header[key]["data_offsets"]
    rows: dict[str, dict[str, object]] = {
        "overlap": {"data_offsets": [start - 2, stop - 2]},
        "alias": {"data_offsets": header[f"{K}.lora_up.weight"]["data_offsets"], "shape": header[last]["shape"]},
        "negative": {"data_offsets": [-(stop - start), 0]},
        "reversed": {"data_offsets": [stop, start]},
        "beyond the file": {"data_offsets": [start + (1 << 40), stop + (1 << 40)]},
        "beyond 2^64": {"data_offsets": [start, (1 << 64) + stop]},
        "fractions": {"data_offsets": [float(start), float(stop)]},
        "text": {"data_offsets": [str(start), str(stop)]},
        "truth values": {"data_offsets": [False, True], "shape": [1], "dtype": "U8"},
        "one": {"data_offsets": [start]},
        "three": {"data_offsets": [start, stop, stop]},
        "none": {"data_offsets": None},
        "nested": {"data_offsets": [[start], [stop]]},
    }
    for name, change in rows.items():
        yield _bytes(f"offsets {name}", BROKEN, container({**header, key: {**header[key], **change}}, body))
    moved = {k: {**v, "data_offsets": [n + 16 for n in v["data_offsets"]]} for k, v in header.items()}
    yield _bytes("a hole at the beginning", BROKEN, container(moved, bytes(16) + body))
    yield _bytes("a hole at the end", BROKEN, container(header, body + bytes(16)))


def _entries() -> Iterator[Case]:
    header, body = _split(packed(good()))
    key = f"{Q}.lora_down.weight"
    changes: dict[str, object] = {
        "shape of other size": {"shape": [4, 321]},
        "shape negative": {"shape": [-4, -320]},
        "shape of fractions": {"shape": [4.0, 320.0]},
        "shape of text": {"shape": ["4", "320"]},
        "shape of truth values": {"shape": [True, 1280]},
        "shape nested": {"shape": [[4, 320]]},
        "shape missing": {"shape": None},
        "shape wrapping 2^64": {"shape": [(1 << 63) + 640]},
        "shape of 100,000 dimensions": {"shape": [4, 320] + [1] * 99_998},
        "dtype unknown": {"dtype": "F17"},
        "dtype small": {"dtype": "f16"},
        "dtype of torch": {"dtype": "torch.float16"},
        "dtype a number": {"dtype": 5},
        "dtype a list": {"dtype": ["F16"]},
        "dtype an object": {"dtype": {"F16": 1}},
        "field of its own": {"strides": [1, 1]},
    }
    for name, change in changes.items():
        yield _bytes(f"{name}", BROKEN, container({**header, key: {**header[key], **change}}, body))
    for name, value in {"text": "F16", "null": None, "a list": [], "a number": 7}.items():
        yield _bytes(f"entry is {name}", BROKEN, container({**header, "x": value}, body))
    for name, value in {
        "text": "a",
        "a list": ["a"],
        "null": None,
        "nested": {"a": {"b": "c"}},
        "a number": {"a": 1},
    }.items():
        yield _bytes(f"metadata is {name}", BROKEN, container({"__metadata__": value, **header}, body))
    yield _bytes("no tensors", BROKEN, container("{}"))
    yield _bytes("only metadata", BROKEN, container({"__metadata__": {"a": "b"}}))
    yield _bytes(
        "zero times huge", BROKEN, container({**header, "x": entry("F32", [0, 1 << 63], len(body), len(body))}, body)
    )
    many = {f"t{i}": entry("U8", [0], 0, 0) for i in range(120_000)}
    yield _bytes("120,000 empty tensors", BROKEN, container(many))


def _strange_names() -> Iterator[Case]:
    allowed = frozenset({WARNING, BROKEN, REFUSED})
    names = {
        "a path upwards": "../../../../etc/cron.d/x.alpha",
        "an absolute path": "/etc/passwd",
        "a path of Windows": "..\\..\\x",
        "NUL": "a\0b",
        "escape sequences": "\x1b[2J\x1b]52;c;ZXZpbA==\x07",
        "8-bit escapes": "\x9b31m",
        "a forged line": "x\nOK: verified",
        "a carriage return": "x\rOK",
        "right to left": "\u202egnp.x",
        "nothing": "",
        "64 KiB": "x" * 65_536,
        "markup": "[bold red][/nope][link=file:///etc]x[/link]",
        "its own metadata": "__metadata__ ",
        "a letter that only looks right": Q.replace("o", "\u043e", 1) + ".alpha",
        "another case": f"{Q}.alpha".upper(),
        "accents in thousands": "a" + "\u0301\u0316" * 100_000,
    }
    for name, key in names.items():
        yield _file(f"a key like {name}", allowed, {**good(), key: number(1)})
    composed = {"\u00e9.alpha": number(1), "e\u0301.alpha": number(1)}
    yield _file("two keys that look alike", allowed, {**good(), **composed})


# ---------------------------------------------------------------- something else


def _zip(members: dict[str, bytes], flags: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    raw = bytearray(out.getvalue())
    raw[6] |= flags  # of the first local header
    return bytes(raw)


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.marker,)


def _pickled(protocol: int) -> Callable[[Path], None]:
    return lambda path: _write(path, pickle.dumps({"state_dict": Payload(marker(path))}, protocol))


def marker(path: Path) -> str:
    """What exists if a payload ran."""
    return f"{path}.PWNED"


def _torch_zip(pickle_name: str = "archive/data.pkl", flags: int = 0) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        inner = pickle.dumps(Payload(marker(path)), 2)
        _write(path, _zip({pickle_name: inner, "archive/data/0": bytes(64), "archive/version": b"3\n"}, flags))

    return make


def _other_kinds() -> Iterator[Case]:
    raw = packed(good())
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("../evil")
        info.size = len(raw)
        archive.addfile(info, io.BytesIO(raw))
    kinds = {
        "a login page": b"<!DOCTYPE html><html><title>Sign in</title></html>",
        "an error page with spaces": b"\r\n\r\n  <HTML><body>502 Bad Gateway</body>",
        "an XML error": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "a JSON error": b'{"error":"The model requires early access","deadline":"2099-01-01"}',
        "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n",
        "gzip": gzip.compress(raw),
        "a zip": _zip({"model.safetensors": raw}),
        "a zip that climbs out": _zip({"../../evil.safetensors": raw}),
        "a tar": tar.getvalue(),
        "GGUF": b"GGUF\x03\0\0\0" + bytes(64),
        "an ELF program": b"\x7fELF\x02\x01\x01" + bytes(64),
        "a Windows program": b"MZ\x90\0" + bytes(64),
        "a script": b"#!/bin/sh\ntouch PWNED\n",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    }
    for name, start in kinds.items():
        yield _bytes(name, REFUSED, start)
    yield _bytes("UTF-16 text", BAD, "a note".encode("utf-16"))
    for protocol in range(6):
        extension = (".safetensors", ".pt", ".ckpt", ".bin", ".pth", ".safetensors")[protocol]
        yield Case(f"a pickle of protocol {protocol}", frozenset({REFUSED}), _pickled(protocol), extension)
    yield Case("a torch archive", frozenset({REFUSED}), _torch_zip())
    yield Case("a torch archive named so", frozenset({REFUSED}), _torch_zip(), ".pt")
    yield Case("a torch archive that claims to be encrypted", frozenset({REFUSED}), _torch_zip(flags=1))
    yield Case("a torch archive with an odd name inside", frozenset({REFUSED}), _torch_zip("archive/data.bin2"))
    legacy = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    yield Case(
        "a torch file of old", frozenset({REFUSED}), lambda p: _write(p, legacy + pickle.dumps(Payload(marker(p)), 2))
    )


def _specials() -> Iterator[Case]:
    yield Case("a folder", frozenset({REFUSED}), Path.mkdir)
    yield Case("a pipe", frozenset({REFUSED}), os.mkfifo)
    yield Case("a link to nowhere", frozenset({REFUSED}), lambda path: path.symlink_to("nowhere"))
    yield Case("a link to itself", frozenset({REFUSED}), lambda path: path.symlink_to(path.name))
    yield Case("a link to an endless device", frozenset({REFUSED}), lambda path: path.symlink_to("/dev/zero"))
    yield Case("a link to a terminal", frozenset({REFUSED}), lambda path: path.symlink_to("/dev/tty"))


# ---------------------------------------------------------------- meaning


def _without(*endings: str) -> Tensors:
    return {key: raw for key, raw in good().items() if not key.endswith(endings)}


def _modules() -> Iterator[Case]:
    yield _file("no down", BROKEN, _without(f"{Q}.lora_down.weight"))
    yield _file("no up", BROKEN, _without(f"{K}.lora_up.weight"))
    yield _file("no down anywhere", BROKEN, _without(".lora_down.weight"))
    yield _file(
        "an alpha of nothing", frozenset({OK, WARNING}), _without(f"{Q}.lora_down.weight", f"{Q}.lora_up.weight")
    )
    yield _file("strangers", WARNING, {**good(), **{f"ema.shadow.{i}": number(i) for i in range(5)}})
    yield _file("an empty stranger", frozenset({OK, WARNING}), {**good(), "x": Raw("F32", (0, 768), b"")})
    turned = {f"{Q}.lora_down.weight": random_tensor(1, (320, 4)), f"{Q}.lora_up.weight": random_tensor(2, (4, 320))}
    yield _file("transposed", BROKEN, {**good(), **turned})
    yield _file("factors of different rank", BROKEN, {**good(), f"{Q}.lora_up.weight": random_tensor(1, (320, 8))})
    yield _file("a factor of one dimension", BROKEN, {**good(), f"{Q}.lora_down.weight": random_tensor(1, (1280,))})
    yield _file("a factor of no dimension", BROKEN, {**good(), f"{Q}.lora_down.weight": number(1, "F16")})
    empty = {f"{Q}.lora_down.weight": Raw("F16", (0, 320), b""), f"{Q}.lora_up.weight": Raw("F16", (320, 0), b"")}
    yield _file("rank 0", BROKEN, {**good(), **empty})
    wide = {f"{Q}.lora_down.weight": random_tensor(1, (400, 320)), f"{Q}.lora_up.weight": random_tensor(2, (320, 400))}
    yield _file("a rank above the layer's", frozenset({OK, WARNING}), {**good(), **wide})
    yield _file("made for another width", BROKEN, {**good(), f"{K}.lora_down.weight": random_tensor(1, (4, 999))})
    other = {f"{base}.lora_down.weight": random_tensor(1, (4, 999)) for base in (Q, K)}
    yield _file("made for another width throughout", BROKEN, {**good(), **other})
    yield _file(
        "weights of truth values", BROKEN, {**good(), f"{Q}.lora_up.weight": Raw("BOOL", (320, 4), bytes(1280))}
    )
    yield _file("weights of bytes", WARNING, {**good(), f"{Q}.lora_up.weight": Raw("I8", (320, 4), b"\1" * 1280)})
    flux = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": random_tensor(1, (4, 3072)),
            "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": random_tensor(2, (9216, 4))}  # fmt: skip
    yield _file("two base models", BROKEN, {**good(), **flux})
    yield from _families()
    yield from _two_dialects()


def _families() -> Iterator[Case]:
    hada = {
        f"{Q}.hada_w{n}_{side}": random_tensor(n, (320, 4) if side == "a" else (4, 320))
        for n in (1, 2)
        for side in "ab"
    }
    yield _file("a whole LoHa", OK, hada)
    yield _file("a LoHa without its last factor", BROKEN, {k: v for k, v in hada.items() if not k.endswith("w2_b")})
    yield _file("a LoHa of two ranks", BROKEN, {**hada, f"{Q}.hada_w2_b": random_tensor(5, (8, 320))})
    lokr = {
        f"{Q}.lokr_w1": random_tensor(1, (8, 8)),
        f"{Q}.lokr_w2_a": random_tensor(2, (40, 4)),
        f"{Q}.lokr_w2_b": random_tensor(3, (4, 40)),
    }
    yield _file("a whole LoKr", OK, lokr)
    yield _file("a LoKr without w2", BROKEN, {f"{Q}.lokr_w1": lokr[f"{Q}.lokr_w1"]})
    yield _file("a LoKr with half of w2", BROKEN, {k: v for k, v in lokr.items() if not k.endswith("_b")})
    yield _file("a LoKr of another size", BROKEN, {**lokr, f"{Q}.lokr_w2_a": random_tensor(2, (41, 4))})
    yield _file("a LoKr factor of no dimension", BROKEN, {**lokr, f"{Q}.lokr_w2_b": number(1, "F16")})


def _two_dialects() -> Iterator[Case]:
    base = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    peft = {f"{base}.lora_A.weight": random_tensor(7, (4, 768)), f"{base}.lora_B.weight": random_tensor(8, (320, 4))}
    yield _file("one module in two dialects", BROKEN, {**good(), **peft})
    kohya = {key: raw for key, raw in good().items() if key.startswith(Q)}
    yield _file("two dialects", frozenset({WARNING, BROKEN}), {**kohya, **peft})
    lone = {key: raw for key, raw in peft.items() if "lora_A" in key}
    yield _file("PEFT without B", BROKEN, lone)


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
        yield _file(name, BROKEN, _filled(dtype, pattern))
    yield _file("NaN at the very first", BROKEN, _filled("F16", b"\x00\x7e", 0))
    largest = {
        "F16": b"\xff\x7b",
        "BF16": b"\x7f\x7f",
        "F32": b"\xff\xff\x7f\x7f",
        "F64": b"\xff" * 6 + b"\xef\x7f",
        "F8_E4M3": b"\x7e",
        "F8_E5M2": b"\x7b",
    }
    for dtype, pattern in largest.items():
        yield _file(f"the largest {dtype}", OK, _filled(dtype, pattern))
    zeros = {key: raw._replace(data=bytes(len(raw.data))) if "lora_up" in key else raw for key, raw in good().items()}
    yield _file("every up of zeros", frozenset({OK, WARNING}), zeros)
    half = {
        key: raw._replace(data=bytes(len(raw.data))) if key.startswith(K) and raw.shape else raw
        for key, raw in good().items()
    }
    yield _file("an end of zeros", frozenset({WARNING, BROKEN}), half)
    for name, value, allowed in (("0", 0, {WARNING, BROKEN}), ("below 0", -4, {WARNING}), ("NaN", float("nan"), BAD), ("infinite", float("inf"), BAD),
                                 ("a million", 1e6, {WARNING, BROKEN})):  # fmt: skip
        yield _file(f"alpha {name}", frozenset(allowed), {**good(), f"{Q}.alpha": number(value)})
    yield _file("alpha of four numbers", BROKEN, {**good(), f"{Q}.alpha": number(4, "F32", (4,))})
    yield _file("alpha of no number", BROKEN, {**good(), f"{Q}.alpha": Raw("F32", (0,), b"")})
    yield _file("alpha in F8", frozenset({OK, WARNING, BROKEN}), {**good(), f"{Q}.alpha": Raw("F8_E4M3", (), b"\x40")})


def _models() -> Iterator[Case]:
    sets = {
        "a checkpoint": {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "cond_stage_model.transformer.x.weight": (9, 9)},
        "a diffusers UNet": {"down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3), "conv_in.weight": (320, 4, 3, 3)},
        "a VAE": {"decoder.conv_in.weight": (512, 4, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3), "post_quant_conv.weight": (4, 4, 1, 1)},
        "an embedding": {"emb_params": (8, 768)},
        "an SDXL embedding": {"clip_l": (8, 768), "clip_g": (8, 1280)},
        "a ControlNet": {"control_model.input_blocks.0.0.weight": (320, 4, 3, 3), "control_model.zero_convs.0.0.weight": (320, 320, 1, 1)},
        "a language model": {"model.layers.0.self_attn.q_proj.weight": (64, 64), "lm_head.weight": (99, 64)},
        "anything": {"a": (1,), "b.c": (2,)},
    }  # fmt: skip
    for name, shapes in sets.items():
        yield _file(
            name, frozenset({REFUSED}), {key: random_tensor(i, shape) for i, (key, shape) in enumerate(shapes.items())}
        )
    unet = {f"model.diffusion_model.input_blocks.{i}.0.weight": random_tensor(i, (4, 4)) for i in range(30)}
    yield _file("a checkpoint with a stray LoRA", frozenset({REFUSED}), {**unet, **good()})


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
        "a configuration of patterns": {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": {"(a+)+$": 1}})},
        "records of ours": {"hubtool.alpha": '[{"alpha":1,"dtype":"X","shape":[9],"folded":0}]', "hubtool.fused": '{"x":[-1]}'},
    }  # fmt: skip
    for name, metadata in texts.items():
        yield _file(f"metadata with {name}", lenient, good(), metadata)
    yield _file(
        "metadata of another model", frozenset({WARNING, BROKEN}), good(), {"ss_base_model_version": "sdxl_base_v1-0"}
    )
    anything = frozenset({OK, WARNING, BROKEN, REFUSED})
    yield _file("metadata of 20 MB", anything, good(), {"ss_tag_frequency": "x" * 20_000_000})
    yield _file("metadata of 20 MB of emoji", anything, good(), {"comment": "\U0001f600" * 5_000_000})
    yield _file("metadata of 200,000 keys", anything, good(), {f"k{i}": "" for i in range(200_000)})


def _sound() -> Iterator[Case]:
    """Odd, and nothing wrong with them: these guard against a tool that refuses too much."""
    yield _file("good", OK, good())
    yield _bytes("good, unpadded", OK, packed(good(), pad=1))
    header, body = _split(packed(good()))
    yield _bytes("good, padded by spaces", OK, container(json.dumps(header) + " " * 5000, body))
    yield _bytes("good, listed backwards", OK, container(dict(reversed(header.items())), body))
    yield _bytes("good, escaped", OK, container(json.dumps(header).replace("lora", "\\u006cora"), body))
    yield _file("good without alphas", OK, _without(".alpha"))
    for dtype, shape in (("I64", ()), ("F32", (1,)), ("BF16", ()), ("F64", ())):
        yield _file(f"good with alphas of {dtype} {shape}", OK, {**good(), f"{Q}.alpha": number(4, dtype, shape)})
    for dtype in ("F64", "F32", "BF16", "F8_E4M3", "F8_E5M2"):
        recast = {
            k: Raw(dtype, r.shape, floats([0.01] * (len(r.data) // 2), dtype)) if r.shape else r
            for k, r in good().items()
        }
        yield _file(f"good in {dtype}", OK, recast)
    ranks = {f"{Q}.lora_down.weight": random_tensor(1, (7, 320)), f"{Q}.lora_up.weight": random_tensor(2, (320, 7))}
    yield _file("good with ranks of its own", OK, {**good(), **ranks})
    core = {f"{CONV}.lora_down.weight": random_tensor(1, (4, 320, 1, 1)), f"{CONV}.lora_up.weight": random_tensor(2, (320, 4, 1, 1)),
            f"{CONV}.lora_mid.weight": random_tensor(3, (4, 4, 3, 3))}  # fmt: skip
    yield _file("good with a Tucker core", OK, {**good(), **core})
    for shape in ((320, 1), (1, 768)):
        yield _file(f"good with a magnitude of {shape}", OK, {**good(), f"{K}.dora_scale": random_tensor(1, shape)})
    te = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    alone = {f"{te}.lora_down.weight": random_tensor(1, (4, 768)), f"{te}.lora_up.weight": random_tensor(2, (3072, 4))}
    yield _file("good, a text encoder alone", frozenset({OK, WARNING}), alone)
    base = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    peft = {f"{base}.lora_A.weight": random_tensor(1, (4, 768)), f"{base}.lora_B.weight": random_tensor(2, (320, 4))}
    yield _file("good, PEFT", OK, peft)
