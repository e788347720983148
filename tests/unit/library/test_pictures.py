"""Pictures as each program writes them, made by Pillow, say which LoRAs they were made with."""

import hashlib
import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from unit.library.small_lora import Shelf, write_lora

from hubtool.errors import FileMissing, HubtoolError
from hubtool.library.index import Index
from hubtool.library.picture_texts import MAX_TEXT, picture_texts
from hubtool.library.resolving import all_generators, read_input, resolve_all

A1111 = """a castle <lora:ink:0.8>, <lora:old name:0.5:0.7>
Negative prompt: <lora:never:1>
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Lora hashes: "ink: 0123456789ab, old name: 0xabcdef0123", Version: v1.10"""
FORGE_CIVITAI = """a castle <lora:ink:0.8>
Steps: 20, Sampler: Euler, Seed: 1, Hashes: {"model": "aa11bb22cc", "lora:ink": "AB12CD34EF"}, \
Civitai resources: [{"type":"checkpoint","modelVersionId":1},\
{"type":"lora","weight":0.6,"modelVersionId":42,"modelName":"Fog"}], Version: f2"""
SDNEXT = """a castle <lora:ink:0.8>, ink
Negative prompt: none
Steps: 20, Sampler: Euler, Seed: 1, LoRA networks: "ink, fog", LoRA hashes: "01234567, 89abcdef", App: SD.Next"""
COMFY = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["4", 0]}},
    "4": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "styles\\ink.safetensors", "strength_model": 0.8, "strength_clip": 0.5},
    },
    "5": {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": "fog.safetensors", "strength_model": 0.4}},
    "6": {
        "class_type": "Power Lora Loader (rgthree)",
        "inputs": {
            "lora_1": {"on": True, "lora": "one.safetensors", "strength": 0.9, "strengthTwo": 0.1},
            "lora_2": {"on": False, "lora": "off.safetensors", "strength": 1},
        },
    },
    "7": {
        "class_type": "Lora Loader (LoraManager)",
        "inputs": {
            "text": "<lora:two:0.3>",
            "loras": {"__value__": [{"name": "two", "strength": "0.3", "clipStrength": "0.3", "active": True}]},
        },
    },
    "8": {
        "class_type": "CR LoRA Stack",
        "inputs": {
            "switch_1": "On",
            "lora_name_1": "three.safetensors",
            "model_weight_1": 0.2,
            "clip_weight_1": 0.1,
            "switch_2": "Off",
            "lora_name_2": "off2.safetensors",
            "model_weight_2": 1,
            "clip_weight_2": 1,
        },
    },
    "9": {
        "class_type": "LoRA Stacker",
        "inputs": {
            "input_mode": "simple",
            "lora_count": 1,
            "lora_name_1": "four.safetensors",
            "lora_wt_1": 0.6,
            "lora_name_2": "unused.safetensors",
        },
    },
    "10": {
        "class_type": "easy loraStack",
        "inputs": {"toggle": True, "num_loras": 1, "lora_1_name": "five.safetensors", "lora_1_strength": 0.7},
    },
    "11": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "urn:air:sdxl:lora:civitai:7@77", "strength_model": 1, "strength_clip": 1},
    },
}
WORKFLOW = {
    "nodes": [
        {
            "id": 1,
            "type": "LoraLoader",
            "mode": 0,
            "widgets_values": ["ink.safetensors", 0.8, 0.5],
            "properties": {
                "models": [{"name": "ink.safetensors", "url": "https://h/ink", "hash": "AB" * 32, "directory": "loras"}]
            },
        },
        {"id": 2, "type": "LoraLoader", "mode": 4, "widgets_values": ["bypassed.safetensors", 1, 1]},
        {
            "id": 3,
            "type": "Power Lora Loader (rgthree)",
            "widgets_values": [{}, {"type": "x"}, {"on": True, "lora": "one.safetensors", "strength": 0.9}],
        },
    ],
    "definitions": {
        "subgraphs": [{"nodes": [{"type": "LoraLoaderModelOnly", "widgets_values": ["inner.safetensors", 0.3]}]}]
    },
}
SWARM = {
    "sui_image_params": {
        "prompt": "x",
        "loras": ["styles/ink", "fog"],
        "loraweights": ["0.8", "1"],
        "loratencweights": ["0.5", "1"],
    },
    "sui_models": [{"name": "styles/ink.safetensors", "param": "loras", "hash": "0x" + "cd" * 32}],
}
INVOKE = {
    "app_version": "5.0",
    "loras": [
        {
            "model": {"key": "k", "hash": "blake3:" + "ef" * 32, "name": "Ink", "base": "sdxl", "type": "lora"},
            "weight": 0.75,
        }
    ],
}
FOOOCUS = {
    "base_model": "x",
    "lora_combined_1": "ink.safetensors : 0.5",
    "loras": [["ink", 0.5, "0123456789"]],
    "prompt": "p",
}
FOOOCUS_A1111 = (
    "p\nNegative prompt: n\nSteps: 30, Sampler: x, Seed: 1, "
    'Lora hashes: "ink: 0123456789", Lora weights: "ink: 0.5", Version: Fooocus v2.5'
)


