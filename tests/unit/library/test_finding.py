"""A name on the command line means one file, or is asked about."""

import pytest
from unit.library.small_lora import write_lora

from hubtool.errors import AmbiguousName, NotInstalled
from hubtool.library.digest import hashed
from hubtool.library.finding import Finder
from hubtool.library.index import Index
from hubtool.library.record import Folder
from hubtool.library.scan import fresh_index
from hubtool.settings import Directories, Settings


@pytest.fixture
def library(tmp_path):
    home = tmp_path / "home"
    settings = Settings(Directories(home, home, home), library=tmp_path)
    here, other = tmp_path / "models" / "Lora", tmp_path / "ComfyUI" / "models" / "loras"
    write_lora(here / "styles" / "ink v1.0.safetensors", 1, {"ss_output_name": "brush"})
    write_lora(here / "Émile 🎨.safetensors", 2)
    write_lora(here / "shared.safetensors", 3)
    write_lora(other / "shared.safetensors", 3)
    for folder in "ab":
        write_lora(other / folder / "twin.safetensors", 4)
    with Index(settings.index_path) as index, index.writing():
        index.remember(Folder(other, "comfyui"))
    return settings


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ink v1.0", "ink v1.0"),
        ("styles/ink v1.0", "ink v1.0"),
        ("styles\\ink v1.0.safetensors", "ink v1.0"),
        ("INK V1.0", "ink v1.0"),
        ("brush", "ink v1.0"),
        ("E\u0301mile 🎨", "Émile 🎨"),
        ("a/twin", "twin"),
        ("shared", "shared"),
    ],
)
def test_what_a_name_means(library, name, found):
    with fresh_index(library, print) as index:
        assert Finder(index, library).find(name).name == found


def test_the_configured_folder_goes_first_and_another_can_be_asked_for(library, tmp_path):
    with fresh_index(library, print) as index:
        assert Finder(index, library).find("shared").target == "a1111"
        other = tmp_path / "ComfyUI" / "models" / "loras"
        assert Finder(index, library, other).find("shared").target == "comfyui"


def test_a_name_of_two_files_is_asked_about_with_both_paths(library):
    with fresh_index(library, print) as index, pytest.raises(AmbiguousName) as caught:
        Finder(index, library).find("twin")
    assert len(caught.value.paths) == 2


def test_copies_of_one_file_are_one_where_every_copy_is_reached_anyway(library):
    with fresh_index(library, print) as index:
        twins = [model for model in index.adapters() if model.name == "twin"]
        with pytest.raises(AmbiguousName):  # nobody knows yet that they are copies
            Finder(index, library).find("twin", copies_alike=True)
        for twin in twins:
            hashed(index, twin)
        assert Finder(index, library).find("twin", copies_alike=True).name == "twin"
        with pytest.raises(AmbiguousName):
            Finder(index, library).find("twin")


def test_a_path_is_never_ambiguous_and_a_link_to_the_folder_leads_there(library, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "ComfyUI" / "models" / "loras")
    with fresh_index(library, print) as index:
        finder = Finder(index, library)
        for root in ("ComfyUI/models/loras", "link"):
            assert finder.find(str(tmp_path / root / "b" / "twin.safetensors")).path.parent.name == "b"


def test_what_is_not_there_comes_with_near_misses(library):
    with fresh_index(library, print) as index, pytest.raises(NotInstalled) as caught:
        Finder(index, library).find("ink v2.0")
    assert caught.value.suggestions == ("ink v1.0",)
