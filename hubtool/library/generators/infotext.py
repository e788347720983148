"""A1111's infotext, as Forge, SD.Next, Fooocus (its a1111 scheme), Civitai and many ComfyUI nodes write it too.

`parameters` in PNG, UserComment in JPEG and WebP: the prompt with its tags, then `Negative prompt:`, then one line of
`Key: value` pairs. Hashes: `Lora hashes` by name, `Hashes` (Civitai's extension) and `Civitai resources`, both JSON.
SD.Next writes names and hashes as two lists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from hubtool.library.mention import Generator, Mention, hex_digits, merged, named_hashes, number
from hubtool.library.prompts import LORA_KINDS, parse

# modules/infotext_utils.py: a key, then a quoted or plain value up to a comma
_PAIR = re.compile(r'\b(\w[\w \-/]{1,63}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_JSON = re.compile(r"(?:^|, )(Hashes|Civitai resources|Civitai metadata): (?=[\[{])")
_PROMPTS = ("parameters", "text")  # texts that are prompts, whatever they hold
_MAX_TABLES = 16  # fields with JSON; real lines have three
_LONG = 1000  # characters of a name
_ADDNET = re.compile(r"(.*?)\s*\(([0-9a-fA-F]+)\)$")


def read(texts: Mapping[str, str]) -> list[Mention] | None:
    """The LoRAs of an infotext; None if there is none."""
    key = next((key for key in (*_PROMPTS, "UserComment", "Comment") if key in texts), "")
    text = texts.get(key, "")
    if not key or text.lstrip().startswith("{"):
        return None
    prompt, line = _split(text)
    fields, tables = _fields(line)
    mentions = [*_tags(prompt, fields), *_hashes(fields, tables), *_resources(tables), *_numbered(fields)]
    # a comment can be about anything
    return merged(mentions) if mentions or line or key in _PROMPTS else None


def _split(text: str) -> tuple[str, str]:
    """Prompt and parameter line; a last line with fewer than three pairs is prompt too (as A1111 has it)."""
    head, _, last = text.strip().rpartition("\n")
    if len(_PAIR.findall(last)) < 3:
        return _without_negative(text), ""
    return _without_negative(head), last


def _without_negative(text: str) -> str:
    return re.split(r"^Negative prompt:", text, maxsplit=1, flags=re.MULTILINE)[0]


def _fields(line: str) -> tuple[dict[str, str], dict[str, object]]:
    """Plain fields, and those that hold JSON (which the pattern for plain ones would tear apart)."""
    tables: dict[str, object] = {}
    for _ in range(_MAX_TABLES):
        found = _JSON.search(line)
        if found is None:
            break
        try:
            value, stop = json.JSONDecoder().raw_decode(line, found.end())
        except (ValueError, RecursionError):
            line = line[: found.start()] + ", " + line[found.end() :]
            continue
        tables[found[1]] = value
        line = line[: found.start()] + line[stop:]
    return {key: _unquoted(value) for key, value in _PAIR.findall(line)}, tables


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value.strip()
    try:
        return str(json.loads(value))
    except ValueError:
        return value.strip('"')


def _tags(prompt: str, fields: Mapping[str, str]) -> Iterator[Mention]:
    dialect = "sdnext" if "LoRA networks" in fields else "a1111"
    for tag in parse(prompt, dialect).tags:
        if tag.kind in LORA_KINDS and tag.name:
            yield Mention(tag.name, tag.denoiser, tag.text_encoder if tag.text_encoder != tag.denoiser else None)


def _hashes(fields: Mapping[str, str], tables: Mapping[str, object]) -> Iterator[Mention]:
    weights = dict(_pairs(fields.get("Lora weights", "")))  # Fooocus
    for name, one in named_hashes(fields.get("Lora hashes", "")):
        yield Mention(name, number(weights.get(name)), hash=hex_digits(one))
    names = [name.strip() for name in fields.get("LoRA networks", "").split(",") if name.strip()]
    digits = [hex_digits(text) for text in fields.get("LoRA hashes", "").split(",")]
    # SD.Next leaves out what has no hash: lists of different length cannot be told apart
    if len(names) == len(digits):
        yield from (Mention(name, hash=text) for name, text in zip(names, digits, strict=True))
    else:
        yield from (Mention(name) for name in names)
    table = tables.get("Hashes")
    for key, value in table.items() if isinstance(table, dict) else ():
        kind, _, name = str(key).partition(":")
        if kind.lower() == "lora" and name:
            yield Mention(name, hash=hex_digits(value))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split(","):
        name, _, value = part.rpartition(":")
        if name:
            yield name.strip(), value.strip()


def _resources(tables: Mapping[str, object]) -> Iterator[Mention]:
    """`Civitai resources`: what its own generator used, by version id or AIR."""
    listed = tables.get("Civitai resources")
    for entry in listed if isinstance(listed, list) else ():
        if not isinstance(entry, Mapping) or str(entry.get("type", "")).lower() not in {
            "lora",
            "lycoris",
            "locon",
            "dora",
        }:
            continue
        version, air = entry.get("modelVersionId"), entry.get("air")
        spec = f"v:{version}" if isinstance(version, int) else air if isinstance(air, str) else ""
        name = entry.get("modelName") or entry.get("name") or spec
        yield Mention(str(name), number(entry.get("weight")), hash=hex_digits(entry.get("hash")), spec=spec)


def _numbered(fields: Mapping[str, str]) -> Iterator[Mention]:
    """`AddNet Model 1` (the old extension) and `Lora_0 Model name` (image savers of ComfyUI)."""
    for key, value in fields.items():
        if key.startswith("AddNet Model ") and len(value) < _LONG and (found := _ADDNET.match(value)):
            yield Mention(found[1], number(fields.get(f"AddNet Weight A {key[13:]}")), hash=hex_digits(found[2]))
        elif found := re.fullmatch(r"(Lora_\d+) Model name", key):
            yield Mention(
                value,
                number(fields.get(f"{found[1]} Strength model")),
                hash=hex_digits(fields.get(f"{found[1]} Model hash")),
            )


GENERATOR = Generator(
    id="infotext",
    source="stable-diffusion-webui-forge modules/infotext_utils.py, extensions-builtin/sd_forge_lora; sdnext modules/lora",
    read=read,
)
