import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubtool.hubs.civitai_models import Model, Page, Version

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MODEL_FIELDS = [
    "name description type nsfw nsfwLevel tags mode creator stats allowNoCredit allowCommercialUse allowDerivatives",
    "allowDifferentLicense modelVersions",
]
VERSION_FIELDS = ["modelId name baseModel publishedAt trainedWords description usageControl stats files images model"]
FILE_FIELDS = ["name type sizeKB metadata hashes pickleScanResult virusScanResult scannedAt downloadUrl primary"]


def record(lines: list[str]) -> st.SearchStrategy[dict[str, object]]:
    fields = " ".join(lines).split()
    return st.fixed_dictionaries({"id": st.just(5)}, optional=dict.fromkeys(fields, JSON))


@given(record(MODEL_FIELDS))
def test_a_model_with_an_id_is_readable_whatever_else_it_holds(value: dict[str, object]) -> None:
    assert Model.model_validate(value).id == 5


@given(record(VERSION_FIELDS), record(FILE_FIELDS))
def test_so_is_a_version_and_its_files(version: dict[str, object], file: dict[str, object]) -> None:
    read = Version.model_validate(version | {"files": [file, None, {"name": "no id"}]})
    assert [entry.id for entry in read.files] == [5]
    size = read.files[0].size_bytes
    assert size is None or size > 0


@given(JSON)
def test_a_page_of_anything_is_a_page(value: object) -> None:
    assert isinstance(Page.model_validate({"items": value, "metadata": value}).items, list)


@pytest.mark.parametrize(
    ("value", "uses"),
    [
        ("Sell", ("Sell",)),
        (["Image", "RentCivit"], ("Image", "RentCivit")),
        ("{Image,RentCivit}", ("Image", "RentCivit")),
        (["{Image,RentCivit}"], ("Image", "RentCivit")),
        ([], ()),
        (None, ()),
    ],
)
def test_commercial_use_has_one_shape(value: object, uses: tuple[str, ...]) -> None:
    assert Model.model_validate({"id": 1, "allowCommercialUse": value}).allow_commercial_use == uses


@pytest.mark.parametrize(
    ("kib", "size"), [(151494.275390625, 155130138), ("1.5", 1536), (0, None), (None, None), (-1, None), ("x", None)]
)
def test_the_size_in_kibibytes_is_an_exact_number_of_bytes(kib: object, size: int | None) -> None:
    version = Version.model_validate({"id": 1, "files": [{"id": 2, "sizeKB": kib}]})
    assert version.files[0].size_bytes == size


def test_trigger_words_are_trimmed_unique_and_free_of_tags() -> None:
    words = [" a, b ,", "<lora:x:1> c", "", "<lora:x:1>", "c", None, 5]
    assert Version.model_validate({"id": 1, "trainedWords": words}).trigger_words == ("a, b", "c")


def test_names_are_one_line_without_control_characters() -> None:
    name = "\x1b[2Jevil\r\nOK verified\u202egnp\ud800 "
    assert Model.model_validate({"id": 1, "name": name}).name == "[2Jevil OK verifiedgnp"


@pytest.mark.parametrize(
    ("image", "level"),
    [
        ({"nsfwLevel": 4}, 4),
        ({"nsfw": "Soft"}, 2),
        ({"nsfw": "None"}, 1),
        ({"nsfw": True}, 8),
        ({"nsfw": False}, 0),
        ({"nsfwLevel": 1, "nsfw": True}, 1),
        ({}, 0),
    ],
)
def test_the_level_of_a_picture_has_had_several_shapes(image: dict[str, object], level: int) -> None:
    read = Version.model_validate({"id": 1, "images": [{"url": "https://x/y", **image}]}).images[0]
    assert (read.nsfw_level or read.nsfw) == level
