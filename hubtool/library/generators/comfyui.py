"""ComfyUI: the API graph in `prompt`, the editor's in `workflow`; in WebP both stand in EXIF tags, behind their names.

The API graph holds what ran, so it counts where both are there; the editor's adds `models`, a node's own list of names,
addresses and hashes (its format 0.4 and 1.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hubtool.library.comfy_nodes import by_inputs, by_widgets
from hubtool.library.mention import Generator, Mention, completed, hex_digits, json_of, merged, stem

_INACTIVE = frozenset({2, 4})  # muted, bypassed
_GIVEN = ("value", "Value", "float", "number", "lora_name")  # what primitive nodes call the value that they give
_MAX_DEPTH = 8  # of subgraphs


def read(texts: Mapping[str, str]) -> list[Mention] | None:
    """The LoRAs of a graph; None if there is none."""
    graphs = list(_graphs(texts))
    ran = [graph for graph in graphs if _is_api(graph)]
    drawn = [graph for graph in graphs if isinstance(graph.get("nodes"), list)]
    if not ran and not drawn:
        return None
    uses = [use for graph in ran for use in _ran(graph)] if ran else [use for graph in drawn for use in _drawn(graph)]
    known = {stem(model.name): model for graph in drawn for model in _models(graph)}
    return [_completed(use, known.get(stem(use.name))) for use in merged(uses)]


def _graphs(texts: Mapping[str, str]) -> Iterator[Mapping[str, object]]:
    for key in ("prompt", "workflow", "Model", "Make", "ImageDescription", "UserComment", "text"):
        text = texts.get(key, "")
        for word in ("prompt:", "workflow:", "Prompt:", "Workflow:"):
            text = text.removeprefix(word)
        graph = json_of(text)
        if not isinstance(graph, Mapping):
            continue
        yield graph
        # what the API takes has both inside
        extra = graph.get("extra_data")
        inner = extra.get("extra_pnginfo") if isinstance(extra, Mapping) else graph.get("extra_pnginfo")
        for part in (
            graph.get("prompt"),
            graph.get("workflow"),
            inner.get("workflow") if isinstance(inner, Mapping) else 0,
        ):
            if isinstance(part, Mapping):
                yield part


def _is_api(graph: Mapping[str, object]) -> bool:
    return any(isinstance(node, Mapping) and "class_type" in node for node in graph.values())


def _ran(graph: Mapping[str, object]) -> Iterator[Mention]:
    for node in graph.values():
        inputs = node.get("inputs") if isinstance(node, Mapping) and "class_type" in node else None
        if isinstance(inputs, Mapping):
            yield from by_inputs({key: _followed(graph, value) for key, value in inputs.items()})


def _followed(graph: Mapping[str, object], value: object) -> object:
    """The number or text that a primitive node gives to an input; one step, which is all that such nodes need."""
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)):  # [node, output]
        return value
    node = graph.get(value[0])
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    given = [inputs[key] for key in _GIVEN if key in inputs] if isinstance(inputs, Mapping) else []
    return given[0] if given and isinstance(given[0], (int, float, str)) else value


def _drawn(graph: Mapping[str, object]) -> Iterator[Mention]:
    for node in _nodes(graph):
        if node.get("mode") in _INACTIVE:
            continue
        widgets = node.get("widgets_values")
        if isinstance(widgets, Mapping):
            yield from by_inputs(widgets)
        elif isinstance(widgets, list):
            yield from by_widgets(str(node.get("type")), widgets)


def _nodes(graph: Mapping[str, object], depth: int = 0) -> Iterator[Mapping[str, object]]:
    nodes = graph.get("nodes")
    yield from (node for node in (nodes if isinstance(nodes, list) else ()) if isinstance(node, Mapping))
    definitions = graph.get("definitions")
    inner = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    for part in inner if isinstance(inner, list) and depth < _MAX_DEPTH else ():
        if isinstance(part, Mapping):
            yield from _nodes(part, depth + 1)


def _models(graph: Mapping[str, object]) -> Iterator[Mention]:
    places = [graph, *(node.get("properties") for node in _nodes(graph))]
    for place in places:
        listed = place.get("models") if isinstance(place, Mapping) else None
        for model in listed if isinstance(listed, list) else ():
            if isinstance(model, Mapping) and isinstance(model.get("name"), str):
                url = model.get("url")
                spec = url if isinstance(url, str) and url.startswith("https://") else ""
                kind = str(model.get("hash_type") or "").lower()
                yield Mention(str(model["name"]), hash=hex_digits(model.get("hash")), spec=spec, hash_kind=kind)


def _completed(use: Mention, known: Mention | None) -> Mention:
    return use if known is None else completed(use, known)


GENERATOR = Generator(
    id="comfyui",
    source="comfyanonymous/ComfyUI nodes.py, comfy_extras; docs.comfy.org, specs/workflow_json; custom nodes: see comfy_nodes",
    read=read,
)
