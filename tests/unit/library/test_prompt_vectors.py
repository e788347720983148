"""What each program makes of a prompt and of a name, recorded by running its own code where it is Python.

`fixtures/prompts/tags.json`: prompt, tags (name, text encoder, denoiser or its three block groups, rank), rest of the prompt.
`error` stands for a tag that the program chokes on; we must say a problem there, and need not agree on a number.
`fixtures/prompts/block_weights.json`: tag, strengths, one ratio a block (all 26, or FLUX' 61), first and last step, as the
block-weight extension has them.
`fixtures/prompts/names.json`: a library (path, alias) and the file each name means in it.
"""

import json
from pathlib import Path

import pytest

from hubtool.library.block_weights import LAYOUTS, PRESETS
from hubtool.library.prompts import parse
from hubtool.library.record import Label
from hubtool.library.resolve import Names

FIXTURES = Path(__file__).parents[3] / "fixtures" / "prompts"
TAGS = json.loads((FIXTURES / "tags.json").read_text("utf-8"))
BLOCKS = json.loads((FIXTURES / "block_weights.json").read_text("utf-8"))
NAMES = json.loads((FIXTURES / "names.json").read_text("utf-8"))


def as_recorded(tag, expected):
    if expected == "error":
        return "error" if tag.problem else tag
    denoiser = list(tag.blocks) if tag.blocks else tag.denoiser
    name = tag.name if expected[0] is not None else None  # skipped for its strength of zero: the name is not recorded
    return [name, tag.text_encoder, denoiser, tag.dyn]


@pytest.mark.parametrize(
    ("dialect", "row"),
    [
        pytest.param(dialect, row, id=f"{dialect}-{number}")
        for dialect, peer in TAGS.items()
        for number, row in enumerate(peer["prompts"])
    ],
)
def test_a_prompt_means_what_the_program_takes_it_for(dialect, row):
    prompt, expected, *rest = row
    parsed = parse(prompt, dialect)
    tags = [tag for tag in parsed.tags if tag.kind == "lora"]
    assert len(tags) == len(expected)
    assert [as_recorded(*pair) for pair in zip(tags, expected, strict=True)] == expected
    assert rest in ([], [parsed.prompt])


def ratios(found, count):
    """As the extension stores them: 0 where the tag's layout has no block, 1 for everything without weights."""
    if not found.weights:
        return [1] * count
    return [found.weights.get(block, 0) for block in LAYOUTS[count]]


@pytest.mark.parametrize("row", BLOCKS["tags"], ids=range(len(BLOCKS["tags"])))
def test_strengths_by_block_are_what_the_extension_makes_of_them(row):
    text, expected = row
    (tag,) = parse(text, "a1111").tags
    if expected == "error":
        assert tag.problem
        return
    te, denoiser, weights, start, stop = expected
    assert (tag.text_encoder, tag.denoiser) == (te, denoiser)
    assert (tag.block_weights.start, tag.block_weights.stop) == (start, stop)
    assert ratios(tag.block_weights, len(weights)) == weights


@pytest.mark.parametrize("dialect", NAMES["names"])
def test_a_name_means_the_file_that_the_program_would_load(dialect):
    names = Names(Label(f"/L/{path}", "/L", alias) for path, alias in NAMES["library"])
    found = {name: names.find(name, dialect) for name, _ in NAMES["names"][dialect]}
    assert [[name, label and label.path.removeprefix("/L/")] for name, label in found.items()] == NAMES["names"][
        dialect
    ]


def test_there_are_as_many_vectors_as_were_promised():
    counts = {dialect: len(TAGS[dialect]["prompts"]) + len(NAMES["names"][dialect]) for dialect in TAGS}
    assert min(counts["a1111"], counts["sdnext"]) >= 120
    assert min(counts.values()) >= 60
    assert len(BLOCKS["tags"]) >= 40


def test_every_layout_and_preset_is_whole():
    assert all(len(set(blocks)) == count for count, blocks in LAYOUTS.items())
    assert {len(weights) for weights in PRESETS.values()} <= set(LAYOUTS)
