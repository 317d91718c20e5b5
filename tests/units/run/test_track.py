"""Trackers: the console without a terminal and with one, and metrics.jsonl."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from fledge.core.records import read_metrics
from fledge.run.track import ConsoleTracker, JSONLTracker, Point, forget_after


def point(update: int) -> Point:
    metrics = {"loss/total": np.array([1.0, 2.0]), "return/trial": np.array([np.nan, 3.0])}
    return Point(update, update * 100, 5000.0, (0, 7), metrics)


def printed(n_points: int, *, terminal: bool) -> str:
    out = io.StringIO()
    tracker = ConsoleTracker("rl2", 10_000, console=Console(file=out, force_terminal=terminal, width=100))
    for update in range(1, n_points + 1):
        tracker.log(point(update))
    tracker.close()
    return out.getvalue()


def test_without_a_terminal_lines_are_sparse():
    assert 10 <= len(printed(100, terminal=False).splitlines()) <= 12


def test_the_first_line_says_that_jax_compiles():
    assert printed(0, terminal=False) == "rl2: compiling\n"


def test_lines_tell_steps_speed_and_return():
    assert "100 of 10k steps · 5k steps/s · return of a trial 3" in printed(1, terminal=False)


def test_a_terminal_gets_a_bar():
    assert "5k steps/s · return of a trial 3" in printed(1, terminal=True)


def test_metrics_that_say_nothing_are_left_out(tmp_path):
    JSONLTracker(tmp_path / "m.jsonl").log(point(1))
    found = read_metrics(tmp_path / "m.jsonl")
    assert found.seed.tolist() == [0, 7]
    assert np.isnan(found.values["return/trial"]).tolist() == [True, False]


def test_lines_after_the_checkpoint_are_forgotten_and_half_a_line_too(tmp_path):
    path = tmp_path / "m.jsonl"
    for update in (1, 2, 3):
        JSONLTracker(path).log(point(update))
    with path.open("a") as file:
        file.write('{"update": 2, "env')
    forget_after(path, 2)
    assert read_metrics(path).update.tolist() == [1, 1, 2, 2]
