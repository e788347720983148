r"""Fold a module list into the template rows of an architecture's TOML.

    python scripts/make_architecture.py MODULES.json [--pairs PAIRS.json] [--head HEAD.toml] \
        > hubtool/naming/architectures/ID.toml

MODULES.json: {"modules": {canonical path: {"shape": [...]}}, "norms": {...}}, as diffusers' class has them.
PAIRS.json: either {"rows": [[original, canonical, type, shape, bias], ...]} (one to one) or {"rows": [{"native",
"diffusers": [...], "op": "rename" | "fuse_rows" | "swap_halves"}, ...]}.
HEAD.toml: the hand-written top of the file (id, title, text encoders …), copied as it is; `[tables]` in it are put last.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

Tokens = list[str]


def fold(rows: list[tuple[Tokens, ...]]) -> list[tuple[Tokens, ...]]:
    """Merge rows that differ in one index (the same one index in every column); braces keep their order."""
    width = max((len(row[0]) for row in rows), default=0)
    for position in reversed(range(width)):
        groups: dict[object, list[tuple[Tokens, ...]]] = {}
        for row in rows:
            groups.setdefault(_key(row, position), []).append(row)
        rows = [merged for group in groups.values() for merged in _merge(group, position)]
    return rows


def _key(row: tuple[Tokens, ...], position: int) -> object:
    first = row[0]
    if position >= len(first) or not first[position].isdigit():
        return tuple(map(tuple, row))
    return (
        position,
        tuple(first[:position]),
        tuple(first[position + 1 :]),
        tuple(len(c) for c in row[1:]),
        tuple(tuple(t for t in c if not t.isdigit()) for c in row[1:]),
    )


def _merge(group: list[tuple[Tokens, ...]], position: int) -> list[tuple[Tokens, ...]]:
    """One row for the group if each other column varies in exactly one place, and in the same order as the first."""
    if len(group) == 1:
        return group
    group = sorted(group, key=lambda row: int(row[0][position]))
    merged: list[Tokens] = []
    for column in range(len(group[0])):
        cells = [row[column] for row in group]
        varying = [i for i in range(len(cells[0])) if len({cell[i] for cell in cells}) > 1]
        if column == 0:
            varying = [position]
        if len(varying) != 1 or not all(cell[varying[0]].isdigit() for cell in cells):
            return group
        tokens = list(cells[0])
        tokens[varying[0]] = _braces([int(cell[varying[0]]) for cell in cells])
        merged.append(tokens)
    return [tuple(merged)]


def _braces(values: list[int]) -> str:
    if values == list(range(values[0], values[-1] + 1)) and len(values) > 2:
        return f"{{{values[0]}..{values[-1]}}}"
    return "{" + ",".join(map(str, values)) + "}"


def _dotted(path: str) -> Tokens:
    return path.split(".")


def module_rows(shapes: dict[str, list[int]], original: dict[str, str]) -> list[str]:
    """Text of the `modules` rows, in the order of first appearance."""
    kinds: dict[object, list[tuple[Tokens, ...]]] = {}
    for path, shape in shapes.items():
        name = original.get(path)
        same = name == path
        columns = (_dotted(path),) if name is None or same else (_dotted(path), _dotted(name))
        kinds.setdefault((tuple(shape), name is None, same), []).append(columns)
    lines = []
    order = {path: index for index, path in enumerate(shapes)}
    for (shape, missing, same), rows in kinds.items():
        for row in fold(rows):
            text = [json.dumps(".".join(row[0])), json.dumps(list(shape))]
            if not missing:
                text.append('"="' if same else json.dumps(".".join(row[1])))
            first = next(iter(_first(row[0])))
            lines.append((order.get(first, 0), f"    [{', '.join(text)}],"))
    return [line for _, line in sorted(lines)]


def _first(tokens: Tokens) -> list[str]:
    return [".".join(t.strip("{}").replace("..", ",").split(",")[0] for t in tokens)]


def fused_rows(fused: dict[str, list[str]]) -> list[str]:
    """Text of the `fused` rows."""
    by_size: dict[int, list[tuple[Tokens, ...]]] = {}
    for name, parts in fused.items():
        by_size.setdefault(len(parts), []).append((_dotted(name), *map(_dotted, parts)))
    lines = []
    for rows in by_size.values():
        for row in fold(rows):
            name, *parts = [".".join(cell) for cell in row]
            lines.append(f"    [{json.dumps(name)}, {json.dumps(parts)}],")
    return lines


def read_pairs(path: Path | None) -> tuple[dict[str, str], dict[str, list[str]], dict[str, str]]:
    """(canonical → original, original → parts, original → swapped part)."""
    original: dict[str, str] = {}
    fused: dict[str, list[str]] = {}
    swapped: dict[str, str] = {}
    for row in json.loads(path.read_text())["rows"] if path else []:
        if isinstance(row, list):
            original[row[1]] = row[0]
        elif row["op"] == "rename":
            original[row["diffusers"][0]] = row["native"]
        elif row["op"] == "swap_halves":
            swapped[row["native"]] = row["diffusers"][0]
        else:
            fused[row["native"]] = row["diffusers"]
    return original, fused, swapped


def main() -> None:
    """Write one TOML to stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", type=Path)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--head", type=Path)
    options = parser.parse_args()
    data = json.loads(options.modules.read_text())
    shapes = {path: row["shape"] for table in ("modules", "norms") for path, row in data.get(table, {}).items()}
    original, fused, swapped = read_pairs(options.pairs)
    head = options.head.read_text() if options.head else ""
    top, _, tables = head.partition("\n[")
    out = [
        top.rstrip(),
        "",
        "# canonical path, weight shape (one number: a norm), the authors' own path",
        "modules = [",
    ]
    out += [*module_rows(shapes, original), "]"]
    if fused:
        out += [
            "",
            "# the authors' path, and the canonical modules whose rows it stacks",
            "fused = [",
            *fused_rows(fused),
            "]",
        ]
    if swapped:
        out += [
            "",
            "# the authors' path and the canonical one; the two halves of the rows change places",
            "swapped = [",
        ]
        out += [f"    [{json.dumps(name)}, {json.dumps(part)}]," for name, part in swapped.items()] + ["]"]
    if tables:
        out += ["", "[" + tables.rstrip()]
    sys.stdout.write("\n".join(out).lstrip() + "\n")


if __name__ == "__main__":
    main()
