"""Manifest and lock that are not there, and trials: nothing is written, and each refusal says what to do."""

import pytest
from unit.library.small_lora import write_lora
from unit.library.small_project import files_of

from hubtool.errors import FileMissing, LibraryProblem, LockProblem, NotWanted
from hubtool.library.manifest import Wanted, add_wanted
from hubtool.library.project import Project
from hubtool.library.scan import scan_place

NEEDING_A_MANIFEST = {
    "sync": lambda work: work.sync(),
    "sync --prune": lambda work: work.sync(prune=True),
    "lock": lambda work: work.lock(),
    "remove": lambda work: work.remove("ink"),
    "prompts": lambda work: work.exported("prompts"),
}
NEEDING_A_LOCK = {
    "sync --frozen": lambda work: work.sync(frozen=True, prune=True),
    "export": lambda work: work.exported("aria2"),
}


@pytest.mark.parametrize("what", [*NEEDING_A_MANIFEST, *NEEDING_A_LOCK])
def test_without_manifest_and_lock_nothing_is_done(project, tmp_path, what):
    before = files_of(tmp_path)
    with pytest.raises(FileMissing, match=r"no loras\.toml") as raised:
        (NEEDING_A_MANIFEST | NEEDING_A_LOCK)[what](project)
    assert "hubtool add" in raised.value.hint
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("what", [*NEEDING_A_MANIFEST, "add", "adopt"])
def test_a_lock_whose_manifest_is_gone_stays_as_it_is(project, tmp_path, folder, what):
    project.adopt()
    project.manifest_path.unlink()
    write_lora(folder / "new.safetensors", 8)
    before = files_of(tmp_path)
    more = {"add": lambda work: work.add(str(folder / "new.safetensors"), Wanted("", "")), "adopt": Project.adopt}
    with pytest.raises(LockProblem, match=r"loras\.toml") as raised:
        (NEEDING_A_MANIFEST | more)[what](project)
    assert "--frozen" in raised.value.hint
    assert files_of(tmp_path) == before


def test_a_lock_alone_is_enough_for_frozen_and_for_exports(project, folder):
    project.adopt()
    project.manifest_path.unlink()
    write_lora(folder / "more.safetensors", 8)
    scan_place(project.index, project.place)
    rows = {row.name: row.status for row in project.sync(frozen=True, prune=True)}
    assert rows == {"ink": "present", "fog": "present", "more": "pruned"}
    assert "sha256" in project.exported("aria2")


def test_frozen_and_exports_want_the_lock_that_a_manifest_has_not_yet(project, folder):
    add_wanted(project.manifest_path, [Wanted("ink", "1")])
    for use in NEEDING_A_LOCK.values():
        with pytest.raises(LockProblem, match=r"no loras\.lock"):
            use(project)
    assert (folder / "ink.safetensors").exists()


def test_an_empty_manifest_prunes_everything_and_says_how_many(project, folder, capsys):
    project.manifest_path.write_text("[loras]\n")
    assert {row.status for row in project.sync(prune=True)} == {"pruned"}
    assert "all 2 of" in capsys.readouterr().out
    assert not list(folder.glob("*.safetensors"))


def test_what_the_manifest_has_not_cannot_be_removed(project):
    project.adopt()
    with pytest.raises(NotWanted, match="inc") as raised:
        project.remove("inc")
    assert (raised.value.code, raised.value.suggestions) == ("not_installed", ("ink",))


def test_a_trial_writes_neither_manifest_nor_lock_nor_lora(project, trial, tmp_path):
    source = write_lora(tmp_path / "downloads" / "new.safetensors", 5)
    untouched = files_of(tmp_path)
    assert {one.name for one in trial.adopt().locked} == {"ink", "fog"}
    assert trial.add(str(source), Wanted("", "", convert="peft")).path == "new.safetensors"
    assert files_of(tmp_path) == untouched
    project.adopt()
    add_wanted(project.manifest_path, [Wanted("more", str(source))])
    untouched = files_of(tmp_path)
    trial.remove("ink")
    assert {one.name for one in trial.lock()} == {"ink", "fog", "more"}
    assert {row.name: row.status for row in trial.sync()} == {"ink": "present", "fog": "present", "more": "planned"}
    assert files_of(tmp_path) == untouched


def test_a_trial_refuses_what_would_be_refused(project, trial, tmp_path):
    project.adopt()
    with pytest.raises(NotWanted):
        trial.remove("nope")
    with pytest.raises(LibraryProblem, match="already"):
        trial.add(str(write_lora(tmp_path / "ink.safetensors", 5)), Wanted("ink", ""))
