"""What the user says is kept in files, read back from them, and found by `list`."""

import json
from dataclasses import replace

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from unit.library.small_lora import write_lora

from hubtool.errors import FolderMissing, UsageProblem
from hubtool.library.digest import hashed
from hubtool.library.history import changes_of
from hubtool.library.listing import Question, listing
from hubtool.library.marking import changes_from, mark
from hubtool.library.record import Own
from hubtool.library.scan import fresh_index, scan_place
from hubtool.library.searching import Filter
from hubtool.library.target import choose_place
from hubtool.library.usage import count_usage
from hubtool.settings import Directories, Settings


@pytest.fixture
def settings(tmp_path):
    home = tmp_path / "home"
    folder = tmp_path / "models" / "Lora"
    write_lora(folder / "ink.safetensors", 1)
    write_lora(folder / "fog.safetensors", 2, {"modelspec.trigger_phrase": "fog"})
    (folder / "fog.swarm.json").write_text(json.dumps({"modelspec.title": "Fog", "theirs": 1}))
    return Settings(Directories(home, home, home), library=tmp_path)


@pytest.fixture
def index(settings):
    with fresh_index(settings, print) as index:
        yield index


def one(index, name):
    return next(model for model in index.adapters() if model.name == name)


def names(index, **wanted):
    return {row.name for row in listing(index, Question("", Filter(**wanted)))}


SAID = Own(
    tags=("style", "ink wash"),
    favourite=True,
    preferred_weight=0.8,
    trigger_words=("ink",),
    notes="mine",
    negative="blurry",
    rating=4,
    outfits=("armor: silver armor / casual",),
)
CHANGES = {
    "tags": SAID.tags,
    "favourite": True,
    "preferred_weight": 0.8,
    "trigger_words": ("ink",),
    "notes": "mine",
    "negative": "blurry",
    "rating": 4,
    "outfits": SAID.outfits,
}


def test_everything_that_is_said_survives_the_loss_of_the_index(settings, index):
    assert mark(index, one(index, "ink"), lambda _: CHANGES) == SAID
    assert one(index, "ink").own == SAID
    index.__exit__()
    settings.index_path.unlink()
    with fresh_index(settings, print) as rebuilt:
        assert one(rebuilt, "ink").own == SAID


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -101, 1e300])
def test_a_strength_that_nobody_can_mean_is_refused(settings, index, weight):
    with pytest.raises(UsageProblem, match="strength"):
        mark(index, one(index, "fog"), lambda _: {"preferred_weight": weight})
    assert not (settings.library / "models" / "Lora" / "fog.json").exists()


def test_a1111_and_swarmui_read_what_they_have_a_place_for(settings, index):
    folder = settings.library / "models" / "Lora"
    mark(index, one(index, "fog"), lambda _: CHANGES)
    table = json.loads((folder / "fog.json").read_text())
    assert (table["preferred weight"], table["activation text"], table["negative text"], table["notes"]) == (
        0.8,
        "ink",
        "blurry",
        "mine",
    )
    swarm = json.loads((folder / "fog.swarm.json").read_text())
    assert (swarm["modelspec.lora_default_weight"], swarm["modelspec.title"], swarm["theirs"]) == ("0.8", "Fog", 1)


def test_what_is_taken_back_is_gone_everywhere(settings, index):
    folder = settings.library / "models" / "Lora"
    mark(index, one(index, "ink"), lambda _: {"preferred_weight": 0.8, "notes": "mine"})
    mark(index, one(index, "ink"), lambda _: {"preferred_weight": None, "notes": ""})
    assert one(index, "ink").own == Own()
    assert not (folder / "ink.hubtool.json").exists()
    assert json.loads((folder / "ink.json").read_text())["preferred weight"] == 0.0


def test_options_become_changes():
    own = Own(tags=("a", "B"), outfits=("x: 1",))
    said = {
        "tags": ("c", "a"),
        "untags": ("b",),
        "weight": 0.0,
        "triggers": "x, y || z",
        "outfits": ("X:  2  3",),
        "favourite": None,
        "rating": 0,
    }
    assert changes_from(own, said) == {
        "tags": ("a", "c"),
        "preferred_weight": None,
        "trigger_words": ("x", "y", "z"),
        "outfits": ("X: 2 3",),
        "rating": 0,
    }
    assert changes_from(own, {"tags": (), "weight": None}) == {}
    with pytest.raises(UsageProblem, match="NAME: WORDS"):
        changes_from(own, {"outfits": ("nothing",)})


def test_a_rating_out_of_range_is_refused(index):
    with pytest.raises(UsageProblem):
        mark(index, one(index, "ink"), lambda _: {"rating": 9})


