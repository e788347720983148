"""verify, doctor and dupes find what is wrong, and nothing where nothing is."""

import errno
import json
import os
import shlex

import pytest
from unit.library.small_lora import small_lora, write_lora

from hubtool.library.digest import digests_of
from hubtool.library.doctor import examine
from hubtool.library.dupes import Linked, duplicates, link
from hubtool.library.index import Index
from hubtool.library.record import Folder
from hubtool.library.scan import fresh_index
from hubtool.library.verify import verify
from hubtool.settings import Directories, Settings


@pytest.fixture
def settings(tmp_path):
    home = tmp_path / "home"
    return Settings(Directories(home, home, home), library=tmp_path)


@pytest.fixture
def folder(settings):
    path = settings.library / "models" / "Lora"
    path.mkdir(parents=True)
    return path


def codes(settings):
    with fresh_index(settings, print) as index:
        return sorted({finding.code for finding in examine(index)})


def checked(settings, *, full=False):
    with fresh_index(settings, print) as index:
        return list(verify(index, index.adapters(), full=full))


def test_a_sound_library_has_no_findings(settings, folder):
    write_lora(folder / "ink.safetensors", 1)
    (folder / "ink.json").write_text("{}")
    (folder / "ink.civitai.info").write_text("{}")
    (folder / "ink.preview.png").write_bytes(b"x")
    assert codes(settings) == []
    assert checked(settings, full=True) == []


def _broken_off(folder):
    (folder / ".hubtool-0123").mkdir()
    (folder / ".hubtool-0123" / "x.part").write_bytes(b"1234")
    os.utime(folder / ".hubtool-0123", (1e9, 1e9))


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("pickle", lambda folder: (folder / "old.pt").write_bytes(b"\x80\x02}q\x00.")),
        ("unreadable", lambda folder: (folder / "cut.safetensors").write_bytes(small_lora()[:-5])),
        ("equal_names", lambda folder: [write_lora(folder / name / "ink.safetensors", 1) for name in "ab"]),
        ("unspeakable", lambda folder: write_lora(folder / "a=b.safetensors")),
        ("unspeakable", lambda folder: write_lora(folder / "a:b.safetensors")),
        ("wildcard", lambda folder: write_lora(folder / "__hair__.safetensors")),
        ("wildcard", lambda folder: write_lora(folder / "my__hair__v2.safetensors")),
        ("unportable", lambda folder: write_lora(folder / "what?.safetensors")),
        ("unportable", lambda folder: write_lora(folder / "a\\b.safetensors")),
        ("unportable", lambda folder: write_lora(folder / "a\tb.safetensors")),
        ("unportable", lambda folder: write_lora(folder / "a\n\x1b[2Jb.safetensors")),
        ("not_utf8", lambda folder: write_lora(folder / "caf\udce9.safetensors")),
        ("sidecar", lambda folder: [write_lora(folder / "i.safetensors"), (folder / "i.json").write_text("{x")]),
        (
            "sidecar",
            lambda folder: [write_lora(folder / "i.safetensors"), (folder / "i.civitai.info").write_text("[]")],
        ),
        ("unportable", lambda folder: write_lora(folder / "E\u0301mile.safetensors")),
        ("unportable", lambda folder: write_lora(folder / ("d" * 120) / ("e" * 150) / "x.safetensors")),
        ("unportable", lambda folder: write_lora(folder / "con.safetensors")),
        ("unportable", lambda folder: write_lora(folder / ("é" * 118 + ".safetensors"))),
        ("case_twins", lambda folder: [write_lora(folder / f"{name}.safetensors", 1) for name in ("ink", "Ink")]),
        ("dotted", lambda folder: write_lora(folder / "ink.pt.safetensors")),
        ("wrong_base", lambda folder: write_lora(folder / "styles" / "SDXL 1.0" / "ink.safetensors")),
        ("wrong_base", lambda folder: write_lora(folder / "flux" / "ink.safetensors")),
        (
            "bogus_hash",
            lambda folder: write_lora(folder / "ink.safetensors", 1, {"sshs_model_hash": "0xE3B0C44298FC1C14"}),
        ),
        ("unfinished", _broken_off),
        ("dangling_link", lambda folder: (folder / "gone.safetensors").symlink_to(folder / "nowhere")),
        ("orphan", lambda folder: (folder / "gone.civitai.info").write_text("{}")),
        (
            "pictures",
            lambda folder: [
                write_lora(folder / "i.safetensors"),
                *((folder / f"i.{x}").write_bytes(b"") for x in ("png", "preview.jpg")),
            ],
        ),
    ],
)
def test_each_kind_of_trouble_is_found(settings, folder, code, make):
    make(folder)
    assert code in codes(settings)


