"""Logged behaviour from arrays, HDF5 and Minari, and its segments."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fledge.core.errors import ConfigError, DataError, ShapeError
from fledge.data.segments import segment
from fledge.data.trajectories import from_arrays, from_hdf5, from_minari

OBS = np.arange(10, dtype=np.float32)[:, None]


def ten_steps(**changes):
    """Episodes of 6 and 4 steps."""
    ends = np.zeros(10, bool)
    ends[[5, 9]] = True
    return from_arrays(OBS, np.ones(10), np.arange(10.0), **{"truncated": ends, **changes})


def test_episodes_begin_after_an_end():
    assert ten_steps().starts.tolist() == [0, 6]


def test_the_next_observation_never_comes_from_another_episode():
    logged = ten_steps()
    assert (logged.has_next[5], logged.next_observations[5, 0]) == (False, 5.0)


def test_a_terminal_step_may_be_learnt_from():
    ends = np.zeros(10, bool)
    ends[5] = True
    assert ten_steps(truncated=None, terminated=ends).has_next[5]


def test_disjoint_segments_cover_each_step_once():
    table = segment(ten_steps(), 2)
    assert sorted(np.concatenate([table.steps(i) for i in range(len(table))])) == list(range(10))


def test_no_segment_crosses_the_border_of_an_episode():
    logged = ten_steps()
    table = segment(logged, 4, 1, tail="drop")
    ends = logged.starts[table.episode] + logged.lengths[table.episode]
    assert (table.first + table.length <= ends).all()


def test_a_length_that_does_not_divide_an_episode_is_refused_with_the_cure():
    with pytest.raises(DataError, match=r"Episode 0 has 6 steps.*leave 2 over.*tail='drop'"):
        segment(ten_steps(), 4)


def test_a_kept_tail_is_a_shorter_segment():
    table = segment(ten_steps(), 4, tail="keep")
    assert [dataclasses.astuple(one) for one in table] == [(0, 0, 4), (0, 4, 2), (1, 0, 4)]


def test_frames_are_spread_over_the_segment_without_its_end():
    logged = from_arrays(np.zeros((200, 1)), np.zeros(200), np.zeros(200))
    assert segment(logged, 100).frames(5)[1].tolist() == [100, 120, 140, 160, 180]


def test_a_step_is_worth_the_mean_of_the_segments_that_cover_it():
    table = segment(from_arrays(OBS[:4], np.ones(4), np.ones(4)), 2, 1)
    assert table.spread(np.array([1.0, 0.5, 0.0])).tolist() == [1.0, 0.75, 0.25, 0.0]


def test_a_step_survives_only_if_all_its_segments_do():
    table = segment(from_arrays(OBS[:4], np.ones(4), np.ones(4)), 2, 1)
    assert table.covered_by_all(np.array([True, True, False])).tolist() == [True, True, False, False]


def test_sums_of_segments_are_those_of_their_steps():
    assert segment(ten_steps(), 2).sums(np.arange(10.0)).tolist() == [1, 5, 9, 13, 17]


def test_stride_beyond_k_is_refused():
    with pytest.raises(ConfigError, match="stride"):
        segment(ten_steps(), 2, 3)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ShapeError, match="9 actions came with 10"):
        from_arrays(OBS, np.ones(9), np.ones(10))


def test_a_number_that_is_not_finite_is_named():
    broken = OBS.copy()
    broken[3] = np.nan
    with pytest.raises(DataError, match=r"observations\[3\]"):
        from_arrays(broken, np.ones(10), np.ones(10))


@pytest.fixture
def hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs the datasets extra")
    path = tmp_path / "log.h5"
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"], file["rewards"] = OBS, np.ones((10, 1)), np.arange(10.0)
        file["terminals"] = np.zeros(10)
        file["timeouts"] = np.arange(10) == 5
    return path


def test_an_hdf5_file_gives_the_episodes_that_were_written(hdf5):
    assert from_hdf5(hdf5).lengths.tolist() == [6, 4]


def test_an_hdf5_file_without_ends_is_refused(hdf5):
    h5py = pytest.importorskip("h5py")
    with h5py.File(hdf5, "a") as file:
        del file["terminals"], file["timeouts"]
    with pytest.raises(DataError, match="nowhere where episodes end"):
        from_hdf5(hdf5)


def test_an_hdf5_file_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("h5py", reason="needs the datasets extra")
    with pytest.raises(DataError, match=r"no\.h5"):
        from_hdf5(tmp_path / "no.h5")


def test_a_minari_data_set_gives_its_episodes(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", reason="needs the datasets extra")
    gymnasium = pytest.importorskip("gymnasium")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=i,
            observations=np.arange(n + 1, dtype=np.float32)[:, None],
            actions=np.ones((n, 1), np.float32),
            rewards=np.ones(n),
            terminations=[False] * n,
            truncations=[False] * (n - 1) + [True],
        )
        for i, n in enumerate((3, 2))
    ]
    box = gymnasium.spaces.Box(-9, 9, (1,))
    made = minari.create_dataset_from_buffers("own/two-v0", buffers, action_space=box, observation_space=box)
    logged = from_minari(made)
    assert (logged.lengths.tolist(), logged.next_observations[2, 0], logged.name) == ([3, 2], 3.0, "own/two-v0")
