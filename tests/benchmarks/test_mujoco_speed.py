"""The MuJoCo benchmark runs, and its ratios are those of the rates beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_row_is_measured_beside_the_engine_and_gymnasium(tmp_path: Path) -> None:
    words = ["--envs", "4", "--seconds", "0.01", "--turns", "1", "--no-learning", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "benchmarks/mujoco.py", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads((tmp_path / "mujoco.json").read_text())
    (row,) = document["rows"]
    assert abs(row["of_engine"] - row["fledge"] / row["engine"]) < 1e-9
    assert abs(row["over_gymnasium"] - row["fledge"] / row["gymnasium"]) < 1e-9
    assert document["machine"]["versions"]["mujoco"] is not None
    assert "deprecated" not in done.stderr