def test_names_that_differ_in_case_or_accents_are_two_names_and_only_other_systems_mind(settings, folder):
    for name in ("x/case", "y/Case", "x/E\u0301mile", "y/\u00c9mile"):
        write_lora(folder / f"{name}.safetensors", 1)
    assert codes(settings) == ["unportable"]  # of the accents apart


def test_a_blank_before_the_extension_is_fine_everywhere(settings, folder):
    write_lora(folder / "trail .safetensors")
    assert codes(settings) == []


def test_one_is_told_as_one_and_yes_as_yes(run, settings, folder):
    (folder / "cut.safetensors").write_bytes(small_lora()[:-5])
    assert run("--library", settings.library, "doctor").err.endswith("1 error, 0 warnings.\n")
    write_lora(folder / "ink.safetensors", 1)
    assert "favourite: yes" in run("--library", settings.library, "mark", "ink", "--favourite").out


def test_a_fix_runs_nothing_that_a_name_holds(settings, folder):
    write_lora(folder / "a$(touch PWNED)`x`'\":b.safetensors")
    with fresh_index(settings, print) as index:
        for finding in examine(index):
            assert shlex.split(finding.fix) == ["hubtool", "rename", str(finding.path), "NEW-NAME"]
            assert f" '{folder}/a$(touch" in finding.fix


@pytest.mark.parametrize("name", ["SD 1.5", "sd15", "styles", "v1.0", "sd2"])
def test_a_folder_that_names_the_right_base_or_none_is_fine(settings, folder, name):
    write_lora(folder / name / "ink.safetensors")
    assert codes(settings) == []


def test_a_hub_that_says_another_base_than_the_tensors_is_doubted(settings, folder):
    path = write_lora(folder / "ink.safetensors", 1)
    path.with_suffix(".civitai.info").write_text(json.dumps({"id": 7, "modelId": 3, "baseModel": "Flux.1 D"}))
    assert codes(settings) == ["wrong_base"]


def test_dots_are_told_once_a_folder_where_they_matter(settings, folder):
    other = folder.parent / "loras"
    for name in ("ink v1.0", "fog v2.1"):
        write_lora(other / f"{name}.safetensors", 1)
        write_lora(folder / f"{name}.safetensors", 1)
    with Index(settings.index_path) as index, index.writing():
        index.remember(Folder(other, "comfyui"))
    with fresh_index(settings, print) as index:
        assert [(finding.code, finding.path) for finding in examine(index)] == [("dotted", other)]


def test_an_alias_of_two_files_is_found_and_one_of_one_is_not(settings, folder):
    write_lora(folder / "a.safetensors", 1, {"ss_output_name": "same"})
    assert codes(settings) == []
    write_lora(folder / "b.safetensors", 2, {"ss_output_name": "same"})
    assert codes(settings) == ["equal_aliases"]


def test_equal_names_are_fine_where_paths_are_names(settings, folder):
    other = folder.parent / "loras"
    for name in "ab":
        write_lora(other / name / "ink.safetensors", 1)
    with Index(settings.index_path) as index, index.writing():
        index.remember(Folder(other, "comfyui"))
    assert codes(settings) == []


def test_rotten_bytes_are_found_by_a_full_check_only(settings, folder):
    path = write_lora(folder / "ink.safetensors", 1)
    assert checked(settings, full=True) == []  # hashed now
    status, body = path.stat(), bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert checked(settings) == []
    (finding,) = checked(settings, full=True)
    assert (finding.code, finding.severity, finding.path) == ("changed", "error", path)


def published(path, **hashes):
    """The hub's record beside a model, as sidecars keep it."""
    file = {"sizeKB": path.stat().st_size / 1024, "hashes": hashes}
    path.with_suffix(".civitai.info").write_text(json.dumps({"id": 7, "modelId": 3, "files": [file]}))


def test_a_file_that_is_not_what_its_hub_published_is_found_with_the_way_to_get_it(settings, folder):
    path = write_lora(folder / "it's ink.safetensors", 1)
    published(path, SHA256="AB" * 32)
    (finding,) = checked(settings, full=True)
    assert (finding.code, finding.severity) == ("not_as_published", "error")
    assert shlex.split(finding.fix) == [
        *("hubtool", "install", f"sha256:{'ab' * 32}", "--target", "a1111"),
        *("--to", str(folder), "--name", "it's ink", "--force"),
    ]


