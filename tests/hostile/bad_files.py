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
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from support.files import Raw, container, entry, number, packed, random_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def bad_containers() -> list[Case]:
    """Faults of the container, names that do harm, and files that are something else."""
    groups = (_raw, _json, _layout, _entries, _strange_names, _other_kinds, _specials)
    return [case for group in groups for case in group()]


def of_bytes(name: str, verdicts: frozenset[str] | str, raw: bytes, extension: str = ".safetensors") -> Case:
    allowed = frozenset({verdicts}) if isinstance(verdicts, str) else verdicts
    return Case(name, allowed, lambda path: _write(path, raw), extension)


def _write(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)


def of_tensors(
    name: str, verdicts: frozenset[str] | str, tensors: Tensors, metadata: dict[str, str] | None = None
) -> Case:
    return of_bytes(name, verdicts, packed(tensors, metadata))


def split(raw: bytes) -> tuple[dict[str, object], bytes]:
    (length,) = struct.unpack_from("<Q", raw)
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


# ---------------------------------------------------------------- bytes


def _raw() -> Iterator[Case]:
    raw = packed(good())
    length = int.from_bytes(raw[:8], "little")
    yield of_bytes("nothing", BROKEN, b"")
    yield of_bytes("five bytes", BROKEN, raw[:5])
    yield of_bytes("only the length", BROKEN, raw[:8])
    yield of_bytes("half a header", BROKEN, raw[: length // 2])
    yield of_bytes("header and no body", BROKEN, raw[: 8 + length])
    yield of_bytes("half a body", BROKEN, raw[: (8 + length + len(raw)) // 2])
    yield of_bytes("one byte short", BROKEN, raw[:-1])
    yield of_bytes("one byte too many", BROKEN, raw + b"\0")
    yield of_bytes("twice", BROKEN, raw + raw)
    yield of_bytes("an error page appended", BROKEN, raw + b"<html>403</html>")
    yield of_bytes("an archive appended", BROKEN, raw + _zip({"evil": b"x"}))
    yield of_bytes("a block repeated", BROKEN, raw[:9000] + raw[5000:])
    yield of_bytes("zeros of the right length", BROKEN, bytes(len(raw)))
    for name, claim in {
        "0": 0,
        "1": 1,
        "to the end": len(raw) - 8,
        "past the end": len(raw),
        "2^63": 1 << 63,
        "all ones": (1 << 64) - 1,
    }.items():
        yield of_bytes(f"length {name}", BAD, struct.pack("<Q", claim) + raw[8:])
    yield of_bytes("length big-endian", BROKEN, struct.pack(">Q", length) + raw[8:])


def _json() -> Iterator[Case]:
    header, body = split(packed(good()))
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
        yield of_bytes(f"json with {name}", BROKEN, container(changed, body))


def _layout() -> Iterator[Case]:
    header, body = split(packed(good()))
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
        yield of_bytes(f"offsets {name}", BROKEN, container({**header, key: {**header[key], **change}}, body))
    moved = {k: {**v, "data_offsets": [n + 16 for n in v["data_offsets"]]} for k, v in header.items()}
    yield of_bytes("a hole at the beginning", BROKEN, container(moved, bytes(16) + body))
    yield of_bytes("a hole at the end", BROKEN, container(header, body + bytes(16)))


def _entries() -> Iterator[Case]:
    header, body = split(packed(good()))
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
        yield of_bytes(f"{name}", BROKEN, container({**header, key: {**header[key], **change}}, body))
    for name, value in {"text": "F16", "null": None, "a list": [], "a number": 7}.items():
        yield of_bytes(f"entry is {name}", BROKEN, container({**header, "x": value}, body))
    for name, value in {
        "text": "a",
        "a list": ["a"],
        "null": None,
        "nested": {"a": {"b": "c"}},
        "a number": {"a": 1},
    }.items():
        yield of_bytes(f"metadata is {name}", BROKEN, container({"__metadata__": value, **header}, body))
    yield of_bytes("no tensors", BROKEN, container("{}"))
    yield of_bytes("only metadata", BROKEN, container({"__metadata__": {"a": "b"}}))
    yield of_bytes(
        "zero times huge", BROKEN, container({**header, "x": entry("F32", [0, 1 << 63], len(body), len(body))}, body)
    )
    many = {f"t{i}": entry("U8", [0], 0, 0) for i in range(120_000)}
    yield of_bytes("120,000 empty tensors", BROKEN, container(many))


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
        yield of_tensors(f"a key like {name}", allowed, {**good(), key: number(1)})
    composed = {"\u00e9.alpha": number(1), "e\u0301.alpha": number(1)}
    yield of_tensors("two keys that look alike", allowed, {**good(), **composed})


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
        yield of_bytes(name, REFUSED, start)
    yield of_bytes("UTF-16 text", BAD, "a note".encode("utf-16"))
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
