"""Agents of run folders that learn on, and the study about them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import fledge
from fledge.agents.adapt import AdaptSettings
from fledge.core.errors import ConfigError
from fledge.core.records import read_curves, read_results
from fledge.run import recipe
from fledge.run.adapt import Adapted, multitask_of
from fledge.run.consistency import read_archive, write_archive
from fledge.run.verdicts import auc, results_of, steps_to, verdict

SMALL = AdaptSettings(n_envs=4, n_points=1, n_repeats=2, n_old_tasks=2)

STUDY = """
name = "small"
kind = "consistency"
about = "a study of one arm"
n_tasks = 2
seeds = 2
modes = ["default", "all"]
adapt = { budget = 240, n_envs = 4, n_points = 1, n_repeats = 2, n_old_tasks = 2 }
[arms.rl2]
recipe = "rl2-gridnav"
"env.family" = "gridnav-quadrants"
[shifts."rl2: next"]
distance = 1
ood_goals = "upper-left"
[shifts."rl2: opposite"]
distance = 2
ood_goals = "lower-left"
"""


@pytest.fixture(scope="module")
def learnt(gridnav_run):
    return fledge.adapt(gridnav_run, None, 240, "subset:policy", split="test", n_tasks=2, settings=SMALL)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.toml").write_text(STUDY)
    return fledge.run(str(folder / "small.toml"), scale="smoke", out=folder / "run", quiet=True)


def made(**modes):
    """Shares of the oracle → what would have been measured."""
    found = {}
    for mode, shares in modes.items():
        shares = np.asarray(shares, float)
        steps = np.arange(shares.shape[-1]) * 100
        log = {"return/old_tasks": np.zeros(shares.shape)}
        found[mode] = Adapted(
            recipe="rl2",
            split="ood",
            mode=mode,
            seeds=(0, 1),
            tasks=("a", "b"),
            env_steps=steps,
            trials=10 * shares,
            log=log,
            oracle=np.full(2, 10.0),
            floor=np.zeros(2),
            agents=None,
        )
    return found


def constant(*points):
    return np.broadcast_to(np.asarray(points, float), (2, 2, len(points)))


def test_learning_on_is_measured_before_and_after(learnt):
    assert (learnt.trials.shape, learnt.env_steps.tolist()) == ((2, 2, 2), [0, 240])


def test_only_the_named_part_moves(learnt):
    moved = {name: float(x[..., -1].min()) for name, x in learnt.log.items() if name.startswith("distance/")}
    assert (moved["distance/memory"], moved["distance/encoder"], moved["distance/policy"] > 0) == (0.0, 0.0, True)


def test_before_the_first_update_nothing_has_moved(learnt):
    assert float(np.abs(learnt.log["kl/from_meta"][..., 0]).max()) < 1e-6


def test_its_rows_are_over_environment_steps(learnt):
    rows = learnt.curves()
    assert set(rows.x_unit) == {"env_step"} and {"return/trial", "oracle_share", "kl/from_meta"} <= set(rows.metric)


def test_the_study_has_a_verdict_for_each_shift(study):
    assert [line.split(":")[0] for line in study.verdicts] == ["rl2, next (distance 1)", "rl2, opposite (distance 2)"]


def test_the_study_writes_curves_for_each_mode_and_shift(study):
    rows = read_curves(study.dir / "rl2" / "opposite" / "all" / "curves.csv")
    assert set(rows.task) == set(read_curves(study.dir / "rl2" / "opposite" / "default" / "curves.csv").task)
    assert len(set(rows.task)) == 2 and set(rows.adapt) == {"all"}


def test_shifted_tasks_lie_where_the_shift_says(study):
    names = set(read_curves(study.dir / "rl2" / "opposite" / "all" / "curves.csv").task)
    cells = [tuple(int(x) for x in name.removeprefix("goal at (").rstrip(")").split(",")) for name in names]
    assert all(x < 2 and y < 2 for x, y in cells)


def test_the_study_has_a_page_with_every_shift(study):
    text = (study.dir / "report.html").read_text()
    assert "rl2/next" in text and "rl2/opposite" in text


def test_at_smoke_scale_nothing_is_claimed(study):
    assert {row.verdict for row in read_results(study.dir / "results.csv")} == {"", "not tested at this scale"}


def test_a_finished_study_is_resumed_without_measuring_again(study):
    before = (study.dir / "rl2" / "all.npz").stat().st_mtime_ns
    again = fledge.resume(study.dir, quiet=True)
    assert (again.verdicts, (study.dir / "rl2" / "all.npz").stat().st_mtime_ns) == (study.verdicts, before)


def test_an_archive_gives_back_its_numbers(tmp_path):
    (adapted,) = made(all=constant(0.0, 1.0)).values()
    write_archive(tmp_path / "all.npz", adapted)
    again = read_archive(tmp_path / "all.npz")
    np.testing.assert_array_equal(again.shares, adapted.shares)
    assert (again.tasks, again.mode) == (adapted.tasks, adapted.mode)


def test_the_mean_over_the_budget_is_the_area_under_the_curve():
    np.testing.assert_allclose(auc(constant(0.0, 1.0, 1.0)), 0.75)


def test_the_steps_to_a_level_are_those_of_the_first_point_there():
    shares = np.array([[[0.1, 0.95, 0.8], [0.0, 0.1, 0.2]]])
    np.testing.assert_array_equal(steps_to(shares, np.array([0, 100, 200])), [[100.0, np.inf]])


def test_the_verdict_says_who_is_consistent_and_whom_the_prior_helped():
    found = made(default=constant(0.2), all=constant(0.2, 0.9, 0.95), scratch=constant(0.0, 0.3, 0.92))
    line = verdict("rl2", "far", found)
    assert "default is not consistent in practice (within 0.1 on 0%)" in line
    assert "all is consistent in practice" in line and "; helped by the prior" in line


def test_negative_transfer_is_what_scratch_earned_more_at_first():
    found = made(all=constant(-0.5, 0.9), scratch=constant(0.0, 0.9))
    row = next(r for r in results_of("s", "rl2", found, "laptop") if r.metric.startswith("regret"))
    assert row.value == pytest.approx(0.25)


def test_signs_are_judged_at_laptop_scale():
    found = made(default=constant(0.2), all=constant(0.2, 0.95), scratch=constant(0.0, 0.5))
    judged = {row.arm: row.verdict for row in results_of("s", "rl2", found, "laptop") if row.verdict}
    assert judged == {
        "rl2: all > default, end": "reproduced",
        "rl2: all reaches 0.9 of the oracle": "reproduced",
        "rl2: all > scratch, budget": "reproduced",
    }


def test_everything_that_is_wrong_with_a_study_is_told_together(tmp_path):
    (tmp_path / "x.toml").write_text(
        STUDY.replace('"rl2: next"', '"rl3: next"').replace('"lower-left"', '"lower"').replace('"all"', '"al"')
    )
    with pytest.raises(ConfigError) as error:
        fledge.run(str(tmp_path / "x.toml"), out=tmp_path / "run")
    text = str(error.value)
    assert all(word in text for word in ("Did you mean 'rl2'?", "ood_goals", "Did you mean 'all'?"))


def test_the_shipped_study_has_the_three_families():
    arms = recipe.load("study-consistency").config().arms
    assert {own.get("env.family", own["recipe"]) for own in arms.values()} == {
        "gridnav-quadrants",
        "bandit-odd-even",
        "point-nav-arcs",
        "maml-point-nav-arcs",
    }


def test_the_multi_task_control_is_trained_once_and_kept(gridnav_run, tmp_path):
    folder = shutil.copytree(gridnav_run, tmp_path / "run")
    control = multitask_of(fledge.load(folder))
    told: list[str] = []
    again = multitask_of(fledge.load(folder), told.append)
    assert (control.config.agent.kind, again.folder, told) == ("memoryless", folder / "multitask", [])
