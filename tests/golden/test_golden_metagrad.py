"""A bandit of 729 outcomes whose meta-gradients, estimated in every way, are known to six digits (double precision)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.learn.lifetime_bandit import golden_bandit
from fledge.learn.metagrad import MetaGrad
from fledge.learn.metagrad_truth import Enumerated, differences, enumerate_estimators
from fledge.learn.surrogates import DiCE, PolicyGradient

OBJECTIVES = ("final", "auc")
VALUE = {"final": 0.725177, "auc": 0.603178}
TRUTH = {"final": [0.193948, -0.102368, -0.091580, 0.165109], "auc": [0.213894, -0.094044, -0.119850, 0.095436]}
SETTINGS = {
    "naive": {"sc_coef": 0.0},
    "sc(.5)": {"sc_coef": 0.5},
    "sc(1)": {},
    "fo, lambda 0": {"sc_coef": 0.0, "surrogate": PolicyGradient(first_order=True)},
    "fo, lambda 1": {"surrogate": PolicyGradient(first_order=True)},
    "dice_inner, lambda 0": {"sc_coef": 0.0, "surrogate": DiCE()},
    "dice_inner, lambda 1": {"surrogate": DiCE()},
    "trunc(1), lambda 0": {"sc_coef": 0.0, "window": 1, "start": 1},
    "trunc(1), lambda 1": {"window": 1, "start": 1},
    "constant": {"baseline": "fixed", "constants": (0.470344, 0.614014, 0.725177)},
    "critic": {"baseline": "critic"},
}
# d/dθ_0 (three numbers), d/dη; the objective is `final`.
MEANS = {
    "naive": [0.07481, -0.03190, -0.04291, 0.14438],
    "sc(.5)": [0.13438, -0.06713, -0.06725, 0.15474],
    "sc(1)": [0.19395, -0.10237, -0.09158, 0.16511],
    "fo, lambda 0": [0.16599, -0.07358, -0.09241, 0.18121],
    "fo, lambda 1": [0.29968, -0.15257, -0.14711, 0.20194],
    "dice_inner, lambda 0": [0.17300, -0.09249, -0.08050, 0.16289],
    "dice_inner, lambda 1": [0.31092, -0.17539, -0.13554, 0.18362],
    "trunc(1), lambda 0": [0.0, 0.0, 0.0, 0.09089],
    "trunc(1), lambda 1": [0.0, 0.0, 0.0, 0.09089],
    "constant": [0.19395, -0.10237, -0.09158, 0.16511],
    "critic": [0.07481, -0.03190, -0.04291, 0.14438],
}
# Norm of the bias of d/dθ_0, bias of d/dη; `final`, then `auc`.
BIASES = {
    "naive": ((0.14672, -0.02073), (0.08649, -0.00691)),
    "sc(.5)": ((0.07336, -0.01036), (0.04325, -0.00345)),
    "sc(1)": ((0.0, 0.0), (0.0, 0.0)),
    "fo, lambda 0": ((0.04014, 0.01611), (0.02565, 0.00537)),
    "fo, lambda 1": ((0.12955, 0.03683), (0.06941, 0.01228)),
    "dice_inner, lambda 0": ((0.02568, -0.00222), (0.01205, -0.00074)),
    "dice_inner, lambda 1": ((0.14473, 0.01851), (0.08233, 0.00617)),
    "trunc(1), lambda 0": ((0.23766, -0.07422), (0.26260, -0.06514)),
    "trunc(1), lambda 1": ((0.23766, -0.07422), (0.26260, -0.06514)),
    "constant": ((0.0, 0.0), (0.0, 0.0)),
    "critic": ((0.14672, -0.02073), (0.08649, -0.00691)),
}
# Sum of the variances of d/dθ_0, variance of d/dη; `final`, then `auc`.
VARIANCES = {
    "naive": ((0.0168, 0.0169), (0.0064, 0.0048)),
    "sc(.5)": ((0.1980, 0.0688), (0.1030, 0.0158)),
    "sc(1)": ((0.8779, 0.2365), (0.3486, 0.0397)),
    "fo, lambda 0": ((0.0323, 0.0246), (0.0124, 0.0068)),
    "fo, lambda 1": ((1.1818, 0.2580), (0.4167, 0.0431)),
    "dice_inner, lambda 0": ((0.0418, 0.0211), (0.0142, 0.0059)),
    "dice_inner, lambda 1": ((1.1721, 0.2423), (0.4240, 0.0408)),
    "trunc(1), lambda 0": ((0.0, 0.0138), (0.0, 0.0015)),
    "trunc(1), lambda 1": ((0.0, 0.0138), (0.0, 0.0015)),
    "constant": ((0.2498, 0.0543), (0.0684, 0.0087)),
    "critic": ((0.1555, 0.0528), (0.0335, 0.0097)),
}
TO_FIVE_DIGITS, TO_FOUR_DIGITS = 1e-5, 1e-4


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def problem(double_precision):
    return golden_bandit()


def ordered(gradient):
    """d/dθ_0, then d/dη (a raveled η has its keys in alphabetical order: log_step, logits)."""
    return np.concatenate([gradient[1:], gradient[:1]])


@pytest.fixture(scope="module")
def measured(problem):
    lifetime, eta, task = problem
    estimators = {}
    for objective in OBJECTIVES:
        for name, settings in SETTINGS.items():
            made = {"baseline": "none", "n_lifetimes": 1, "objective": objective, **settings}
            if "constants" in made:
                made["constants"] = jnp.array(made["constants"])
            estimators[f"{objective}: {name}"] = MetaGrad(lifetime, **made)
    return enumerate_estimators(estimators, eta, task)


@pytest.fixture(scope="module")
def truth(problem):
    lifetime, eta, task = problem

    def both(eta):
        found = {
            name: Enumerated(lifetime, objective=name).estimate(jax.random.key(0), eta, task) for name in OBJECTIVES
        }
        fd = {
            name: differences(lambda e, n=name: Enumerated(lifetime, objective=n).value(e, task), eta, 1e-4)
            for name in OBJECTIVES
        }
        return found, fd

    found, fd = jax.jit(both)(eta)
    return {
        name: (
            float(aux["value"]),
            np.concatenate([gradient["logits"], gradient["log_step"][None]]),
            np.concatenate([fd[name]["logits"], fd[name]["log_step"][None]]),
        )
        for name, (gradient, aux) in found.items()
    }


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_objective_has_its_golden_value(truth, objective):
    assert truth[objective][0] == pytest.approx(VALUE[objective], abs=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_enumerated_gradient_is_the_golden_one(truth, objective):
    np.testing.assert_allclose(truth[objective][1], TRUTH[objective], atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_finite_differences_with_a_small_step_are_the_enumerated_gradient(truth, objective):
    np.testing.assert_allclose(truth[objective][2], truth[objective][1], atol=1e-8)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_estimator_has_its_golden_mean(measured, name):
    np.testing.assert_allclose(ordered(measured[f"final: {name}"].mean), MEANS[name], atol=TO_FIVE_DIGITS)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("column", [0, 1], ids=OBJECTIVES)
def test_an_estimator_has_its_golden_bias(measured, truth, name, column):
    objective = OBJECTIVES[column]
    apart = ordered(measured[f"{objective}: {name}"].mean) - truth[objective][1]
    np.testing.assert_allclose([np.linalg.norm(apart[:3]), apart[3]], BIASES[name][column], atol=TO_FIVE_DIGITS)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("column", [0, 1], ids=OBJECTIVES)
def test_an_estimator_has_its_golden_variance(measured, name, column):
    variances = ordered(np.diag(measured[f"{OBJECTIVES[column]}: {name}"].covariance))
    np.testing.assert_allclose([variances[:3].sum(), variances[3]], VARIANCES[name][column], atol=TO_FOUR_DIGITS)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_bias_of_a_sampling_correction_is_linear_in_what_it_lacks(measured, truth, objective):
    naive, half = (measured[f"{objective}: {name}"].mean for name in ("naive", "sc(.5)"))
    true = np.concatenate([truth[objective][1][3:], truth[objective][1][:3]])
    np.testing.assert_allclose(half - true, 0.5 * (naive - true), atol=1e-12)
