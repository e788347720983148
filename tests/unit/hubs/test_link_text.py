import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubtool.hubs.link_hosts import judge
from hubtool.hubs.link_pages import addresses_of, text_of_html
from hubtool.hubs.link_text import Link, read_links, triggers

LISTS = Path(__file__).parents[3] / "fixtures" / "responses" / "lists"
HOST = "https://files.catbox.moe"


def entries(text: str) -> list[Link]:
    return [link for link in read_links(text) if link.is_entry]


def test_the_recorded_page_gives_the_entries_that_a_person_listed() -> None:
    """The expected file was written by reading the page, line by line."""
    expected = json.loads((LISTS / "rentry_ponyxl_expected.json").read_text("utf-8"))
    found = read_links((LISTS / "rentry_ponyxl_excerpt.md").read_text("utf-8"))
    assert [link.url for link in found] == [row["url"] for row in expected]
    for link, row in zip(found, expected, strict=True):
        assert (link.line, link.kind, link.reason) == (row["line"], row["kind"], row.get("reason", ""))
        assert (link.label, list(link.aliases)) == (row.get("label", ""), row.get("aliases", []))
        assert list(link.category) == row["category"]
        assert (list(link.triggers), link.note) == (row.get("triggers", []), row.get("note", ""))
    assert sum(link.is_entry for link in found) == 12
    assert sum(link.is_fetchable for link in found) == 8


def test_the_categories_of_the_recorded_page_are_its_headings() -> None:
    found = entries((LISTS / "rentry_ponyxl_excerpt.md").read_text("utf-8"))
    by_label = {link.label: link.category for link in found}
    assert by_label["akihiko_yoshida"] == ("PonyXL Notes", "List of Ponyxl LoRAs from /h/", "Artists/Styles")
    assert by_label["Get PonyXL here"] == ("PonyXL Notes", "Get PonyXL here")


@pytest.mark.parametrize(
    ("line", "label"),
    [
        (f"{HOST}/ab12cd.safetensors some_artist", "some_artist"),
        (f"{HOST}/ab12cd.safetensors - some_artist, soft", "some_artist"),
        (f"{HOST}/ab12cd.safetensors bb \\(baalbuddy\\)", "bb"),
        (f"{HOST}/ab12cd.safetensors mo_\\(kireinamo\\)", "mo_(kireinamo)"),
        (f"[Some Artist]({HOST}/ab12cd.safetensors)", "Some Artist"),
        (f"[**Some Artist**]({HOST}/ab12cd.safetensors) (mirror below)", "Some Artist"),
        (f"- Some Artist: <{HOST}/ab12cd.safetensors>", "Some Artist"),
        (f"| Some Artist | [download]({HOST}/ab12cd.safetensors) |", "Some Artist"),
        (f"Some Artist ([link]({HOST}/ab12cd.safetensors)).", "Some Artist"),
        (f"## Heading\n[here]({HOST}/ab12cd.safetensors)", "Heading"),
        (f"Line above\n{HOST}/ab12cd.safetensors", "Line above"),
        (f"{HOST}/ab12cd.safetensors", "ab12cd"),
        (f"{HOST}/ab12cd.safetensors 2", "ab12cd"),
        ("https://huggingface.co/o/r/resolve/main/ink.safetensors", "ink"),
    ],
)
def test_the_label_is_what_a_person_would_call_it(line: str, label: str) -> None:
    assert [link.label for link in entries(line)] == [label]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("requires activation trigger of X in the prompt", ("X",)),
        ("activation trigger is some_style", ("some_style",)),
        ("keyword is X.", ("X",)),
        ('requires activation trigger "by maron maron"', ("by maron maron",)),
        ("Activation tag is X but you can add more", ("X",)),
        ("trigger words: a b, c", ("a b", "c")),
        ("Trigger word `ink`", ("ink",)),
        ("trigger: bb \\(baalbuddy\\)", ("bb",)),
        ("These don't require activation triggers unless otherwise stated", ()),
        ("the characters with their associated tags: a, b", ()),
        ("a monkey is in it", ()),
    ],
)
def test_trigger_words_are_found_in_prose(text: str, words: tuple[str, ...]) -> None:
    found = triggers(text)
    assert found == words or (words == ("bb",) and found[0].startswith("bb"))


