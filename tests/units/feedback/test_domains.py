"""The stitched data sets: what they are made of, what they look like, and what is asked about them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.envs.check import check_env
from fledge.envs.pendulum import Pendulum, swing
from fledge.envs.pointmass import PointMass
from fledge.feedback import pendulum
from fledge.feedback.domain import domain
from fledge.feedback.gather import OracleAsker, OracleSettings, gather
from fledge.feedback.labels import combine, keep
from fledge.feedback.pendulum import PENDULUM
from fledge.feedback.raster import GAP, arrange, tinted, to_gif


@pytest.fixture(scope="module")
def stitched():
    return pendulum.stitched()


def test_the_stitched_set_has_the_published_size(stitched):
    assert (stitched.n_episodes, stitched.n_steps) == (500, 300_000)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("mean", 0.06), ("std", 0.97), ("beyond", 0.22), ("expert", -2.20), ("anti", -8.55), ("return", -3226.0)],
)
def test_the_stitched_set_has_the_reference_statistics(stitched, name, wanted):
    by_expert, action = stitched.extras["expert"], stitched.actions
    found = {
        "mean": round(float(action.mean()), 2),  # given to two digits, where 3 % of it would be 0.002
        "std": float(action.std()),
        "beyond": float((np.abs(action) > 1).mean()),
        "expert": float(stitched.rewards[by_expert].mean()),
        "anti": float(stitched.rewards[~by_expert].mean()),
        "return": float(stitched.returns.mean()),
    }
    assert found[name] == pytest.approx(wanted, rel=0.03)


def test_the_state_is_not_reset_where_the_policies_change(stitched):
    assert np.allclose(stitched.next_observations[299], stitched.observations[300])


def test_the_last_step_of_an_episode_is_cut_and_not_terminal(stitched):
    assert not stitched.terminated.any()


def hard(stitched):
    return gather(PENDULUM, stitched, OracleAsker(PENDULUM, stitched, OracleSettings("hard")))[0]


@pytest.fixture(scope="module")
def judged(stitched):
    return hard(stitched)


def test_a_hard_oracle_keeps_the_published_share_before_the_look_back(judged):
    assert keep(combine(judged.parts), judged.table, retro_k=0).mean() == pytest.approx(0.643, abs=0.001)


def test_a_hard_oracle_keeps_exactly_the_half_of_the_expert(stitched, judged):
    kept = keep(combine(judged.parts), judged.table)
    assert (kept == stitched.extras["expert"][judged.table.first]).all()


def test_the_markov_question_alone_keeps_less(stitched, judged):
    kept = keep(judged.parts["upright"][0], judged.table)
    by_expert = stitched.extras["expert"][judged.table.first]
    assert (kept.mean(), kept[by_expert].mean(), kept[~by_expert].mean()) == (
        pytest.approx(0.384, abs=0.002),
        pytest.approx(0.77, abs=0.01),
        0.0,
    )


def test_every_whole_episode_is_judged_good(judged):
    assert (combine(judged.whole_parts) == 1.0).all()


def test_a_soft_oracle_leaves_a_third_of_its_double_noes_above_alpha(stitched):
    soft = gather(PENDULUM, stitched, OracleAsker(PENDULUM, stitched, OracleSettings()), about=("segments",))[0]
    p = combine(soft.parts)
    noes = (soft.parts["upright"][0] < 1) & (soft.parts["crossed"][0] < 1)
    assert (p[noes] >= 0.1).mean() == pytest.approx(0.35, abs=0.05)


def test_labels_do_not_depend_on_the_order_of_asking(stitched):
    few = pendulum.stitched(4)
    first, second = (gather(PENDULUM, few, OracleAsker(PENDULUM, few, OracleSettings()))[1] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("env", [Pendulum(horizon=20), PointMass(horizon=20)], ids=["pendulum", "point-mass"])
def test_the_environment_keeps_the_contract(env):
    assert [str(finding) for finding in check_env(env)] == []


def test_the_pendulum_is_that_of_gymnasium():
    gymnasium = pytest.importorskip("gymnasium", reason="needs the gymnasium extra")
    theirs = gymnasium.make("Pendulum-v1").unwrapped
    theirs.reset(seed=0)
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(50):
        angle, speed = (float(x) for x in theirs.state)
        torque = float(rng.uniform(-2.5, 2.5))
        ours = swing(angle, speed, torque, np)
        reward = theirs.step(np.array([torque]))[1]
        gaps += [ours[0] - theirs.state[0], ours[1] - theirs.state[1], ours[2] - reward]
    assert np.abs(gaps).max() < 1e-9


def test_the_jax_pendulum_follows_the_numpy_one():
    env = Pendulum(horizon=1000)
    logged = pendulum.stitched(1, n_steps=100)
    state, _ = env.reset(jax.random.key(0), jnp.zeros(1))
    first = logged.observations[0]
    state = type(state)(jnp.arctan2(first[1], first[0]), jnp.asarray(first[2]), state.time)

    def walk(state, action):
        state, timestep = env.step(jax.random.key(0), state, action, jnp.zeros(1))
        return state, (timestep.final_observation, timestep.reward)

    seen, rewards = jax.lax.scan(walk, state, jnp.asarray(logged.actions))[1]
    # 20 steps: the pendulum is chaotic, and one side computes in single precision
    assert np.allclose(seen[:20], logged.next_observations[:20], atol=1e-3)
    assert np.allclose(rewards[:20], logged.rewards[:20], atol=1e-2)


def test_the_stick_points_up_when_the_pendulum_is_upright():
    picture = pendulum.draw(np.array([1.0, 0.0, 0.0]), 100)
    red = np.argwhere((picture == pendulum.RED).all(-1))
    assert red[:, 0].max() < 56
    assert red[:, 0].min() < 30


def test_the_pivot_is_a_black_dot_in_the_middle():
    assert pendulum.draw(np.array([0.0, 1.0, 0.0]), 100)[50, 50].tolist() == [0, 0, 0]


def test_the_picture_is_that_of_gymnasium():
    pytest.importorskip("pygame", reason="needs pygame")
    render = pendulum.gymnasium_renderer()
    observation = np.array([np.cos(2.0), np.sin(2.0), 1.0])
    theirs, ours = render(observation, 500), pendulum.draw(observation, 500)
    assert (np.abs(theirs.astype(int) - ours).max(-1) > 60).mean() < 0.01


FRAMES = [pendulum.draw(np.array([1.0, 0.0, 0.0]), 16)] * 5


@pytest.mark.parametrize(
    ("layout", "shapes"),
    [
        ("separate", [(16, 16, 3)] * 5),
        ("filmstrip", [(16, 5 * 16 + 4 * GAP, 3)]),
        ("grid", [(2 * 16 + GAP, 3 * 16 + 2 * GAP, 3)]),
    ],
)
def test_a_layout_has_its_shape(layout, shapes):
    assert [picture.shape for picture in arrange(FRAMES, layout)] == shapes


def test_an_unknown_layout_is_refused():
    with pytest.raises(ConfigError, match="filmstrip"):
        arrange(FRAMES, "pile")


def test_captions_change_the_pixels():
    assert not np.array_equal(arrange(FRAMES, "grid", captions=True)[0], arrange(FRAMES, "grid")[0])


def test_a_film_is_a_gif():
    assert to_gif([FRAMES[0], tinted(FRAMES[0], (0, 255, 0))])[:6] == b"GIF89a"


def test_an_unknown_domain_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="pendulum"):
        domain("pendulm")