JXL = b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4s", 12, b"ftyp") + b"jxl "
EVERY = [".png", ".jpg", ".webp", ".avif", ".jxl"]


def picture(path, texts, comment_prefix=b"UNICODE\0", encoding="utf-16-be"):
    """A picture in the format of its extension; EXIF for all but PNG, as the programs do."""
    image = Image.new("RGB", (4, 4))
    if path.suffix == ".png":
        info = PngInfo()
        for key, text in texts.items():
            info.add_itxt(key, text) if not text.isascii() else info.add_text(key, text)
        image.save(path, pnginfo=info)
        return path
    exif = Image.Exif()
    tags = {"Model": 0x0110, "Make": 0x010F}
    for key, text in texts.items():
        if key in tags:
            exif[tags[key]] = text
        else:
            exif.get_ifd(0x8769)[0x9286] = comment_prefix + text.encode(encoding)
    if path.suffix == ".jxl":  # Pillow writes none: the container with its signature and a box of EXIF
        box = bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")
        path.write_bytes(JXL + struct.pack(">I4s", 8 + len(box), b"Exif") + box)
        return path
    image.save(path, exif=exif.tobytes())
    return path


def uses(path):
    reading = read_input(str(path))
    return reading.program, {
        mention.name: (mention.weight, mention.text_encoder, mention.hash) for mention in reading.mentions
    }


@pytest.mark.parametrize("suffix", EVERY)
def test_a1111(tmp_path, suffix):
    program, found = uses(picture(tmp_path / f"a{suffix}", {"parameters": A1111}))
    assert program == "infotext"
    assert found == {"ink": (0.8, None, "0123456789ab"), "old name": (0.7, 0.5, "abcdef0123")}


@pytest.mark.parametrize(
    ("prefix", "encoding"), [(b"UNICODE\0", "utf-16-le"), (b"ASCII\0\0\0", "utf-8"), (b"", "utf-8")]
)
def test_comments_in_other_encodings(tmp_path, prefix, encoding):
    path = picture(tmp_path / "a.jpg", {"parameters": A1111}, prefix, encoding)
    assert set(uses(path)[1]) == {"ink", "old name"}


def test_civitais_hashes_and_resources(tmp_path):
    _, found = uses(picture(tmp_path / "a.png", {"parameters": FORGE_CIVITAI}))
    assert found == {"ink": (0.8, None, "ab12cd34ef"), "Fog": (0.6, None, "")}
    assert [mention.spec for mention in read_input(str(tmp_path / "a.png")).mentions] == ["", "v:42"]


@pytest.mark.parametrize("suffix", EVERY)
def test_sdnext(tmp_path, suffix):
    _, found = uses(picture(tmp_path / f"a{suffix}", {"parameters": SDNEXT}))
    assert found == {"ink": (0.8, None, "01234567"), "fog": (1.0, None, "89abcdef")}


def test_comfyuis_api_graph(tmp_path):
    program, found = uses(picture(tmp_path / "a.png", {"prompt": json.dumps(COMFY), "workflow": json.dumps(WORKFLOW)}))
    assert program == "comfyui"
    assert {name: values[:2] for name, values in found.items()} == {
        "styles\\ink.safetensors": (0.8, 0.5),
        "fog.safetensors": (0.4, None),
        "one.safetensors": (0.9, 0.1),
        "two": (0.3, None),
        "three.safetensors": (0.2, 0.1),
        "four.safetensors": (0.6, None),
        "five.safetensors": (0.7, None),
        "urn:air:sdxl:lora:civitai:7@77": (1.0, None),
    }
    assert found["styles\\ink.safetensors"][2] == "ab" * 32  # from the workflow's list of models


