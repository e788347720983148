"""Prompts, pictures, workflows, sidecars and manifests that were made to hurt: each is read in a moment, or refused."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest

from hubtool.errors import HubtoolError
from hubtool.library.generators import comfyui, infotext
from hubtool.library.lockfile import read_lock
from hubtool.library.manifest import read_manifest
from hubtool.library.mention import number
from hubtool.library.picture_texts import picture_texts
from hubtool.library.prompt_writing import balance, convert, relink
from hubtool.library.prompts import DIALECTS, parse
from hubtool.library.relinking import lora_hashes
from hubtool.library.scan import read_sidecars
from hubtool.library.sidecar import all_sidecars, fill, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MB = 1 << 20
HEAD = "a\nSteps: 1, Sampler: x, Seed: 1, "


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Nothing here may take longer than a person waits."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 5


PROMPTS = {
    "tags without an end": "<lora:" * (MB // 6),
    "tags without an end behind one with": "<lora:a:1>" + "<lora:" * (MB // 6),
    "one tag of a megabyte": "<lora:" + "x" * MB + ":1>",
    "nested brackets": "(" * (MB // 2) + ")" * (MB // 2),
    "nested tags": "<lora:" * (MB // 7) + ">" * (MB // 7),
    "a strength of a megabyte": "<lora:x:" + "1" * MB,
    "a strength of a megabyte with an end": "<lora:x:" + "1" * MB + ">",
    "a thousand items": "<lora:x" + ":1" * MB + ">",
    "many tags": "<lora:x:1>" * 25_000,
    "blank lines": "\n" * MB,
    "blanks": " " * MB,
    "words": "a" * MB,
    "calls": "withLora(" * (MB // 9),
    "equals signs": "<lora:x:" + "=" * MB + ">",
    "block weights": "<lora:x:1:lbw=" + "1," * (MB // 2) + ">",
    "a rank of a megabyte": "<lora:x:1:1:" + "9" * MB + ">",
    "steps": "<lora:x:" + "1@0," * (MB // 4) + ">",
}


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize("text", PROMPTS.values(), ids=PROMPTS)
def test_a_prompt_of_a_megabyte_is_parsed_in_a_moment(text: str, dialect: str) -> None:
    assert all(abs(tag.denoiser) < float("inf") for tag in parse(text, dialect).tags)


@pytest.mark.parametrize("work", [lambda t: convert(t, "a1111", "comfyui"), lambda t: relink(t, "a1111", {"x": "y"})])
def test_twenty_thousand_tags_are_rewritten_in_a_moment(work: Callable[[str], object]) -> None:
    work("<lora:x:1> " * 20_000)
    balance("<lora:x:1> " * 20_000, "a1111", 1)


INFOTEXTS = {
    "one key": "a" * MB,
    "blanks": " " * MB + "x",
    "keys without values": "Key: " * (MB // 5),
    "an open quotation": 'Lora hashes: "' + "a" * MB,
    "open quotations": 'ab: "' * (MB // 5),
    "broken JSON": "Hashes: {, " * (MB // 11),
    "hashes without an end": 'Lora hashes: "' + "a" * MB + '"',
    "many hashes": 'Lora hashes: "' + "a: 0123456789, " * (MB // 15) + '"',
    "an addition of blanks": "AddNet Model 1: " + " " * MB + "x",
    "deep JSON": "Hashes: " + '{"a":' * (MB // 5),
}


@pytest.mark.parametrize("line", INFOTEXTS.values(), ids=INFOTEXTS)
def test_an_infotext_of_a_megabyte_is_read_in_a_moment(line: str) -> None:
    infotext.read({"parameters": HEAD + line})
    infotext.read({"text": line})
    lora_hashes(HEAD + line)


def png(*chunks: tuple[bytes, bytes], lie: int | None = None) -> bytes:
    parts = (
        struct.pack(">I4s", len(data) if lie is None else lie, kind) + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("lie", [0, 1, 3, 11, 0x7FFFFFFF, 0xFFFFFFFF])
def test_lengths_that_lie_read_no_further_than_the_file(lie: int) -> None:
    body = png((b"tEXt", b"parameters\0x"), (b"iTXt", b"a\0\0\0\0\0b"), lie=lie)
    assert all(len(text) <= len(body) for text in picture_texts(body).values())


def test_many_small_bombs_take_no_more_memory_than_one() -> None:
    bomb = zlib.compress(bytes(15 * MB), 9)
    packed = [(b"zTXt", f"k{n}".encode() + b"\0\0" + bomb) for n in range(200)]
    packed += [(b"iTXt", f"i{n}".encode() + b"\0\1\0\0\0" + bomb) for n in range(200)]
    tracemalloc.start()
    picture_texts(png(*packed))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * MB


def exif(*entries: tuple[int, int, int, int], tail: bytes = b"") -> bytes:
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + tail


@pytest.mark.parametrize(
    "tiff",
    [
        exif((0x8769, 4, 1, 8)),  # leads to itself
        exif((0x8769, 4, 1, 26), tail=struct.pack("<HHHII", 1, 0x8769, 4, 1, 8)),
        exif(*[(0x8769, 4, 1, n) for n in range(4000)]),
        exif((0x9286, 7, 0xFFFFFFFF, 8)),
        exif((0x010F, 2, 100, 0xFFFFFFF0)),
        exif(*[(0x010F, 2, 30 * MB, 8)] * 4000, tail=bytes(30 * MB)),
        exif(*[(0x010F, 2, 4 * MB, 8)] * 4000, tail=b"\xff" * 4 * MB),
    ],
    ids=["loop", "loop of two", "many folders", "endless", "outside", "too large", "many large"],
)
def test_exif_that_loops_or_lies_comes_to_an_end(tiff: bytes) -> None:
    picture_texts(png((b"eXIf", tiff)))


def test_a_million_empty_chunks_and_boxes_come_to_an_end() -> None:
    empty = struct.pack(">I4sI", 0, b"tEXt", 0)
    picture_texts(b"\x89PNG\r\n\x1a\n" + empty * 2 * MB)
    picture_texts(struct.pack(">I4s", 8, b"ftyp") * 4 * MB)
    picture_texts(b"RIFF\0\0\0\0WEBP" + struct.pack("<4sI", b"EXIF", 0) * 4 * MB)
    picture_texts(b"\xff\xd8\xff\xe1\0\2" * 4 * MB)


def nested(depth: int, start: str, end: str) -> str:
    return start * depth + "1" + end * depth


@pytest.mark.parametrize("depth", [50, 500, 900, 950, 980, 100_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"loras":', "}"), ('{"nodes":[', "]}"), ('{"a":[', "]}")])
def test_a_workflow_of_any_depth_is_read_or_is_none(depth: int, start: str, end: str) -> None:
    deep = nested(depth, start, end)
    node = f'{{"1": {{"class_type": "X", "inputs": {{"loras": {deep}}}}}}}'
    drawn = f'{{"nodes": [{{"type": "X", "widgets_values": [{deep}]}}], "definitions": {{"subgraphs": [{deep}]}}}}'
    for text in (deep, node, drawn):
        comfyui.read({"prompt": text, "workflow": text})


@pytest.mark.parametrize("value", [10**400, -(10**400), "1e999", "nan", float("inf"), [], {}, None, True, "9" * 5000])
def test_a_strength_is_always_a_number_that_can_be(value: object) -> None:
    assert abs(number(value)) < 1e6
    graph = {"1": {"class_type": "X", "inputs": {"lora_name": "a.safetensors", "strength": value, "lora_count": value}}}
    comfyui.read({"prompt": json.dumps(graph, allow_nan=True)})


def test_a_slot_of_five_thousand_digits_is_none() -> None:
    inputs = {f"lora_name_{'9' * 5000}": "a.safetensors", "lora_count": 3}
    assert comfyui.read({"prompt": json.dumps({"1": {"class_type": "X", "inputs": inputs}})}) is not None


HUGE = str(10**400)
SIDECARS = [
    f'{{"preferred weight": {HUGE}, "preferred_weight": {HUGE}, "modelspec.lora_default_weight": {HUGE}, "rating": {HUGE}}}',
    f'{{"usage_tips": "{{\\"strength\\": {HUGE}}}", "id": {HUGE}, "modelId": {HUGE}, "ModelId": {HUGE}, "VersionId": {HUGE}}}',
    '{"trainedWords": [' + json.dumps("<>" * (MB // 2)) + "]}",
    '{"trainedWords": [' + json.dumps("<" * MB) + '], "TrainedWords": ["' + "<a" * (MB // 2) + '>"]}',
    '{"activation text": ' + json.dumps(", " * (MB // 2)) + "}",
    '{"outfits": [[[]]], "tags": [{"a": 1}], "civitai": [], "model": 3, "creator": [1], "modelVersions": {}}',
    nested(900, '{"civitai":', "}"),
    nested(980, '{"a":', "}"),
    "[" * 100_000,
    '{"a": ' + "9" * 5000 + "}",
]


@pytest.mark.parametrize("id", sorted(all_sidecars()))
@pytest.mark.parametrize("text", SIDECARS, ids=range(len(SIDECARS)))
def test_no_sidecar_stops_a_scan_or_is_lost_by_completing_it(tmp_path: Path, id: str, text: str) -> None:
    model = tmp_path / "x.safetensors"
    path = all_sidecars()[id].path(model)
    path.write_text(text)
    own, _ = read_sidecars(model)
    assert own.preferred_weight is None or abs(own.preferred_weight) < 1e6
    done = fill(path, {"notes": "x", "civitai": {"id": 1, "a": 2}})
    if not done:
        assert path.read_text() == text


def test_a_sidecar_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = all_sidecars()["a1111"].path(tmp_path / "x.safetensors")
    with path.open("wb") as file:
        file.truncate(1 << 30)
    assert read_sidecars(tmp_path / "x.safetensors")[1] is None
    assert not fill(path, {"notes": "x"})
    assert path.stat().st_size == 1 << 30


def test_trigger_words_lose_their_tags_and_nothing_else() -> None:
    assert words(["<lora:x:1> ink, <b", "a > b", "<<a>>", "x<y>z"]) == ("ink, <b", "a > b", ">", "x z")


MANIFESTS = [
    "x = " + "[" * 5000,
    "[loras]\nx = " + "{a=" * 5000,
    "[loras]\n" + "a." * 20_000 + "b = 1",
    "[loras]\nx = {spec = '1', subdir = '../../evil'}",
    "[loras]\nx = {spec = '1', subdir = '/etc'}",
    "[loras]\nx = {spec = '1', subdir = 'a\\\\..\\\\..\\\\b'}",
    "[loras]\nx = {spec = '1', subdir = 'C:/x'}",
    "[loras]\nx = {spec = '1', weight = 1e999}",
    "[loras]\nx = " + "9" * 5000,
]


@pytest.mark.parametrize("text", MANIFESTS, ids=range(len(MANIFESTS)))
def test_a_manifest_that_leads_out_or_has_no_end_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "loras.toml").write_text(text)
    with pytest.raises(HubtoolError):
        read_manifest(tmp_path / "loras.toml")


@pytest.mark.parametrize(
    "text",
    [
        "version = 1\nx = " + "[" * 5000,
        "version = 1\nlora = [1, 'x']",
        "version = 1\nx = " + "9" * 5000,
        "\0",
        "version = []",
    ],
)
def test_a_lock_of_nonsense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "loras.lock").write_text(text)
    with pytest.raises(HubtoolError):
        read_lock(tmp_path / "loras.lock")
