"""Studies: arms, cases, learning rates, ranking."""

import csv
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

import fledge
from fledge.core.errors import ConfigError
from fledge.core.records import Curves, read_metrics, read_record, read_results
from fledge.core.stats import probability_of_improvement
from fledge.run.arms import SELECTION_SEED, arms_of, claim_of, faults_of
from fledge.run.curve import AdaptationCurve
from fledge.run.judge import OVER_OTHERS, ranking
from fledge.run.selection import over_training
from fledge.run.settings import StudySettings
from fledge.run.study import side_by_side

STUDY = """
name = "study-two-mazes"
kind = "study"
about = "does it matter which gate?"

claims = ["GRU > none", "five: none > GRU", "five: GRU @ 2 > GRU @ 1"]

[arms.GRU]
recipe = "rl2-gridnav"

[arms.none]
recipe = "rl2-gridnav"
"agent.memory" = "none"

[cases.five]
"env.n_episodes" = 2

[cases.six]
"env.n_episodes" = 1
"env.settings.size" = 6
"""

RATES = """
name = "study-rates"
kind = "study"
about = "which learning rate?"

recipes = ["memoryless-gridnav"]
learning_rates = [1e-3, 1e-2]
selection_seeds = 1
"""

ARM = "memoryless-gridnav"
TINY = {"train.env_steps": 1920, "train.n_chunks": 1, "train.checkpoint_every": 1, "learner.n_envs": 8}
TINY |= {"learner.n_minibatches": 2, "agent.memory_size": 4, "evaluation.n_repeats": 1, "train.seeds": 2}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "mine.toml").write_text(STUDY)
    return fledge.run(folder / "mine.toml", scale="smoke", out=folder / "run", quiet=True, **TINY)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rates")
    (folder / "mine.toml").write_text(RATES)
    return fledge.run(folder / "mine.toml", scale="smoke", out=folder / "run", quiet=True, **TINY)


def test_every_case_has_every_arm(done):
    assert {case: tuple(runs) for case, runs in done.cases.items()} == dict.fromkeys(("five", "six"), ("GRU", "none"))


def test_an_arms_settings_and_a_cases_settings_both_reach_the_run(done):
    config = (done.dir / "six" / "none" / "config.toml").read_text()
    assert 'memory = "none"' in config and "size = 6" in config


def test_candidates_and_reported_runs_share_no_seed(chosen):
    tried = read_record(chosen.dir / "selection" / ARM / f"{ARM}-lr-0.001" / "record.json").seeds
    assert (tried, read_record(chosen.dir / ARM / "record.json").seeds) == ((SELECTION_SEED,), (0, 1))


def test_the_reported_run_has_the_better_of_the_learning_rates(chosen):
    with (chosen.dir / "selection" / ARM / "learning_rates.csv").open() as file:
        scores = {float(row["learning_rate"]): float(row["mean_return_over_training"]) for row in csv.DictReader(file)}
    best = max(scores, key=scores.__getitem__)
    assert f"learning_rate = {best}" in (chosen.dir / ARM / "config.toml").read_text()


def test_a_candidates_score_is_its_mean_return_over_training(chosen):
    folder = chosen.dir / "selection" / ARM / f"{ARM}-lr-0.01"
    values = read_metrics(folder / "metrics.jsonl").values["return/trial"]
    assert over_training(folder) == pytest.approx(np.nanmean(values))


def test_a_claim_of_one_case_is_judged_there_only(done):
    claims = [(row.study, row.arm) for row in read_results(done.dir / "results.csv") if ">" in row.arm]
    wanted = [("five", "GRU > none"), ("five", "none > GRU"), ("five", "GRU @ 2 > GRU @ 1"), ("six", "GRU > none")]
    assert claims == [(f"study-two-mazes/{case}", claim) for case, claim in wanted]


@pytest.mark.parametrize("page", ["report.html", "five/report.html", "six/report.html"])
def test_the_study_and_each_case_have_a_page_with_the_ranking(done, page):
    assert "Ranking: the chance that a random run" in (done.dir / page).read_text()


def test_a_finished_study_is_not_run_again(done):
    before = {path: path.stat().st_mtime_ns for path in done.dir.rglob("checkpoints/*")}
    fledge.resume(done.dir, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in done.dir.rglob("checkpoints/*")} == before


def test_an_arm_runs_alone_with_the_command_in_its_record(done):
    command = read_record(done.dir / "six" / "none" / "record.json").command
    assert command.startswith("fledge run rl2-gridnav --scale smoke ") and "agent.memory=none" in command


