"""`fledge check`: everything that is wrong with a recipe or an environment, before an hour is spent on it."""

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
