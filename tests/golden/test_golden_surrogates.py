"""Estimators of a Hessian on the two-state process: all 32 trajectories listed, one per estimate (double precision)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.envs.paths import enumerate_paths
from fledge.envs.tabular import exact_gradient, exact_hessian, finite_value, golden_mdp
from fledge.learn.surrogates import DiCE, LoadedDiCE, PolicyGradient, lvc

DISCOUNT, HORIZON = 0.9, 3
WRONG = [[0.4, -0.3], [-0.2, 0.5], [0.3, 0.1]]
ROWS = {
    "pg twice, reward to go": (PolicyGradient(), "none", (0.0, 0.7641, 0.683074, 0.3072)),
    "pg twice, exact values": (PolicyGradient(), "exact", (0.0, 0.2433, 0.148565, 0.3065)),
    "DiCE": (DiCE(), "none", (0.0, 0.7641, 0.0, 1.1834)),
    "loaded, tau 1, lambda 1": (LoadedDiCE(1.0, 1.0), "exact", (0.0, 0.2433, 0.0, 0.5424)),
    "loaded, tau 0, lambda 1": (LoadedDiCE(0.0, 1.0), "exact", (0.0, 0.0837, 0.0, 0.4211)),
    "loaded, tau 1, lambda .5": (LoadedDiCE(1.0, 0.5), "exact", (0.0, 0.2433, 0.055887, 0.1365)),
    "LVC": (lvc(), "exact", (0.0, 0.2433, 0.121065, 0.0329)),
    "loaded, tau 1, wrong values": (LoadedDiCE(1.0, 1.0), "wrong", (0.0, 0.2609, 0.0, 0.3884)),
    "loaded, tau 0, wrong values": (LoadedDiCE(0.0, 1.0), "wrong", (0.088878, 0.1131, 0.045148, 0.3208)),
}


@pytest.fixture(scope="module")
def measured():
    """Name → (gradient bias, gradient variance, Hessian bias, Hessian variance)."""
    with jax.enable_x64(True):
        mdp, logits = golden_mdp()
        mdp, logits = jax.tree.map(lambda x: jnp.asarray(np.round(np.asarray(x, float), 6)), (mdp, logits))
        paths = enumerate_paths(mdp, HORIZON)
        exact = finite_value(mdp, logits, horizon=HORIZON, discount=DISCOUNT)[:HORIZON]
        values = {"none": jnp.zeros_like(exact), "exact": exact, "wrong": exact + jnp.array(WRONG)}

        def log_probs(x, i):
            return jax.nn.log_softmax(x.reshape(2, 2))[paths.state[i], paths.action[i]]

        def derivatives(i):
            found = {}
            for name, (surrogate, which, _) in ROWS.items():
                known = values[which][jnp.arange(HORIZON), paths.state[i]][None]

                def scalar(x, surrogate=surrogate, known=known):
                    return surrogate(log_probs(x, i)[None], paths.reward[i][None], known, discount=DISCOUNT)

                found[name] = (jax.grad(scalar)(logits.ravel()), jax.hessian(scalar)(logits.ravel()).ravel())
            return jnp.exp(jnp.sum(log_probs(logits.ravel(), i)) + paths.log_world[i]), found

        chances, found = jax.jit(jax.vmap(derivatives))(jnp.arange(len(paths.log_world)))
        truth = (
            exact_gradient(mdp, logits, discount=DISCOUNT, horizon=HORIZON).ravel(),
            exact_hessian(mdp, logits, discount=DISCOUNT, horizon=HORIZON).ravel(),
        )
        table = {}
        for name, samples in found.items():
            row = []
            for sample, true in zip(samples, truth, strict=True):
                mean = chances @ sample
                row += [float(jnp.linalg.norm(mean - true)), float(chances @ jnp.sum((sample - mean) ** 2, axis=1))]
            table[name] = row
        return {"chances": float(chances.sum()), **table}


def test_the_trajectories_that_are_listed_are_all_there_are(measured):
    assert measured["chances"] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", ROWS)
def test_a_surrogate_has_its_golden_biases(measured, name):
    golden = ROWS[name][2]
    np.testing.assert_allclose([measured[name][0], measured[name][2]], [golden[0], golden[2]], atol=1e-5)


@pytest.mark.parametrize("name", ROWS)
def test_a_surrogate_has_its_golden_variances(measured, name):
    golden = ROWS[name][2]
    np.testing.assert_allclose([measured[name][1], measured[name][3]], [golden[1], golden[3]], atol=1e-4)
