from __future__ import annotations

import contextlib
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.core.errors import ConfigError, DataError, ShapeError
from fledge.core.records import (
    METRICS,
    X_UNITS,
    Curves,
    Result,
    RunRecord,
    WalkedEpisode,
    WalkedTrial,
    append_metrics,
    check_metric,
    check_scene,
    metrics_line,
    read_curves,
    read_metrics,
    read_paths,
    read_record,
    read_results,
    write_curves,
    write_paths,
    write_record,
    write_results,
)

HEADER = "recipe,split,adapt,seed,task,x,x_unit,metric,value\n"
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
rows = st.lists(
    st.tuples(
        text,
        text,
        text,
        st.integers(-(2**62), 2**62),
        text,
        st.floats(allow_nan=False),
        st.sampled_from(X_UNITS),
        st.sampled_from([name for name in METRICS if "{n}" not in name] + ["return/episode_3"]),
        st.floats(),
    ),
    max_size=5,
)
NAMES = ("recipe", "split", "adapt", "seed", "task", "x", "x_unit", "metric", "value")


def curves_of(table) -> Curves:
    return Curves.of(**{name: [row[i] for row in table] for i, name in enumerate(NAMES)})


def some(**columns) -> Curves:
    given = {
        "recipe": "a",
        "split": "test",
        "adapt": "default",
        "seed": 0,
        "task": "goal at (3, 4)",
        "x": 1,
        "x_unit": "episode",
        "metric": "return",
        "value": 0.5,
    }
    return Curves.of(**(given | columns))


@given(rows)
@settings(max_examples=80, deadline=None)
def test_what_was_written_is_read_back(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("curves") / "curves.csv"
    curves = curves_of(table)
    assert read_curves(write_curves(path, curves)) == curves


@given(rows, rows)
@settings(max_examples=30, deadline=None)
def test_appending_keeps_what_was_there(tmp_path_factory, before, after):
    path = tmp_path_factory.mktemp("curves") / "curves.csv"
    write_curves(path, curves_of(before), append=True)
    write_curves(path, curves_of(after), append=True)
    assert read_curves(path) == curves_of(before + after)


def test__curves__a_task_with_a_comma__is_quoted(tmp_path):
    path = write_curves(tmp_path / "curves.csv", some())
    assert path.read_text() == HEADER + 'a,test,default,0,"goal at (3, 4)",1,episode,return,0.5\n'


def test__curves__damaged_file_appended_to__stays_as_it_was(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text(HEADER + "half a li")
    with pytest.raises(DataError, match="line 2"):
        write_curves(path, some(), append=True)
    assert path.read_text() == HEADER + "half a li"


def test__write__leaves_no_temporary_file(tmp_path):
    write_curves(tmp_path / "curves.csv", some())
    assert [file.name for file in tmp_path.iterdir()] == ["curves.csv"]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x_unit", "episodes", "Did you mean 'episode'"),
        ("metric", "retrun", "Did you mean 'return'"),
        ("metric", "return/episodes_2", "Did you mean 'return/episode_"),
        ("tsak", "x", "Did you mean 'task'"),
    ],
)
def test__curves__unknown_name__is_refused_with_the_nearest(column, value, message):
    with pytest.raises(ConfigError, match=message):
        some(**{column: value})


