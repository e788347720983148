"""Text from a hub, made fit for one line or for plain paragraphs."""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser

#: Characters that change the direction of the text around them.
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "blockquote",
        "br",
        "dd",
        "div",
        "dl",
        "dt",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tr",
        "ul",
    ]
)
_SILENT = frozenset(("script", "style"))
MAX_HTML = 1 << 20  # characters of a description; nobody reads further


def clean(text: str) -> str:
    """The text without control, half and direction-changing characters; newlines and tabs stay.

    >>> clean("a\\x1b[2Jb\\u202ec")
    'a[2Jbc'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c for c in text if c in "\n\t" or (unicodedata.category(c) not in {"Cc", "Cs"} and c not in BIDIRECTIONAL)
    )


def one_line(text: str) -> str:
    """The text on one line: every run of white space is one space.

    >>> one_line(" a\\r\\n b\\0 ")
    'a b'
    """
    return " ".join(clean(re.sub(r"[\r\n\t\v\f]", " ", text)).split())


def plain_text(html: str) -> str:
    """What a person would read of an HTML description, one paragraph a line.

    >>> plain_text("<p>Use <b>0.8</b>.</p><ul><li>a</li><li>b</li></ul><script>x()</script>")
    'Use 0.8.\\na\\nb'
    """
    reader = _Reader()
    reader.feed(tame_html(html[:MAX_HTML]))
    reader.close()
    lines = (" ".join(line.split()) for line in clean("".join(reader.pieces)).split("\n"))
    return "\n".join(line for line in lines if line)


def tame_html(html: str) -> str:
    """The HTML without comments and with every `<` that opens no tag escaped.

    The parser of the standard library takes quadratic time over brackets that are never closed.

    >>> tame_html("a <b <i>c</i><!-- d -->")
    'a &lt;b <i>c</i>'
    """
    first, *others = html.split("<!--")
    return re.sub(r"<(?![^<>]*>)", "&lt;", first + "".join(part.partition("-->")[2] for part in others))


class _Reader(HTMLParser):
    """Collects text; block elements begin a new line, scripts and the like are skipped."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        del attrs
        self._silent += tag in _SILENT
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """End an element."""
        self._silent = max(0, self._silent - (tag in _SILENT))
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        """Take text."""
        if not self._silent:
            self.pieces.append(data.replace("\n", " "))
