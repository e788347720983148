"""The tables of what programs load: every row is sourced and speaks of things that exist."""

from __future__ import annotations

import pytest

from hubtool.errors import UsageProblem
from hubtool.naming.address import Component
from hubtool.naming.architecture import architecture_ids
from hubtool.naming.dialect import dialects
from hubtool.naming.suffixes import ROLE_OF
from hubtool.operations.base_models import BASE_MODELS, architectures_of
from hubtool.operations.conditions import CONDITIONS
from hubtool.operations.loader import EFFECTS, Loader, loader, loader_for, loaders

TABLES = list(loaders().values())
FAMILIES = {"lora", "loha", "lokr", "glora", "oft", "boft", "ia3", "dylora", "full", "norm"}
every_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.id)


def test_the_targets_are_those_of_the_contract() -> None:
    assert list(loaders()) == ["a1111", "comfyui", "diffusers", "fooocus", "forge", "invokeai", "sdnext", "swarmui"]
    with pytest.raises(UsageProblem):
        loader("krita")


@every_table
def test_every_row_has_a_source(table: Loader) -> None:
    assert table.read
    assert table.runs_source
    assert all(row.source for row in (*table.names, *table.families, *table.rules))
    assert bool(table.most_unknown_source) == (table.most_unknown is not None)


@every_table
def test_every_row_speaks_of_architectures_families_and_conditions_that_exist(table: Loader) -> None:
    named = set().union(*(row.architectures for row in (*table.names, *table.families, *table.rules)))
    assert table.runs | named | set(table.delegates) <= set(architecture_ids())
    assert {row.id for row in table.families} <= FAMILIES
    for rule in table.rules:
        assert rule.effect in EFFECTS
        assert rule.families <= FAMILIES
        assert set(rule.when) <= set(CONDITIONS)
        assert rule.components <= {component.value for component in Component}
        assert rule.suffixes | rule.has | rule.lacks <= set(ROLE_OF)
        assert not rule.says.endswith(".")  # a sentence is made of it


@every_table
def test_every_row_of_keys_has_keys(table: Loader) -> None:
    for row in table.names:
        assert row.dialect in {"", *dialects()}
        assert row.dialect or row.prefixes
        assert row.paths in {"diffusers", "original", "kohya"}


@every_table
def test_what_mends_are_dialects_that_can_be_written(table: Loader) -> None:
    assert set(table.mends) <= set(dialects())
    assert table.mends


@every_table
def test_a_program_has_rows_for_the_keys_of_every_architecture_it_runs(table: Loader) -> None:
    for id in table.runs:
        rows = loader_for(table.id, id).names
        assert any(not row.is_of_encoder and id in (row.architectures or table.runs) for row in rows), id


def test_swarmui_loads_with_comfyuis_loader() -> None:
    swarm, comfy = loader("swarmui"), loader("comfyui")
    assert swarm.runs == comfy.runs
    assert [row.prefixes for row in swarm.names] == [row.prefixes for row in comfy.names]
    assert swarm.title != comfy.title


# ---------------------------------------------------------------- base models by name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SDXL 1.0", ("sdxl",)),
        ("Pony", ("sdxl",)),
        ("illustrious", ("sdxl",)),
        ("NoobAI", ("sdxl",)),
        ("Flux.1 D", ("flux1",)),
        ("  flux.1   d ", ("flux1",)),
        ("flux1", ("flux1",)),
        ("SD 3.5", ("sd35-large", "sd35-medium")),
        ("Stable Diffusion XL", ("sdxl",)),
        ("Wan Video 2.2 TI2V-5B", ("wan22-5b",)),
    ],
)
def test_base_models_go_by_the_names_of_hubs(name: str, expected: tuple[str, ...]) -> None:
    assert architectures_of(name) == expected


@pytest.mark.parametrize("name", ["", "SDXXL", "flux", "xl"])
def test_an_unknown_base_model_is_an_error_of_use_that_lists_names(name: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        architectures_of(name)
    assert "sdxl" in (caught.value.hint or "")


def test_every_base_model_is_an_architecture() -> None:
    assert {id for ids in BASE_MODELS.values() for id in ids} <= set(architecture_ids())
    assert all(name == " ".join(name.casefold().split()) for name in BASE_MODELS)
