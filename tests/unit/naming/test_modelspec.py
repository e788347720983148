"""Names that other programs know architectures by."""

import pytest

from hubtool.naming.architecture import architecture, architecture_ids
from hubtool.naming.modelspec import _IDS, architecture_value, implementation_value
from hubtool.operations.rules.metadata import _hints, _related


def test_every_id_in_the_table_is_an_architecture():
    assert set(_IDS) <= set(architecture_ids())


@pytest.mark.parametrize("id", architecture_ids())
def test_the_name_of_an_architecture_is_not_taken_for_that_of_another(id):
    value = architecture_value(architecture(id), {}).lower()
    named = [other for other in architecture_ids() if value.startswith(_hints(other))]
    assert not named or any(_related(id, other) for other in named)


def test_v_prediction_has_an_id_of_its_own():
    value = architecture_value(architecture("sd2"), {"ss_base_model_version": "sd_v2_v"})
    assert value == "stable-diffusion-v2-768-v/lora"


@pytest.mark.parametrize(
    ("id", "dialect", "value"),
    [
        ("sd1", "kohya", "diffusers"),
        ("sdxl", "kohya", "https://github.com/Stability-AI/generative-models"),
        ("flux1", "kohya", "https://github.com/black-forest-labs/flux"),
        ("flux1", "diffusers", "diffusers"),
        ("z-image", "comfyui", "https://github.com/comfyanonymous/ComfyUI"),
    ],
)
def test_the_implementation_is_the_code_whose_names_the_keys_follow(id, dialect, value):
    assert implementation_value(architecture(id), dialect) == value
