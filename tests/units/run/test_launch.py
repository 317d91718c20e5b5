"""What is set up before JAX starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fledge

ASK = """
from fledge.run.launch import prepare
prepare()
import jax, os
print(jax.config.jax_compilation_cache_dir, os.environ.get("NPROC"))
"""


def answer(**environment: str) -> list[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("JAX_COMPILATION_CACHE_DIR", "NPROC")}
    kept |= {"PYTHONPATH": str(Path(fledge.__file__).parents[1])} | environment
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, env=kept, check=True)
    return done.stdout.split()


def test_compiled_programs_are_kept_in_fledges_cache(tmp_path):
    assert answer(FLEDGE_CACHE=str(tmp_path))[0] == str(tmp_path / "xla")


def test_a_cache_that_the_user_chose_stays_chosen(tmp_path):
    assert answer(FLEDGE_CACHE=str(tmp_path), JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))[0] == str(
        tmp_path / "own"
    )


def test_a_home_that_cannot_be_written_does_not_stop_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    assert answer(FLEDGE_CACHE=str(tmp_path / "file"))[0] == "None"


def test_threads_that_the_user_chose_stay_chosen(tmp_path):
    assert answer(FLEDGE_CACHE=str(tmp_path), NPROC="7")[1] == "7"
