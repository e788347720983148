"""Which file a name in a prompt means."""

import time
from pathlib import Path

import pytest

from hubtool.library.record import Label
from hubtool.library.resolve import Names

FOLDER = Path("/models/Lora")


def installed(inside: str, alias: str = "") -> Label:
    return Label(str(FOLDER / inside), str(FOLDER), alias)


def found(names: Names, name: str, dialect: str = "a1111") -> str | None:
    label = names.find(name, dialect)
    return Path(label.path).relative_to(FOLDER).as_posix() if label else None


def test_a_stem_wins_over_an_alias_of_another_file():
    names = Names([installed("ink.safetensors"), installed("a.safetensors", "ink")])
    assert found(names, "ink") == "ink.safetensors"


def test_an_alias_finds_its_file():
    assert found(Names([installed("a.safetensors", "ink")]), "ink") == "a.safetensors"


def test_an_alias_taken_twice_finds_nothing():
    names = Names([installed("a.safetensors", "ink"), installed("b.safetensors", "ink")])
    assert found(names, "ink") is None
    assert found(names, "a") == "a.safetensors"


@pytest.mark.parametrize("word", ["none", "None"])
def test_reserved_words_are_no_aliases_but_may_be_stems(word):
    assert found(Names([installed("a.safetensors", word)]), word) is None
    assert found(Names([installed(f"{word}.safetensors")]), word) == f"{word}.safetensors"


def test_names_are_case_sensitive_in_a1111_and_not_in_swarmui():
    names = Names([installed("Ink.safetensors")])
    assert found(names, "ink") is None
    assert found(names, "ink", "swarmui") == "Ink.safetensors"


def test_of_two_equal_stems_the_one_listed_last_wins():
    names = Names([installed("b/ink.safetensors"), installed("a/ink.safetensors")])
    assert found(names, "ink") == "b/ink.safetensors"


def test_comfyui_takes_paths_with_either_slash_and_an_extension():
    names = Names([installed("styles/ink.safetensors"), installed("ink.safetensors")])
    assert found(names, r"styles\ink.safetensors", "comfyui") == "styles/ink.safetensors"
    assert found(names, "styles/ink", "comfyui") == "styles/ink.safetensors"


def test_swarmui_takes_the_shortest_path_that_contains_the_name():
    names = Names([installed("long/pixel-art-xl.safetensors"), installed("pixel-art.safetensors")])
    assert found(names, "pixel", "swarmui") == "pixel-art.safetensors"


def test_sdnext_reads_dots_as_underscores_and_paths():
    names = Names([installed("a/ink.v2.safetensors")])
    assert found(names, "ink_v2", "sdnext") == "a/ink.v2.safetensors"
    assert found(names, "a/ink.v2", "sdnext") == "a/ink.v2.safetensors"


def test_near_misses_are_suggested_by_a_name_that_works():
    names = Names([installed("PixelArt_XL.safetensors"), installed("watercolor.safetensors", "wc-painting")])
    assert names.suggestions("pixel art xl") == ["PixelArt_XL"]
    assert names.suggestions("wc_paintings") == ["watercolor"]
    assert names.suggestions("qqqqqq") == []


def test_nothing_installed_means_nothing_found_and_nothing_suggested():
    assert found(Names([]), "x") is None
    assert Names([]).suggestions("x") == []


def elsewhere(inside: str, folder: str = "/ComfyUI/models/loras", **known: str) -> Label:
    return Label(f"{folder}/{inside}", folder, "inkalias", **known)


@pytest.mark.parametrize("known", [{"sha256": "ab" * 32}, {"stamp": "1 2 3"}])
def test_a_copy_for_another_ui_takes_no_alias_away_and_another_file_does(known):
    mine = Label(str(FOLDER / "ink.safetensors"), str(FOLDER), "inkalias", **known)
    assert Names([mine, elsewhere("ink.safetensors", **known)]).find("inkalias", "a1111").stem == "ink"
    assert Names([mine, elsewhere("ink.safetensors", sha256="cd" * 32)]).find("inkalias", "a1111") is None
    twin = elsewhere("b.safetensors", str(FOLDER), **known)
    assert Names([mine, twin]).find("inkalias", "a1111") is None  # in one folder, A1111 counts files, not contents


@pytest.mark.parametrize(
    ("dialect", "name"), [("a1111", "ink.v2"), ("sdnext", "ink_v2"), ("comfyui", "ink.v2"), ("fooocus", "ink.v2")]
)
def test_a_file_has_a_name_in_every_dialect(dialect, name):
    wanted = installed("styles/ink.v2.safetensors", "alias")
    names = Names([wanted, installed("other.safetensors")])
    assert names.find(names.name_of(wanted, dialect), dialect) == wanted
    assert names.name_of(wanted, dialect, name) == name


def test_a_file_that_another_hides_is_named_by_its_path_or_not_at_all():
    hidden = installed("b/ink.safetensors")
    names = Names([installed("a/ink.safetensors"), hidden])
    assert names.name_of(hidden, "comfyui") == "b/ink"
    assert names.name_of(hidden, "fooocus") is None


def test_thousands_of_unknown_names_are_looked_up_at_once():
    names = Names(installed(f"Style {number}.safetensors") for number in range(3000))
    start = time.process_time()
    assert [names.called(f"unknown-{number}") for number in range(3000)] == [None] * 3000
    assert time.process_time() - start < 2  # by comparing each with each: 20 s
