"""docs/sample-hub.md says what the catalogue holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubtool.hubs.sample.catalogue import MODELS, TOKEN, Model

PAGE = (Path(__file__).parents[4] / "docs" / "sample-hub.md").read_text("utf-8")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_each_model_has_a_row_with_its_versions(model: Model) -> None:
    start = f"| {model.id} | {model.name} | {model.type} | {model.versions[0].base_model} |"
    row = next(line for line in PAGE.splitlines() if line.startswith(start))
    assert all(str(version.id) in row for version in model.versions)


def test_the_token_is_told() -> None:
    assert f"HUBTOOL_TOKEN={TOKEN}" in PAGE


def test_every_file_of_the_package_is_explained() -> None:
    folder = Path(__file__).parents[4] / "hubtool" / "hubs" / "sample"
    names = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert {name for name in names if f"`{name}`" not in PAGE} == set()
