"""The drawing of an extraction is a picture, the same for the same figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.checkpoints import small_model, tuned, write_ldm

from hubtool.errors import OutputExists, UsageProblem
from hubtool.operations.extract import ExtractOptions, extract

if TYPE_CHECKING:
    from pathlib import Path

plotting = pytest.importorskip("hubtool.cli._extraction_plot")


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml")])
def test_equal_figures_give_equal_pictures(tmp_path: Path, name: str, start: bytes) -> None:
    base = small_model()
    paths = [write_ldm(tmp_path / f"{n}.safetensors", w) for n, w in (("tuned", tuned(base)), ("base", base))]
    found = extract(*paths, tmp_path / "out.safetensors", ExtractOptions(rank=4))
    drawn = []
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        plotting.draw(found, tmp_path / folder / name, force=False)
        drawn.append((tmp_path / folder / name).read_bytes())
    assert drawn[0].startswith(start)
    assert drawn[0] == drawn[1]
    with pytest.raises(OutputExists):
        plotting.draw(found, tmp_path / "first" / name, force=False)


def test_other_kinds_of_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem):
        plotting.check_plot(tmp_path / "a.gif")
