import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from hubtool.errors import StorageProblem
from hubtool.hubs.lock import sole_writer
from hubtool.hubs.part import Part, Validators, has_bytes
from hubtool.hubs.space import Space


def test_a_part_that_is_left_is_hashed_and_continued(tmp_path: Path) -> None:
    first = Part(tmp_path, "x")
    first.open(resume=True)
    first.write(b"abc")
    first.remember(Validators('"e"', "", 6))
    first.close()
    second = Part(tmp_path, "x")
    second.open(resume=True)
    assert (second.size, second.resumed_from, second.validators.etag) == (3, 3, '"e"')
    second.write(b"def")
    assert second.sha256 == hashlib.sha256(b"abcdef").hexdigest()
    assert second.publish([tmp_path / "final"]) == (tmp_path / "final", True)
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_two_sources_have_two_parts(tmp_path: Path) -> None:
    assert Part(tmp_path, "x").path != Part(tmp_path, "y").path


def test_an_empty_part_leaves_nothing(tmp_path: Path) -> None:
    part = Part(tmp_path, "x")
    part.open(resume=True)
    part.remember(Validators('"e"'))
    part.close()
    assert not list(tmp_path.iterdir())


def test_a_part_is_no_name_that_a_ui_would_load(tmp_path: Path) -> None:
    name = Part(tmp_path, "x").path.name
    assert name.startswith(".")
    assert not name.endswith((".safetensors", ".ckpt", ".pt"))


def test_publishing_takes_the_first_name_that_is_free_or_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"other")
    (tmp_path / "b").write_bytes(b"abc")
    part = Part(tmp_path, "x")
    part.open(resume=True)
    part.write(b"abc")
    assert part.publish([tmp_path / "a", tmp_path / "b", tmp_path / "c"]) == (tmp_path / "b", False)
    assert (tmp_path / "a").read_bytes() == b"other"
    assert not (tmp_path / "c").exists()


def test_when_every_name_is_taken_the_part_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    part = Part(tmp_path, "x")
    part.open(resume=True)
    part.write(b"abc")
    with pytest.raises(StorageProblem):
        part.publish([tmp_path / "a"])
    assert part.path.read_bytes() == b"abc"


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_at_the_parts_name_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    part = Part(tmp_path, "x")
    part.path.symlink_to(target)
    with pytest.raises(StorageProblem):
        part.open(resume=False)
    assert target.read_text() == "mine"


def test_a_folder_is_no_file_with_these_bytes(tmp_path: Path) -> None:
    assert not has_bytes(tmp_path, None, "")


def test_one_writer_at_a_time_and_no_lock_left(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with sole_writer(tmp_path / "lock", lambda: 0, 10) as alone:
            assert alone
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5
    assert not list(tmp_path.iterdir())


def test_a_holder_that_does_not_move_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path / "lock", lambda: 0, 10),
        pytest.raises(StorageProblem, match="does not move"),
        sole_writer(tmp_path / "lock", lambda: 0, 0.05),
    ):
        pass


def test_a_lock_file_left_by_a_dead_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("99999999\n")
    with sole_writer(tmp_path / "lock", lambda: 0, 0.05) as alone:
        assert alone


def test_room_is_counted_over_all_downloads_that_run(tmp_path: Path) -> None:
    import shutil

    space, free = Space(), shutil.disk_usage(tmp_path).free
    with space.reserved(tmp_path, lambda: int(free * 0.7)):
        with pytest.raises(StorageProblem), space.reserved(tmp_path, lambda: int(free * 0.5)):
            pass
        with space.reserved(tmp_path, lambda: 0):
            pass
    with space.reserved(tmp_path, lambda: int(free * 0.5)):
        pass
