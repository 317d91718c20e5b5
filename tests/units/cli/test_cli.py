"""The command line: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

import fledge
from fledge.cli import lists
from fledge.cli.main import main

BROKEN = """
kind = "meta-rl"
abuot = "a typo in the first lines"

[env]
family = "gridnva"
n_episodes = 0

[agent]
memory = "gruu"
memroy_size = 8

[learner]
n_envs = 10
n_minibatches = 3
discount = 1.5
learning_rate = "fast"

[evaluation]
split = "tset"

[scale.lpatop.train]
seeds = 1
"""

INTENDED = (
    "abuot: there is no such setting. Did you mean 'about'?",
    "There is no environment 'gridnva'. Did you mean 'gridnav'?",
    "env.n_episodes is at least 1, not 0.",
    "agent.memory: There is no memory 'gruu'. Did you mean 'gru'?",
    "agent.memroy_size: there is no such setting. Did you mean 'memory_size'?",
    "learner.n_minibatches: 10 environments cannot be cut into 3 equal parts.",
    "learner.discount is between 0 and 1, not 1.5.",
    "learner.learning_rate is a number, not 'fast'.",
    "evaluation.split is one of 'train', 'test', 'ood', not 'tset'. Did you mean 'test'?",
    "scale.lpatop: There is no scale 'lpatop'. Did you mean 'laptop'?",
)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    return code, *capsys.readouterr()


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(BROKEN)
    return path


@pytest.mark.parametrize("message", INTENDED)
def test_checking_a_broken_recipe_gives_each_intended_message(broken, capsys, message):
    assert message in said(capsys, "check", str(broken))[2]


def test_checking_a_broken_recipe_counts_its_faults(broken, capsys):
    assert f"has {len(INTENDED)} faults:" in said(capsys, "check", str(broken))[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["run", "rl2-gridnv"], "There is no recipe 'rl2-gridnv'. Did you mean 'rl2-gridnav'?"),
        (["run", "rl2-gridnav", "--sede", "3"], "--seeds"),
        (["run", "rl2-gridnav", "--scale", "labtop"], "There is no scale 'labtop'. Did you mean 'laptop'?"),
        (["run", "rl2-gridnav", "env.family=gridnva"], "Did you mean 'gridnav'?"),
        (["run", "rl2-gridnav", "learner.n_env=8"], "learner.n_env: there is no such setting. Did you mean 'n_envs'?"),
        (["run", "rl2-gridnav", "learner.n_envs"], "'learner.n_envs' is not key.sub=value"),
        (["run", "rl2-gridnav", "--seeds", "0"], "train.seeds is at least 1, not 0."),
        (
            ["run", "rl2-gridnav", "--track", "tensorbord"],
            "There is no tracker 'tensorbord'. Did you mean 'tensorboard'?",
        ),
        (["run", "missing.toml"], "There is no file missing.toml"),
        (["show", "rl2-gridnv"], "Did you mean 'rl2-gridnav'?"),
        (["ls", "recipies"], "There is no list 'recipies'. Did you mean 'recipes'?"),
        (["cp", "rl2-gridnav", "nowhere/my.toml"], "There is no folder nowhere"),
        (["check", "env"], "Which environment?"),
        (["check", "env", "nowhere:Maze"], "There is no module 'nowhere'"),
        (["check", "env", "gridnva"], "There is no environment 'gridnva'. Did you mean 'gridnav'?"),
        (["resume", "nowhere"], "There is no folder nowhere"),
        (["report", "nowhere"], "There is no folder nowhere"),
        (["bench", "spede"], "ench"),
    ],
)
def test_what_is_wrong_gets_one_message_and_exit_code_2(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = said(capsys, *words)
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_a_refusal_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said(capsys, "run", "rl2-gridnav", "learner.n_env=8")
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("FLEDGE_DEBUG", "1")
    assert "Traceback" in said(capsys, "show", "rl2-gridnv")[2]


def test_a_truncated_checkpoint_without_another_is_one_message(gridnav_run, tmp_path, capsys):
    folder = shutil.copytree(gridnav_run, tmp_path / "run")
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    code, _, error = said(capsys, "eval", str(folder))
    assert (code, "is damaged" in error, "run again" in error) == (2, True, True)


def test_a_way_to_adapt_that_is_none_is_refused(gridnav_run, capsys):
    code, _, error = said(capsys, "eval", str(gridnav_run), "--adapt", "scrach")
    assert (code, "Did you mean 'scratch'?" in error) == (2, True)


def test_a_budget_without_learning_on_is_refused(gridnav_run, capsys):
    code, _, error = said(capsys, "eval", str(gridnav_run), "--budget", "1000")
    assert (code, "Add --adapt all" in error) == (2, True)


def test_a_budget_below_one_update_is_refused(gridnav_run, capsys):
    code, _, error = said(capsys, "eval", str(gridnav_run), "--adapt", "all", "--budget", "1000")
    assert (code, "one update takes 960" in error, "Give 9,600 or more" in error) == (2, True, True)


def test_the_command_line_gives_the_numbers_of_the_api(gridnav_run, tmp_path, capsys):
    code = said(capsys, "run", "rl2-gridnav", "--scale", "smoke", "--out", str(tmp_path / "run"))[0]
    assert code == 0
    assert (tmp_path / "run" / "curves.csv").read_bytes() == (gridnav_run / "curves.csv").read_bytes()


def test_eval_prints_the_adaptation_curve(gridnav_run, capsys):
    code, out, _ = said(capsys, "eval", str(gridnav_run))
    assert (code, "rl2-gridnav: adaptation on 5 test tasks, 2 seeds" in out) == (0, True)


def test_eval_writes_its_rows_where_it_is_asked_to(gridnav_run, tmp_path, capsys):
    said(capsys, "eval", str(gridnav_run), "--out", str(tmp_path / "rows.csv"))
    assert (tmp_path / "rows.csv").read_text().startswith("recipe,split,adapt,seed,task,x,x_unit,metric,value")


def test_a_report_of_two_runs_is_one_page(gridnav_run, tmp_path, capsys):
    code = said(capsys, "report", str(gridnav_run), str(gridnav_run), "--out", str(tmp_path / "both.html"))[0]
    assert (code, (tmp_path / "both.html").exists()) == (0, True)


def test_a_copied_recipe_passes_the_check(tmp_path, capsys):
    said(capsys, "cp", "rl2-gridnav", str(tmp_path / "my.toml"))
    code, out, _ = said(capsys, "check", str(tmp_path / "my.toml"))
    assert (code, "nothing is wrong" in out) == (0, True)


@pytest.mark.parametrize("what", ["recipes", "envs", "memories", "papers"])
def test_lists_have_a_line_for_what_everybody_looks_for(capsys, what):
    looked_for = {"recipes": "rl2-gridnav", "envs": "gridnav", "memories": "gru", "papers": "Duan et al. 2016 (RL²)"}
    code, out, _ = said(capsys, "ls", what)
    assert (code, looked_for[what] in out) == (0, True)


def test_show_names_each_setting_with_its_source(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = said(capsys, "show", "rl2-gridnav-paper")[1]
    line = next(line for line in out.splitlines() if line.startswith("learner.entropy_coef "))
    assert "0.1" in line
    assert "Beck et al. 2023" in line


def test_help_comes_without_jax():
    code = "import sys; from fledge.cli.main import main; main(['--help']); sys.exit('jax' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(fledge.__file__).parents[1])}
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False).returncode == 0
    )


def test_importing_fledge_is_quick():
    code = "import time; t = time.perf_counter(); import fledge; print(time.perf_counter() - t)"
    environment = os.environ | {"PYTHONPATH": str(Path(fledge.__file__).parents[1])}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    ).stdout
    assert float(out) < 0.5


def test_ctrl_c_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "fledge.cli", "run", "rl2-gridnav", "--scale", "smoke", "--out", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(fledge.__file__).parents[1])}
    words = ["train.env_steps=960000000", "train.n_chunks=1000000", "train.checkpoint_every=1000"]
    child = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(2)
    try:
        error = child.communicate(timeout=60)[1]
    finally:
        child.kill()
    assert child.returncode == 130
    assert f"Go on with: fledge resume {folder}" in error


@pytest.mark.parametrize("what", ["recipes", "envs", "memories", "papers"])
def test_lists_are_one_line_each_in_a_narrow_terminal(what):
    page = Console(width=80, file=io.StringIO())
    page.print(lists.table(what))
    _, rows = lists.LISTS[what]()
    lines = page.file.getvalue().splitlines()
    assert len(lines) == 1 + len(rows)
    assert all(line.startswith(row[0][:10]) for line, row in zip(lines[1:], rows, strict=True))
