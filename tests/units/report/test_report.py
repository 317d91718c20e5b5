from __future__ import annotations

import base64
import csv
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import run_folders as folders
import scipy.stats

from fledge.core.errors import DataError
from fledge.core.records import (
    Curves,
    Result,
    append_metrics,
    metrics_line,
    read_curves,
    read_record,
    write_curves,
    write_paths,
    write_record,
    write_results,
)
from fledge.report.figures import draw_curves, draw_profile
from fledge.report.page import templates, write_report
from fledge.report.paths import _lanes, choose, draw_walks
from fledge.report.read import read_run, read_runs
from fledge.report.study import write_study
from fledge.report.style import spread
from fledge.report.summarise import adaptation, changes, duels, interval, learning, sentences, show

GOALS = [(2, 1), (0, 3), (4, 4)]
VOID = {"meta", "br", "hr", "img", "input", "link"}


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory) -> Path:
    """Three runs; the second lacks a seed, the third has a plane and results."""
    root = tmp_path_factory.mktemp("runs")
    folders.gridnav_folder(root / "a", name="rl2-gridnav", seeds=4, goals=GOALS, updates=30)
    folders.gridnav_folder(root / "b", name="varibad-gridnav", seeds=2, goals=GOALS, updates=30, skill=0.5)
    c = folders.gridnav_folder(root / "c", name="<hyper> & co", seeds=2, goals=GOALS, updates=30)
    write_paths(c / "paths.json", [folders.plane_trial(np.random.default_rng(0))])
    write_results(c / "results.csv", [Result("gridnav", "hyper", "return", 10.1, 9.5, 10.6, 5, 10.4, "reproduced")])
    return root


@pytest.fixture(scope="module")
def page(runs_folder) -> Path:
    return write_report([runs_folder / name for name in "abc"], runs_folder / "out" / "report.html")


@pytest.fixture
def copy_of_a(runs_folder, tmp_path) -> Path:
    return Path(shutil.copytree(runs_folder / "a", tmp_path / "a"))


