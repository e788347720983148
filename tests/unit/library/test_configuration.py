"""Settings are written without disturbing what people wrote."""

import pytest
import tomli

from hubtool.errors import UsageProblem
from hubtool.library.configuration import all_settings, get_setting, set_setting
from hubtool.settings import Directories, Settings, load

TEXT = """\
# my settings
hub = "civitai"   # the big one
  jobs=2

[hubs]
mine = 'http://a#b'  # at home

[other]
hub = "not this one"
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    return path


def test_one_line_changes_and_its_comment_stays(config):
    set_setting(config, "hub", "sample")
    assert config.read_text() == TEXT.replace('hub = "civitai"   #', 'hub = "sample"   #')


def test_a_new_key_goes_above_the_tables(config):
    set_setting(config, "offline", "yes")
    assert config.read_text() == TEXT.replace("  jobs=2\n", "  jobs=2\noffline = true\n")
    assert load(config, {}).offline


def test_a_hub_of_ones_own_is_changed_in_its_table(config):
    set_setting(config, "hubs.mine", "http://c")
    set_setting(config, "hubs.work", "https://d")
    assert tomli.loads(config.read_text())["hubs"] == {"mine": "http://c", "work": "https://d"}
    assert "# at home" in config.read_text()


def test_a_file_is_made_where_there_is_none(tmp_path):
    path = tmp_path / "new" / "config.toml"
    set_setting(path, "hubs.mine", "http://c")
    set_setting(path, "jobs", "3")
    assert tomli.loads(path.read_text()) == {"jobs": 3, "hubs": {"mine": "http://c"}}


def test_windows_line_ends_stay(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b'hub = "a"\r\njobs = 1\r\n')
    set_setting(path, "jobs", "2")
    assert path.read_bytes() == b'hub = "a"\r\njobs = 2\r\n'


def test_a_linked_config_stays_a_link(tmp_path, config):
    link = tmp_path / "link.toml"
    link.symlink_to(config)
    set_setting(link, "jobs", "9")
    assert link.is_symlink()
    assert "jobs=9" in config.read_text()


@pytest.mark.parametrize(
    ("key", "value", "stored"),
    [
        ("jobs", "3", 3),
        ("timeout", "2.5", 2.5),
        ("offline", "no", False),
        ("hub", 'a "quoted" \\ name', 'a "quoted" \\ name'),
        ("target", "comfyui=/ui", "comfyui=/ui"),
        ("library", "/a/b", "/a/b"),
    ],
)
def test_what_is_set_is_what_is_read(tmp_path, key, value, stored):
    path = tmp_path / "config.toml"
    assert set_setting(path, key, value) == stored
    assert tomli.loads(path.read_text())[key] == stored
    assert get_setting(load(path, {}), key) == stored


def test_a_relative_library_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set_setting(tmp_path / "config.toml", "library", "loras") == str(tmp_path / "loras")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("jobs", "many"),
        ("timeout", "-1"),
        ("offline", "perhaps"),
        ("target", "nonsense"),
        ("nonsense", "1"),
        ("hubs.a b", "x"),
        ("hub", "a\nb"),
    ],
)
def test_a_wrong_value_is_refused_and_nothing_written(config, key, value):
    with pytest.raises(UsageProblem):
        set_setting(config, key, value)
    assert config.read_text() == TEXT


@pytest.mark.parametrize("text", ['hub = """\na\n"""\n', 'x = """\nhub = 1\n"""\n', "hub.x = 1\n", "not toml ["])
def test_a_file_that_one_line_cannot_change_is_refused(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text)
    try:
        set_setting(path, "hub", "b")
    except UsageProblem:
        assert path.read_text() == text
    else:  # it was possible after all: nothing else changed
        after = tomli.loads(path.read_text())
        assert after.pop("hub") == "b"
        assert after == {key: value for key, value in tomli.loads(text).items() if key != "hub"}


def test_all_settings_are_shown_with_their_values(tmp_path):
    settings = Settings(Directories(tmp_path, tmp_path, tmp_path), hubs={"mine": "http://c"})
    shown = all_settings(settings)
    assert shown["hubs.mine"] == "http://c"
    assert shown["jobs"] == 4
    with pytest.raises(UsageProblem):
        get_setting(settings, "nonsense")
