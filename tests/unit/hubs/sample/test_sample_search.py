"""Searching the sample hub follows the rules of Civitai's own search, the odd ones too."""

from __future__ import annotations

import json

import pytest

from hubtool.hubs.sample.catalogue import MODELS
from hubtool.hubs.sample.exchange import Parameters, Refused
from hubtool.hubs.sample.records import Origins
from hubtool.hubs.sample.search import search_models

HERE = Origins("http://127.0.0.1:1", "http://127.0.0.1:2")


def search(**parameters: object) -> dict[str, object]:
    given: Parameters = {
        key: [str(entry) for entry in value] if isinstance(value, list) else [str(value)]
        for key, value in parameters.items()
    }
    return search_models(given, HERE)


def ids(**parameters: object) -> list[int]:
    items = search(**parameters)["items"]
    assert isinstance(items, list)
    return [item["id"] for item in items]


def refusal(**parameters: object) -> tuple[int, dict[str, object]]:
    with pytest.raises(Refused) as caught:
        search(**parameters)
    assert isinstance(caught.value.body, dict)
    return caught.value.status, caught.value.body


def test_without_parameters_everything_comes_best_rated_first() -> None:
    assert ids() == [model.id for model in sorted(MODELS, key=lambda model: -model.thumbs_up)]


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"types": "LoCon"}, {1002}),
        ({"types": ["LoCon", "DoRA"]}, {1002, 1007}),
        ({"baseModels": "Pony"}, {1005}),
        ({"baseModels": ["Pony", "Flux.1 D"]}, {1005, 1006}),
        ({"baseModels": "Pony,Flux.1 D"}, set()),  # one literal string
        ({"tag": "ink"}, {1002}),
        ({"tag": "no such tag"}, {model.id for model in MODELS}),  # silently dropped
        ({"username": "wrenworks"}, {1007}),
        ({"username": "WrenWorks"}, {1007}),
        ({"query": "goblin"}, {1005}),
        ({"query": "GLASS orchard"}, {1006}),
        ({"query": "goblin orchard"}, set()),
        ({"ids": "1001,1003"}, {1001, 1003}),
        ({"ids": "1001,1003", "query": "goblin"}, {1005}),  # ids are ignored beside a query
        ({"period": "Day"}, {1006}),
        ({"period": "Week"}, {1006}),
        ({"period": "Month"}, {1003, 1006, 1007}),
        ({"nsfw": "true"}, {model.id for model in MODELS}),
        ({"unheard": "of"}, {model.id for model in MODELS}),
    ],
)
def test_filters(parameters: dict[str, object], found: set[int]) -> None:
    assert set(ids(**parameters)) == found


def test_a_base_model_filter_trims_the_versions_too() -> None:
    items = search(baseModels="SD 1.5")["items"]
    assert isinstance(items, list)
    assert {version["baseModel"] for item in items for version in item["modelVersions"]} == {"SD 1.5"}


@pytest.mark.parametrize(
    ("sort", "first"), [("Most Downloaded", 1005), ("Newest", 1006), ("Oldest", 1004), ("Highest Rated", 1005)]
)
def test_orders(sort: str, first: int) -> None:
    assert ids(sort=sort)[0] == first


def test_a_query_keeps_its_own_order() -> None:
    assert ids(query="style", sort="Newest") == ids(query="style", sort="Oldest")


@pytest.mark.parametrize("query", [{}, {"query": "style"}, {"sort": "Newest"}])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_following_cursors_finds_everything_once(query: dict[str, object], limit: int) -> None:
    found, cursor = [], {}
    for _ in range(len(MODELS) + 1):
        page = search(**query, **cursor, limit=limit)
        found += [item["id"] for item in page["items"]]  # type: ignore[attr-defined]  # a list, as the API has it
        metadata = page["metadata"]
        assert isinstance(metadata, dict)
        assert ("nextCursor" in metadata) == ("nextPage" in metadata)
        if "nextCursor" not in metadata:
            break
        cursor = {"cursor": metadata["nextCursor"]}
    assert found == ids(**query)


def test_a_page_number_says_which_page_it_is() -> None:
    assert search(page=2, limit=3)["metadata"].items() >= {"currentPage": 2, "pageSize": 3}.items()  # type: ignore[attr-defined]  # an object
    assert ids(page=2, limit=3) == ids()[3:6]


def test_the_next_page_s_address_carries_no_token() -> None:
    assert "secret" not in json.dumps(search(token="secret", limit=1))


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"limit": 101}, 400),
        ({"limit": "many"}, 400),
        ({"types": "LORA,LoCon"}, 400),
        ({"types": "lora"}, 400),
        ({"sort": "Best"}, 400),
        ({"period": "Decade"}, 400),
        ({"nsfw": "maybe"}, 400),
        ({"cursor": "1"}, 400),
        ({"cursor": "a|b"}, 400),
        ({"page": 0}, 400),
        ({"page": 2, "query": "ink"}, 400),
        ({"page": 11, "limit": 100}, 429),
        ({"username": "nobody"}, 404),
    ],
)
def test_what_civitai_refuses_is_refused(parameters: dict[str, object], status: int) -> None:
    assert refusal(**parameters)[0] == status


def test_a_refused_parameter_comes_as_the_validator_s_object() -> None:
    error = refusal(limit=101)[1]["error"]
    assert isinstance(error, dict)
    assert json.loads(error["message"])[0]["path"] == ["limit"]


def test_an_unknown_user_is_told_under_the_other_key() -> None:
    assert refusal(username="nobody")[1] == {"message": "User not found"}