def test_the_printed_table__of_many_arms__has_one_row_for_each_and_fits_80_columns():
    x = np.arange(1, 5)
    curves = {}
    for arm in ("Bias-HyperInit", "Weight-HyperInit", "a third one", "a fourth one", "a fifth one"):
        rows = Curves.of(
            recipe=arm, split="test", adapt="default", seed=0, task="t", x=x, x_unit="episode", metric="return", value=x
        )
        curves[arm] = AdaptationCurve(arm, "test", rows)
    console = Console(width=80, file=StringIO())
    console.print(side_by_side("study", curves))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert cells == [[arm, "1.0", "4.0", "10.0"] for arm in curves]


def test_ranking__one_arm_always_above_the_others__comes_first_with_chance_one():
    trials = {"low": np.zeros((3, 2)), "high": np.ones((3, 2)), "mid": np.full((3, 2), 0.5)}
    rows = ranking("s", trials)
    assert [(row.arm, row.metric, row.value) for row in rows] == [
        ("high", OVER_OTHERS, 1.0),
        ("mid", OVER_OTHERS, 0.5),
        ("low", OVER_OTHERS, 0.0),
    ]


def test_ranking__a_single_arm__has_nobody_to_beat():
    assert ranking("s", {"alone": np.zeros((3, 2))}) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "at least one recipe"),
        ({"arms": {"A": {}}}, "arms.A: an arm names its recipe"),
        ({"arms": {"A": {"recipe": "rl2-gridnaw"}}}, "Did you mean 'rl2-gridnav'"),
        ({"arms": {"A": {"recipe": "study-gridnav"}}}, "is a study itself"),
        ({"recipes": ("rl2-gridnav",), "arms": {"rl2-gridnav": {"recipe": "rl2-gridnav"}}}, "Give it another"),
        ({"arms": {"A": {"recipe": "rl2-gridnav", "agent.memry": "gru"}}}, "memory"),
        ({"recipes": ("rl2-gridnav",), "claims": ("rl2-gridnav",)}, 'not of the form "A > B"'),
        ({"recipes": ("rl2-gridnav",), "claims": ("rl2-gridnav > rl2-grid",)}, "Did you mean 'rl2-gridnav'"),
        ({"recipes": ("rl2-gridnav",), "claims": ("rl2-gridnav @ x > rl2-gridnav",)}, 'not of the form "ARM @ 1"'),
        ({"recipes": ("rl2-gridnav",), "claims": ("rl2-gridnav @ 5 > rl2-gridnav",)}, "measured at 1 to 4, not at 5"),
        ({"recipes": ("maml-bandit",), "claims": ("maml-bandit > maml-bandit @ 9",)}, "measured at 0 to"),
        ({"recipes": ("rl2-gridnav",), "cases": {"c": {"arms": ("rl2-gridnaw",)}}}, "Did you mean 'rl2-gridnav'"),
        ({"recipes": ("rl2-gridnav",), "cases": {"c": {"arms": "rl2-gridnav"}}}, "arms is a list of at least one arm"),
        ({"recipes": ("rl2-gridnav",), "learning_rates": (1e-3,), "selection_seeds": 0}, "selection_seeds"),
    ],
)
def test_a_study_that_cannot_run_says_why(settings, message):
    assert any(message in fault for fault in faults_of(StudySettings(**settings)))


def test_a_claim_about_a_case_that_is_not_there_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'maze'"):
        claim_of("mace: A > B", ["maze"])


def test_a_case_may_be_for_some_of_the_arms_only():
    settings = StudySettings(
        recipes=("rl2-gridnav", "memoryless-gridnav"),
        cases={"both": {}, "one": {"arms": ("rl2-gridnav",)}},
        claims=("rl2-gridnav > memoryless-gridnav",),
    )
    assert [(arm.case, arm.name) for arm in arms_of(settings)] == [
        ("both", "rl2-gridnav"),
        ("both", "memoryless-gridnav"),
        ("one", "rl2-gridnav"),
    ]
    assert faults_of(settings) == []


def test_a_claim_about_points_of_a_curve_is_judged_there(done):
    rows = {row.arm: row.value for row in read_results(done.dir / "results.csv")}
    second, first = (done.cases["five"]["GRU"].curve.returns[..., k] for k in (1, 0))
    wanted = float(probability_of_improvement(second, first)[0])
    assert rows["GRU @ 2 > GRU @ 1"] == pytest.approx(wanted)


def test_changes_of_the_command_line_win_over_the_arms_own():
    settings = StudySettings(
        arms={"A": {"recipe": "rl2-gridnav", "train.seeds": 3}},
        cases={"c": {"train.seeds": 4}},
        overrides={"train.seeds": 2},
    )
    assert arms_of(settings)[0].config("laptop").train.seeds == 2
