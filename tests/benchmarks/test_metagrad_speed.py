"""The benchmark of meta-gradients runs, and its ratios are those of the times beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def test_an_estimate_is_measured_beside_pytorch(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the peer needs PyTorch (the extra 'bench')")
    words = ["--lifetimes", "2", "--updates", "3", "--turns", "1", "--seconds", "0.01", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "benchmarks/metagrad.py", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = json.loads((tmp_path / "metagrad.json").read_text())["rows"]
    assert all(x < 1e-4 for name, x in row.items() if name.startswith("off_")) and "off_torch" in row
    assert abs(row["over_torch"] - row["torch_ms"] / row["fledge_ms"]) < 1e-9
