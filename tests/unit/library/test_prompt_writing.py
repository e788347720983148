"""Prompts rewritten for other UIs mean the same there, and what cannot is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.library.small_lora import Shelf, write_lora

from hubtool.errors import NotInstalled, NotRepresentable, UsageProblem
from hubtool.library.adding import added
from hubtool.library.index import Index
from hubtool.library.prompt_writing import add, balance, convert, relink, spell, strip
from hubtool.library.prompts import DIALECTS, parse
from hubtool.library.relinking import hashes_line, lora_hashes, relinked
from hubtool.settings import Directories, Settings

NAMES = st.text(
    st.characters(blacklist_characters=":<>=,\n\r@", blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8
)
STRENGTHS = st.floats(-2, 2).map(lambda number: round(number, 3))


@given(
    name=NAMES,
    te=STRENGTHS,
    denoiser=STRENGTHS,
    source=st.sampled_from(sorted(DIALECTS)),
    target=st.sampled_from(sorted(DIALECTS)),
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
    assert added(index, "a castle", "new-name:0.7", "a1111").prompt == "a castle, ink <lora:new-name:0.7>"
    with pytest.raises(NotInstalled) as caught:
        added(index, "", "newname", "a1111")
    assert caught.value.suggestions == ("new-name",)
    with pytest.raises(UsageProblem, match="no strength"):
        added(index, "", "new-name:much", "a1111")


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
    assert hashes_line(index, settings, "<lora:gone:1>", "a1111") == ""
