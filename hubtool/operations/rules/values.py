"""Rules about values: finite, not all zero, and hashed as the metadata says. Works on bytes, without torch or numpy.

A float is not finite when all bits of its exponent are set, so a scan for one or two byte patterns at a fixed distance is enough
(IEEE 754; OCP 8-bit floating point 1.0 for F8).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from hubtool.formats.hashing import embedded_hash
from hubtool.formats.safetensors import printable
from hubtool.formats.tensor import FileBytes
from hubtool.naming.address import Role
from hubtool.operations.rules.problem import Problem, Subject, problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hubtool.adapters.layer import Layer
    from hubtool.formats.tensor import LazyTensor

_BLOCK = 1 << 20  # a multiple of every element
_TAIL_SHARE = 0.25  # of the body; trained tensors of zeros (fresh `up`) are smaller or spread
#: Factors that are zero before training; the change is zero if all of one kind are.
_ENDS = (Role.UP, Role.HADA_W2_A, Role.LOKR_W2, Role.LOKR_W2_B, Role.DIFF)


class _Pattern(NamedTuple):
    """Translations of an element's two most significant bytes: 1 where all bits of the exponent in it are set, else 0."""

    size: int
    first: bytes
    second: bytes | None = None


def _with_bits(mask: int) -> bytes:
    return bytes(byte & mask == mask for byte in range(256))


_MINUS_ZERO = bytes(byte == 0x80 for byte in range(256))  # what these two dtypes have for NaN
_NOT_FINITE: Mapping[str, _Pattern] = {
    "F64": _Pattern(8, _with_bits(0x7F), _with_bits(0xF0)),
    "F32": _Pattern(4, _with_bits(0x7F), _with_bits(0x80)),
    "BF16": _Pattern(2, _with_bits(0x7F), _with_bits(0x80)),
    "F16": _Pattern(2, _with_bits(0x7C)),
    "F8_E5M2": _Pattern(1, _with_bits(0x7C)),
    "F8_E4M3": _Pattern(1, _with_bits(0x7F)),
    "F8_E4M3FNUZ": _Pattern(1, _MINUS_ZERO),
    "F8_E5M2FNUZ": _Pattern(1, _MINUS_ZERO),
    "C64": _Pattern(4, _with_bits(0x7F), _with_bits(0x80)),
}


def finite(subject: Subject) -> Iterator[Problem]:
    """NaN and infinity; of many the first three are told."""
    count = 0
    for key, tensor in subject.file.tensors.items():
        if not tensor.shape and key.endswith(".alpha"):
            continue  # judged with the alphas: LoKr's may be anything
        if has_non_finite(tensor):
            count += 1
            yield problem("E_NONFINITE", f"{printable(key)} holds NaN or infinity.", key)
            if count == 3:
                return


def has_non_finite(tensor: LazyTensor) -> bool:
    """Whether any element is NaN or infinite; False for dtypes that have neither."""
    pattern = _NOT_FINITE.get(tensor.dtype)
    return pattern is not None and any(_hit(block, pattern) for block in tensor.blocks(_BLOCK))


def _hit(block: bytes, pattern: _Pattern) -> bool:
    high = block[pattern.size - 1 :: pattern.size].translate(pattern.first)
    if pattern.second is None or 1 not in high:
        return 1 in high
    below = block[pattern.size - 2 :: pattern.size].translate(pattern.second)
    return int.from_bytes(high, "big") & int.from_bytes(below, "big") != 0  # all elements at once


def not_all_zero(subject: Subject) -> Iterator[Problem]:
    """A file whose change is nothing."""
    changing = [layer for layer in subject.layers if any(role in layer.tensors for role in _ENDS)]
    if changing and all(_is_zero(layer) for layer in changing):
        yield problem("W_ALL_ZERO", "Every module's last factor is zero: the file changes nothing.")


def _is_zero(layer: Layer) -> bool:
    role = next(role for role in _ENDS if role in layer.tensors)
    return all_zero(layer.tensors[role].blocks(_BLOCK))


def all_zero(blocks: Iterable[bytes]) -> bool:
    """Whether there is no bit set."""
    return not any(block.strip(b"\0") for block in blocks)


def zero_tail(subject: Subject) -> Iterator[Problem]:
    """A file of the right size whose end was never written: a preallocated, interrupted download."""
    file, body = subject.file.file, subject.file.size_bytes - subject.file.body_start
    start = subject.file.size_bytes - int(body * _TAIL_SHARE)
    ends = [t for t in subject.file.tensors.values() if isinstance(t.data, FileBytes) and t.data.stop > start]
    if body > 4096 and len(ends) > 1 and all_zero(file.blocks(start, subject.file.size_bytes, _BLOCK)):
        yield problem("W_ZERO_TAIL", f"The last {body - (start - subject.file.body_start)} bytes are all zero.")


def stated_hash(subject: Subject) -> Iterator[Problem]:
    """`sshs_model_hash` and `modelspec.hash_sha256` against the SHA-256 of the tensor bytes."""
    stated = {key: hash for key in ("sshs_model_hash", "modelspec.hash_sha256") if (hash := _stated(subject, key))}
    if not stated:
        return
    digest, file = hashlib.sha256(), subject.file
    for block in file.file.blocks(file.body_start, file.size_bytes, _BLOCK):
        digest.update(block)
    for key, hash in stated.items():
        if hash != digest.hexdigest():
            message = f"{key} is {hash[:12]}…, but the tensors hash to {digest.hexdigest()[:12]}…."
            yield problem("W_HASH_METADATA", message, key)


def _stated(subject: Subject, key: str) -> str | None:
    """A whole hash that is no hash of nothing."""
    hash = embedded_hash({key: subject.file.metadata.get(key, "")})
    return hash if hash and len(hash) == 64 else None


RULES = (finite, not_all_zero, zero_tail, stated_hash)