def test_a_file_whose_header_alone_was_edited_is_not_damaged(settings, folder):
    path = write_lora(folder / "ink.safetensors", 1)
    published(path, SHA256="AB" * 32, AutoV3=digests_of(path).autov3.upper())
    (finding,) = checked(settings, full=True)
    assert (finding.code, finding.severity) == ("not_as_published", "warning")
    assert "header was edited" in finding.message


def test_a_file_of_another_size_than_published_was_changed_by_somebody(settings, folder):
    path = write_lora(folder / "ink.safetensors", 1)
    published(path, SHA256="AB" * 32)
    write_lora(path, 1, {"note": "x" * 2000})
    (finding,) = checked(settings, full=True)
    assert (finding.severity, "another size" in finding.message) == ("warning", True)


def test_tensors_that_the_header_states_another_hash_of_are_told_by_a_full_check(settings, folder):
    write_lora(folder / "ink.safetensors", 1, {"sshs_model_hash": "ab" * 32})
    assert checked(settings) == []
    (finding,) = checked(settings, full=True)
    assert (finding.code, finding.severity) == ("not_as_stated", "warning")


def test_a_broken_file_is_found(settings, folder):
    (folder / "cut.safetensors").write_bytes(small_lora()[:-5])
    (finding,) = checked(settings)
    assert (finding.severity, finding.fix.startswith("Get the file again from where it came")) == ("error", True)


@pytest.mark.parametrize("name", ["a=b.safetensors", "ink.SAFETENSORS"])
def test_no_command_is_shown_that_would_put_the_file_elsewhere(settings, folder, name):
    path = write_lora(folder / name, 1)
    published(path, SHA256="AB" * 32)
    (finding,) = checked(settings, full=True)
    assert not finding.fix.startswith("hubtool")


def test_equal_files_are_grouped_by_bytes_and_by_tensors(settings, folder):
    for name in ("a", "b", "sub/c"):
        write_lora(folder / f"{name}.safetensors", 1)
    write_lora(folder / "header.safetensors", 1, {"note": "another header"})
    write_lora(folder / "other.safetensors", 2)
    os.link(folder / "other.safetensors", folder / "hard.safetensors")
    with fresh_index(settings, print) as index:
        groups = {group.kind: group for group in duplicates(index)}
        assert {path.name for path in groups["bytes"].paths} == {"a.safetensors", "b.safetensors", "c.safetensors"}
        assert {path.name for path in groups["tensors"].paths} >= {"header.safetensors"}
        assert len(groups) == len(duplicates(index)) == 2
        size = (folder / "a.safetensors").stat().st_size
        assert groups["bytes"].wasted_bytes == 2 * size
        assert link(groups["bytes"]) == Linked(2 * size, ())
    assert (folder / "a.safetensors").stat().st_nlink == 3
    with fresh_index(settings, print) as index:
        assert [group.kind for group in duplicates(index)] == ["tensors"]


def test_a_symbolic_link_is_no_copy_and_is_left_as_it_is(settings, folder, tmp_path):
    outside = write_lora(tmp_path / "outside" / "ink.safetensors", 1)
    mine = write_lora(folder / "b" / "ink.safetensors", 1)
    (folder / "a.safetensors").symlink_to(mine)
    (folder / "c.safetensors").symlink_to(outside)
    with fresh_index(settings, print) as index:
        (group,) = duplicates(index)
        assert set(group.paths) == {mine, folder / "c.safetensors"}
        assert link(group) == Linked(0, (folder / "c.safetensors",))
    assert all((folder / name).is_symlink() for name in ("a.safetensors", "c.safetensors"))


def test_what_the_disk_cannot_link_is_left_and_the_rest_is_done(settings, folder, monkeypatch):
    a, b, c = (write_lora(folder / f"{name}.safetensors", 1) for name in "abc")
    hard = os.link

    def refusing(source, target):
        if source == a and calls.append(target) is None and len(calls) == 1:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        hard(source, target)

    calls = []
    with fresh_index(settings, print) as index:
        (group,) = duplicates(index)
    monkeypatch.setattr(os, "link", refusing)
    assert link(group) == Linked(c.stat().st_size, (b,))
    assert a.samefile(c)
    assert {path.name for path in folder.iterdir()} == {"a.safetensors", "b.safetensors", "c.safetensors"}
