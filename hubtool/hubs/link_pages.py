"""Where the text of a link list is: rentry pages, READMEs on GitHub and GitLab, any other page, or a file; HTML becomes text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from hubtool.hubs.text import tame_html

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PAGE_BYTES = 5 << 20
_RENTRY = {"rentry.org", "rentry.co", "www.rentry.org", "www.rentry.co"}
_GITLABS = {"gitlab.com", "gitgud.io"}
_BLOCKS = frozenset(
    (
        "p",
        "div",
        "li",
        "tr",
        "br",
        "article",
        "section",
        "table",
        "ul",
        "ol",
        "pre",
        "blockquote",
        "hr",
        "dt",
        "dd",
        "main",
    )
)
_SILENT = frozenset(("script", "style", "head", "nav", "template"))


def addresses_of(source: str) -> list[str]:
    """Where to ask for the text of a page, best first.

    >>> addresses_of("https://gitgud.io/me/loras#lora-list")
    ['https://gitgud.io/me/loras/-/raw/HEAD/README.md', 'https://gitgud.io/me/loras']
    """
    page = source.partition("#")[0]
    parts = urlsplit(page)
    host, path = (parts.hostname or "").lower(), parts.path.strip("/")
    base = f"{parts.scheme}://{parts.netloc}"
    if host in _RENTRY and path and "/" not in path:
        return [f"{base}/{path}/raw", page]
    if host in {"github.com", "www.github.com"}:
        raw = _github(path.split("/"))
        return [raw, page] if raw else [page]
    if "/-/blob/" in parts.path:
        return [f"{base}{parts.path.replace('/-/blob/', '/-/raw/', 1)}", page]
    if host in _GITLABS and path.count("/") >= 1:
        project, _, tree = path.partition("/-/tree/")
        reference, _, folder = tree.partition("/")
        readme = f"{folder.strip('/')}/README.md" if folder else "README.md"
        return [f"{base}/{project}/-/raw/{reference or 'HEAD'}/{readme}", page]
    return [page]


def _github(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return ""
    owner, name, rest = parts[0], parts[1], parts[2:]
    if len(rest) > 1 and rest[0] in {"blob", "raw"}:
        path = "/".join(rest[1:])
    else:
        reference, *folder = rest[1:] if len(rest) > 1 and rest[0] == "tree" else ["HEAD"]
        path = "/".join([reference, *folder, "README.md"])
    return f"https://raw.githubusercontent.com/{quote(owner)}/{quote(name)}/{path}"


def is_html(body: str, content_type: str) -> bool:
    """Whether a page is HTML, by what it says or how it begins."""
    start = body.lstrip("\ufeff \r\n\t")[:200].lower()
    return "html" in content_type.lower() or start.startswith(("<!doctype html", "<html"))


def is_login_page(body: str) -> bool:
    """Whether a GitLab shows its login instead of a private or missing project."""
    return bool(re.search(r"""action=["'][^"']*/users/sign_in|id=["']new_user["']""", body))


def text_of_html(html: str, base: str) -> str:
    """The page as lines of text with Markdown headings and links, so that one reader does for both.

    >>> text_of_html('<h2>A</h2><p><a href="/x.safetensors">b</a> c</p>', "https://e.org/")
    '## A\\n[b](https://e.org/x.safetensors) c'
    """
    begin = re.search(r"<article\b", html, re.IGNORECASE)
    end = html.lower().rfind("</article>")
    article = html[begin.start() : end] if begin and begin.start() < end else html
    reader = _Reader(base)
    reader.feed(tame_html(article))
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.pieces).split("\n"))
    return "\n".join(line for line in lines if line)


class _Reader(HTMLParser):
    """Collects text, links and headings."""

    def __init__(self, base: str) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._base, self._silent = base, 0
        self._link: tuple[str, int] | None = None  # address, and where in pieces its text begins

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        table = dict(attrs)
        self._silent += tag in _SILENT
        if re.fullmatch(r"h[1-6]", tag):
            self.pieces.append(f"\n{'#' * int(tag[1])} ")
        elif tag in _BLOCKS:
            self.pieces.append("\n")
        elif tag == "a" and table.get("href") and not self._silent:
            self._link = (_absolute(self._base, str(table["href"])), len(self.pieces))  # links do not nest
        elif tag == "img" and table.get("src"):
            self.pieces.append(f"![{table.get('alt') or ''}]({_absolute(self._base, str(table['src']))})")

    def handle_endtag(self, tag: str) -> None:
        """End an element."""
        self._silent = max(0, self._silent - (tag in _SILENT))
        if tag == "a" and self._link:
            (url, begin), self._link = self._link, None
            text = " ".join("".join(self.pieces[begin:]).split())
            # an address that is its own text stands for itself, as in a Markdown page
            shown = url if text in {"", url} or text.startswith(("http://", "https://")) else f"[{text}]({url})"
            self.pieces[begin:] = [shown]
        elif tag in _BLOCKS or re.fullmatch(r"h[1-6]", tag):
            self.pieces.append("\n")
        elif tag in {"td", "th"}:
            self.pieces.append(" | ")

    def handle_data(self, data: str) -> None:
        """Take text."""
        if not self._silent:
            self.pieces.append(data.replace("\n", "\n" if "pre" in self.lasttag else " "))


def _absolute(base: str, address: str) -> str:
    try:
        return urljoin(base, address.strip())
    except ValueError:
        return ""
