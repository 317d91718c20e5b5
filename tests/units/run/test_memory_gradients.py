"""The analysis of fresh memories as a recipe: its files, its verdicts, its page, and what is wrong with settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fledge
from fledge.core.errors import DataError
from fledge.core.records import Result, read_results
from fledge.core.token_statistics import read_statistics, write_statistics
from fledge.report.memories import STATISTICS, estimate_of
from fledge.run import api
from fledge.run import recipe as recipes
from fledge.run.memory_gradients import PROGRAM, MemoryGradientsSettings, agrees, compare


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memories") / "run"
    return fledge.run("memory-gradients", scale="smoke", out=folder, quiet=True)


def test_there_is_a_row_for_each_memory_statistic_and_token(done):
    assert len({(row.arm, row.metric) for row in read_results(done.dir / "results.csv")}) == 2 * len(STATISTICS) * 6


def test_the_smoke_scale_judges_nothing(done):
    assert {row.verdict for row in done.results if row.published is not None} == {"not tested at this scale"}


def test_an_order_free_memory_does_not_mind_a_permutation_and_a_gru_does(done):
    last = {row.arm: row.value for row in done.results if row.metric == "change by a permutation at token 5"}
    assert last["cnp"] < 1e-5 < 1e-2 < last["rnn"]


def test_every_figure_is_on_the_page_and_beside_it_with_its_numbers(done):
    page = (done.dir / "report.html").read_text()
    assert all(f'id="{name}"' in page for name in STATISTICS)
    assert {path.stem for path in (done.dir / "report_files").glob("*.csv")} == set(STATISTICS)


def test_the_page_needs_nothing_beside_it(done):
    page = (done.dir / "report.html").read_text()
    assert "<script" not in page
    assert 'src="' not in page


def test_what_is_in_the_file_is_not_looked_at_again(done):
    path = done.dir / "statistics.csv"
    table = read_statistics(path)
    table["cnp"]["parameters"][:] = 7.0
    write_statistics(path, table)
    again = fledge.resume(done.dir, quiet=True)
    assert {row.value for row in again.results if row.arm == "cnp" and "parameters" in row.metric} == {7.0}


def test_a_report_asked_for_later_is_the_same_page_elsewhere(done, tmp_path):
    page = api.report([done.dir], tmp_path / "page.html")
    assert "What is left of the first token" in page.read_text()


def test_statistics_are_read_as_they_were_written(tmp_path):
    table = {"a, b": {"order": np.array([[1e-20, 0.5], [2.0, np.nan]])}}
    found = read_statistics(write_statistics(tmp_path / "statistics.csv", table))
    np.testing.assert_array_equal(found["a, b"]["order"], table["a, b"]["order"])


def test_a_damaged_line_is_named(tmp_path):
    path = write_statistics(tmp_path / "statistics.csv", {"rnn": {"order": np.zeros((1, 2))}})
    path.write_text(path.read_text().replace("rnn,order,0,1", "rnn,order,0,one"))
    with pytest.raises(DataError, match=r"line 3: 'one' in column 'token' is not a whole number"):
        read_statistics(path)


def test_the_signal_to_noise_ratio_is_that_of_the_means():
    statistics = {"signal": np.array([[2.0], [4.0]]), "noise": np.array([[1.0], [5.0]])}
    assert estimate_of(statistics, "snr").value == [1.0]


@pytest.mark.parametrize(
    ("value", "published", "wanted"),
    [
        (0.12, 0.10, True),
        (0.14, 0.10, False),
        (3e-6, 2e-5, True),  # less than an order apart
        (1e-7, 2e-5, False),
        (3e-22, 1e-20, True),  # a tenth of the exponent: two orders
        (1e-6, 0.0, True),
        (1e-4, 0.0, False),
    ],
)
def test_a_number_is_ours_within_the_tolerance_or_by_its_order_of_magnitude(value, published, wanted):
    assert agrees(Result("s", "a", "m", value), published, 0.3) is wanted


def test_a_number_inside_our_interval_is_ours():
    assert agrees(Result("s", "a", "m", 1.0, 0.1, 2.0), 0.2, 0.3)


def test_a_negative_published_number_stands_for_none():
    config = MemoryGradientsSettings(memories=("cnp",), tokens=(0, 1), published={"cnp: order": (-1.0, 0.0)})
    table = {
        "cnp": dict.fromkeys(("first_input", "each_input", "parameters", "order", "signal", "noise"), np.ones((2, 2)))
    }
    rows = [row for row in compare("s", "laptop", config, table) if "permutation" in row.metric]
    assert [(row.published, row.verdict) for row in rows] == [(None, ""), (0.0, "not reproduced")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memories": ("spl",)}, "memories: There is no memory 'spl'"),
        ({"memories": ()}, "memories is a list of at least one memory"),
        ({"n_inits": 0}, "n_inits is at least 1, not 0"),
        ({"tokens": (3, 100)}, "tokens: 100 is not among the tokens 0 … 99"),
        ({"published": {"rnn: ordr": (1.0,) * 6}}, "Did you mean 'order'"),
        ({"published": {"rnn: order": (1.0,)}}, "has 1 numbers; there are 6 tokens"),
        ({"memories": ("splagger",), "memory_size": 7}, "memory_size: splagger: A split memory cuts 7 values"),
    ],
)
def test_wrong_settings_are_named(change, message):
    config = replace(MemoryGradientsSettings(), **change)
    assert any(message in fault for fault in PROGRAM.faults(config))


def test_seeds_are_initialisations():
    base = recipes.load("memory-gradients").base
    assert PROGRAM.seeded(base, 4) == {"n_inits": 4}
