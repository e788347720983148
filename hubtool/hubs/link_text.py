"""Reading a page of links as a person does: which lines offer a file, what it is called, and how it is triggered.

Works on lines, not on a Markdown tree: the pages are written by hand, headings lack their blank, and the grammar is mostly
`ADDRESS LABEL free text`. The label is the only usable name of a file, for addresses are opaque; triggers are in the prose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hubtool.hubs.link_hosts import judge
from hubtool.hubs.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINKS = 20_000
MAX_LINE = 20_000  # characters; the rest of a longer line is passed over
_NEAR = 400  # characters before a link that may name it
_REMARK = 2_000  # characters after a link that are about it
_URL = re.compile(r"https?://[^\s<>\"'\]|`]+", re.IGNORECASE)
_HEADING = re.compile(r"\s{0,3}(#{1,6})(?!#)")
_UNDERLINE = re.compile(r"\s*(=+|-{3,})\s*$")
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+\-.!~|<>])")
_MIRROR = re.compile(r"[\s(\[|,]*(?:mirror|alt|alternative|backup)s?\b", re.IGNORECASE)
_LABEL = re.compile(r"[\s:|*_~\->–—\"'“”]*(?P<label>[^\s|]+)")
_GENERIC = frozenset(
    (
        "here",
        "link",
        "links",
        "download",
        "downloads",
        "dl",
        "file",
        "files",
        "new",
        "old",
        "version",
        "or",
        "and",
        "the",
        "by",
    )
)
_TRIGGER = r"\b(?:activation|trigger|key(?=[\s-]?word))[\s-]*(?:trigger|tag|word|token|phrase|keyword)?s?"
_QUOTED = re.compile(rf"{_TRIGGER}\s*(?:is|are|of|:|=)?\s*[\"“`]([^\"”`\n]{{1,300}})[\"”`]", re.IGNORECASE)
_STATED = re.compile(rf"{_TRIGGER}\s*(?:is|are|of|:|=)\s*", re.IGNORECASE)
_MAX_WORDS = 300  # characters of trigger words in prose
_NO_WORDS = re.compile(r"[\"“`\n]")
_END_OF_WORDS = re.compile(r"\s+(?:in|to|but|and\s+you|for|with|if|works?|when)\b|[.;()]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Link:
    """One address on the page and what it is taken for."""

    url: str
    kind: str  # file, archive, page; manual: only a browser gets it; expired; skipped: nothing of ours
    label: str = ""  # unique among the entries of a page
    triggers: tuple[str, ...] = ()
    note: str = ""  # what else the line says
    category: tuple[str, ...] = ()  # the headings above it, outermost first
    line: int = 0  # counted from 1
    reason: str = ""  # why it is not fetched
    aliases: tuple[str, ...] = ()  # further labels of the same address
    mirrors: tuple[str, ...] = ()  # further addresses of the same file

    @property
    def is_entry(self) -> bool:
        """Whether a person would list it."""
        return self.kind != "skipped"

    @property
    def is_fetchable(self) -> bool:
        """Whether it can be downloaded."""
        return self.kind in {"file", "archive", "page"}


@dataclass(slots=True)
class _Page:
    """Where the reader is."""

    headings: list[tuple[int, str]] = field(default_factory=list)
    above: str = ""  # the last line that was no link and no heading

    def enter(self, level: int, title: str) -> None:
        self.headings = [*(entry for entry in self.headings if entry[0] < level), (level, title)]
        self.above = ""


def read_links(text: str) -> list[Link]:
    """Every link of a page, in order; those that are skipped say why.

    >>> [link.label for link in read_links("#Styles\\nhttps://files.catbox.moe/ab12cd.safetensors some_artist keyword is x")]
    ['some_artist']
    """
    links: list[Link] = []
    page, previous = _Page(), ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw[:MAX_LINE]
        if not line or line.isspace():
            previous = ""
            continue
        heading = _HEADING.match(line)
        title = line[heading.end() :].strip().rstrip("#").rstrip() if heading else ""
        if heading and title and not _URL.search(line):
            page.enter(len(heading[1]), _plain(title))
        elif _UNDERLINE.match(line) and previous and not _URL.search(previous):
            page.enter(1 if line.strip()[0] == "=" else 2, _plain(previous))
        else:
            links += _of_line(line, number, page)
        previous = line.strip()
        if len(links) >= MAX_LINKS:
            break
    return _unique(links[:MAX_LINKS])


def _of_line(line: str, number: int, page: _Page) -> Iterator[Link]:
    found = list(_addresses(line))
    category = tuple(title for _, title in page.headings)
    named = False  # the first file of a line has the line's label; later ones are remarks
    for url, start, end in found:
        verdict = judge(url)
        if verdict.kind == "skipped":
            yield Link(url, verdict.kind, line=number, category=category, reason=verdict.reason)
            continue
        if _is_mirror(line, start, end):
            yield Link(url, "mirror", line=number, category=category, reason=verdict.kind)
            continue
        label, rest = _label(line, start, end, page)
        after = rest if not named else ""
        named = True
        yield Link(
            url,
            verdict.kind,
            label=label,
            triggers=triggers(after),
            note=one_line(_without_addresses(after)),
            category=category,
            line=number,
            reason=verdict.reason,
        )
    if not found:
        page.above = _plain(line)


def _addresses(line: str) -> Iterator[tuple[str, int, int]]:
    """Addresses with where they begin and end, without the punctuation around them."""
    for match in _URL.finditer(line):
        url = _trimmed(match[0])
        if "://" in url:
            yield _ESCAPED.sub(r"\1", url), match.start(), match.start() + len(url)


def _trimmed(url: str) -> str:
    """An address up to the first bracket that it does not open itself, and without a sentence's punctuation."""
    depth = 0
    for position, character in enumerate(url):
        depth += (character == "(") - (character == ")")
        if depth < 0:  # of the text around it, or of a link inside a link
            url = url[:position]
            break
    return url.rstrip(".,;:!?*_~\\")