class Parsed(HTMLParser):
    """Open tags, text and addresses of a page; refuses tags that do not nest."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.ids, self.addresses, self.tags, self.words = [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            self.ids += [value] if key == "id" else []
            self.addresses += [value] if key in ("href", "src", "xlink:href", "action", "srcset") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def parsed(page) -> Parsed:
    return Parsed(page.read_text())


def test_the_page_asks_for_nothing_outside_itself(page, parsed):
    assert parsed.addresses
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert not re.search(r"https?:|@import|url\((?!#)|<script|<link", page.read_text())


def test_ids_on_the_page_are_unique(parsed):
    assert len(parsed.ids) == len(set(parsed.ids))


def test_every_inner_reference_has_its_target(page, parsed):
    wanted = set(re.findall(r'(?:href="|url\()#([^")]+)', page.read_text()))
    assert wanted
    assert wanted <= set(parsed.ids)


def test_names_of_runs_cannot_break_the_page(parsed):
    assert "<hyper> & co goes from" in parsed.said
    assert "hyper" not in parsed.tags


def test_the_page_begins_with_the_result_in_words(parsed):
    assert re.search(r"On test tasks, rl2-gridnav goes from \S+ \[\S+ \S+\] in episode 1 to \d", parsed.said)


def test_the_page_shows_the_command_that_made_the_run(parsed):
    assert "fledge run rl2-gridnav --scale laptop --seeds 4" in parsed.said


def test_results_appear_with_their_verdict(parsed):
    assert "reproduced" in parsed.said


def test_every_figure_has_its_numbers_in_the_page_and_beside_it(page, parsed):
    beside = sorted(file.name for file in (page.parent / "report_files").glob("*.csv"))
    inside = [base64.b64decode(a.split(",")[1]).decode() for a in parsed.addresses if a.startswith("data:text/csv")]
    assert beside == sorted(
        ["curve-1.csv", "learning-1.csv", "learning-2.csv", "profile.csv"] + [f"paths-{i}.csv" for i in (1, 2, 3)]
    )
    assert sorted(inside) == sorted((page.parent / "report_files" / name).read_text() for name in beside)


def test_the_same_folders_give_the_same_page(runs_folder, page, tmp_path):
    again = write_report([runs_folder / name for name in "abc"], tmp_path)
    assert again == tmp_path / "report.html"
    assert again.read_text() == page.read_text()


def test_drawing_leaves_matplotlibs_settings_alone(runs_folder):
    before = dict(matplotlib.rcParams)
    draw_curves(adaptation(read_runs([runs_folder / "a"]))[0], "curve")
    assert dict(matplotlib.rcParams) == before


def _table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def _polyline(svg: str, colour: str) -> np.ndarray:
    """The corners of the widest solid or dashed line drawn in a colour, in points."""
    found = re.findall(rf'<path d="(M [^"]+)"[^>]*style="fill: none; stroke[^"]*{colour}[^"]*"', svg)
    numbers = max(found, key=len)
    return np.array([pair.split() for pair in re.findall(r"[-\d.]+ [-\d.]+", numbers)], float)


def test_the_csv_holds_what_was_drawn(runs_folder):
    """The line's corners in the SVG are an affine map of the CSV's columns."""
    drawn = draw_curves(adaptation(read_runs([runs_folder / "a"]))[0], "curve")
    rows = [row for row in _table(drawn.csv) if row["line"] == "rl2-gridnav"]
    corners = _polyline(drawn.svg, "#0072b2")
    for column, axis in (("x", 0), ("value", 1)):
        numbers = np.array([float(row[column]) for row in rows])
        slope, offset = np.polyfit(numbers, corners[:, axis], 1)
        assert np.allclose(slope * numbers + offset, corners[:, axis], atol=0.01)


def test_the_csv_of_a_curve_is_the_iqm_of_the_file(runs_folder):
    curves = read_curves(runs_folder / "a" / "curves.csv").where(recipe="rl2-gridnav", x=2.0)
    drawn = draw_curves(adaptation(read_runs([runs_folder / "a"]))[0], "curve")
    (row,) = [row for row in _table(drawn.csv) if row["line"] == "rl2-gridnav" and row["x"] == "2"]
    assert float(row["value"]) == pytest.approx(scipy.stats.trim_mean(curves.value, 0.25))


def test_the_csv_of_paths_is_the_file_step_by_step(runs_folder):
    run = read_run(runs_folder / "a")
    trials = choose(run.paths, run.name)
    rows = _table(draw_walks(trials, "paths", "rl2").csv)
    assert len(rows) == len(trials) * 4 * (folders.HORIZON + 1)
    one = [row for row in rows if row["task"] == trials[0].task and row["episode"] == "2"]
    assert [[float(r["x"]), float(r["y"])] for r in one] == trials[0].episodes[1].positions.tolist()
    assert sum(float(r["reward"] or 0) for r in one) == pytest.approx(trials[0].episodes[1].total)


def test_paths_of_a_task_are_titled_with_their_returns(runs_folder):
    run = read_run(runs_folder / "a")
    trials = choose(run.paths, run.name)
    svg = draw_walks(trials, "paths", "rl2").svg
    for k, episode in enumerate(trials[0].episodes, 1):
        assert f"episode {k}: return {show(episode.total)}" in svg


def test__lanes__an_edge_walked_twice__is_drawn_apart():
    moves, times = _lanes(np.array([[0.0, 0], [1, 0], [1, 0], [0, 0], [1, 0]]))
    assert times.tolist() == [0, 2, 3]
    heights = moves[:, :, 1].mean(axis=1)
    assert len(set(heights.round(6))) == 3


def test__choose__both_ways_of_acting__takes_greedy_trials_of_one_seed(runs_folder):
    (trial, *_) = read_run(runs_folder / "a").paths
    made = [type(trial)(**{**trial.__dict__, "seed": seed, "greedy": g}) for seed in (1, 0) for g in (False, True)]
    assert [(t.seed, t.greedy) for t in choose(made, trial.recipe)] == [(0, True)]


def test_a_known_table_gives_the_known_summary(tmp_path):
    """Two seeds that agree on one task: 1 then 3, no spread; the reference stays at 2."""
    rows = [("mine", s, x, v) for s in (0, 1) for x, v in ((1, 1.0), (2, 3.0))] + [
        ("random", 0, x, 2.0) for x in (1, 2)
    ]
    recipe, seed, x, value = zip(*rows, strict=True)
    fixed = {"split": "test", "adapt": "default", "task": "t", "x_unit": "shot", "metric": "spearman"}
    write_curves(tmp_path / "curves.csv", Curves.of(recipe=recipe, seed=seed, x=x, value=value, **fixed))
    (tmp_path / "config.toml").write_text('name = "mine"')
    panels = adaptation(read_runs([tmp_path]))
    (change, _) = changes(panels)
    assert (interval(change.first), interval(change.last), interval(change.gain)) == ("1.00", "3.00", "2.00")
    (duel,) = duels(panels)
    assert (duel.better, duel.other, float(duel.probability.value)) == ("mine", "random", 1.0)
    said = sentences(panels, changes(panels))
    assert (
        said[0].replace("\N{NO-BREAK SPACE}", " ") == "On test tasks, mine goes from 1.00 in shot 1 to 3.00 in shot 2."
    )


def test__duels__of_a_metric_where_lower_is_better__prefer_the_lower(tmp_path):
    fixed = {"split": "test", "adapt": "", "task": "t", "x_unit": "episode", "metric": "regret", "x": 1}
    write_curves(tmp_path / "curves.csv", Curves.of(recipe=["mine", "random"], seed=0, value=[1.0, 5.0], **fixed))
    (tmp_path / "config.toml").write_text('name = "mine"')
    (duel,) = duels(adaptation(read_runs([tmp_path])))
    assert float(duel.probability.value) == 1.0


def test_three_runs_are_compared_in_pairs_and_share_one_reference(runs_folder):
    (panel,) = adaptation(read_runs([runs_folder / name for name in "abc"]))
    assert [line.label for line in panel.lines] == [
        "rl2-gridnav",
        "varibad-gridnav",
        "<hyper> & co",
        "optimum",
        "random",
    ]
    pairs = {(duel.better, duel.other) for duel in duels([panel])}
    assert len(pairs) == 6
    assert ("rl2-gridnav", "varibad-gridnav") in pairs


def test_the_optimum_is_dashed_and_the_run_is_not(runs_folder):
    (panel,) = adaptation(read_runs([runs_folder / "a"]))
    dashed = " ".join(re.findall(r'style="[^"]*stroke-dasharray: \d[^"]*"', draw_curves(panel, "c").svg))
    assert "#1c2127" in dashed
    assert "#0072b2" not in dashed


def test_missing_seeds_widen_the_band(tmp_path):
    rng = np.random.default_rng(0)
    columns = {"split": "test", "adapt": "default", "x_unit": "label", "metric": "spearman"}
    seed, task, x = (part.ravel() for part in np.mgrid[:6, :5, :20])
    curves = Curves.of(recipe=tmp_path.name, seed=seed, task=task, x=x, value=rng.normal(size=600), **columns)
    widths = []
    for kept in (curves, curves.take(curves.seed < 3)):
        write_curves(tmp_path / "curves.csv", kept)
        (panel,) = adaptation(read_runs([tmp_path]))
        widths.append(np.mean(panel.lines[0].estimate.hi - panel.lines[0].estimate.lo))
    assert widths[1] > 1.1 * widths[0]


def test_a_missing_seed_is_noted(copy_of_a):
    curves = read_curves(copy_of_a / "curves.csv")
    write_curves(copy_of_a / "curves.csv", curves.take((curves.seed < 2) | (curves.recipe != "rl2-gridnav")))
    assert any("no adaptation curve of seed 2, 3" in note for note in read_run(copy_of_a).notes)


@pytest.mark.parametrize("name", ["config.toml", "record.json", "metrics.jsonl", "curves.csv", "paths.json"])
def test_a_missing_file_leaves_the_rest_of_the_page(copy_of_a, tmp_path, name):
    (copy_of_a / name).unlink()
    page = write_report([copy_of_a], tmp_path / "page.html")
    said = Parsed(page.read_text()).said
    assert "rl2-gridnav" in said
    assert (f"{name} is not in" in said) == (name != "paths.json")


@pytest.mark.parametrize("name", ["config.toml", "record.json", "metrics.jsonl", "curves.csv", "paths.json"])
def test_a_damaged_file_becomes_a_note(copy_of_a, name):
    (copy_of_a / name).write_text('{"format": 1, [\n')
    assert any(name in note and "is not in" not in note for note in read_run(copy_of_a).notes)


def test_metrics_cut_short_by_a_kill_are_still_drawn(copy_of_a):
    with (copy_of_a / "metrics.jsonl").open("a") as file:
        file.write('{"update": 30, "env_st')
    assert [panel.metric for panel in learning(read_runs([copy_of_a]))] == ["return/trial", "loss/total"]


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path):
    (tmp_path / "run").mkdir()
    said = Parsed(write_report([tmp_path / "run"], tmp_path).read_text()).said
    assert "No adaptation curve to summarise" in said


def test_no_such_folder_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"There is no run folder .*fledge run RECIPE"):
        write_report([tmp_path / "nowhere"], tmp_path)


def test_no_folder_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="No run folder came"):
        write_report([], tmp_path)


def test_one_seed_is_drawn_without_a_band(copy_of_a):
    curves = read_curves(copy_of_a / "curves.csv")
    write_curves(copy_of_a / "curves.csv", curves.where(seed=0, recipe="rl2-gridnav"))
    drawn = draw_curves(adaptation(read_runs([copy_of_a]))[0], "curve")
    assert "FillBetween" not in drawn.svg
    assert {row["lo"] for row in _table(drawn.csv)} == {""}


def test_two_runs_of_one_recipe_are_told_apart(copy_of_a, runs_folder):
    other = copy_of_a.with_name("second")
    copy_of_a.rename(other)
    assert [run.label for run in read_runs([runs_folder / "a", other])] == ["rl2-gridnav (a)", "rl2-gridnav (second)"]


def test_ways_of_adapting_are_separate_lines(copy_of_a):
    curves = read_curves(copy_of_a / "curves.csv").where(recipe="rl2-gridnav")
    scratch = Curves.of(**{**curves.__dict__, "adapt": "scratch"})
    write_curves(copy_of_a / "curves.csv", Curves.concat([curves, scratch]))
    (panel,) = adaptation(read_runs([copy_of_a]))
    assert [line.label for line in panel.lines] == ["rl2-gridnav, default", "rl2-gridnav, scratch"]


def test_an_unfinished_run_says_how_to_go_on(copy_of_a):
    record = read_record(copy_of_a / "record.json")
    write_record(copy_of_a / "record.json", type(record)(**{**record.__dict__, "finished": False}))
    assert any("fledge resume" in note for note in read_run(copy_of_a).notes)


def test_the_learning_curve_is_the_mean_of_its_bin_over_seeds(runs_folder):
    """30 updates make 30 bins, so the first point is the first update."""
    run = read_run(runs_folder / "b")
    (panel, _) = learning([run])
    first = run.metrics.values["return/trial"][run.metrics.update == 0]
    assert float(panel.lines[0].estimate.value[0]) == pytest.approx(first.mean())


def test_the_profile_falls_from_one_to_nought(runs_folder):
    rows = _table(draw_profile(adaptation(read_runs([runs_folder / "a"]))[0], "profile").csv)
    values = [float(row["value"]) for row in rows if row["line"] == "rl2-gridnav"]
    assert (values[0], values[-1]) == (1, 0)


@pytest.mark.parametrize("wanted", [[0.0, 0.0, 0.0, 0.0], [0.9, 1.0, 1.0, 0.95], [0.0, 0.5, 1.0], [1.0, 0.99, 0.0]])
def test_labels_are_moved_apart_in_order_and_stay_inside(wanted):
    places = spread(wanted, 0.1, 0.0, 1.0)
    assert np.all(np.diff(np.sort(places)) >= 0.099)
    assert places.min() >= -0.001
    assert places.max() <= 1.001
    assert np.all(np.diff(places[np.argsort(wanted, kind="stable")]) > 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(10.64, "10.6"), (-0.1, "−0.10"), (1234.5, "1234"), (0.0, "0.00"), (np.nan, "–"), (2e-5, "2.0e−05")],
)
def test_numbers_are_shown_with_three_digits(value, text):
    assert show(value) == text


def test_a_run_measured_at_one_episode_is_summarised_too(tmp_path):
    folder = folders.gridnav_folder(tmp_path / "once", name="once", seeds=2, updates=3)
    curves = read_curves(folder / "curves.csv")
    write_curves(folder / "curves.csv", curves.where(x=1))
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "once reaches" in page


@pytest.mark.parametrize("n_episodes", [1, 2])
def test_a_study_of_cases_tells_its_arms_from_best_to_worst(tmp_path, n_episodes):
    arms = {"worst": 1.0, "best": 3.0, "optimum": 9.0, "middle": 2.0}
    for arm, value in arms.items():
        folder = folders.gridnav_folder(tmp_path / "case" / arm, name=arm, seeds=2, updates=2)
        x = np.tile(np.arange(1, n_episodes + 1), 2)
        seed = np.repeat([0, 1], n_episodes)
        fixed = {"split": "test", "adapt": "default", "task": "t", "x_unit": "episode", "metric": "return"}
        write_curves(folder / "curves.csv", Curves.of(recipe=arm, seed=seed, x=x, value=value, **fixed))
    cases = {"case": ([tmp_path / "case" / arm for arm in arms], [])}
    page = write_study("study", "about", cases, tmp_path / "report.html").read_text()
    places = [page.index(f"{name} {arms[name] * n_episodes:.2f}") for name in ("best", "middle", "worst")]
    assert places == sorted(places) and "the optimum is" in page


def test_arms_that_are_ranked_by_a_gradient_step_have_rows_in_the_ranking():
    after = "return after the last gradient step"
    ranked = [Result("s", arm, "chance of improvement over another arm", 0.5, n=2) for arm in ("MAML", "ProMP")]
    rows = [Result("s", "MAML", after, -22.5, n=2), Result("s", "ProMP", after, -33.25, n=2), *ranked]
    shown = Parsed(templates().get_template("macros.html.j2").module.judged(rows)).said
    assert f"Beside it {after}" in shown
    assert shown.index("−22.5") < shown.index("−33.2")


def test_curves_along_a_budget_are_told_by_their_ends(tmp_path):
    value = np.array([0.0, 0.5, 0.25])
    where = {"recipe": "all", "split": "ood", "adapt": "all", "seed": 0, "task": "t", "x_unit": "env_step"}
    write_curves(
        tmp_path / "all" / "curves.csv", Curves.of(**where, x=[0, 10, 2000], metric="oracle_share", value=value)
    )
    panels = adaptation(read_runs([tmp_path / "all"]))
    assert sentences(panels, changes(panels))[0] == "On ood tasks, all reaches 0.25 in env step\N{NO-BREAK SPACE}2,000."
    page = write_study("s", "about", {"far": ([tmp_path / "all"], [])}, tmp_path / "report.html").read_text()
    assert "The numbers are oracle_share at the last env step" in page


def test_gradient_steps_are_counted_in_whole_numbers(tmp_path):
    where = {"recipe": "MAML", "split": "test", "adapt": "default", "seed": 0, "task": "t", "x_unit": "gradient_step"}
    write_curves(tmp_path / "MAML" / "curves.csv", Curves.of(**where, x=[0, 1], metric="return", value=[-50.0, -20.0]))
    (panel,) = adaptation(read_runs([tmp_path / "MAML"]))
    svg = draw_curves(panel, "curve").svg
    assert ">1<" in svg and not re.search(r">0\.\d+<", svg)


def test_a_number_beside_a_published_one_has_four_digits():
    rows = [Result("s", "naive", "return", 0.23181, 0.2312, 0.2324, 3, 0.2335, "not tested at this scale")]
    shown = Parsed(templates().get_template("macros.html.j2").module.judged(rows)).said
    assert all(number in shown for number in ("0.2318", "[0.2312, 0.2324]", "0.2335"))


def test_a_run_that_was_only_trained_is_told_by_the_end_of_its_learning(tmp_path):
    lines = [metrics_line(i, 100 * i, seed, {"return/life": 0.1 * i}) for i in range(3) for seed in (0, 1)]
    append_metrics(tmp_path / "naive" / "metrics.jsonl", lines)
    said = Parsed(write_report([tmp_path / "naive"], tmp_path).read_text()).said
    assert "naive reaches 0.20" in said and "No adaptation curve" not in said
