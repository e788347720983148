"""How `inspect` shows a file to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hubtool.cli._output import Row


def with_values(path: Path, row: Row) -> Row:
    """The row with what the values say."""
    from hubtool.operations.validate import check_values

    found = check_values(path)
    return row | {
        "values": [{"code": p.code, "severity": p.severity, "key": p.key, "message": p.message} for p in found]
    }


def inspection_text(row: Row) -> str:
    """A dozen lines about one file."""
    lines = [f"{row['path']}: {row['what']}"]
    if row["dialect"]:
        lines.append(f"  architecture   {row['architecture'] or 'unknown'}{_also(row)}")
        lines.append(f"  dialect        {row['dialect']}{' (malformed)' if row['malformed'] else ''}")
        lines.append(f"  family         {_counts(row['parametrizations'])}{_modifiers(row)}")
        lines.append(
            f"  modules        {row['modules']} ({_counts(row['components'])}), {_percent(row['coverage'])} understood"
            if row["architecture"]
            else f"  modules        {row['modules']}, with names of their own"
        )
        lines.append(f"  rank / alpha   {_range(row['rank'])} / {_range(row['alpha'])}")
    lines.append(f"  tensors        {row['tensors']} ({_counts(row['dtypes'])}), {_megabytes(row['size_bytes'])}")
    for key, name in (("title", "title"), ("base_model", "base model")):
        if row[key]:
            lines.append(f"  {name:<14} {str(row[key])[:100]}")
    words = row["trigger_words"]
    if isinstance(words, list) and words:
        lines.append(f"  trigger words  {', '.join(map(str, words[:12]))}")
    lines += _hash_lines(row["hashes"]) + _leftover_lines(row["leftovers"]) + _value_lines(row.get("values"))
    return "\n".join(lines)


def _also(row: Row) -> str:
    near = row["relatives"]
    if isinstance(near, list) and near:
        return f", nearest to {near[0]['architecture']}: {'; '.join(near[0]['evidence'])}"
    candidates = row["candidates"]
    if not row["ambiguous"] or not isinstance(candidates, list):
        return ""
    return f" (the keys also fit {', '.join(str(c['architecture']) for c in candidates[1:])})"


def _modifiers(row: Row) -> str:
    modifiers = row["modifiers"]
    return f" with {', '.join(map(str, modifiers))}" if isinstance(modifiers, list) and modifiers else ""


def _counts(value: object) -> str:
    if not isinstance(value, dict):
        return ""
    return ", ".join(f"{name} {count}" for name, count in value.items())


def _range(value: object) -> str:
    if not isinstance(value, dict):
        return "–"
    low, high = value["min"], value["max"]
    return f"{low:g}" if low == high else f"{low:g}–{high:g}"


def _percent(value: object) -> str:
    return f"{float(str(value)):.0%}"


def _megabytes(value: object) -> str:
    return f"{int(str(value)) / 1e6:.1f} MB"


def _hash_lines(hashes: object) -> list[str]:
    table: Mapping[str, object] = hashes if isinstance(hashes, dict) else {}
    return [f"  {name:<14} {value}" for name, value in table.items() if value]


def _leftover_lines(leftovers: object) -> list[str]:
    keys = leftovers if isinstance(leftovers, list) else []
    if not keys:
        return []
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return [f"  not understood {', '.join(str(key)[:80] for key in keys[:3])}{more}"]


def _value_lines(values: object) -> list[str]:
    if not isinstance(values, list):
        return []
    return [f"  values         {found['message']}" for found in values] or [
        "  values         all finite, none all zero"
    ]
