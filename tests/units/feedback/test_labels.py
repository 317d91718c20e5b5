"""From answers to weights, on numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fledge.core.annotations import Annotation, Item
from fledge.core.errors import ConfigError, DataError
from fledge.data.segments import segment
from fledge.data.trajectories import from_arrays
from fledge.feedback import pendulum
from fledge.feedback.diagnose import diagnose, pairwise, reliability
from fledge.feedback.domain import comparison, domain
from fledge.feedback.gather import OracleAsker, OracleSettings, Questions, RecordedAsker, gather, preferences, wants
from fledge.feedback.items import Presentation, items_of, pair_items, random_pairs
from fledge.feedback.labels import combine, keep, p_yes, probabilities, select
from fledge.feedback.oracle import MeritAnnotator, OracleAnnotator


def table_of(*n_segments, k=2):
    """Episodes with so many segments of k steps."""
    ends = np.zeros(k * sum(n_segments), bool)
    ends[np.cumsum(n_segments) * k - 1] = True
    n = len(ends)
    return segment(from_arrays(np.zeros((n, 1)), np.zeros(n), np.zeros(n), truncated=ends), k)


def test_the_look_back_drops_the_segment_before_a_failing_one():
    assert keep(np.array([0.9, 0.05, 0.9]), table_of(3)).tolist() == [False, False, True]


def test_the_last_segment_of_an_episode_is_judged_alone():
    assert keep(np.array([0.9, 0.9, 0.01, 0.9]), table_of(2, 2)).tolist() == [True, True, False, True]


def test_looking_back_twice_drops_two():
    p = np.array([0.9, 0.9, 0.9, 0.05])
    assert keep(p, table_of(4), retro_k=2).tolist() == [True, False, False, False]


def test_without_look_back_only_the_filter_counts():
    assert keep(np.array([0.9, 0.05, 0.9]), table_of(3), retro_k=0).tolist() == [True, False, True]


def test_alpha_itself_passes():
    assert keep(np.array([0.1]), table_of(1), alpha=0.1).all()


def test_a_segment_that_nobody_judged_is_left_out_and_throws_no_doubt_on_others():
    assert keep(np.array([0.9, np.nan, 0.9]), table_of(3)).tolist() == [True, False, True]


def test_probabilities_are_added_and_capped():
    parts = {"a": np.array([[0.3, 0.8]]), "b": np.array([[0.2, 0.9]])}
    assert combine(parts).tolist() == [0.5, 1.0]


def test_replicates_are_averaged_before_they_are_added():
    assert combine({"a": np.array([[0.0, np.nan], [0.4, 0.6]])}).tolist() == pytest.approx([0.2, 0.6])


def test_every_step_weighs_the_p_of_its_segment():
    chosen = select(np.array([0.4, 0.8, 0.05]), table_of(2, 1))
    assert chosen.weights.tolist() == pytest.approx([0.4, 0.4, 0.8, 0.8, 0.0, 0.0])


def test_without_weighting_every_kept_step_weighs_one():
    chosen = select(np.array([0.4, 0.8, 0.05]), table_of(2, 1), weight=False)
    assert chosen.weights.tolist() == [1, 1, 1, 1, 0, 0]


def test_an_empty_result_is_an_error_with_the_histogram():
    with pytest.raises(DataError, match=r"(?s)No segment is left.*0\.0–0\.1 .* 3"):
        select(np.array([0.01, 0.02, 0.05]), table_of(3))


def test_keeping_all_is_no_filter_at_all():
    assert len(select(np.array([0.0, 0.5]), table_of(2), alpha=0.0, retro_k=0).rows) == 4


def test_a_negative_look_back_is_refused():
    with pytest.raises(ConfigError, match="retro_k"):
        keep(np.array([0.5]), table_of(1), retro_k=-1)


def answer(value, probability=None, missing="", **more):
    return Annotation("0:0+2", "q", "me", value, missing, probability, **more)


@pytest.mark.parametrize(
    ("given", "mode", "wanted"),
    [
        (answer("0", {"0": 0.9, "1": 0.05}), "emitted_no", 0.1),
        (answer("1", {"0": 0.3, "1": 0.7}), "emitted_no", 1.0),
        (answer(None, None, "unparsable"), "emitted_no", 1.0),
        (answer("0", None), "emitted_no", 0.0),
        (answer("1", {"0": 0.3, "1": 0.6}), "top_no", 0.7),
        (answer("1", {"0": 0.2, "1": 0.6}), "normalised", 0.75),
        (answer("0", None), "normalised", 0.0),
    ],
)
def test_an_answer_is_a_probability_in_each_mode(given, mode, wanted):
    assert p_yes(given, mode) == pytest.approx(wanted)


@pytest.mark.parametrize("given", [answer(None, None, "refused"), answer("1", {"0": 0.0, "1": 0.0})])
def test_an_answer_that_says_nothing_is_no_label(given):
    assert np.isnan(p_yes(given))


def test_the_last_revision_counts():
    found = probabilities([answer("0"), answer("1", revision=1)], table_of(1))
    assert found["q"].tolist() == [[1.0]]


def test_an_answer_about_another_cut_is_refused():
    with pytest.raises(DataError, match=r"0:0\+2.*cut it as it was cut"):
        probabilities([answer("1")], table_of(1, k=3))


@pytest.fixture(scope="module")
def few():
    return pendulum.stitched(6)


@pytest.fixture(scope="module")
def asked(few):
    where, table = domain("pendulum"), segment(few, 100)
    return OracleAnnotator(few, table, where.judges), list(items_of(few, table)), where.instrument


def test_the_oracle_answers_every_question_about_every_item(asked):
    oracle, items, instrument = asked
    assert {(a.item, a.construct) for a in oracle.annotate(items, instrument)} == {
        (item.id, c.name) for item in items for c in instrument.constructs
    }


def test_answers_of_some_items_are_those_among_all(asked):
    oracle, items, instrument = asked
    all_of_them = {(a.item, a.construct): a.probability for a in oracle.annotate(items, instrument)}
    assert all(all_of_them[a.item, a.construct] == a.probability for a in oracle.annotate(items[5:9], instrument))


def test_noise_flips_its_share_of_answers(few):
    where, table = domain("pendulum"), segment(few, 10)
    asked = Questions("segments", list(items_of(few, table)), where.instrument, table, 5)
    clean, noisy = (OracleAsker(where, few, OracleSettings("hard", flip=flip))(asked) for flip in (0.0, 0.2))
    assert np.mean([a.value != b.value for a, b in zip(clean, noisy, strict=True)]) == pytest.approx(0.2, abs=0.04)


def test_pictures_are_laid_out_as_the_presentation_says(few):
    table = segment(few, 300)
    shown = Presentation(n_frames=3, layout="grid", resolution=16)
    item = next(items_of(few, table, shown, domain("pendulum").renderer))
    assert (len(item.media), item.media[0].content[:4]) == (1, b"\x89PNG")


def test_a_pair_is_never_a_segment_with_itself(few):
    pairs = random_pairs(segment(few, 100))
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_the_two_segments_of_a_pair_stand_at_different_places(few):
    table = segment(few, 100)
    pairs = random_pairs(table)
    assert (table.index[pairs[:, 0]] != table.index[pairs[:, 1]]).all()


def test_the_higher_clip_is_preferred_and_equals_are_not(few):
    table = segment(few, 300)
    higher = few.observations[table.frames(5)][..., 0].mean(-1)
    pairs = np.array([[0, 1], [1, 0], [2, 2]])
    items = pair_items(list(items_of(few, table)), pairs)
    oracle = MeritAnnotator(few, table, domain("pendulum").merit)
    said = preferences(oracle.annotate(items, comparison(domain("pendulum"))), items)
    first = float(higher[0] > higher[1])
    assert said.tolist() == [first, 1 - first, 0.5]


def test_a_preference_is_the_share_of_the_first_among_both():
    pair = pair_items([Item("a"), Item("b")], np.array([[0, 1]]))
    given = [
        Annotation("a|b", "better", "m", "first", probability={"first": 0.6, "second": 0.2}),
        Annotation("a|b", "better", "n", missing="refused"),
        Annotation("a|b", "better", "o", "second"),
    ]
    assert preferences(given, pair).tolist() == pytest.approx([(0.75 + 0.0) / 2])


def test_answers_that_were_recorded_give_the_same_feedback(few):
    where = domain("pendulum")
    first, answers = gather(where, few, OracleAsker(where, few, OracleSettings(flip=0.1, replicates=2)))
    again, _ = gather(where, few, RecordedAsker(answers))
    assert np.array_equal(first.preference, again.preference)
    assert all(np.array_equal(x, again.parts[name]) for name, x in first.parts.items())
    assert all(np.array_equal(x, again.whole_parts[name]) for name, x in first.whole_parts.items())


def test_answers_about_segments_alone_are_not_taken_for_answers_about_pairs(few):
    where = domain("pendulum")
    _, answers = gather(where, few, OracleAsker(where, few, OracleSettings()), about=("segments",))
    with pytest.raises(DataError, match="no answer about pairs such as"):
        gather(where, few, RecordedAsker(answers), about=("segments", "pairs"))


@pytest.mark.parametrize(
    ("arm", "also"), [("SF-BC", set()), ("S-DPO", {"pairs"}), ("VLM BC (Full-Trajectory)", {"episodes"})]
)
def test_an_arm_asks_only_about_what_it_needs(arm, also):
    assert wants([arm]) == {"segments"} | also


def test_a_confidence_in_a_no_is_a_small_probability_of_yes():
    answer = Annotation("a", "q", "ann", "0", probability={"0": 0.8}, mode="verbal")
    assert p_yes(answer) == pytest.approx(0.2)


def test_kappa_of_a_hand_made_table():
    a = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0.0])
    b = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0.0])
    assert pairwise(a, b)["kappa"] == pytest.approx((0.8 - 0.58) / 0.42)


def test_one_replicate_says_nothing_of_reliability():
    assert np.isnan(reliability(np.ones((1, 4)))["kappa"])


def test_labels_go_with_the_reward_they_never_saw(few):
    found = diagnose(gather(domain("pendulum"), few, OracleAsker(domain("pendulum"), few, OracleSettings()))[0])
    assert found["correlation"]["spearman"] > 0.4