def test__curves__columns_of_two_lengths__are_refused():
    with pytest.raises(ShapeError, match="x 3, value 2"):
        some(x=[1, 2, 3], value=[1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER.replace("x_unit", "x_units"), "line 1: there is no column 'x_units'. Did you mean 'x_unit'"),
        (HEADER.replace(",value", ""), "missing: value"),
        ("", "missing: recipe"),
        (HEADER + "a,b,c,0,t,1,epsiode,return,1\n", "line 2: there is no x_unit 'epsiode'. Did you mean 'episode'"),
        (HEADER + "a,b,c,0,t,1,episode,regrets,1\n", "line 2: There is no metric 'regrets'. Did you mean 'regret'"),
        (HEADER + "a,b,c,0,t,1,episode,return,1\na,b,c,0,t,1,epi", "line 3: 7 cells came where 9"),
        (HEADER + "a,b,c,0,t,one,episode,return,1\n", "line 2: 'one' in column 'x' is not a number"),
        (HEADER + "a,b,c,0.5,t,1,episode,return,1\n", "line 2: '0.5' in column 'seed'"),
        (HEADER + 'a,b,c,0,"t,1,episode,return,1\n', "is not CSV"),
    ],
)
def test__read_curves__damage__is_named_by_line(tmp_path, content, message):
    path = tmp_path / "curves.csv"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_curves(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test__read_curves__columns_in_another_order__are_put_right(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text("value,recipe,split,adapt,seed,task,x,x_unit,metric\n2,a,test,default,0,t,1,episode,return\n")
    assert read_curves(path) == some(task="t", value=2.0)


def test__read_curves__no_file__says_so(tmp_path):
    with pytest.raises(DataError, match="There is no adaptation curves"):
        read_curves(tmp_path / "curves.csv")


def test__read_curves__not_text__says_so(tmp_path):
    (tmp_path / "curves.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_curves(tmp_path / "curves.csv")


def test__cube__is_seed_by_task_by_x_with_holes_as_nan():
    curves = some(seed=[0, 0, 1], task=["a", "b", "a"], x=[1, 2, 2], value=[1, 2, 3])
    cube = curves.cube()
    assert (cube.seeds.tolist(), cube.tasks, cube.xs.tolist()) == ([0, 1], ("a", "b"), [1, 2])
    nan = np.nan
    np.testing.assert_equal(cube.scores, [[[1, nan], [nan, 2]], [[nan, 3], [nan, nan]]])


def test__cube__measured_twice__is_averaged():
    assert some(value=[1.0, 4.0]).cube().scores.item() == 2.5


def test__cube__chosen_tasks__come_in_that_order():
    cube = some(task=["a", "b"], value=[1, 2]).cube(tasks=["b", "c", "a"])
    np.testing.assert_equal(cube.scores[0, :, 0], [2, np.nan, 1])


def test__cube__mixed_metrics__are_refused():
    with pytest.raises(ShapeError, match="one metric, but"):
        some(metric=["return", "regret"]).cube()


def test__where__keeps_matching_rows():
    assert some(seed=[0, 1, 1], value=[1, 2, 3]).where(seed=1, split="test").value.tolist() == [2, 3]


optional = st.none() | st.floats(allow_nan=False)


@given(
    st.lists(
        st.builds(
            Result,
            text,
            text,
            text,
            st.floats(allow_nan=False),
            optional,
            optional,
            st.none() | st.integers(0, 2**40),
            optional,
            st.sampled_from(["reproduced", "not reproduced", "not tested at this scale", ""]),
        ),
        max_size=4,
    )
)
@settings(max_examples=40, deadline=None)
def test_results_written_are_read_back(tmp_path_factory, results):
    path = tmp_path_factory.mktemp("results") / "results.csv"
    assert read_results(write_results(path, results)) == results


def test__results__append__keeps_the_first(tmp_path):
    path = tmp_path / "results.csv"
    for arm in "ab":
        write_results(path, [Result("s", arm, "return", 1.0)], append=True)
    assert [row.arm for row in read_results(path)] == ["a", "b"]


def test__result__unknown_verdict__is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'reproduced'"):
        Result("s", "a", "m", 1.0, verdict="reproducd")


def test__read_results__unknown_verdict__is_named_by_line(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("study,arm,metric,value,lo,hi,n,published,verdict\ns,a,m,1,,,,,maybe\n")
    with pytest.raises(DataError, match="line 2: there is no verdict 'maybe'"):
        read_results(path)


@pytest.mark.parametrize("name", ["return/episode_1", "return/episode_12", "ppo/ratio_error", "success_greedy"])
def test_defined_metrics_have_a_meaning(name):
    assert check_metric(name).about


@pytest.mark.parametrize("name", ["return/episode_", "return/episode_x", "loss/polcy", "x_3"])
def test_undefined_metrics_are_refused(name):
    with pytest.raises(ConfigError, match="There is no metric"):
        check_metric(name)


def test__metrics__written_lines__are_read_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, [metrics_line(1, 10, 0, {"loss/policy": 0.1, "return/episode_2": math.nan})])
    append_metrics(path, [metrics_line(2, 20, 0, {"loss/policy": np.float32(0.5)})])
    metrics = read_metrics(path)
    assert (metrics.update.tolist(), metrics.env_steps.tolist(), metrics.seed.tolist()) == ([1, 2], [10, 20], [0, 0])
    np.testing.assert_equal(dict(metrics.values), {"loss/policy": [0.1, 0.5], "return/episode_2": [np.nan, np.nan]})


def test__metrics__every_line__is_strict_json():
    line = metrics_line(1, 1, 0, {"loss/policy": math.inf})
    assert json.loads(line, parse_constant=pytest.fail) == {
        "update": 1,
        "env_steps": 1,
        "seed": 0,
        "loss/policy": None,
    }


def test__metrics__undefined_name__is_refused_when_written():
    with pytest.raises(ConfigError, match="Did you mean 'loss/value'"):
        metrics_line(1, 1, 0, {"loss/valu": 1.0})


def test__metrics__half_a_line_from_a_kill__is_cut_off_before_appending(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = metrics_line(1, 1, 0, {"loss/policy": 1.0})
    path.write_text(whole + whole[:20])
    append_metrics(path, [metrics_line(2, 2, 0, {"loss/policy": 2.0})])
    assert read_metrics(path).update.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"update": 2, "env', "line 2: this is not whole JSON"),
        ("[1, 2]\n", "line 2: an object with whole numbers"),
        ('{"update": 1, "env_steps": 1}\n', "line 2: an object with whole numbers update, env_steps, seed"),
        ('{"update": 1, "env_steps": 1, "seed": 0, "grad/nrm": 1}\n', "line 2: there is no metric 'grad/nrm'"),
        ('{"update": 1, "env_steps": 1, "seed": 0, "grad/norm": "1"}\n', "line 2: 'grad/norm' is '1', not a number"),
        ("[" * 100_000, "line 2: this is not whole JSON"),
    ],
)
def test__read_metrics__damage__is_named_by_line(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text(metrics_line(1, 1, 0, {}) + line)
    with pytest.raises(DataError, match=message.replace("[", r"\[")):
        read_metrics(path)


def test__read_metrics__whole_lines_only__leaves_out_the_half_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(metrics_line(1, 1, 0, {"grad/norm": 1.0}) + '{"update": 2, "env')
    assert read_metrics(path, whole_lines=True).update.tolist() == [1]


RECORD = RunRecord(
    recipe="rl2-gridnav",
    command="fledge run rl2-gridnav",
    scale="laptop",
    seeds=(0, 1),
    device="cpu",
    versions={"jax": "0.10.2"},
    commit=None,
    started="2026-01-01T00:00:00Z",
    wall_s=1.5,
    env_steps=1000,
    more={"note": "ä"},
)


def test__record__written__is_read_back(tmp_path):
    assert read_record(write_record(tmp_path / "record.json", RECORD)) == RECORD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "is in format 2, but this Fledge reads format 1. It was written by a newer Fledge: update"),
        ({"format": 0}, "older Fledge"),
        ({"wall_s": ...}, "wall_s missing"),
        ({"sedes": []}, "no key 'sedes'. Did you mean 'seeds'"),
    ],
)
def test__read_record__another_form__says_what_to_do(tmp_path, change, message):
    path = write_record(tmp_path / "record.json", RECORD)
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    with pytest.raises(DataError) as caught:
        read_record(path)
    assert message in str(caught.value)


