"""Every recorded answer, with fields removed, nulled, retyped and bytes flipped: a record or an error of ours, never a traceback.

EXAMPLES=1000 gives a thousand mutations of each body; a run without it takes a few.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hubtool.cli._output import plain, safe_json
from hubtool.errors import HubProblem, HubtoolError
from hubtool.hubs.arcenciel import ArcEnCiel
from hubtool.hubs.civarchive import CivArchive
from hubtool.hubs.civitai import CivitaiHub
from hubtool.hubs.client import Client
from hubtool.hubs.hosted import hosted_file
from hubtool.hubs.hub import Found, Query, SearchPage, choose_file
from hubtool.hubs.huggingface import HuggingFace
from hubtool.hubs.link_pages import text_of_html
from hubtool.hubs.link_text import read_links
from hubtool.hubs.modelscope import ModelScope
from hubtool.hubs.question import Reply, Site
from hubtool.hubs.refusals import Refusal, problem_of
from hubtool.hubs.retry import TryAgain
from hubtool.hubs.rows import details, summary
from hubtool.hubs.spec import ByHash, ByModel, ByRepository, ByVersion
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubtool.hubs.question import Question

RECORDED = Path(__file__).parents[2] / "fixtures" / "responses"
MUTATIONS = int(os.environ.get("EXAMPLES", "25"))
DIGEST = "e2b7a280d6539556f23f380b3f71e4e22bc4524445c4c96526e117c6005c6ad3"
STRANGE = [
    None,
    True,
    False,
    0,
    -1,
    10**30,
    1.5,
    math.nan,
    math.inf,
    "",
    "x",
    "\ud800\x1b[2J",
    "https://[",
    [],
    [None],
    {},
]
STRANGE += [{"id": None}, [[[]]], "9" * 5000, {"a": {"b": []}}, ["a", 1, {}], "2026-99-99T", "{", "None"]


class Canned(Client):
    """A connection that has one answer to everything."""

    def __init__(self, home: Path, body: bytes) -> None:
        settings = Settings(Directories(home / "c", home / "d", home / "e"))
        super().__init__(Site("https://hub.example", frozenset()), settings)
        self.body = body

    def ask(self, question: Question) -> Reply:  # noqa: ARG002  # whatever is asked
        """The one answer."""
        return Reply(self.body, {"link": '<https://hub.example/?cursor=1>; rel="next"'})


def civitai_model(client: Client) -> None:
    hub = CivitaiHub("civitai", client)
    for wanted in (ByModel(5), ByModel(5, 7), ByVersion(5), ByHash("sha256", DIGEST)):
        shown(lambda wanted=wanted: hub.look_up(wanted))  # type: ignore[misc]  # bound now
    shown(lambda: hub.search(Query("x", tag="style", base_models=("SDXL 1.0",), sort="newest", nsfw="mature")))


def civitai_others(client: Client) -> None:
    hub = CivitaiHub("civitai", client)
    shown(lambda: hub.terms(5).is_early)
    shown(lambda: hub.pictures(5, 3, 10))
    shown(lambda: list(hub.matches([DIGEST])))
    shown(lambda: [(found.version_id, found.found and details(found.found)) for found in hub.described([DIGEST])])
    shown(lambda: hub.search(Query(base_models=("Novel",), creator="x")))


def civarchive(client: Client) -> None:
    hub = CivArchive("civarchive", client)
    for wanted in (ByModel(1746460), ByModel(1746460, 1976567), ByHash("sha256", DIGEST)):
        shown(lambda wanted=wanted: hub.look_up(wanted))  # type: ignore[misc]  # bound now
    shown(lambda: hub.search(Query("x")))


def arcenciel(client: Client) -> None:
    hub = ArcEnCiel("arcenciel", client)
    for wanted in (ByModel(77), ByModel(77, 702), ByHash("sha256", "0" * 64)):
        shown(lambda wanted=wanted: hub.look_up(wanted))  # type: ignore[misc]  # bound now
    shown(lambda: hub.search(Query("x")))


def repositories(client: Client) -> None:
    for wanted in (ByRepository("huggingface", "a/b"), ByRepository("huggingface", "a/b", "main", "x.safetensors")):
        shown(lambda wanted=wanted: HuggingFace("huggingface", client).look_up(wanted))  # type: ignore[misc]
        shown(lambda wanted=wanted: ModelScope("modelscope", client).look_up(wanted))  # type: ignore[misc]
    shown(lambda: HuggingFace("huggingface", client).search(Query("x")))


def pixeldrain(client: Client) -> None:
    shown(lambda: hosted_file("https://pixeldrain.com/u/AbCd1234", client))


READERS: dict[str, tuple[Callable[[Client], None], ...]] = {
    "civitai": (civitai_model, civitai_others),
    "civarchive": (civarchive,),
    "arcenciel": (arcenciel,),
    "huggingface": (repositories,),
    "modelscope": (repositories,),
    "pixeldrain": (pixeldrain,),
}


def shown(answer: Callable[[], object]) -> None:
    """What a question leads to must be an error of ours or something that can be printed."""
    with contextlib.suppress(HubtoolError):
        found = answer()
        if isinstance(found, SearchPage):
            safe_json(plain([summary(model) for model in found.models]))
            safe_json(plain([model.raw for model in found.models]))  # sidecars hold it
        elif isinstance(found, Found):
            safe_json(plain(details(found)))
            for version in found.model.versions:
                safe_json(plain(version.raw))
                with contextlib.suppress(HubtoolError):
                    choose_file(version)
        else:
            safe_json(plain(found))


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The path of every node."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, entry in inner for place in places(entry, (*path, key)))]


def mutated(body: object, chance: random.Random) -> bytes:
    """The JSON with one to three nodes removed or replaced, or a few of its bytes changed."""
    value = copy.deepcopy(body)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        place = chance.choice(places(value))
        if not place:
            value = copy.deepcopy(chance.choice(STRANGE)) if chance.random() < 0.05 else value
            continue
        parent = value
        for key in place[:-1]:
            parent = parent[key]  # type: ignore[index]
        if chance.random() < 0.3:
            del parent[place[-1]]  # type: ignore[attr-defined]
        else:
            parent[place[-1]] = copy.deepcopy(chance.choice(STRANGE))  # type: ignore[index]
    text = bytearray(json.dumps(value).encode("utf-8", "replace"))
    if chance.random() < 0.1:
        for _ in range(3):
            text[chance.randrange(len(text))] = chance.randrange(256)
    return bytes(text)


def bodies(*, errors: bool) -> list[Path]:
    found = sorted(path for name in READERS for path in (RECORDED / name).glob("*.json"))
    envelopes = [path for path in found if path.name.startswith(("err_", "redirect_", "storage_", "hotlink_"))]
    return envelopes if errors else [path for path in found if path not in envelopes]


@pytest.mark.parametrize("path", bodies(errors=False), ids=lambda path: path.stem)
def test_a_mutation_of_a_recorded_body_is_a_record_or_an_error(path: Path, tmp_path: Path) -> None:
    body = json.loads(path.read_text("utf-8"))
    chance = random.Random(path.name)
    client = Canned(tmp_path, b"")
    texts = [path.read_bytes(), *(mutated(body, chance) for _ in range(MUTATIONS))]
    for text in texts:
        client.body = text
        for read in READERS[path.parent.name]:
            read(client)


@pytest.mark.parametrize("path", bodies(errors=True), ids=lambda path: path.stem)
def test_a_mutation_of_a_recorded_error_is_an_error(path: Path) -> None:
    envelope = json.loads(path.read_text("utf-8"))
    body = envelope.get("body", "")
    chance = random.Random(path.name)
    first = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    texts = [first, *(mutated(body, chance) for _ in range(MUTATIONS))]
    for text in texts:
        status = chance.choice([envelope["status"], *range(400, 600, 7)])
        headers = {name.lower(): str(value) for name, value in envelope["headers"].items()}
        headers |= chance.choice([{}, {"retry-after": chance.choice(["", "-1", "9" * 30, "soon", "Sat, 31 Feb"])}])
        found = problem_of(Refusal(status, text, headers, "https://hub.example/x"))
        assert isinstance(found, (HubProblem, TryAgain))
        problem = found.problem if isinstance(found, TryAgain) else found
        assert safe_json({"message": str(problem), "hint": problem.hint}).isprintable()


def test_a_mutation_of_a_recorded_list_is_a_list() -> None:
    text = (RECORDED / "lists" / "rentry_ponyxl_excerpt.md").read_text("utf-8")
    chance = random.Random(0)
    for _ in range(MUTATIONS):
        letters = list(text)
        for _ in range(chance.choice([1, 5, 50])):
            letters[chance.randrange(len(letters))] = chance.choice("<>[]()#*_\\\n \"'`|h:/\u202e\x00é")
        page = "".join(letters)
        assert len(read_links(page)) > 5
        read_links(text_of_html(f"<article>{page}</article>", "https://hub.example/"))