def test_comfyuis_editor_graph_and_its_webp(tmp_path):
    expected = {"ink.safetensors": (0.8, 0.5), "one.safetensors": (0.9, None), "inner.safetensors": (0.3, None)}
    for path in (
        picture(tmp_path / "a.png", {"workflow": json.dumps(WORKFLOW)}),
        picture(tmp_path / "b.webp", {"Make": "workflow:" + json.dumps(WORKFLOW)}),
        picture(tmp_path / "b.jpg", {"Make": "workflow:" + json.dumps(WORKFLOW)}),
        picture(tmp_path / "b.avif", {"Make": "Workflow:" + json.dumps(WORKFLOW)}),
        tmp_path / "c.json",
    ):
        path.write_text(json.dumps(WORKFLOW)) if path.suffix == ".json" else None
        program, found = uses(path)
        assert program == "comfyui"
        assert {name: values[:2] for name, values in found.items()} == expected


@pytest.mark.parametrize("suffix", EVERY)
@pytest.mark.parametrize(
    ("program", "table", "expected"),
    [
        ("swarmui", SWARM, {"styles/ink": (0.8, 0.5, "cd" * 32), "fog": (1.0, 1.0, "")}),
        ("fooocus", FOOOCUS, {"ink": (0.5, None, "0123456789")}),
    ],
)
def test_programs_that_write_json(tmp_path, suffix, program, table, expected):
    assert uses(picture(tmp_path / f"a{suffix}", {"parameters": json.dumps(table)})) == (program, expected)


def test_invokeai_and_fooocus_in_a1111s_scheme(tmp_path):
    assert uses(picture(tmp_path / "a.png", {"invokeai_metadata": json.dumps(INVOKE)})) == (
        "invokeai",
        {"Ink": (0.75, None, "ef" * 32)},
    )
    assert uses(picture(tmp_path / "b.png", {"parameters": FOOOCUS_A1111})) == (
        "infotext",
        {"ink": (0.5, None, "0123456789")},
    )


def test_every_generator_has_a_source():
    assert all(generator.source for generator in all_generators().values())


def test_a_prompt_on_the_command_line_is_a_text():
    assert uses("a <lora:ink:0.5>") == ("infotext", {"ink": (0.5, None, "")})


def test_a_picture_that_says_nothing_and_a_path_without_a_file_are_errors(tmp_path):
    with pytest.raises(HubtoolError, match="says which LoRAs"):
        read_input(str(picture(tmp_path / "a.png", {})))
    with pytest.raises(FileMissing):
        read_input(str(tmp_path / "no.png"))


def test_a_compressed_text_cannot_fill_the_memory(tmp_path):
    packed = zlib.compress(bytes(MAX_TEXT + 1), 9)
    chunk = b"parameters\0\0" + packed
    body = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(chunk)) + b"zTXt" + chunk + bytes(4)
    assert picture_texts(body) == {}
    small = b"parameters\0\0" + zlib.compress(A1111.encode())
    assert picture_texts(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(small)) + b"zTXt" + small + bytes(4)) == {
        "parameters": A1111
    }


def boxes(*parts):
    return b"".join(struct.pack(">I4s", 8 + len(data), kind) + data for kind, data in parts)


@given(body=st.binary(max_size=60), more=st.binary(max_size=60))
def test_any_table_of_an_avif_is_read_without_a_failure(body, more):
    item = boxes((b"infe", b"\2\0\0\0\0\1\0\0Exif"))
    meta = bytes(4) + boxes((b"iinf", b"\0\0\0\0\0\1" + item), (b"iloc", more))
    for meta_data in (meta, bytes(4) + boxes((b"iinf", body), (b"iloc", more)), body):
        assert isinstance(picture_texts(boxes((b"ftyp", b"avif"), (b"meta", meta_data)) + body), dict)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_form_of_an_avifs_tables(version):
    tiff = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x0110, 2, 6, 26) + bytes(4) + b"hello\0"
    wide = version == 2
    info = (
        b"\3\0\0\0" + struct.pack(">IH", 7, 0) + b"Exif" if wide else b"\2\0\0\0" + struct.pack(">HH", 7, 0) + b"Exif"
    )
    count = struct.pack(">I" if wide else ">H", 1)
    iinf = bytes([wide]) + bytes(3) + count + boxes((b"infe", info))
    place = struct.pack(">I" if wide else ">H", 7) + (b"\0\0" if version else b"") + b"\0\0"
    exif = bytes(4) + tiff
    head = boxes((b"ftyp", b"avif"))
    size = (
        len(boxes((b"iinf", iinf))) + 8 + 6 + 2 * (1 + wide) + len(place) + 8
    )  # of what is in `meta` behind its version
    begin = len(head) + 8 + 4 + size + 8
    extent = struct.pack(">HIH", 1, begin, len(exif))
    iloc = bytes([version]) + bytes(3) + b"\x42\0" + count + place + extent
    meta = boxes((b"meta", bytes(4) + boxes((b"iinf", iinf), (b"iloc", iloc))))
    assert picture_texts(head + meta + boxes((b"mdat", exif))) == {"Model": "hello"}


