"""Prompts rewritten for other UIs mean the same there, and what cannot is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.library.small_lora import Shelf, write_lora

from hubtool.errors import NotInstalled, NotRepresentable, UsageProblem
from hubtool.library.adding import Words, added
from hubtool.library.index import Index
from hubtool.library.marking import mark
from hubtool.library.prompt_writing import add, balance, convert, relink, spell, strip
from hubtool.library.prompts import DIALECTS, parse
from hubtool.library.relinking import converted, hashes_line, lora_hashes, relinked
from hubtool.settings import Directories, Settings

NAMES = st.text(
    st.characters(blacklist_characters=":<>=,\n\r@", blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8
)
READ = sorted(id for id, dialect in DIALECTS.items() if dialect.reads)
STRENGTHS = st.floats(-2, 2).map(lambda number: round(number, 3))


@given(
    name=NAMES,
    te=STRENGTHS,
    denoiser=STRENGTHS,
    source=st.sampled_from(READ),
    target=st.sampled_from(READ),
)
def test_a_converted_tag_means_the_same_or_says_that_it_does_not(name, te, denoiser, source, target):
    tag = parse(f"<lora:{name}:{te}:{denoiser}>", "a1111").tags[0]
    written, lost = spell(tag, source)
    done = convert(f"a {written} b", source, target)
    (back,) = parse(done.prompt, target).tags
    there = parse(written, source).tags[0]
    assert back.name == there.name
    same = (back.text_encoder, back.denoiser) == (there.text_encoder, there.denoiser)
    assert same or done.lost
    assert lost or (there.text_encoder, there.denoiser) == (te, denoiser)


@pytest.mark.parametrize(
    ("text", "source", "target", "expected"),
    [
        ("<lora:x:0.5:0.8>", "a1111", "comfyui", "<lora:x:0.8:0.5>"),
        ("<lora:x:0.5:0.8>", "swarmui", "a1111", "<lora:x:0.8:0.5>"),
        ("<lora:x:0.5:0.8>", "a1111", "sdnext", "<lora:x:te=0.5:unet=0.8>"),
        ("<lora:x>", "a1111", "fooocus", "<lora:x:1>"),
        ("<lyco:x:0.5>", "a1111", "swarmui", "<lora:x:0.5>"),
        ("a <hypernet:h:1> (b:1.2) <lora:x:1:1:8>,", "a1111", "a1111", "a <hypernet:h:1> (b:1.2) <lora:x:1:dyn=8>,"),
        ("<lora:x:te=0.2:in=0.1:mid=0.2:out=0.3>", "sdnext", "sdnext", "<lora:x:0.2:in=0.1:mid=0.2:out=0.3>"),
        ("<lora:x:0@0,1@1>", "sdnext", "sdnext", "<lora:x:0@0,1@1>"),
    ],
)
def test_tags_are_respelt_and_the_rest_is_not_touched(text, source, target, expected):
    done = convert(text, source, target)
    assert (done.prompt, done.lost) == (expected, ())


@pytest.mark.parametrize(
    ("text", "source", "target"),
    [
        ("<lora:x:0.5:0.8>", "a1111", "fooocus"),
        ("<lora:x:1:1:8>", "a1111", "comfyui"),
        ("<lora:x:in=0.5>", "sdnext", "a1111"),
        ("<lora:x:0@0,1@1>", "sdnext", "a1111"),
    ],
)
def test_what_the_other_ui_cannot_say_is_told(text, source, target):
    assert convert(text, source, target).lost


@pytest.mark.parametrize(("name", "target"), [("a=b", "a1111"), ("a=b", "sdnext"), ("a,b", "fooocus")])
def test_a_name_that_the_other_ui_would_misread_is_refused(name, target):
    with pytest.raises(NotRepresentable, match="cannot stand"):
        convert(f"<lora:{name}:1>", "swarmui", target)


def test_an_unknown_dialect_is_refused():
    with pytest.raises(UsageProblem, match="no prompt dialect"):
        convert("", "a1111", "nonsense")


def test_strip_removes_all_or_the_named():
    text = "a <lora:x:1> b <lora:y:1> <hypernet:h>"
    assert strip(text, "a1111").prompt == "a  b  <hypernet:h>"
    assert strip(text, "a1111", ["y"]).prompt == "a <lora:x:1> b  <hypernet:h>"


def test_relink_changes_names_and_keeps_strengths():
    assert relink("<lora:x:0.5:0.8> <lora:z:1>", "a1111", {"x": "new"}).prompt == "<lora:new:0.5:0.8> <lora:z:1>"


LIST = ",".join(["1"] * 17)


@pytest.mark.parametrize(
    ("text", "source", "target", "expected"),
    [
        ("<lora:x:0.5:0.8:lbw=MIDD:stop=9>", "a1111", "forge", "<lora:x:0.5:0.8:lbw=MIDD:stop=9>"),
        ("<lora:x:1:MIDD>", "a1111", "a1111", "<lora:x:1:lbw=MIDD>"),
        (f"<lora:x:0.5:{LIST}>", "forge", "a1111", f"<lora:x:0.5:lbw={LIST}>"),
        ("<lora:x:0.7:high:module=t>", "sdnext", "sdnext", "<lora:x:0.7:high:module=t>"),
        ("withLora(x, 0.5) and withLora(y)", "invokeai", "a1111", "<lora:x:0.5> and <lora:y:1>"),
    ],
)
def test_what_an_extension_reads_stays_where_it_is_read(text, source, target, expected):
    assert convert(text, source, target).prompt == expected


@pytest.mark.parametrize(
    ("text", "source", "target", "said"),
    [
        ("<lora:x:1:lbw=MIDD:stop=9>", "a1111", "sdnext", ["lbw=MIDD (as strengths by block)", "stop=9 (as the steps"]),
        ("<lora:x:1:lbw=MIDD>", "forge", "comfyui", ["strengths by block"]),
        ("<lora:x:1:high>", "sdnext", "a1111", ["high (as one of several transformers)"]),
        ("<lora:x:0.5> a", "a1111", "invokeai", ["x: InvokeAI reads no tags; choose it beside the prompt, at 0.5."]),
        ("<lora:x:abc>", "a1111", "comfyui", ["<lora:x:abc>: abc is no strength."]),
        ("<segment:face> <lora:x:1>", "swarmui", "a1111", ["x: that it is for <segment:face> alone cannot be said"]),
        ("a\nNegative prompt: <lora:x:1>", "a1111", "comfyui", ["stands in the negative prompt"]),
    ],
)
def test_everything_that_gets_lost_is_named(text, source, target, said):
    lost = " ".join(convert(text, source, target).lost)
    assert all(words in lost for words in said)


def test_a_prompt_for_invokeai_holds_no_tags():
    with pytest.raises(NotRepresentable, match="reads no LoRAs"):
        spell(parse("<lora:x:0.5>").tags[0], "invokeai")
    assert convert("a <lora:x:0.5>b", "a1111", "invokeai").prompt == "a b"


@pytest.mark.parametrize(
    "tail", [":0.5:lbw=MIDD:foo=1", ":0@0,1@0.5", ":1:1:8:9", "", ":te=0.2:0.1", ":1:lbw=1,2,3", ":abc"]
)
def test_relinking_changes_the_name_and_no_other_character(tail):
    assert relink(f"a <lora:x{tail}> <lyco:x{tail}>", "a1111", {"x": "new x"}).prompt == (
        f"a <lora:new x{tail}> <lyco:new x{tail}>"
    )
    assert relink("withLora(a,1)", "invokeai", {"a": "new"}).prompt == "withLora(new,1)"


def test_balance_leaves_what_it_cannot_read_and_says_so():
    done = balance("<lora:a:2><lora:b:much>", "a1111", 1.0)
    assert done.prompt.endswith("<lora:b:much>")
    assert "much is no strength" in done.lost[0]


def test_balance_keeps_block_weights():
    assert balance("<lora:a:2:lbw=MIDD>", "a1111", 1.0).prompt == "<lora:a:1:lbw=MIDD>"


def test_balance_scales_everything_by_one_factor():
    assert balance("<lora:a:1><lora:b:-1>", "a1111", 1.0).prompt == "<lora:a:0.5><lora:b:-0.5>"
    assert balance("<lora:a:0.4>", "a1111", 1.0).prompt == "<lora:a:0.4>"
    with pytest.raises(UsageProblem):
        balance("<lora:a:1>", "a1111", 0)


def test_added_trigger_words_are_escaped_and_not_repeated():
    done = add("a castle, ink,", "<lora:x:1>", ["ink", "girl (solo)"])
    assert done.prompt == "a castle, ink, girl \\(solo\\) <lora:x:1>"
    assert add("", "<lora:x:1>").prompt == "<lora:x:1>"


@pytest.fixture
def library(tmp_path):
    shelf = Shelf(tmp_path)
    done = shelf.install(write_lora(tmp_path / "new-name.safetensors", metadata={"modelspec.trigger_phrase": "ink"}))
    settings = Settings(Directories(tmp_path / "home", tmp_path / "home", tmp_path / "home"), library=tmp_path)
    with Index(shelf.index_path) as index:
        yield index, settings, done


def test_an_installed_lora_is_added_with_its_words_and_a_missing_one_is_refused(library):
    index, _, _ = library
    assert added(index, "a castle", "new-name:0.7", "a1111", Words()).prompt == "a castle, ink <lora:new-name:0.7>"
    with pytest.raises(NotInstalled) as caught:
        added(index, "", "newname", "a1111", Words())
    assert caught.value.suggestions == ("new-name",)
    with pytest.raises(UsageProblem, match="no strength"):
        added(index, "", "new-name:much", "a1111", Words())


def test_a_renamed_file_is_found_by_its_hash_and_not_by_a_like_name(library):
    index, settings, done = library
    short = index.at(done.path).digests.autov3
    text = (
        f'<lora:old:0.5> <lora:New_Name:1> <lora:gone:1>\nSteps: 1, Lora hashes: "old: {short}, New_Name: 000000000000"'
    )
    result = relinked(index, settings, text, "a1111")
    assert result.prompt.startswith("<lora:new-name:0.5> <lora:New_Name:1> <lora:gone:1>\n")
    assert len(result.lost) == 2


def test_without_hashes_a_name_may_differ_in_case_and_punctuation(library):
    index, settings, _ = library
    assert relinked(index, settings, "<lora:New Name:0.5>", "a1111").prompt == "<lora:new-name:0.5>"


def test_the_line_of_hashes_is_what_is_read_back(library):
    index, settings, done = library
    digests = index.at(done.path).digests
    line = hashes_line(index, settings, "<lora:new-name:1>", "a1111")
    assert lora_hashes(f"Steps: 1, {line}, x: 2") == {"new-name": digests.autov3}
    assert (
        hashes_line(index, settings, "<lora:new-name:1>", "sdnext")
        == f"LoRA networks: new-name, LoRA hashes: {digests.sha256[:8]}"
    )
    assert (
        hashes_line(index, settings, "<lora:new-name:1>", "forge") == f'Lora hashes: "new-name: {digests.sha256[:12]}"'
    )
    assert hashes_line(index, settings, "<lora:gone:1>", "a1111") == ""


def test_an_outfit_brings_its_own_words_and_says_the_negative_ones(library):
    index, _, done = library
    model = index.at(done.path)
    changes = {"outfits": ("armor: silver armor, cape / casual",), "trigger_words": ("a", "b", "c"), "negative": "n"}
    mark(index, model, lambda _: changes)
    assert added(index, "x", "new-name", "a1111", Words(most=2)).prompt == "x, a, b <lora:new-name:1>"
    assert added(index, "x", "new-name", "a1111", Words(most=0)).prompt == "x <lora:new-name:1>"
    dressed = added(index, "x", "new-name", "a1111", Words(outfit="Armor"))
    assert dressed.prompt == "x, silver armor, cape <lora:new-name:1>"
    assert dressed.lost == ("The negative prompt of new-name: casual",)
    with pytest.raises(UsageProblem, match="it has armor"):
        added(index, "x", "new-name", "a1111", Words(outfit="beach"))


@pytest.fixture
def two_uis(tmp_path):
    """An aliased file for A1111 and, linked, for ComfyUI, and one in a subfolder."""
    shelf = Shelf(tmp_path)
    made = write_lora(tmp_path / "ink.safetensors", 1, {"ss_output_name": "inkalias"})
    path = shelf.install(made).path
    write_lora(shelf.folder / "sub" / "brush.safetensors", 2)
    shelf.scan()
    other = Shelf(tmp_path, "comfyui")
    (other.folder / "styles").mkdir()
    (other.folder / "styles" / "sumi.safetensors").hardlink_to(path)
    other.scan()
    settings = Settings(Directories(tmp_path / "home", tmp_path / "home", tmp_path / "home"), library=tmp_path)
    with Index(shelf.index_path) as index:
        yield index, settings


@pytest.mark.parametrize(
    ("source", "target", "name", "there"),
    [
        ("sdnext", "a1111", "sub/brush", "brush"),
        ("comfyui", "a1111", "sub/brush.safetensors", "brush"),
        ("swarmui", "forge", "BRU", "brush"),
        ("a1111", "sdnext", "inkalias", "ink"),
        ("a1111", "comfyui", "inkalias", "sumi"),
        ("comfyui", "a1111", "styles/sumi", "ink"),
        ("a1111", "forge", "inkalias", "inkalias"),
    ],
)
def test_a_name_that_another_ui_does_not_know_becomes_one_that_it_does(two_uis, source, target, name, there):
    done = converted(*two_uis, f"a <lora:{name}:1>", source, target)
    assert (done.prompt, done.lost) == (f"a <lora:{there}:1>", ())


def test_a_name_of_no_known_file_is_kept_and_told(two_uis):
    done = converted(*two_uis, "<lora:gone:1>", "a1111", "comfyui")
    assert done.prompt == "<lora:gone:1>"
    assert done.lost == ("gone is not in the library: comfyui may not find it by that name.",)


def test_an_alias_is_relinked_where_the_ui_knows_none(two_uis):
    assert relinked(*two_uis, "<lora:inkalias:1>", "sdnext").prompt == "<lora:ink:1>"


@pytest.mark.parametrize(
    ("schedule", "expected"), [("0@0,1@0.5", "1"), ("1@0;-2@1", "-2"), ("te=0.5:unet=0@0,0.8@1", "0.5:0.8")]
)
def test_a_strength_by_step_becomes_the_largest_where_there_are_no_steps(schedule, expected):
    done = convert(f"<lora:ink:{schedule}>", "sdnext", "a1111")
    assert done.prompt == f"<lora:ink:{expected}>"
    assert "changes by step" in done.lost[0]


def test_balance_scales_a_schedule_and_keeps_its_steps():
    done = balance("<lora:ink:0@0,1@0.5:in=0.8:high> <lora:b:1>", "sdnext", 1.0)
    assert (done.prompt, done.lost) == ("<lora:ink:0@0,0.5@0.5:in=0.4:high> <lora:b:0.5>", ())


def test_a_lora_that_is_there_already_is_told(two_uis):
    done = added(two_uis[0], "x <lora:ink:1>", "ink:0.5", "a1111", Words())
    assert done.prompt == "x <lora:ink:1> <lora:ink:0.5>"
    assert done.lost == ("ink is in the prompt already: <lora:ink:1>",)
    assert added(two_uis[0], "x <lora:brush:1>", "ink:0.5", "a1111", Words()).lost == ()