def _label(line: str, start: int, end: int, page: _Page) -> tuple[str, str]:
    """What a link is called, and the rest of the line's text."""
    opening = _opening(line, start)
    rest = line[end : end + _REMARK].lstrip(")>")
    if opening is not None and (text := _usable(_plain(line[opening + 1 : start - 2]))):
        return text, rest
    following = _LABEL.match(rest)
    if following and not following["label"].startswith(("http:", "https:", "[", "!")):
        first = _usable(_plain(following["label"]).rstrip(",;:"))
        if first:
            return first, rest[following.end() :]
    stop = start if opening is None else opening
    before = _usable(_plain(line[max(0, stop - _NEAR) : stop]).strip(" :-|*<>([•"))
    nearest = page.headings[-1][1] if page.headings else ""
    return before or _usable(page.above) or nearest, rest


def _opening(line: str, start: int) -> int | None:
    """Where the text of a Markdown link `[text](` that ends at `start` begins, if it is one and no longer than _NEAR."""
    if not line.endswith("](", 0, start):
        return None
    depth = 0
    for position in range(start - 2, max(-1, start - _NEAR), -1):
        depth += (line[position] == "]") - (line[position] == "[")
        if not depth:
            return position
    return None


def _is_mirror(line: str, start: int, end: int) -> bool:
    """Whether the page calls a link another place of the file before it."""
    opening = _opening(line, start)
    said = line[end : end + _NEAR].lstrip(")>") if opening is None else line[opening + 1 : start - 2]
    return bool(_MIRROR.match(said))


def _usable(text: str) -> str:
    """A text that can be a name, or nothing."""
    text = one_line(text).strip(" :|")[:120]
    is_generic = text.lower() in _GENERIC or not re.search(r"[^\W\d_]", text)
    return "" if is_generic or _URL.search(text) else text


def _plain(text: str) -> str:
    """Text without Markdown's marks and escapes."""
    text = re.sub(r"!?\[([^\[\]]*)\]\([^()]*\)", r"\1", text)
    text = re.sub(r"\*\*|__(?=\S)|~~|`", "", text)
    return one_line(_ESCAPED.sub(r"\1", text))


def _without_addresses(text: str) -> str:
    return re.sub(r"\s+,", ",", _URL.sub("", _ESCAPED.sub(r"\1", text)))


def triggers(text: str) -> tuple[str, ...]:
    """The trigger words that a remark names.

    >>> triggers('requires activation trigger "by maron maron"'), triggers("Activation tag is a_b but you can add more")
    (('by maron maron',), ('a_b',))
    """
    plain = _ESCAPED.sub(r"\1", text)
    found = [match[1] for match in _QUOTED.finditer(plain)]
    found += [word for words in _stated(_QUOTED.sub(" ", plain)) for word in words.split(",")]
    words = (one_line(word).strip(" ,'\"") for word in found)
    return tuple(dict.fromkeys(word for word in words if word and not _URL.search(word)))


def _stated(text: str) -> Iterator[str]:
    """What follows `trigger is` and the like, up to where the sentence goes on."""
    at = 0
    while match := _STATED.search(text, at):
        window = text[match.end() : match.end() + _MAX_WORDS + 1]
        quote = _NO_WORDS.search(window)
        stop = _END_OF_WORDS.search(window, 1)
        is_whole = len(window) <= _MAX_WORDS and quote is None
        at = match.end()
        if stop and (quote is None or stop.start() < quote.start()):
            yield window[: stop.start()]
            at += stop.start()
        elif is_whole and window:
            yield window
            return


def _unique(links: list[Link]) -> list[Link]:
    """The links with one entry an address, mirrors with what they mirror, and labels that occur once."""
    return _with_own_labels(_merged(links))


def _merged(links: list[Link]) -> list[Link]:
    first: dict[str, int] = {}  # address → its entry
    last = -1  # the entry that a mirror belongs to
    found: list[Link] = []
    for link in links:
        known = first.get(link.url)
        if link.kind == "mirror" and last >= 0:
            found[last] = replace(found[last], mirrors=(*found[last].mirrors, link.url))
        elif not link.is_entry or link.kind == "mirror":
            found.append(link if link.kind != "mirror" else replace(link, kind=link.reason, reason=""))
        elif known is None:
            first[link.url] = last = len(found)
            found.append(link)
        elif link.label not in (found[known].label, *found[known].aliases):
            found[known] = replace(found[known], aliases=(*found[known].aliases, link.label))
            found.append(replace(link, kind="skipped", reason=f"the same file as {found[known].label}"))
    return found


def _with_own_labels(links: list[Link]) -> list[Link]:
    """Labels made unique by the beginning of the file's own name."""
    taken: set[str] = set()
    found: list[Link] = []
    for link in links:
        label = link.label
        if link.is_entry:
            stem = judge(link.url).stem
            label = label or stem
            label = label if label.casefold() not in taken else f"{label}_{stem[:6]}"
            label = label if label.casefold() not in taken else f"{label}_{link.line}"
            taken.add(label.casefold())
        found.append(replace(link, label=label))
    return found