def test_strengths_that_primitive_nodes_give_are_followed(tmp_path):
    graph = {
        "1": {"class_type": "PrimitiveFloat", "inputs": {"value": 0.35}},
        "2": {"class_type": "LoraLoader", "inputs": {"lora_name": "ink.safetensors", "strength_model": ["1", 0]}},
        "3": {"class_type": "Efficient Loader", "inputs": {"lora_name": "fog.safetensors", "lora_model_strength": 0.2,
              "lora_clip_strength": 0.1}},
        "4": {"class_type": "LoraLoader", "inputs": {"lora_name": "own.safetensors", "strength_model": ["4", 0]}},
        "5": {"class_type": "LoraLoader", "inputs": {"lora_name": ["6", 0], "strength_model": 0.5}},
        "6": {"class_type": "Selector", "inputs": {"lora_name": "picked.safetensors"}},
    }  # fmt: skip
    _, found = uses(picture(tmp_path / "a.png", {"prompt": json.dumps(graph)}))
    assert {name: values[:2] for name, values in found.items()} == {
        "ink.safetensors": (0.35, None),
        "fog.safetensors": (0.2, 0.1),
        "own.safetensors": (1.0, None),
        "picked.safetensors": (0.5, None),
    }


@given(
    body=st.binary(max_size=200),
    start=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1\0\x60Exif\0\0II*\0", b"RIFF\0\0\0\0WEBPEXIF\x50\0\0\0MM\0*"]
    ),
)
def test_any_bytes_are_read_without_a_failure(body, start):
    assert isinstance(picture_texts(start + body), dict)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "nodes",
                        "loras",
                        "lora_name",
                        "lora_1",
                        "model",
                        "inputs",
                        "class_type",
                        "widgets_values",
                        "models",
                        "name",
                        "strength",
                        "sui_image_params",
                        "base_model",
                        "definitions",
                        "subgraphs",
                    ]
                ),
                x,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_without_a_failure(value):
    for key in ("prompt", "workflow", "parameters", "invokeai_metadata", "text"):
        for generator in all_generators().values():
            found = generator.read({key: json.dumps(value)})
            assert found is None or all(-1e6 < mention.weight < 1e6 for mention in found)


@pytest.fixture
def library(tmp_path):
    shelf = Shelf(tmp_path)
    for seed, name in enumerate(("ink", "here")):
        shelf.install(write_lora(tmp_path / "from" / f"{name}.safetensors", seed))
    with Index(shelf.index_path) as index:
        yield index, {one.name: one for one in index.adapters()}


def test_hashes_count_before_names(library):
    index, known = library
    text = f"""<lora:renamed:1> <lora:ink:1> <lora:here:1> <lora:gone:1> <lora:who:1>
Steps: 1, Sampler: x, Seed: 1, Lora hashes: "renamed: {known["ink"].digests.autov3}, ink: 000000000000, gone: 111111111111" """
    found = {one.name: one for one in resolve_all(index, read_input(text))}
    assert (found["renamed"].status, found["renamed"].matched, found["renamed"].path) == (
        "renamed",
        "hash",
        known["ink"].path,
    )
    assert (found["ink"].status, found["ink"].path) == ("missing", None)
    assert "other content" in found["ink"].note
    assert (found["here"].status, found["here"].matched) == ("have", "name")
    assert (found["gone"].status, found["gone"].spec) == ("missing", "autov3:111111111111")
    assert (found["who"].status, found["who"].spec) == ("unknown", None)


