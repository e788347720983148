"""Output is there whole or not at all, and never in the place of something else unasked."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hubtool.errors import DiskFull, OutputExists, StorageProblem
from hubtool.formats.atomic import atomic_output, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_takes_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    with atomic_output(tmp_path / "out") as file:
        file.write(b"half")
        file.flush()
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out").read_bytes() == b"half"
    assert names(tmp_path) == ["out"]


def test_what_is_being_written_is_hidden_and_has_no_model_extension(tmp_path: Path) -> None:
    with atomic_output(tmp_path / "out.safetensors"):
        (name,) = names(tmp_path)
    assert name.startswith(".")
    assert not name.endswith((".safetensors", ".ckpt", ".pt"))


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_any_error_leaves_nothing_and_keeps_the_older_file(tmp_path: Path, fault: type[BaseException]) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(fault), atomic_output(tmp_path / "out", force=True) as file:
        file.write(b"new")
        raise fault
    assert (tmp_path / "out").read_text() == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere"), os.mkfifo])
def test_whatever_has_the_name_is_not_replaced_unasked(tmp_path: Path, make: object) -> None:
    make(tmp_path / "out")
    with pytest.raises(OutputExists), atomic_output(tmp_path / "out"):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["out"]


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OutputExists), atomic_output(tmp_path / "out") as file:
        file.write(b"ours")
        (tmp_path / "out").write_text("theirs")
    assert (tmp_path / "out").read_text() == "theirs"
    assert names(tmp_path) == ["out"]


def test_force_replaces_a_file_and_a_link_but_not_what_the_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "out").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "out", "new", force=True)
    assert (tmp_path / "out").read_text() == "new"
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_force_replaces_no_folder_no_pipe_and_no_device(tmp_path: Path, make: object) -> None:
    make(tmp_path / "out")
    before = os.lstat(tmp_path / "out").st_mode
    with pytest.raises(StorageProblem, match="regular file"), atomic_output(tmp_path / "out", force=True):
        pytest.fail("the block must not run")
    assert os.lstat(tmp_path / "out").st_mode == before
    assert names(tmp_path) == ["out"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "out", "text")
    assert (tmp_path / "a" / "b" / "out").read_text() == "text"


def test_a_folder_that_is_a_file_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(StorageProblem):
        write_text(tmp_path / "a" / "out", "text")


def test_a_name_that_is_too_long_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageProblem):
        write_text(tmp_path / ("x" * 300), "text")
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageProblem):
        write_text(tmp_path / "out", "text")


def test_a_file_system_without_hard_links_still_refuses_what_appears_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    write_text(tmp_path / "out", "text")
    with pytest.raises(OutputExists), atomic_output(tmp_path / "other") as file:
        (tmp_path / "other").write_text("theirs")
        file.write(b"ours")
    assert names(tmp_path) == ["other", "out"]


def test_the_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "out", "text")
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


_FILL = """
import resource, sys
from pathlib import Path
from hubtool.errors import DiskFull
from hubtool.formats.atomic import atomic_output
from hubtool.formats.copying import Piece, copy_pieces
from hubtool.formats.tensor import MappedFile
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
folder = Path(sys.argv[1])
try:
    with atomic_output(folder / "out") as out:
        if sys.argv[2] == "copied":
            source = MappedFile(folder / "source")
            copy_pieces(out, [Piece(source.descriptor, 0, source.size)])
        else:
            out.write(bytes(8 << 20))
except DiskFull as error:
    sys.exit(f"full: {error}")
"""


@pytest.mark.parametrize("way", ["copied", "written"])
def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path, way: str) -> None:
    (tmp_path / "source").write_bytes(bytes(4 << 20))
    done = subprocess.run([sys.executable, "-c", _FILL, tmp_path, way], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("full: ")
    assert names(tmp_path) == ["source"]


_HANG = """
import sys, time
from pathlib import Path
from hubtool.formats.atomic import atomic_output
with atomic_output(Path(sys.argv[1])) as out:
    out.write(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HANG, tmp_path / "out"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as run:
        run.stdout.readline()
        run.send_signal(signal.SIGINT)
        run.wait(20)
    assert names(tmp_path) == []


def test_a_full_disk_is_told_from_other_refusals() -> None:
    assert issubclass(DiskFull, StorageProblem)
