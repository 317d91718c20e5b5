"""The physics: Gymnasium's to the bit, pure, at any depth of vmap and on several devices; bodies that differ."""

from __future__ import annotations

import sys
import types

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fledge.envs.ant import ANT, HumanoidDir
from fledge.envs.mujoco_body import Body, Factor, Models, Variation, silence
from fledge.envs.mujoco_engine import Engine, double_words, engine_of

sys.modules.setdefault("imageio", types.ModuleType("imageio"))  # Gymnasium's bodies want it, to save films

N_STEPS = 100
N_ROWS = 3
CHEETAH = Body("half_cheetah.xml", 5)
PEERS = {
    "HalfCheetah-v5": CHEETAH,
    "Ant-v5": ANT,
    "Walker2d-v5": Body("walker2d_v5.xml", 4),
    "Hopper-v5": Body("hopper.xml", 4),
    "Humanoid-v5": HumanoidDir().body,
}
ZERO = jnp.asarray(0, jnp.int32)


def doubles(words, part):
    return np.ascontiguousarray(words).view(np.float64)[..., part]


def starts(engine, rows, seed=0):
    rng = np.random.default_rng(seed)
    qpos = engine.qpos0 + rng.uniform(-0.01, 0.01, (rows, engine.nq)).astype(np.float32)
    return qpos, rng.normal(0, 0.1, (rows, engine.nv)).astype(np.float32)


def walk(engine, qpos, qvel, actions, variant=ZERO):
    """States and views after each action, for one row."""
    words, _ = engine.start(qpos, qvel, variant)

    def step(words, action):
        words, view = engine.step(words, action)
        return words, (words, view)

    return jax.lax.scan(step, words, actions)[1]


@pytest.fixture(scope="module", params=PEERS)
def beside(request):
    """A walk of each body inside jit, scan and vmap, and what Gymnasium makes of the same actions."""
    body = PEERS[request.param]
    engine = engine_of(body)
    qpos, qvel = starts(engine, N_ROWS)
    limit = engine.models.nominal.actuator_ctrlrange[0, 1]
    actions = np.random.default_rng(1).uniform(-limit, limit, (N_ROWS, N_STEPS, engine.nu)).astype(np.float32)
    words, view = jax.jit(jax.vmap(lambda *x: walk(engine, *x)))(qpos, qvel, actions)
    with silence():
        env = gymnasium.make(request.param).unwrapped
    theirs = []
    for row in range(N_ROWS):
        env.reset(seed=0)
        env.set_state(qpos[row].astype(float), qvel[row].astype(float))
        for action in actions[row]:
            env.step(action)
            fields = {name: np.array(getattr(env.data, name)).reshape(-1) for name in body.extras}
            theirs.append((env.data.qpos.copy(), env.data.qvel.copy(), fields))
    return engine, np.asarray(words), view, jax.tree.map(lambda *x: np.stack(x).reshape(N_ROWS, N_STEPS, -1), *theirs)


def test_positions_and_velocities_are_those_of_gymnasium_to_the_bit(beside):
    engine, words, _, (qpos, qvel, _) = beside
    np.testing.assert_array_equal(doubles(words, engine._qpos), qpos)
    np.testing.assert_array_equal(doubles(words, engine._qvel), qvel)


def test_what_is_seen_is_what_gymnasium_sees_in_single_precision(beside):
    _, _, view, (qpos, qvel, extras) = beside
    np.testing.assert_array_equal(view.qpos, qpos.astype(np.float32))
    np.testing.assert_array_equal(view.qvel, qvel.astype(np.float32))
    for name, values in extras.items():
        np.testing.assert_array_equal(view.extras[name], values.astype(np.float32))


def advance(engine, words, actions):
    """One step of each row, as arrays of the host."""
    return np.array(jax.vmap(engine.step)(jnp.asarray(words), jnp.asarray(actions))[0])


