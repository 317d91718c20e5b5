"""Every meta-gradient estimator of the house by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from fledge.core.contracts import EstimatorCard, GradientEstimator
from fledge.core.errors import ConfigError, ContractError, nearest, unknown
from fledge.learn.es import ES, PES
from fledge.learn.lifetimes import Lifetime
from fledge.learn.metagrad import MetaGrad
from fledge.learn.metagrad_truth import Enumerated, ExpectedUpdate, FiniteDifferences
from fledge.learn.surrogates import DiCE, LoadedDiCE, PolicyGradient, Surrogate, lvc


@dataclass(frozen=True)
class EstimatorRow:
    """A class, and the settings that make it this estimator."""

    make: Callable[..., GradientEstimator]
    about: str
    paper: str
    settings: Mapping[str, Any] = field(default_factory=dict)


SURROGATES: dict[str, Callable[..., Surrogate]] = {
    "pg": PolicyGradient,
    "first-order": lambda: PolicyGradient(first_order=True),
    "dice": DiCE,
    "loaded-dice": LoadedDiCE,
    "lvc": lvc,
}
"""Name → what an inner update ascends."""

_SC = "Al-Shedivat et al. 2018; Vuorio et al. 2022"
_META = "Vuorio et al. 2022"
ESTIMATORS: dict[str, EstimatorRow] = {
    "naive": EstimatorRow(MetaGrad, "autodiff through the sampled update", "Finn et al. 2017 (MAML); Xu et al. 2018",
                          {"sc_coef": 0.0, "baseline": "none"}),
    "sc": EstimatorRow(MetaGrad, "with the full sampling correction", _SC),
    "sc-half": EstimatorRow(MetaGrad, "with half of the sampling correction", _META, {"sc_coef": 0.5}),
    "sc-discount": EstimatorRow(MetaGrad, "a sampling correction that forgets", _META, {"sc_discount": 0.9}),
    "e-maml": EstimatorRow(MetaGrad, "sampling correction, the last batch is the objective", "Stadie et al. 2018",
                           {"objective": "final"}),
    "truncated": EstimatorRow(MetaGrad, "one update is differentiated, at a random place", _META, {"window": 1}),
    "first-order": EstimatorRow(MetaGrad, "the update's own derivative is dropped", "Finn et al. 2017 (FOMAML)",
                                {"sc_coef": 0.0, "baseline": "none", "surrogate": "first-order"}),
    "dice": EstimatorRow(MetaGrad, "DiCE inside the update", "Foerster et al. 2018",
                         {"sc_coef": 0.0, "baseline": "none", "surrogate": "dice"}),
    "loaded-dice": EstimatorRow(MetaGrad, "Loaded DiCE inside the update", "Farquhar et al. 2019",
                                {"sc_coef": 0.0, "baseline": "none", "surrogate": "loaded-dice"}),
    "lvc": EstimatorRow(MetaGrad, "LVC inside the update", "Rothfuss et al. 2019 (ProMP)",
                        {"sc_coef": 0.0, "baseline": "none", "surrogate": "lvc"}),
    "forward": EstimatorRow(MetaGrad, "the full correction in forward mode", _SC, {"mode": "forward"}),
    "es": EstimatorRow(ES, "antithetic pairs with common random numbers", "Salimans et al. 2017"),
    "tes": EstimatorRow(ES, "pairs perturbed in a window of one update", "Metz et al. 2019", {"window": 1}),
    "pes": EstimatorRow(PES, "windows with accumulated perturbations", "Vicol et al. 2021", {"window_batches": 1}),
    "finite-differences": EstimatorRow(FiniteDifferences, "central differences, common random numbers", "–"),
    "enumerated": EstimatorRow(Enumerated, "exact: every outcome listed (tiny problems)", "–"),
    "expected-update": EstimatorRow(ExpectedUpdate, "exact, for updates of infinitely many trajectories", "–"),
}  # fmt: skip
"""Name → row. A new estimator is one row."""


def make_estimator(name: str, lifetime: Lifetime, settings: Mapping[str, Any] | None = None) -> GradientEstimator:
    """The estimator of this name for this problem.

    Args:
        name: of the table, or `module:Name`: a class or function that is called with the lifetime.
        lifetime: the problem.
        settings: laid over the row's own. `surrogate` is a name of `SURROGATES`, with `td_lambda` and `dice_lambda`
            beside it for `loaded-dice`.

    Raises:
        ConfigError: there is no such estimator or setting, or a setting is wrong.
        ContractError: what was made is no estimator, or has no card.
    """
    given = dict(settings or {})
    if ":" in name:
        made = call(own(name), lifetime, given, name)
        require_card(made, name)
        return made
    if name not in ESTIMATORS:
        raise unknown("estimator", name, ESTIMATORS)
    row = ESTIMATORS[name]
    return call(row.make, lifetime, {**row.settings, **given}, name)


def call(make: Callable[..., Any], lifetime: Lifetime, settings: dict[str, Any], name: str) -> Any:
    """`make(lifetime, **settings)`, with settings checked and surrogates looked up."""
    settings = dict(settings)
    if isinstance(surrogate := settings.get("surrogate"), str):
        if surrogate not in SURROGATES:
            raise unknown("surrogate", surrogate, SURROGATES)
        loads = {key: settings.pop(key) for key in ("td_lambda", "dice_lambda") if key in settings}
        settings["surrogate"] = SURROGATES[surrogate](**loads)
    known = [key for key in inspect.signature(make).parameters if key != "lifetime"]
    for key in settings:
        if key not in known:
            raise ConfigError(f"The estimator '{name}' has no setting '{key}'. {nearest(key, known)}")
    return make(lifetime, **settings)


def own(target: str) -> Callable[..., Any]:
    """The class or function behind `module:Name`.

    Raises:
        ConfigError: there is none.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ImportError as error:
        raise ConfigError(f"'{target}': the module cannot be imported ({error}). Run where it lies.") from error
    except AttributeError:
        raise ConfigError(f"'{target}': the module {module} has no '{attribute}'.") from None


def require_card(estimator: Any, name: str) -> EstimatorCard:
    """The estimator's card.

    Raises:
        ContractError: it is no `GradientEstimator`, or has none.
    """
    if not isinstance(estimator, GradientEstimator):
        raise ContractError(
            f"{name} makes a {type(estimator).__name__}; a GradientEstimator was wanted. Derive from it, and give it "
            "estimate(key, eta, task) and a card."
        )
    try:
        card = estimator.card
    except Exception as error:
        raise ContractError(f"The card of {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(card, EstimatorCard):
        raise ContractError(
            f"The card of {name} is missing: it is {card!r}. Return EstimatorCard(estimand=…, biased_by=(…), memory=…, "
            "trajectories=…): estimators are never compared without saying what they estimate."
        )
    return card


def refuse_shaped(estimator: GradientEstimator, name: str) -> None:
    """Nothing, if what comes out is a gradient estimate.

    Raises:
        ConfigError: the fitness is shaped.
    """
    if require_card(estimator, name).shaped:
        raise ConfigError(
            f"{name} shapes its fitness: what comes out is a direction, and has no bias or variance as an estimate of "
            "a gradient. Measure it with shaping='none'; shape when you train."
        )
