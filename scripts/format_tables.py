"""The generated tables of docs/formats: what is known, and what can be said in which dialect."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.adapters.layer import parametrizations
from hubtool.naming.address import Address, Component, Role
from hubtool.naming.architecture import architecture, architecture_ids
from hubtool.naming.dialect import dialects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hubtool.naming.architecture import Architecture
    from hubtool.naming.dialect import Dialect

FOLDER = Path(__file__).parent.parent / "docs" / "formats"

#: What a module of each family or modifier may consist of: the first layout that a dialect can say is the one counted.
_LAYOUTS: dict[str, tuple[frozenset[Role], ...]] = {
    "`lora`": (frozenset({Role.DOWN, Role.UP}),),
    "`lora` + `tucker`": (frozenset({Role.DOWN, Role.MID, Role.UP}),),
    "`lora` + `dora`": (frozenset({Role.DOWN, Role.UP, Role.MAGNITUDE}),),
    "`lora` + `bias`": (frozenset({Role.DOWN, Role.UP, Role.UP_BIAS}), frozenset({Role.DOWN, Role.UP, Role.DIFF_BIAS})),
    "`loha`": (frozenset({Role.HADA_W1_A, Role.HADA_W1_B, Role.HADA_W2_A, Role.HADA_W2_B}),),
    "`lokr`": (frozenset({Role.LOKR_W1, Role.LOKR_W2}),),
    "`glora`": (frozenset({Role.GLORA_A1, Role.GLORA_A2, Role.GLORA_B1, Role.GLORA_B2}),),
    "`oft`": (frozenset({Role.OFT_BLOCKS}), frozenset({Role.OFT_DIAG}), frozenset({Role.OFT_R})),
    "`boft`": (frozenset({Role.OFT_BLOCKS}), frozenset({Role.BOFT_R, Role.BOFT_S})),
    "`ia3`": (frozenset({Role.IA3_WEIGHT, Role.IA3_ON_INPUT}), frozenset({Role.IA3_L})),
    "`full`": (frozenset({Role.DIFF}), frozenset({Role.SET_WEIGHT})),
    "`norm`": (frozenset({Role.NORM_WEIGHT}),),
    "alpha": (frozenset({Role.ALPHA}),),
}


def architectures() -> str:
    """Known architectures."""
    rows = [
        "| id | title | weights | text encoders | fused modules | kohya's names follow |",
        "|---|---|---|---|---|---|",
    ]
    for id in architecture_ids():
        known = architecture(id)
        weights = sum(len(shape) > 1 for shape in known.modules.values())
        encoders = ", ".join(component.value for component in known.encoders) or "–"
        rows.append(f"| `{id}` | {known.title} | {weights} | {encoders} | {len(known.fused)} | {known.kohya} |")
    return "\n".join(rows) + "\n"


def dialect_table() -> str:
    """Known dialects with one key each."""
    rows = ["| id | a key | source |", "|---|---|---|"]
    rows += [f"| `{spoken.id}` | {_a_key(spoken)} | {spoken.source} |" for spoken in dialects().values()]
    return "\n".join(rows) + "\n"


def _a_key(spoken: Dialect) -> str:
    """A key of the first of these architectures that the dialect speaks of."""
    for id in ("sdxl", "sd1", "flux1", "hunyuanvideo", "animatediff"):
        example = architecture(id)
        module, base = next(iter(spoken.written(example).items()), (None, ""))
        if module:
            return f"`{base}{spoken.suffix(Address(*module, Role.DOWN))}`"
        for prefix, paths, spelling in spoken.readers(example):
            if paths:
                return f"`{prefix}{next(iter(paths))}{spelling.suffixes[Role.DOWN][0]}` (only read)"
    raise LookupError(spoken.id)


def families() -> str:
    """Known parametrizations."""
    rows = ["| id | what it is |", "|---|---|"]
    rows += [
        f"| `{id}` | {_sentence(sys.modules[type(kind).__module__].__doc__)} |"
        for id, kind in parametrizations().items()
    ]
    return "\n".join(rows) + "\n"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split()).replace("|", "\\|")


def reach() -> str:
    """How many weights of each architecture each dialect has keys for."""
    spoken = list(dialects().values())
    rows = [
        f"| architecture | weights | {' | '.join(f'`{each.id}`' for each in spoken)} |",
        "|---" * (len(spoken) + 2) + "|",
    ]
    for id in architecture_ids():
        known = architecture(id)
        total = len(set(_weights(known)))
        cells = [_share(each, known, total) for each in spoken]
        rows.append(f"| `{id}` | {total} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _weights(known: Architecture) -> Iterator[tuple[Component, str]]:
    """Denoiser weights at the finest granularity; norms and biases, which few trainers touch, are not counted."""
    yield from ((Component.DENOISER, path) for path, shape in known.modules.items() if len(shape) > 1)


def _share(spoken: Dialect, known: Architecture, total: int) -> str:
    named = {module.path for module in spoken.written(known) if module.component is Component.DENOISER}
    for path, fused in known.fused.items():
        if path in named:
            named.update(fused.parts)
    count = sum(path in named for _, path in _weights(known))
    if count:
        return "all" if count == total else str(count)
    return "read" if any(reader.paths for reader in spoken.readers(known)) else "–"


def said() -> str:
    """Which families and modifiers each dialect has suffixes for."""
    spoken = list(dialects().values())
    rows = [f"| | {' | '.join(f'`{each.id}`' for each in spoken)} |", "|---" * (len(spoken) + 1) + "|"]
    for name, layouts in _LAYOUTS.items():
        cells = [_way(each, layouts) for each in spoken]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _way(spoken: Dialect, layouts: tuple[frozenset[Role], ...]) -> str:
    if any(all(spoken.says(role) for role in layout) for layout in layouts):
        return "yes"
    known = {role for spelling in spoken.spellings for role in spelling.suffixes}
    return "read" if any(layout <= known for layout in layouts) else "–"


def pages() -> str:
    """The pages beside this one, by title."""
    files = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
    return (
        "\n".join(f"- [{path.read_text('utf-8').partition(chr(10))[0].lstrip('# ')}]({path.name})" for path in files)
        + "\n"
    )


FORMAT_TABLES: dict[str, Callable[[], str]] = {
    "architectures": architectures,
    "dialects": dialect_table,
    "parametrizations": families,
    "reach": reach,
    "said": said,
    "pages": pages,
}