@pytest.mark.parametrize(
    ("written", "address"),
    [
        (f"({HOST}/a.safetensors)", f"{HOST}/a.safetensors"),
        (f"{HOST}/a_(b).safetensors, and", f"{HOST}/a_(b).safetensors"),
        (f"**{HOST}/a.safetensors**", f"{HOST}/a.safetensors"),
        (f"see {HOST}/a.safetensors.", f"{HOST}/a.safetensors"),
        (f'"{HOST}/a.safetensors"', f"{HOST}/a.safetensors"),
        (f"{HOST}/a\\_b.safetensors", f"{HOST}/a_b.safetensors"),
    ],
)
def test_an_address_ends_where_its_sentence_does_not(written: str, address: str) -> None:
    assert [link.url for link in entries(written)] == [address]


def test_a_mirror_belongs_to_the_file_before_it() -> None:
    text = f"[ink]({HOST}/a.safetensors) ([mirror](https://pixeldrain.com/u/AbCd1234))\n{HOST}/b.safetensors two"
    first, second = entries(text)
    assert (first.label, first.mirrors) == ("ink", ("https://pixeldrain.com/u/AbCd1234",))
    assert second.mirrors == ()


def test_equal_labels_are_told_apart_by_the_files_own_name() -> None:
    text = f"{HOST}/aaaaaa.safetensors Style\n{HOST}/bbbbbb.safetensors style"
    assert [link.label for link in entries(text)] == ["Style", "style_bbbbbb"]


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("https://pixeldrain.com/u/AbCd1234", "file"),
        ("https://pixeldrain.com/l/AbCd1234", "manual"),
        ("https://gofile.io/d/x", "manual"),
        ("https://drive.google.com/file/d/x/view", "manual"),
        ("https://www.mediafire.com/file/x/a.safetensors", "manual"),
        ("https://litter.catbox.moe/x.safetensors", "expired"),
        ("https://civitai.com/models/5/x", "page"),
        ("https://civitai.red/user/x", "skipped"),
        ("https://huggingface.co/o/r", "page"),
        ("https://huggingface.co/datasets/o/r", "skipped"),
        ("https://evilcivitai.com/models/5", "skipped"),
        (f"{HOST}/x.SafeTensors", "file"),
        (f"{HOST}/x.zip", "archive"),
        (f"{HOST}/x.pt", "manual"),
        (f"{HOST}/x.png", "skipped"),
        ("https://[bad/x.safetensors", "skipped"),
        ("https://lite.framacalc.org/loras", "manual"),
        ("https://media.discordapp.net/attachments/1/2/x.safetensors?ex=1&is=2&hm=3", "manual"),
        ("https://docs.google.com/spreadsheets/d/x", "manual"),
    ],
)
def test_an_address_is_taken_for_what_it_is(address: str, kind: str) -> None:
    assert judge(address).kind == kind


@pytest.mark.parametrize(
    ("address", "is_list"),
    [
        ("https://rentry.org/illustrious_loras_n_stuff", True),
        ("https://gitgud.io/someone/loras#lora-list", True),
        ("https://github.com/someone/loras/blob/main/README.md", True),
        ("https://rentry.org/", False),
        ("https://github.com/someone/loras/raw/main/a.png", False),
        ("https://example.org/page", False),
    ],
)
def test_another_list_is_named_as_one(address: str, is_list: bool) -> None:
    verdict = judge(address)
    assert verdict.kind == "skipped"
    assert ("list-links" in verdict.reason) is is_list