def test_filters(index):
    mark(index, one(index, "ink"), lambda _: CHANGES)
    assert names(index) == {"ink", "fog"}
    assert names(index, favourite=True) == names(index, tag="STYLE") == {"ink"}
    assert names(index, architecture="sd1", dialect="kohya", parametrization="LORA") == {"ink", "fog"}
    assert names(index, architecture="sdxl") == names(index, creator="ada") == names(index, base="pony") == set()
    assert names(index, no_triggers=True) == set()
    assert {row.name for row in listing(index, Question("wash"))} == {"ink"}
    assert {row.name for row in listing(index, Question("armor"))} == {"ink"}


def test_usage_counts_pictures_and_unused_are_the_rest(tmp_path, index):
    folder = tmp_path / "outputs" / "day"
    folder.mkdir(parents=True)
    for number, prompt in enumerate(("<lora:ink:1>", "<lora:ink:0.5> <lora:gone:1>", "")):
        info = PngInfo()
        if prompt:
            info.add_text("parameters", f"a {prompt}\nSteps: 1, Sampler: x, Seed: {number}")
        Image.new("RGB", (2, 2)).save(folder / f"{number}.png", pnginfo=info)
    found = count_usage(index, [tmp_path / "outputs"])
    assert (found.pictures, found.silent) == (3, 1)
    assert [(use.name, use.count, use.status) for use in found.uses] == [("ink", 2, "have"), ("gone", 1, "unknown")]
    assert names(index, unused=True) == {"fog"}
    with pytest.raises(FolderMissing):
        count_usage(index, [tmp_path / "nowhere"])
    assert replace(found).pictures == 3


def test_lora_manager_gets_tags_beside_those_of_the_hub(settings, index):
    path = settings.library / "models" / "Lora" / "ink.metadata.json"
    path.write_text(json.dumps({"tags": ["style"]}))
    said = {"tags": ("mine", "style"), "untags": ()}
    mark(index, one(index, "ink"), lambda own: changes_from(own, said))
    assert json.loads(path.read_text())["tags"] == ["style", "mine"]
    mark(index, one(index, "ink"), lambda own: changes_from(own, {"untags": ("mine",)}))
    assert json.loads(path.read_text())["tags"] == ["style"]


def test_lora_manager_reads_the_strength_and_keeps_its_other_tips(settings, index):
    path = settings.library / "models" / "Lora" / "ink.metadata.json"
    tips = {"strength_min": 0.3, "strength_range": "0.3-0.9", "strength": 1, "clip_skip": 2}
    path.write_text(json.dumps({"sha256": "", "usage_tips": json.dumps(tips), "theirs": [1]}))
    mark(index, one(index, "ink"), lambda _: {"preferred_weight": 0.8, "trigger_words": ("ink",), "favourite": True})
    found = json.loads(path.read_text())
    assert json.loads(found["usage_tips"]) == tips | {"strength": 0.8}
    assert (found["trainedWords"], found["favorite"], found["theirs"]) == (["ink"], True, [1])
    mark(index, one(index, "ink"), lambda _: {"preferred_weight": None})
    assert json.loads(json.loads(path.read_text())["usage_tips"]) == {k: v for k, v in tips.items() if k != "strength"}


def test_every_copy_of_a_file_hears_it(settings, index, tmp_path):
    other = settings.library / "other"
    write_lora(other / "called differently.safetensors", 1)
    write_lora(other / "another.safetensors", 5)
    scan_place(index, choose_place(settings, to=other))
    for model in index.adapters():
        hashed(index, model)
    mark(index, one(index, "ink"), lambda _: {"preferred_weight": 0.8, "tags": ("x",)})
    assert one(index, "called differently").own == one(index, "ink").own == Own(tags=("x",), preferred_weight=0.8)
    assert one(index, "another").own == Own()
    assert json.loads((other / "called differently.json").read_text())["preferred weight"] == 0.8


def test_a_new_swarm_sidecar_says_everything_for_swarmui_reads_words_from_one_file_only(settings, index):
    (settings.library / "models" / "Lora" / "fog.swarm.json").unlink()
    (settings.library / "models" / "Lora" / "fog.swarm.json").write_text("{}")
    mark(index, one(index, "fog"), lambda _: {"preferred_weight": 0.8})
    found = json.loads((settings.library / "models" / "Lora" / "fog.swarm.json").read_text())
    assert (found["modelspec.trigger_phrase"], found["modelspec.lora_default_weight"]) == ("fog", "0.8")


def test_what_was_said_before_is_in_the_history(settings, index):
    model = one(index, "ink")
    mark(index, model, lambda _: {"notes": "first"})
    mark(index, one(index, "ink"), lambda _: {"notes": "second"})
    mark(index, one(index, "ink"), lambda _: {"notes": ""})
    assert [(change.sidecar, change.was.get("notes")) for change in changes_of(model.path)] == [
        ("ink.hubtool.json", "first"),
        ("ink.json", "first"),
        ("ink.hubtool.json", "second"),
        ("ink.json", "second"),
    ]
