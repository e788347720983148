"""A short form of tests/soak/kill_downloads.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "soak" / "kill_downloads.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes fork")
def test_downloads_that_are_killed_again_and_again_end_right_and_fetch_little_twice() -> None:
    done = subprocess.run(
        [sys.executable, SOAK, "--kills", "12", "--seed", "3"], capture_output=True, check=False, timeout=120
    )
    seen = json.loads(done.stdout)
    assert (done.returncode, seen["faults"], seen["kills"]) == (0, [], 12)
    assert seen["resumed"] > 3
    assert seen["most_again"] <= 1 << 20
