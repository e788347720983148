"""Tags as the UIs' own lexers read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubtool.errors import UsageProblem
from hubtool.library.prompts import DIALECTS, parse


def strengths(text, dialect="a1111"):
    """(text encoder, denoiser) of the only tag."""
    (tag,) = parse(text, dialect).tags
    return tag.text_encoder, tag.denoiser


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<lora:x>", (1.0, 1.0)),
        ("<lora:x:0.7>", (0.7, 0.7)),
        ("<lora:x:0.7:0.2>", (0.7, 0.2)),
        ("<lora:x:te=0.5>", (0.5, 0.5)),
        ("<lora:x:0.7:te=0.5>", (0.5, 0.5)),
        ("<lora:x:0.7:0.2:te=0.5>", (0.5, 0.2)),
        ("<lora:x:0.7:unet=0.1>", (0.7, 0.1)),
        ("<lora:x:unet=0.1>", (1.0, 0.1)),
        ("<lora:x:-1>", (-1.0, -1.0)),
    ],
)
def test_a1111_reads_the_text_encoder_first_and_lets_named_strengths_win(text, expected):
    assert strengths(text) == expected


@pytest.mark.parametrize("dialect", ["comfyui", "swarmui"])
def test_comfyui_and_swarmui_read_the_denoiser_first(dialect):
    assert strengths("<lora:x:0.7:0.2>", dialect) == (0.2, 0.7)
    assert strengths("<lora:x:0.7>", dialect) == (0.7, 0.7)


def test_sdnext_ignores_a_second_number():
    assert strengths("<lora:x:0.7:0.2>", "sdnext") == (0.7, 0.7)
    assert strengths("<lora:x:0.7:unet=0.2>", "sdnext") == (0.7, 0.2)


def test_fooocus_and_comfyui_know_no_tag_without_a_strength():
    for dialect in ("fooocus", "comfyui"):
        assert parse("a <lora:x> b", dialect).prompt == "a <lora:x> b"
        assert strengths("<lora:x:0.5>", dialect) == (0.5, 0.5)
    assert parse("<lora:x:0.5:0.6>", "fooocus").tags == ()


def test_the_rank_of_a_dylora_is_the_fourth_part_or_named():
    assert parse("<lora:x:1:1:16>").tags[0].dyn == 16
    assert parse("<lora:x:1:dyn=8>").tags[0].dyn == 8
    assert parse("<lora:x:1>").tags[0].dyn is None


def test_tags_disappear_from_the_prompt_and_nothing_else_does():
    parsed = parse("a cat <lora:x:0.5>, (sky:1.2) <hypernet:h:1> <b>")
    assert parsed.prompt == "a cat , (sky:1.2)  <b>"
    assert [tag.raw for tag in parsed.tags] == ["<lora:x:0.5>", "<hypernet:h:1>"]


def test_every_kind_is_reported_under_its_own_word():
    assert [tag.kind for tag in parse("<lora:a:1><lyco:b:1><hypernet:c:1>").tags] == ["lora", "lyco", "hypernet"]


def test_a_name_with_an_equals_sign_is_lost_to_a1111_and_the_tag_says_so():
    (tag,) = parse("<lora:a=b:0.5>").tags
    assert tag.name == "0.5"
    assert "a=b" in tag.problem


def test_an_item_with_two_equals_signs_is_positional_as_in_a1111():
    assert parse("<lora:a=b=c:0.5>").tags[0].name == "a=b=c"


def test_a_name_keeps_its_blanks_and_case():
    assert parse("<lora: My Style :1>").tags[0].name == " My Style "


@pytest.mark.parametrize("weight", ["abc", "0@0,1@0.5", "nan", "inf", "1e999", ""])
def test_strengths_are_numbers_even_where_the_tag_has_none(weight):
    (tag,) = parse(f"<lora:x:{weight}>").tags
    assert (tag.text_encoder, tag.denoiser) == (1.0, 1.0)
    assert tag.problem


def test_a_closing_bracket_ends_a_tag_whatever_follows():
    assert parse("<lora:a>b:1>").tags[0].name == "a"


def test_an_unknown_dialect_is_refused_with_the_known_ones():
    with pytest.raises(UsageProblem, match="swarmui"):
        parse("x", "nonsense")


def test_forge_knows_no_lyco_and_a1111_and_sdnext_do():
    assert "lyco" in parse("<lyco:x:1>", "forge").tags[0].problem
    assert not parse("<lyco:x:1>", "a1111").tags[0].problem + parse("<lyco:x:1>", "sdnext").tags[0].problem


def test_invokeai_reads_nothing_and_says_so():
    found = parse("a <lora:x:0.5> withLora(y,0.7)", "invokeai")
    assert found.prompt == "a <lora:x:0.5> withLora(y,0.7)"
    assert [(tag.kind, tag.name, tag.denoiser) for tag in found.tags] == [("lora", "x", 0.5), ("lora", "y", 0.7)]
    assert all("beside the prompt" in tag.problem for tag in found.tags)


@pytest.mark.parametrize("dialect", ["a1111", "forge", "sdnext", "fooocus"])
def test_a_tag_in_a_negative_prompt_is_said_to_be_no_tag_and_a_negative_strength_is_fine(dialect):
    good, bad = parse("a <lora:x:-0.5>\nNegative prompt: b <lora:y:1>\nSteps: 3", dialect).tags
    assert (good.denoiser, good.problem) == (-0.5, "")
    assert "negative prompt" in bad.problem
    assert "negative prompt" in parse("<lora:y:1>", dialect, negative=True).tags[0].problem


def test_swarmui_reads_tags_in_a_negative_prompt():
    assert not parse("<lora:y:1>", "swarmui", negative=True).tags[0].problem


def test_swarmuis_tags_belong_to_the_section_that_they_stand_in():
    text = "<lora:a:1> x <segment:face,0.5,0.6> y <lora:b:1><lora:c:1> <video> <lora:d:1> <object[2]:hand> <lora:e:1>"
    assert [(tag.name, tag.section) for tag in parse(text, "swarmui").tags] == [
        ("a", ""),
        ("b", "<segment:face,0.5,0.6>"),
        ("c", "<segment:face,0.5,0.6>"),
        ("d", "<video>"),
        ("e", "<object[2]:hand>"),
    ]
    assert parse(text, "a1111").tags[-1].section == ""


def test_a_lora_that_swarmui_draws_by_lot_is_said_to_be_unknown():
    (tag,) = parse("<lora:<random:ink|fog>:0.5>", "swarmui").tags
    assert "chosen when the picture is made" in tag.problem
    assert tag.raw == "<lora:<random:ink|fog>:0.5>"


@given(st.text(max_size=80), st.sampled_from(sorted(DIALECTS)))
def test_no_text_breaks_the_parser(text, dialect):
    parsed = parse(f"{text}<lora:{text}:{text}>", dialect)
    assert all(isinstance(tag.denoiser, float) for tag in parsed.tags)
