"""An installation that was cut off is finished if its file has a name, and taken back if not."""

import json
import os

import pytest
from unit.library.small_lora import write_lora

from hubtool.errors import StorageProblem
from hubtool.library.digest import digests_of
from hubtool.library.promises import Promise, promise
from hubtool.library.record import Folder, Installed, Origin, Stamp
from hubtool.library.scan import open_library
from hubtool.library.sidecar import Filling
from hubtool.settings import Directories, Settings


@pytest.fixture
def settings(tmp_path):
    home = tmp_path / "home"
    return Settings(Directories(home, home, home), library=tmp_path)


@pytest.fixture
def made(settings):
    """A promise to install ink é.safetensors with a sidecar; its prepared file is there."""
    folder = settings.library / "models" / "Lora"
    temporary = write_lora(folder / ".hubtool-0123456789ab.tmp", 1)
    origin = Origin("civitai", "1", "2", "3", "Model", trigger_words=("a", "b"), snapshot={"id": 2})
    path = folder / "ink é.safetensors"
    installed = Installed(path, folder, "a1111", Stamp(0, 0, 0), digests_of(temporary), origin=origin)
    promised = Promise(temporary, installed, (Filling(path.with_suffix(".json"), {"notes": "🎨"}),))
    with open_library(settings, print) as index:
        with index.writing():
            index.remember(Folder(folder, "a1111"))
        promise(index.notes, promised)
    return promised


def opened(settings, made):
    said = []
    with open_library(settings, said.append) as index:
        assert list(index.notes.iterdir()) == []
        assert any("interrupted installation" in text for text in said)
        return index.at(made.installed.path), index.placed(made.installed.path)


def test_a_file_without_its_name_is_taken_back(settings, made):
    assert opened(settings, made) == (None, {})
    assert not made.temporary.exists()
    assert not made.fillings[0].path.exists()


@pytest.mark.parametrize("way", ["linked", "renamed"])
def test_a_file_with_its_name_gets_its_sidecars_and_its_row(settings, made, way):
    path = made.installed.path
    os.link(made.temporary, path) if way == "linked" else made.temporary.rename(path)
    found, placed = opened(settings, made)
    assert json.loads(path.with_suffix(".json").read_text("utf-8")) == {"notes": "🎨"}
    assert (found.digests, found.origin.model_name) == (made.installed.digests, "Model")
    assert found.origin.trigger_words == ("a", "b")
    assert (found.facts.architecture, found.own.notes) == ("sd1", "🎨")
    assert set(placed) == {path, path.with_suffix(".json")}
    assert not made.temporary.exists()


def test_another_file_of_that_name_is_left_alone(settings, made):
    write_lora(made.installed.path, 2)
    before = made.installed.path.read_bytes()
    assert opened(settings, made)[0] is None
    assert made.installed.path.read_bytes() == before
    assert not made.fillings[0].path.exists()


def test_a_note_that_is_none_of_ours_stops_with_its_name(settings, made):
    (settings.directories.data / "moves" / "install-mine.json").write_text("[]")
    with pytest.raises(StorageProblem, match="install-mine"), open_library(settings, print):
        pass
