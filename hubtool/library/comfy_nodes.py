"""The LoRAs that one node of a ComfyUI graph loads, from its inputs by name or from its widgets by position.

| nodes | what names the LoRA, and its strengths |
|---|---|
| LoraLoader, LoraLoaderModelOnly, CreateHookLora… | `lora_name`, `strength_model`, `strength_clip` |
| Power Lora Loader (rgthree) | tables `{on, lora, strength, strengthTwo}` |
| LoRA Manager | `loras`: a list of `{name, strength, clipStrength, active}`, perhaps below `__value__`; tags in `text` |
| LoRA Stacker (Efficiency), CR LoRA Stack, easy loraStack | numbered: `lora_name_1` or `lora_1_name`, `lora_wt_1` … |

The rule behind the table covers nodes that nobody listed: an input whose name has "lora" in it and whose text ends like a
model file names a LoRA; numbers with the same numbering are its strengths. Then tags inside any text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from hubtool.library.mention import EXTENSIONS, Mention, number
from hubtool.library.prompts import parse

Inputs = Mapping[str, object]
_AIR = re.compile(r"civitai:(\d+)@(\d+)")
_MODEL = (
    "strength_model",
    "model_str",
    "model_weight",
    "model_strength",
    "lora_wt",
    "lora_weight",
    "lora_model_strength",
    "lora_strength",
    "strength",
    "weight",
)
_CLIP = ("strength_clip", "clip_str", "clip_weight", "clip_strength", "lora_clip_strength")
_SWITCHES = ("switch", "toggle", "enabled", "on", "active")
_MAX_DEPTH = 16  # of a table inside an input; LoRA Manager's are two deep
_COUNTS = ("lora_count", "num_loras")
_OFF = frozenset({"off", "false", "0", "none", "disabled"})


def by_inputs(inputs: Inputs) -> Iterator[Mention]:
    """The LoRAs of a node of the API graph."""
    count = next((int(number(inputs[key])) for key in _COUNTS if key in inputs), None)
    for key, value in inputs.items():
        if isinstance(value, str):
            yield from _named(key, value, inputs, count)
        else:
            yield from _tables(value)


def by_widgets(kind: str, widgets: Sequence[object]) -> Iterator[Mention]:
    """The LoRAs of a node of the editor's graph, whose values have no names: a file, then its strengths."""
    for place, value in enumerate(widgets):
        if isinstance(value, str) and _is_file(value) and "lora" in f"{kind} {value}".lower():
            numbers = []
            for following in widgets[place + 1 : place + 3]:
                if isinstance(following, bool) or not isinstance(following, (int, float)):
                    break
                numbers.append(float(following))
            yield _mention(value, numbers[0] if numbers else 1.0, numbers[1] if len(numbers) > 1 else None)
        elif isinstance(value, str):
            yield from _tags(value)
        else:
            yield from _tables(value)


def _named(key: str, value: str, inputs: Inputs, count: int | None) -> Iterator[Mention]:
    if "lora" not in key.lower() or not (_is_file(value) or _AIR.search(value)):
        yield from _tags(value)
        return
    numbered = re.search(r"(?<!\d)\d{1,6}(?!\d)", key)
    slot = numbered[0] if numbered else ""
    if (count is not None and slot and int(slot) > count) or _is_off(inputs, slot):
        return
    yield _mention(value, number(_strength(inputs, _MODEL, slot)), _clip(inputs, slot))


def _clip(inputs: Inputs, slot: str) -> float | None:
    value = _strength(inputs, _CLIP, slot)
    return None if value is None else number(value)


def _strength(inputs: Inputs, names: Sequence[str], slot: str) -> object:
    """The value of the first input of these names and this number: `model_str_2`, `lora_2_model_strength`."""
    for name in names:
        ways = (f"{name}_{slot}", f"lora_{slot}_{name.removeprefix('lora_')}", f"{name}{slot}") if slot else (name,)
        value = next((inputs[way] for way in ways if way in inputs), None)
        if isinstance(value, (int, float, str)):
            return value
    return None


def _is_off(inputs: Inputs, slot: str) -> bool:
    keys = [f"{name}_{slot}" if slot else name for name in _SWITCHES] + [f"lora_{slot}_on", f"{_SWITCHES[1]}"]
    return any(str(inputs[key]).lower() in _OFF for key in keys if key in inputs)


def _tables(value: object, depth: int = 0) -> Iterator[Mention]:
    """rgthree's and LoRA Manager's tables, wherever in a value they stand."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        name = value.get("lora") if isinstance(value.get("lora"), str) else value.get("name")
        is_entry = isinstance(name, str) and ("strength" in value or "lora" in value)
        if is_entry and isinstance(name, str):
            if value.get("on", value.get("active", True)) is not False and name.lower() != "none":
                clip = value.get("strengthTwo", value.get("clipStrength"))
                yield _mention(name, number(value.get("strength")), None if clip is None else number(clip))
            return
        for entry in value.values():
            yield from _tables(entry, depth + 1)
    elif isinstance(value, list):
        for entry in value:
            yield from _tables(entry, depth + 1)


def _tags(text: str) -> Iterator[Mention]:
    if "<lora:" in text.lower():
        for tag in parse(text, "comfyui").tags:
            yield Mention(tag.name, tag.denoiser, tag.text_encoder if tag.text_encoder != tag.denoiser else None)


def _mention(name: str, weight: float, clip: float | None) -> Mention:
    air = _AIR.search(name)
    return Mention(name, weight, clip if clip != weight else None, spec=f"v:{air[2]}" if air else "")


def _is_file(text: str) -> bool:
    return text.lower().endswith(EXTENSIONS)