@pytest.mark.parametrize(
    ("page", "first"),
    [
        ("https://rentry.org/ponyxl_loras_n_stuff#styles", "https://rentry.org/ponyxl_loras_n_stuff/raw"),
        ("https://github.com/me/loras", "https://raw.githubusercontent.com/me/loras/HEAD/README.md"),
        ("https://github.com/me/loras/blob/main/a/b.md", "https://raw.githubusercontent.com/me/loras/main/a/b.md"),
        ("https://github.com/me/loras/tree/dev/a", "https://raw.githubusercontent.com/me/loras/dev/a/README.md"),
        ("https://gitgud.io/me/loras#lora-list", "https://gitgud.io/me/loras/-/raw/HEAD/README.md"),
        ("https://gitlab.com/a/b/c/-/tree/dev/x", "https://gitlab.com/a/b/c/-/raw/dev/x/README.md"),
        ("https://git.example.org/a/b/-/blob/main/l.md", "https://git.example.org/a/b/-/raw/main/l.md"),
        ("https://example.org/page.html", "https://example.org/page.html"),
    ],
)
def test_the_text_of_a_page_is_asked_for_where_it_is(page: str, first: str) -> None:
    assert addresses_of(page)[0] == first


@given(st.text(max_size=400))
def test_any_text_can_be_read(text: str) -> None:
    links = read_links(text + f"\n{HOST}/a.safetensors " + text)
    labels = [link.label.casefold() for link in links if link.is_entry]
    assert len(labels) == len(set(labels))
    assert all(link.url.startswith(("http://", "https://", "HTTP")) or "://" in link.url for link in links)


@given(st.text(alphabet="<>/ah1\"'=!-p[]()https:.x", max_size=300))
def test_any_html_can_be_read(html: str) -> None:
    assert isinstance(read_links(text_of_html(html, "https://example.org/")), list)


LINES = [
    pytest.param("[" * 9_000 + f"{HOST}/a.safetensors", id="brackets"),
    pytest.param("[x[y]" * 3_000 + f"]({HOST}/a.safetensors", id="brackets in brackets"),
    pytest.param("https://" * 2_400, id="addresses in addresses"),
    pytest.param(f"{HOST}/a.safetensors " * 400, id="addresses"),
    pytest.param(f"[a]({HOST}/a.safetensors) " * 350, id="links"),
    pytest.param(f"{HOST}/a.safetensors" + ")" * 19_000, id="closed brackets"),
    pytest.param(f"{HOST}/a.safetensors" + "(" * 9_000 + ")" * 9_000, id="parentheses"),
    pytest.param(f"{HOST}/a.safetensors a " + "trigger is " * 1_500, id="triggers"),
    pytest.param(f"{HOST}/a.safetensors a trigger is " + "x " * 9_000, id="words"),
    pytest.param(f"{HOST}/a.safetensors a " + "key" * 6_000, id="half words"),
    pytest.param("# a" + " " * 19_000 + "x", id="blanks in a heading"),
    pytest.param("#" + " #" * 9_000, id="hashes"),
    pytest.param("=" * 19_000 + "x", id="underlines"),
    pytest.param("\\" * 19_000 + f"{HOST}/a.safetensors", id="escapes"),
    pytest.param("\n" * 20_000, id="blank lines"),
]


@pytest.mark.parametrize("line", LINES)
def test_a_hostile_page_takes_time_in_proportion_to_its_length(line: str) -> None:
    """A mebibyte of the worst lines is read in a second or two, so a whole page of five is no trap."""
    text = (line + "\n") * ((1 << 20) // len(line) + 1)
    began = time.process_time()
    read_links(text)
    assert time.process_time() - began < 6


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "https://" * 20_000,
        "(" * 50_000 + f"{HOST}/a.safetensors" + ")" * 50_000,
        "#" * 100_000,
        "<a " * 50_000,
    ],
    ids=["brackets", "addresses", "parentheses", "hashes", "tags"],
)
def test_a_hostile_page_is_read_in_no_time(text: str) -> None:
    began = time.process_time()
    read_links(text)
    read_links(text_of_html(text, "https://example.org/"))
    assert time.process_time() - began < 5
