"""What an installation put there goes, and nothing else."""

import pytest
from unit.library.small_lora import Shelf, write_lora

from hubtool.errors import LibraryProblem
from hubtool.library.index import Index
from hubtool.library.uninstalling import uninstall


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


def test_it_can_be_installed_again(shelf, tmp_path):
    source = write_lora(tmp_path / "from" / "ink.safetensors")
    removed(shelf, shelf.install(source).path)
    assert shelf.install(source).status == "installed"
