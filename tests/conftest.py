"""What every test gets: a home of its own, no tokens, and property tests of bounded length."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from support.in_process import Ended, Run

from hubtool.cli import root
from hubtool.cli._errors import run_guarded

if TYPE_CHECKING:
    from pathlib import Path

# one test process a core already: threads of torch on top of that only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "ours",
    max_examples=int(os.environ.get("EXAMPLES", "40")),  # EXAMPLES=20000 is the ten-minute fuzz run
    derandomize="EXAMPLES" not in os.environ,  # a gate that fails fails again; looking for news is a run with EXAMPLES
    deadline=None,  # two busy cores
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("ours")

_NOT_OURS = ("HUBTOOL_", "CIVITAI_", "HF_TOKEN", "HF_HOME")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def command(*arguments: object) -> Ended:
        handler = signal.getsignal(signal.SIGTERM)
        try:
            code = run_guarded(root, [str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, handler)
        return Ended(code, *capsys.readouterr())

    return command


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings, index and tokens of the person who runs the tests are neither read nor changed."""
    for name in [name for name in os.environ if name.startswith(_NOT_OURS)]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HUBTOOL_HOME", str(home))
    return home
