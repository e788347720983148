"""The TOML tables expand to exactly the modules of the reference classes, in both namings."""

from collections import Counter

import pytest
from support.keylists import FIXTURES, modules

from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture, architecture_ids, expand
from hubtool.naming.spelling import denoiser_names

DENOISERS = [id for id in ("sd1", "sd2", "sdxl", "flux1") if id in architecture_ids()]
ENCODERS = [
    ("sd1", Component.CLIP_L, "clip-l"),
    ("sd2", Component.CLIP_H, "openclip-h"),
    ("sdxl", Component.CLIP_L, "clip-l"),
    ("sdxl", Component.CLIP_G, "openclip-bigg"),
    ("flux1", Component.CLIP_L, "clip-l"),
    ("flux1", Component.T5, "t5-xxl"),
]


def test_the_four_base_models_are_known() -> None:
    assert DENOISERS == ["sd1", "sd2", "sdxl", "flux1"]
    assert {path.stem for path in (FIXTURES / "modules").glob("*.json")} >= set(DENOISERS)


@pytest.mark.parametrize("id", DENOISERS)
def test_canonical_paths_and_shapes_are_those_of_the_reference_class(id: str) -> None:
    assert dict(architecture(id).modules) == dict(modules(id).shapes)


@pytest.mark.parametrize("id", DENOISERS)
def test_the_authors_names_are_those_of_their_own_class(id: str) -> None:
    ours = {path: name for path, name in architecture(id).original.items() if len(architecture(id).modules[path]) > 1}
    theirs = {path: name for path, name in modules(id).original.items() if len(modules(id).shapes[path]) > 1}
    assert ours == theirs


@pytest.mark.parametrize("id", DENOISERS)
def test_fused_rows_and_swapped_halves_are_those_of_the_authors_class(id: str) -> None:
    fused, table = architecture(id).fused, modules(id)
    whole = {name: row for name, row in fused.items() if not row.swapped and not row.partial}
    assert {name: (row.parts, row.rows) for name, row in whole.items()} == dict(table.fused)
    assert {name: row.parts[0] for name, row in fused.items() if row.swapped} == dict(table.swapped)


@pytest.mark.parametrize("id", DENOISERS)
def test_every_weight_has_exactly_one_home_in_the_authors_naming(id: str) -> None:
    target = architecture(id)
    whole = [fused for fused in target.fused.values() if not fused.partial]
    homes = Counter([*target.original, *(part for fused in whole for part in fused.parts)])
    weights = {path for path, shape in target.modules.items() if len(shape) > 1}
    assert {path for path in weights if homes[path] != 1} == set()


@pytest.mark.parametrize(("id", "component", "name"), ENCODERS)
def test_text_encoders_have_the_layers_of_their_class(id: str, component: Component, name: str) -> None:
    ours, theirs = architecture(id).encoders[component].modules, modules(name).shapes
    embeddings = {path for path in theirs if "embed" in path or path.endswith(("shared", "relative_attention_bias"))}
    assert dict(ours) == {path: shape for path, shape in theirs.items() if path not in embeddings}


@pytest.mark.parametrize("id", architecture_ids())
@pytest.mark.parametrize("separator", [".", "_"])
def test_no_two_modules_get_one_name_in_either_naming(id: str, separator: str) -> None:
    for naming in ("diffusers", "original"):
        names = Counter(name.replace(".", separator) for _, name in denoiser_names(architecture(id), naming))
        assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("id", architecture_ids())
def test_no_two_encoder_modules_get_one_flat_name(id: str) -> None:
    for encoder in architecture(id).encoders.values():
        assert len({path.replace(".", "_") for path in encoder.modules}) == len(encoder.modules)


@pytest.mark.parametrize("id", architecture_ids())
def test_the_shape_of_a_fused_module_is_its_parts_stacked(id: str) -> None:
    target = architecture(id)
    for name, fused in target.fused.items():
        shapes = [target.modules[part] for part in fused.parts]
        assert {shape[1:] for shape in shapes} == {shapes[0][1:]}
        assert target.shape(ModuleRef(Component.DENOISER, name)) == (sum(s[0] for s in shapes), *shapes[0][1:])


@pytest.mark.parametrize("id", architecture_ids())
def test_a_module_that_does_not_exist_has_no_shape(id: str) -> None:
    target = architecture(id)
    assert target.shape(ModuleRef(Component.DENOISER, "nothing.here")) is None
    assert target.shape(ModuleRef(Component.BERT, "encoder")) is None


@pytest.mark.parametrize(
    ("template", "paths"),
    [
        ("a", ["a"]),
        ("a.{0..2}", ["a.0", "a.1", "a.2"]),
        ("{1,3}.b", ["1.b", "3.b"]),
        ("a.{0..1}.{5..6}", ["a.0.5", "a.0.6", "a.1.5", "a.1.6"]),
        ("a.{9..10}", ["a.9", "a.10"]),
    ],
)
def test_a_template_expands_to_every_combination_in_order(template: str, paths: list[str]) -> None:
    assert list(expand(template)) == paths
