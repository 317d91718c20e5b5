"""The speed benchmark runs, compares like with like, and says so in its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_row_is_measured_beside_its_peer(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the peer needs PyTorch (make test EXTRAS=text)")
    words = ["--row", "gru", "8", "8", "--seconds", "0.05", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "benchmarks/speed.py", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads((tmp_path / "speed.json").read_text())
    (row,) = document["rows"]
    assert row["ratio"] == pytest.approx(row["steps_per_s"] / row["peer_steps_per_s"])
    assert row["share_environment"] + row["share_acting"] + row["share_update"] == pytest.approx(1.0)
    assert 0 < row["floor_share"] < 1
    assert document["machine"]["versions"]["torch"] is not None
