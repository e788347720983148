"""The installed `hubtool` command as a subprocess, with what it used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUBTOOL = Path(sys.executable).with_name("hubtool")


@dataclass(frozen=True)
class Ran:
    """A finished run."""

    code: int
    out: str
    err: str
    seconds: float
    peak_mb: float

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        return json.loads(self.out)


def hubtool(*arguments: object, cwd: Path | None = None, **environment: str) -> Ran:
    """Run the command to its end; its settings are below HUBTOOL_HOME, which every test has to itself."""
    measured = [sys.executable, "-c", _MEASURE, str(HUBTOOL), *map(str, arguments)]
    done = subprocess.run(
        measured, capture_output=True, cwd=cwd, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, check=False
    )
    err, _, figures = done.stderr.decode("utf-8", "replace").rpartition("\0")
    seconds, peak = figures.split()
    return Ran(done.returncode, done.stdout.decode("utf-8", "replace"), err, float(seconds), float(peak))


# a parent of its own for each run, because a process only learns the peak of all its children together
_MEASURE = """
import resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.call(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
sys.stderr.write(f"\\0{time.monotonic() - start} {peak / (1 << 20 if sys.platform == 'darwin' else 1 << 10)}")
sys.exit(code if code >= 0 else 128 - code)
"""
