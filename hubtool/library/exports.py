"""A lock in the words of other programs: download lists, ComfyUI's lock, and credits for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hubtool.errors import UsageProblem
from hubtool.library.prompt_writing import spell
from hubtool.library.prompts import Tag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hubtool.library.lockfile import Locked
    from hubtool.library.manifest import Manifest
    from hubtool.library.target import Place

    Export = Callable[[Sequence[Locked], Place], str]


def export(form: str, manifest: Manifest, locked: Sequence[Locked], place: Place) -> str:
    """The lock in one of `FORMS`, or the manifest's sets as `prompts`.

    Raises:
        UsageProblem: no such form.
    """
    if form == "prompts":
        return _prompts(manifest, place)
    if form not in FORMS:
        raise UsageProblem(f"There is no export {form}; there are {', '.join(FORMS)}, prompts.")
    return FORMS[form](locked, place)


def _aria2(locked: Sequence[Locked], place: Place) -> str:
    """An input file for aria2c; what only a hub's ids name has Civitai's download address, without a token."""
    del place
    parts = []
    for one in locked:
        if address := _download(one):
            parts.append(f"{address}\n  out={one.path}\n  checksum=sha-256={one.sha256}\n")
        else:
            parts.append(f"# {one.name}: no public address; sha256 {one.sha256}\n")
    return "".join(parts)


def _comfy_lock(locked: Sequence[Locked], place: Place) -> str:
    """The `models` part of comfy-cli's comfy-lock.yaml (JSON is YAML)."""
    models = [
        {
            "model": one.name,
            "url": _download(one) or one.url,
            "type": "lora",
            "paths": [{"path": f"{place.target.folder}/{one.path}"}],
            "hashes": [{"hash": one.sha256, "type": "SHA256"}],
        }
        for one in locked
    ]
    return json.dumps({"models": models}, ensure_ascii=False, indent=2) + "\n"


def _credits(locked: Sequence[Locked], place: Place) -> str:
    """Markdown: who made what, what they allow, and where to read it."""
    del place
    rows = ["| LoRA | by | base model | licence | page |", "|---|---|---|---|---|"]
    for one in locked:
        base, terms = one.base_model or one.architecture, one.license or "not said"
        cells = (one.model or one.name, one.creator or "unknown", base, terms, one.url)
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _prompts(manifest: Manifest, place: Place) -> str:
    """Each set's tags on one line, as the target's prompts spell them; everything, where there are no sets."""
    sets = manifest.sets or {"all": tuple((name, None) for name in manifest.wanted)}
    lines = []
    for name, members in sets.items():
        strengths = ((member, manifest.wanted[member].weight if said is None else said) for member, said in members)
        tags = (Tag("lora", member, weight or 1.0, weight or 1.0, None, "") for member, weight in strengths)
        lines.append(f"{name}: {' '.join(spell(tag, place.target.grammar)[0] for tag in tags)}\n")
    return "".join(lines)


def _download(one: Locked) -> str:
    if one.hub == "civitai" and one.spec.startswith("v:"):
        return f"https://civitai.com/api/download/models/{one.spec[2:]}"
    return one.spec if one.spec.startswith("https://") else ""


FORMS: Mapping[str, Export] = {"aria2": _aria2, "comfy-lock": _comfy_lock, "credits": _credits}
