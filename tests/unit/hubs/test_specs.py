import io
from pathlib import Path

import pytest

from hubtool.errors import BadSpec, StorageProblem
from hubtool.hubs.spec import MAX_LIST, ByHash, ByModel, ByPath, ByRepository, ByUrl, ByVersion, Spec, expand, parse

SHA = "ab" * 32
HERE = "http://127.0.0.1:8080"

FORMS: dict[str, Spec] = {
    "120096": ByModel(120096, bare=True),
    " 120096 ": ByModel(120096, bare=True),
    "m:120096": ByModel(120096),
    "120096@135931": ByModel(120096, 135931),
    "v:135931": ByVersion(135931),
    "https://civitai.com/models/120096": ByModel(120096),
    "https://civitai.com/models/120096/pixel-art-xl": ByModel(120096),
    "https://www.civitai.com/models/120096?modelVersionId=135931": ByModel(120096, 135931),
    "https://civitai.red/models/120096?modelVersionId=abc": ByModel(120096),
    "https://civitai.green/api/v1/models/120096": ByModel(120096),
    "https://civitai.com/model-versions/135931": ByVersion(135931),
    "https://civitai.com/api/v1/model-versions/135931": ByVersion(135931),
    "https://civitai.com/api/download/models/135931?type=Model&fileId=7": ByVersion(135931, "7"),
    f"{HERE}/models/5": ByModel(5),
    f"{HERE}/files/x.safetensors": ByUrl(f"{HERE}/files/x.safetensors"),
    "urn:air:sdxl:lora:civitai:120096@135931": ByModel(120096, 135931),
    "air:sdxl:lora:civitai:120096@135931+7.safetensors": ByModel(120096, 135931, "7"),
    "sdxl:lora:civitai:120096": ByModel(120096),
    "civitai:120096@135931": ByModel(120096, 135931),
    "URN:AIR:SDXL:LoRA:Civitai:120096": ByModel(120096),
    f"sha256:{SHA.upper()}": ByHash("sha256", SHA),
    "autov1:0F2E3571": ByHash("autov1", "0f2e3571"),
    "AutoV2:6F6D687FE0": ByHash("autov2", "6f6d687fe0"),
    "autov3:DC746A5A4DA9": ByHash("autov3", "dc746a5a4da9"),
    f"blake3:{SHA}": ByHash("blake3", SHA),
    "crc32:4DF210A6": ByHash("crc32", "4df210a6"),
    "https://example.org/a/style.safetensors?x=1": ByUrl("https://example.org/a/style.safetensors?x=1"),
    "https://evilcivitai.com/models/5": ByUrl("https://evilcivitai.com/models/5"),
    "http://localhost:9/x.safetensors": ByUrl("http://localhost:9/x.safetensors"),
    "https://huggingface.co/o/r/resolve/main/x.safetensors": ByRepository(
        "huggingface", "o/r", "main", "x.safetensors"
    ),
    "https://huggingface.co/o/r": ByRepository("huggingface", "o/r"),
    "hf:o/r@main/sub/x y.safetensors": ByRepository("huggingface", "o/r", "main", "sub/x y.safetensors"),
    "urn:air:sdxl:lora:huggingface:o/r@main": ByRepository("huggingface", "o/r", "main"),
    "./style.safetensors": ByPath(Path("style.safetensors")),
    "style.safetensors": ByPath(Path("style.safetensors")),
    "sub/dir": ByPath(Path("sub/dir")),
}


@pytest.mark.parametrize("text", FORMS)
def test_each_form_is_understood(text: str) -> None:
    assert parse(text, HERE) == FORMS[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "v:1@2",
        "sha256:abc",
        "crc32:zzzzzzzz",
        "urn:air:sdxl:lora:nowhere:1",
        "urn:air:sdxl:lora:civitai:abc@1",
        "ftp://example.org/x.safetensors",
        "file:///etc/passwd",
        "http://example.org/x.safetensors",
        "https://",
        "https://[bad",
        "12345678901234567890123",
        "a\0/b",
    ],
)
def test_everything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadSpec):
        parse(text)


def test_lists_are_expanded_in_place_without_comments(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# loras\n3\n\n  4  \n")
    assert expand(["1", "-", f"@{tmp_path / 'list'}"], io.StringIO("2\n#x\n")) == ["1", "2", "3", "4"]


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageProblem, match="nowhere"):
        expand([f"@{tmp_path / 'nowhere'}"], io.StringIO())
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(BadSpec):
        expand([f"@{tmp_path / 'binary'}"], io.StringIO())


@pytest.mark.parametrize(
    "page",
    [
        "https://civitai.com/models/99999999999999999999",
        "https://civitai.red/user/somebody",
        "https://civitai.com/images/5?token=secret",
        "https://arcenciel.io/",
    ],
)
def test_a_page_of_a_known_hub_that_shows_no_model_is_no_file(page: str) -> None:
    with pytest.raises(BadSpec, match="shows no model") as caught:
        parse(page, "https://civitai.com")
    assert "secret" not in str(caught.value)


def test_a_list_of_specs_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    with pytest.raises(BadSpec, match="16 million"):
        expand(["-"], io.StringIO("1" * (MAX_LIST + 1)))
    (tmp_path / "list").write_text("1\n" * (MAX_LIST // 2 + 1))
    with pytest.raises(BadSpec, match="16 million"):
        expand([f"@{tmp_path / 'list'}"], io.StringIO())
