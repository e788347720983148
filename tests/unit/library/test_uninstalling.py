"""What an installation put there goes, and nothing else."""

import pytest
from unit.library.small_lora import Shelf, write_lora

from hubtool.errors import LibraryProblem
from hubtool.library.acquire import Order
from hubtool.library.history import keep
from hubtool.library.index import Index
from hubtool.library.install import Wish
from hubtool.library.scan import recheck
from hubtool.library.spreading import install_everywhere
from hubtool.library.target import choose_place
from hubtool.library.uninstalling import uninstall, uninstall_everywhere
from hubtool.settings import Directories, Settings


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


def removed(shelf, path, **options):
    with Index(shelf.index_path) as index:
        return uninstall(index, index.at(path), **options)


def test_model_sidecars_and_picture_go(shelf, tmp_path):
    source = write_lora(tmp_path / "from" / "ink.safetensors")
    source.with_name("ink.preview.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(9))
    done = shelf.install(source)
    assert shelf.files() == {"ink.safetensors", "ink.json", "ink.preview.png"}
    assert removed(shelf, done.path, dry_run=True).status == "planned"
    assert len(removed(shelf, done.path).removed) == 3
    assert shelf.files() == set()
    assert shelf.scan() == []
    assert source.exists()


def test_what_was_there_before_or_was_changed_since_stays(shelf, tmp_path):
    (shelf.folder / "ink.civitai.info").write_text('{"id": 1}')
    done = shelf.install(write_lora(tmp_path / "from" / "ink.safetensors"))
    (shelf.folder / "ink.json").write_text('{"notes": "mine"}')
    found = removed(shelf, done.path)
    assert found.kept == (shelf.folder / "ink.json",)
    assert shelf.files() == {"ink.json", "ink.civitai.info"}


def test_a_file_that_was_put_there_by_hand_is_refused(shelf):
    path = write_lora(shelf.folder / "ink.safetensors")
    shelf.scan()
    with pytest.raises(LibraryProblem, match="not put there"):
        removed(shelf, path)
    assert path.exists()


def test_a_model_that_another_file_took_the_place_of_stays(shelf, tmp_path):
    done = shelf.install(write_lora(tmp_path / "from" / "ink.safetensors"))
    write_lora(done.path, 2)
    shelf.scan()
    with pytest.raises(LibraryProblem, match="another file"):
        removed(shelf, done.path)
    assert shelf.files() == {"ink.safetensors", "ink.json"}


def test_it_can_be_installed_again(shelf, tmp_path):
    source = write_lora(tmp_path / "from" / "ink.safetensors")
    removed(shelf, shelf.install(source).path)
    assert shelf.install(source).status == "installed"


@pytest.fixture
def three(tmp_path):
    """The same file in three UIs; the third has a symbolic link to the first's."""
    home = tmp_path / "home"
    settings = Settings(Directories(home, home, home), library=tmp_path)
    source = write_lora(tmp_path / "from" / "ink.safetensors")
    places = [choose_place(settings, f"{target}={tmp_path / target}") for target in ("a1111", "comfyui", "forge")]
    (done,) = install_everywhere(settings, [str(source)], [Order(place, Wish()) for place in places[:2]], print)
    first = done.first.installation.path
    install_everywhere(settings, [str(first)], [Order(places[2], Wish(way="sym"))], print)
    with Index(settings.index_path) as index:
        yield index, [place.folder / "ink.safetensors" for place in places]


def test_without_a_target_it_goes_from_every_folder(three):
    index, paths = three
    found = uninstall_everywhere(index, index.at(paths[0]))
    assert set(found.removed) >= set(paths)
    assert not any(path.exists() or path.is_symlink() for path in paths)


def test_files_of_one_name_that_became_two_are_not_copies(three):
    index, paths = three
    paths[1].unlink()  # a hard link to the first
    paths[2].unlink()
    with index.writing():
        index.mark_missing([str(paths[2])])
    write_lora(paths[1], 2)
    recheck(index, [index.at(paths[1])])
    assert set(uninstall_everywhere(index, index.at(paths[0])).removed) & set(paths) == {paths[0]}
    assert [path.exists() for path in paths] == [False, True, False]


def test_no_link_is_left_that_leads_nowhere(three):
    index, paths = three
    with pytest.raises(LibraryProblem, match="would lead nowhere"):
        uninstall(index, index.at(paths[0]))
    assert paths[2].exists()
    uninstall(index, index.at(paths[2]))
    uninstall(index, index.at(paths[0]))
    assert [path.exists() for path in paths] == [False, True, False]


def test_the_history_goes_with_the_model_unless_something_stays(shelf, tmp_path):
    done = shelf.install(write_lora(tmp_path / "from" / "ink.safetensors"))
    keep(shelf.folder / "ink.json", "ink", {"notes": "old"})
    removed(shelf, done.path)
    assert shelf.files() == set()