def test__read_record__cut_short__names_the_line(tmp_path):
    path = write_record(tmp_path / "record.json", RECORD)
    path.write_text(path.read_text()[:60])
    with pytest.raises(DataError, match=r"record.json, line \d+: this is not whole JSON"):
        read_record(path)


GRID = {"kind": "grid", "width": 3, "height": 2, "start": [0, 0], "goals": [{"x": 2, "y": 1, "label": "goal"}]}
PLANE = {
    "kind": "plane",
    "x_range": [-1, 1],
    "y_range": [-1.0, 1.0],
    "start": [0, 0],
    "goals": [{"x": 0.5, "y": 0.5, "radius": 0.2, "label": "goal"}],
}


def trial(scene) -> WalkedTrial:
    episode = WalkedEpisode(np.array([[0.0, 0], [1, 0], [1, 1]]), np.array([-0.1, 1.0]))
    return WalkedTrial("goal at (2, 1)", scene, "test", "rl2-gridnav", 0, True, (episode, episode))


@pytest.mark.parametrize("scene", [GRID, {**GRID, "walls": [[1, 1]]}, PLANE])
def test__paths__written__are_read_back(tmp_path, scene):
    (back,) = read_paths(write_paths(tmp_path / "paths.json", [trial(scene)]))
    wanted = trial(scene)
    assert (back.task, back.scene, back.split, back.recipe, back.seed, back.greedy) == (
        wanted.task,
        wanted.scene,
        wanted.split,
        wanted.recipe,
        wanted.seed,
        wanted.greedy,
    )
    for got, want in zip(back.episodes, wanted.episodes, strict=True):
        np.testing.assert_array_equal(got.positions, want.positions)
        np.testing.assert_array_equal(got.rewards, want.rewards)


