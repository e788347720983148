"""Draws what an extraction found: how the singular values fall, and how much of each module's change its rank holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.errors import MissingExtra, UsageProblem
from hubtool.formats.atomic import atomic_output

try:
    from matplotlib import rc_context
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtra("matplotlib", "plot", "Drawing the singular values") from error

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from hubtool.operations.extract_report import ExtractedLayer, Extraction

_FORMATS = (".png", ".svg")
_FAINT = 0.15


def check_plot(path: Path) -> None:
    """Whether the name says how to draw.

    Raises:
        UsageProblem: it is neither PNG nor SVG.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageProblem(f"{path.name} is neither a .png nor a .svg.", hint="Use `--plot spectrum.png`.")


def draw(extraction: Extraction, path: Path, *, force: bool) -> None:
    """Write the drawing; the same figures give the same bytes."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    parts = {name: [x for x in extraction.layers if x.component == name] for name in extraction.components}
    for number, (name, layers) in enumerate(parts.items()):
        _draw_values(left, layers, f"C{number}")
        right.scatter(
            [layer.rank for layer in layers], [layer.energy for layer in layers], s=9, color=f"C{number}", label=name
        )
    left.set(yscale="log", xlabel="direction", ylabel="singular value / the module's largest", title="Singular values")
    right.set(ylim=(0, 1.02), xlabel="rank", ylabel="share of the change's energy", title="Modules")
    if parts:
        right.legend()
    figure.suptitle(extraction.output.name)
    kind = path.suffix.lower().removeprefix(".")
    still = {"Date": None} if kind == "svg" else {"Software": None}
    with atomic_output(path, force=force) as out, rc_context({"svg.hashsalt": "hubtool"}):
        figure.savefig(out, format=kind, metadata=still)


def _draw_values(axes: Axes, layers: list[ExtractedLayer], colour: str) -> None:
    """A faint line for each module."""
    for values in (layer.singular_values for layer in layers if layer.singular_values):
        shares = [value / values[0] for value in values]
        axes.plot(range(1, len(shares) + 1), shares, color=colour, alpha=_FAINT, linewidth=0.8)