def test_a_hash_that_forge_made_of_a_files_name_is_no_evidence(library):
    index, known = library
    of_names = {name: hashlib.sha256(f"{name}.safetensors".encode()).hexdigest()[:12] for name in ("ink", "gone")}
    text = f"""<lora:ink:1> <lora:gone:1>
Steps: 1, Sampler: x, Seed: 1, Lora hashes: "ink: {of_names["ink"]}, gone: {of_names["gone"]}" """
    found = {one.name: one for one in resolve_all(index, read_input(text))}
    assert (found["ink"].status, found["ink"].matched, found["ink"].path) == ("have", "name", known["ink"].path)
    assert (found["gone"].status, found["gone"].spec) == ("unknown", None)
    assert "Forge" in found["gone"].note


def test_the_hash_of_nothing_is_no_evidence(library):
    index, _ = library
    text = '<lora:ink:1>\nSteps: 1, Sampler: x, Seed: 1, Lora hashes: "ink: e3b0c44298fc"'
    assert resolve_all(index, read_input(text))[0].status == "have"


def test_eight_digits_alone_name_no_stranger(library):
    index, known = library
    first, own = known["ink"].digests, known["here"].digests
    text = f"""<lora:other:1> <lora:sdnext:1> <lora:here:1>
Steps: 1, Sampler: x, Seed: 1, Lora hashes: "other: {first.crc32}, sdnext: {first.sha256[:8]}, here: {own.crc32}" """
    found = {one.name: one for one in resolve_all(index, read_input(text))}
    assert (found["other"].status, found["other"].path) == ("unknown", None)
    assert (found["sdnext"].status, found["sdnext"].path) == ("renamed", known["ink"].path)
    assert (found["here"].status, found["here"].matched) == ("have", "hash")


def test_each_program_says_what_kind_of_hash_it_writes(tmp_path, library):
    index, known = library
    table = SWARM | {"sui_models": [{"name": "styles/ink.safetensors", "hash": "0x" + "cd" * 32}]}
    swarm = read_input(str(picture(tmp_path / "a.png", {"parameters": json.dumps(table)})))
    assert resolve_all(index, swarm)[0].spec == "autov3:cdcdcdcdcdcd"
    invoke = read_input(str(picture(tmp_path / "b.png", {"invokeai_metadata": json.dumps(INVOKE)})))
    assert resolve_all(index, invoke)[0].spec == f"blake3:{'ef' * 32}"
    table["sui_models"][0]["hash"] = "0x" + known["here"].digests.tensors_sha256
    swarm = read_input(str(picture(tmp_path / "c.png", {"parameters": json.dumps(table)})))
    assert resolve_all(index, swarm)[0].path == known["here"].path


def test_a_random_number_in_the_place_of_a_hash_is_none(tmp_path):
    table = {"loras": [{"model": {"name": "Ink", "hash": "random:" + "ef" * 32}, "weight": 1}]}
    path = picture(tmp_path / "a.png", {"invokeai_metadata": json.dumps(table)})
    assert uses(path)[1] == {"Ink": (1.0, None, "")}


def test_a_lora_of_swarmuis_that_is_for_a_section_alone_says_so(tmp_path, library):
    index, _ = library
    used = SWARM["sui_image_params"] | {"lorasectionconfinement": ["0", "5"]}
    text = json.dumps({"sui_image_params": used})
    assert [one.section for one in resolve_all(index, read_input(text))] == ["", "5"]


@pytest.mark.parametrize("tail", ["", "\nSteps: 20", "\nSteps: 20, Sampler: x"])
@pytest.mark.parametrize("suffix", EVERY)
def test_a_prompt_with_few_parameters_or_none_is_one(tmp_path, suffix, tail):
    path = picture(tmp_path / f"a{suffix}", {"parameters": f"x <lora:t:1>{tail}"})
    assert uses(path) == ("infotext", {"t": (1.0, None, "")})


@pytest.mark.parametrize(
    "body", [b"hi", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\nbroken", b"[1]", b"RIFFabcdWEBP", b""]
)
def test_a_file_that_is_no_picture_and_no_workflow_is_an_error(tmp_path, body):
    (tmp_path / "a.png").write_bytes(body)
    with pytest.raises(HubtoolError, match="says which LoRAs"):
        read_input(str(tmp_path / "a.png"))


def test_a_text_file_with_tags_or_parameters_is_read(tmp_path):
    (tmp_path / "a.txt").write_text("x <lora:ink:0.5>")
    assert uses(tmp_path / "a.txt") == ("infotext", {"ink": (0.5, None, "")})
    (tmp_path / "b.txt").write_text("x\nSteps: 1, Sampler: x, Seed: 1")
    assert uses(tmp_path / "b.txt") == ("infotext", {})