def test__paths__file__has_the_documented_keys(tmp_path):
    content = json.loads(write_paths(tmp_path / "paths.json", [trial(GRID)]).read_text())
    assert content["format"] == 1
    assert set(content["scenes"][0]) == {"task", "scene", "split", "recipe", "seed", "greedy", "episodes"}
    assert content["scenes"][0]["episodes"][0] == {
        "positions": [[0, 0], [1, 0], [1, 1]],
        "rewards": [-0.1, 1],
        "return": 0.9,
    }


def test__read_paths__as_many_positions_as_rewards__begins_at_the_scenes_start(tmp_path):
    path = write_paths(tmp_path / "paths.json", [trial(GRID)])
    content = json.loads(path.read_text())
    content["scenes"][0]["episodes"][0]["positions"] = [[1, 0], [1, 1]]
    path.write_text(json.dumps(content))
    assert read_paths(path)[0].episodes[0].positions.tolist() == [[0, 0], [1, 0], [1, 1]]


def _break(content, where, value):
    *way, last = where
    for key in way:
        content = content[key]
    if value is ...:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("format",), 7, "is in format 7"),
        (("scenes",), 3, "a list 'scenes' was wanted"),
        (("scenes", 0), "x", "scene 1: an object with task"),
        (("scenes", 0, "seed"), ..., "scene 1: missing seed"),
        (("scenes", 0, "scene", "kind"), "gird", "of the kind 'gird'. Did you mean 'grid'"),
        (("scenes", 0, "scene", "walsl"), [], "no key 'walsl'. Did you mean 'walls'"),
        (("scenes", 0, "scene", "width"), "5", "numbers of cells"),
        (("scenes", 0, "scene", "start"), [0], "'start' is a pair of numbers"),
        (("scenes", 0, "scene", "goals", 0, "x"), ..., "a goal: missing x"),
        (("scenes", 0, "episodes", 1, "rewards"), [1, 2, 3, 4, 5], "episode 2: 3 positions came with 5 rewards"),
        (("scenes", 0, "episodes", 1, "positions"), [["a", 1]], "episode 2: positions are pairs"),
    ],
)
def test__read_paths__damage__says_where(tmp_path, where, value, message):
    path = write_paths(tmp_path / "paths.json", [trial(GRID)])
    content = json.loads(path.read_text())
    _break(content, where, value)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        read_paths(path)
    assert message in str(caught.value)


def test__check_scene__a_goal_without_radius_on_a_plane__is_refused():
    with pytest.raises(DataError, match="a goal: missing radius"):
        check_scene({**PLANE, "goals": [{"x": 0, "y": 0, "label": "g"}]})


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_no_bytes_make_a_reader_raise_anything_but_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("noise") / "file"
    path.write_bytes(content)
    for read in (read_curves, read_results, read_record, read_paths):
        with pytest.raises(DataError):
            read(path)
    with contextlib.suppress(DataError):  # an empty file is no metrics, which is fine
        read_metrics(path)
