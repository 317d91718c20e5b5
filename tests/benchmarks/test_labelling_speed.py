"""The labelling benchmark runs, and a client that knows the limit stays under it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_client_that_is_told_the_limit_keeps_to_it(tmp_path: Path) -> None:
    words = ["--limits", "20", "--seconds", "0.5", "--workers", "4", "--latency", "0.01", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "benchmarks/labelling.py", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told, found, free = json.loads((tmp_path / "labelling.json").read_text())["rows"]
    assert told["labels"] == found["labels"] == 10 and free["limit"] is None
    assert told["refused"] <= 1 and told["of_limit"] <= 1.5