@pytest.fixture(scope="module")
def cheetah():
    engine = engine_of(CHEETAH)
    n = 24
    qpos, qvel = starts(engine, n)
    words = jax.vmap(lambda q, v: engine.start(q, v, ZERO)[0])(qpos, qvel)
    actions = np.random.default_rng(2).uniform(-1, 1, (n, 6)).astype(np.float32)
    return engine, advance(engine, words, actions), actions  # the solver's warm start is not zero any more


def test_a_step_does_not_depend_on_who_serves_it(cheetah):
    engine, words, actions = cheetah
    other = Engine(CHEETAH)
    together = advance(engine, words, actions)
    backwards = advance(engine, words[::-1], actions[::-1])[::-1]
    alone = np.concatenate([advance(other, words[i : i + 1], actions[i : i + 1]) for i in range(len(words))])
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together, alone)


def test_a_step_leaves_its_input_alone(cheetah):
    engine, words, actions = cheetah
    before = words.copy()
    advance(engine, words, actions)
    np.testing.assert_array_equal(words, before)


def test_seeds_over_environments_is_one_batch(cheetah):
    engine, words, actions = cheetah
    step = jax.vmap(lambda w, a: engine.step(w, a)[0])
    nested = jax.jit(jax.vmap(step))(words.reshape(2, 12, -1), actions.reshape(2, 12, -1))
    np.testing.assert_array_equal(np.asarray(nested).reshape(words.shape), advance(engine, words, actions))


def test_two_devices_call_at_the_same_time(cheetah):
    engine, words, actions = cheetah
    assert jax.device_count() == 2
    mesh = Mesh(np.array(jax.devices()), ("seed",))

    def walk(words, actions):
        def step(words, _):
            return jax.vmap(lambda w, a: engine.step(w, a)[0])(words, actions), None

        return jax.lax.scan(step, words, length=50)[0]

    spec = PartitionSpec("seed")
    shared = jax.shard_map(walk, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    both = jax.jit(shared, in_shardings=NamedSharding(mesh, spec))(words, actions)
    np.testing.assert_array_equal(both, jax.jit(walk)(words, actions))


def test_single_precision_numbers_become_the_same_doubles():
    x = np.concatenate(
        [np.random.default_rng(0).normal(size=50) * 10.0 ** np.arange(-25, 25), [0, -0.0, 1, np.inf, -np.inf, np.nan]]
    )
    x = x.astype(np.float32)
    np.testing.assert_array_equal(doubles(jax.jit(double_words)(x), slice(None)), x.astype(np.float64))


@pytest.fixture(scope="module")
def bodies():
    factors = (Factor("body_mass", 8, 1.5), Factor("dof_damping", 9, 1.3))
    return Body("walker2d.xml", 4, variation=Variation(factors, 5))


def test_a_variant_multiplies_the_file_s_numbers(bodies):
    models, exponents = Models(bodies), bodies.variation.exponents()
    np.testing.assert_allclose(models[3].body_mass, models.nominal.body_mass * 1.5 ** exponents[3, :8], rtol=1e-12)
    np.testing.assert_allclose(models[3].dof_damping, models.nominal.dof_damping * 1.3 ** exponents[3, 8:], rtol=1e-12)


def test_what_follows_from_the_masses_is_worked_out_again(bodies):
    models = Models(bodies)
    np.testing.assert_allclose(models[3].body_subtreemass[0], models[3].body_mass.sum(), rtol=1e-12)


def test_more_variants_leave_the_first_ones_as_they_are(bodies):
    more = Variation(bodies.variation.factors, 50)
    np.testing.assert_array_equal(more.exponents()[:5], bodies.variation.exponents())


def test_each_row_of_a_batch_moves_its_own_body(bodies):
    engine = engine_of(bodies)
    qpos, qvel = jnp.asarray(engine.qpos0), jnp.zeros(engine.nv)
    variants = jnp.asarray([0, 1, 2, 3, 4, 1], jnp.int32)
    words = jax.vmap(lambda i: engine.start(qpos, qvel, i)[0])(variants)
    after = advance(engine, words, np.full((6, 6), 0.5, np.float32))[:, :-2]
    assert len(np.unique(after, axis=0)) == 5
    np.testing.assert_array_equal(after[1], after[5])
