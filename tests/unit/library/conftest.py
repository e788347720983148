"""A project with two LoRAs in its folder, one of which a sidecar knows, for the tests of manifest and lock."""

import json
from dataclasses import replace

import pytest
from unit.library.small_lora import write_lora
from unit.library.small_project import opened

from hubtool.library.project import Project
from hubtool.library.scan import fresh_index, scan_place


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "models" / "Lora"
    write_lora(path / "ink.safetensors", 1)
    write_lora(path / "sub" / "fog.safetensors", 2)
    version = {"id": 7, "modelId": 3, "baseModel": "SD 1.5", "model": {"name": "Fog"}, "creator": {"username": "ada"}}
    (path / "sub" / "fog.civitai.info").write_text(json.dumps(version))
    return path


@pytest.fixture
def project(tmp_path, folder):
    settings, place = opened(tmp_path)
    with fresh_index(settings, print) as index:
        scan_place(index, place)
        yield Project(tmp_path, settings, place, index, print)


@pytest.fixture
def trial(project):
    """The same project, where nothing may be written."""
    return replace(project, dry_run=True)
