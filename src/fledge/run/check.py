"""`fledge check`: what is wrong with a recipe, an environment or an estimator, before an hour is spent on it."""

from __future__ import annotations

from fledge.run import config as tomls
from fledge.run import recipe as recipes
from fledge.run.recipe import KINDS, SCALES


def check_recipe(name_or_path: str) -> str:
    """A sentence, if nothing is wrong at any scale.

    Raises:
        ConfigError: lists everything that is wrong, at all scales together.
        DataError: there is no such file.
    """
    faults: list[str] = []
    recipe = recipes.load(name_or_path, faults)
    program = recipes.find(KINDS[recipe.header.kind].program)
    for scale in SCALES:
        config = tomls.override(recipe.base, recipe.scales.get(scale, {}), [])
        faults += [fault for fault in program.faults(config) if fault not in faults]
    tomls.refuse(faults, recipe.origin)
    return f"{recipe.name or name_or_path}: nothing is wrong with it at the scales {', '.join(SCALES)}."


def check_environment(target: str) -> str:
    """A sentence, if the environment keeps every promise of its contract.

    Args:
        target: `module:Name`, or the name of a family.

    Raises:
        ConfigError: it cannot be found.
        ContractError: lists every promise that it breaks.
    """
    from fledge.envs import families
    from fledge.envs.check import CHECKS, require_env

    env = families.load(target) if ":" in target else families.make(target)
    require_env(env)
    return f"{target} ({type(env).__name__}) keeps all {len(CHECKS)} promises of an environment."


def check_estimator(target: str) -> str:
    """Sentences about a gradient estimator that keeps every promise of its contract: its card, and how good it is.

    Args:
        target: `module:Name`, which is called with a lifetime, or a name of the table of estimators.

    Raises:
        ConfigError: it cannot be found, or its fitness is shaped.
        ContractError: lists every promise that it breaks.
    """
    from fledge.learn.estimator_check import CHECKS, require_estimator
    from fledge.learn.estimators import make_estimator, own

    exam = require_estimator(own(target) if ":" in target else lambda life: make_estimator(target, life), target)
    lines = [f"{target} keeps all {len(CHECKS)} promises of a GradientEstimator."]
    if exam.card is not None:
        biases = "; ".join(exam.card.biased_by) or "nothing"
        lines.append(f"Its card: estimand {exam.card.estimand}, biased by {biases}, memory {exam.card.memory}.")
    if exam.quality is not None:
        bias2, variance, cosine = exam.quality[:3]
        numbers = f"squared bias {bias2:.2g}, variance {variance:.3g}, cosine {cosine:.3f}"
        lines.append(f"On a bandit of two updates whose gradient is known exactly: {numbers}.")
    if exam.ignored:
        names = ", ".join(exam.ignored)
        lines.append(f"Warning: {names} got a gradient of exactly zero in every estimate.")
    return "\n".join(lines)
