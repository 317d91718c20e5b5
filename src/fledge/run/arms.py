"""What a study runs: its arms, in each of its cases, and where their folders lie."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fledge.core.errors import ConfigError, FledgeError, unknown
from fledge.run import config as tomls
from fledge.run import recipe as recipes
from fledge.run.recipe import KINDS, Recipe
from fledge.run.settings import MAMLRunSettings, Scalar, StudySettings, TrainedSettings

ARMS = "arms"
"""Key of a case that lists the arms that take part in it."""
SELECTION_SEED = 10_000
"""First seed of the runs that choose a learning rate: none of them is ever reported."""


@dataclass(frozen=True)
class Arm:
    """One agent of a study in one case."""

    case: str
    """Empty where the study has one case only."""
    name: str
    base: str
    """The recipe that it is made from, as it is called on the command line."""
    recipe: Recipe
    """That recipe under the arm's name."""
    changes: Mapping[str, Any]
    """Dotted settings laid over the recipe."""

    @property
    def path(self) -> Path:
        """Its folder inside the study's."""
        return Path(self.case) / self.name

    def config(self, scale: str, more: Mapping[str, Any] | None = None) -> Any:
        """The effective settings.

        Raises:
            ConfigError: lists everything that is wrong with the changes.
        """
        return self.recipe.config(scale, tomls.nest({**self.changes, **(more or {})}))

    def command(self, scale: str, more: Mapping[str, Any] | None = None) -> str:
        """The command that runs it alone."""
        words = [f"{key}={value}" for key, value in {**self.changes, **(more or {})}.items()]
        return " ".join([f"fledge run {self.base} --scale {scale}", *words])

    def with_rate(self, rate: float) -> Arm:
        """The same with another learning rate."""
        return replace(self, changes={**self.changes, "learner.learning_rate": rate})

    def candidates(self, settings: StudySettings) -> Iterator[tuple[float, Arm]]:
        """The runs that choose the learning rate: the same number of seeds for every arm and rate."""
        seeds = {"train.first_seed": SELECTION_SEED, "train.seeds": settings.selection_seeds}
        for rate in settings.learning_rates:
            arm = self.with_rate(rate)
            yield rate, replace(arm, name=f"{self.name}-lr-{rate:g}", changes={**arm.changes, **seeds})


def arms_of(settings: StudySettings) -> list[Arm]:
    """Every arm in every case, case by case.

    Raises:
        ConfigError: an arm without a recipe, one that does not exist, two arms of one name, or a case for an arm that
            is not there.
    """
    plain: dict[str, dict[str, Scalar]] = {load_arm(name).name: {"recipe": name} for name in settings.recipes}
    if twice := sorted(set(plain) & set(settings.arms)):
        raise ConfigError(f"arms.{twice[0]}: there is a recipe of this name among the arms already. Give it another.")
    found = []
    cases: dict[str, dict[str, Scalar]] = settings.cases or {"": {}}
    every = {**plain, **settings.arms}
    for case, on_case in cases.items():
        shared = {key: value for key, value in on_case.items() if key != ARMS}
        for name in _taking_part(case, on_case, every):
            own = every[name]
            changes = {key: value for key, value in own.items() if key != "recipe"}
            base = str(own.get("recipe", ""))
            recipe = load_arm(base, f"arms.{name}: ")
            recipe = replace(recipe, header=replace(recipe.header, name=name))
            found.append(Arm(case, name, base, recipe, {**shared, **changes, **settings.overrides}))
    return found


def _taking_part(case: str, on_case: Mapping[str, Scalar], every: Collection[str]) -> list[str]:
    """The arms of a case: those that it lists, or all."""
    chosen = on_case.get(ARMS)
    if chosen is None:
        return list(every)
    if not isinstance(chosen, (tuple, list)) or not chosen:
        raise ConfigError(f"cases.{case}: {ARMS} is a list of at least one arm, not {chosen!r}.")
    for name in chosen:
        if name not in every:
            raise unknown("arm", str(name), every)
    return [name for name in every if name in chosen]


def load_arm(name: str, where: str = "") -> Recipe:
    """The recipe of an arm.

    Raises:
        ConfigError: none was named, there is none of that name, or it is a study itself.
    """
    if not name:
        raise ConfigError(f'{where}an arm names its recipe: recipe = "rl2-gridnav".')
    recipe = recipes.load(name)
    if recipe.header.kind == "study":
        raise ConfigError(f"{where}'{name}' is a study itself; arms are single recipes.")
    return recipe


@dataclass(frozen=True)
class Claim:
    """B's trials earn less than A's."""

    case: str
    """Empty: in every case."""
    better: str
    worse: str

    @property
    def text(self) -> str:
        """As a study writes it, without its case."""
        return f"{self.better} > {self.worse}"


def claim_of(text: str, cases: Sequence[str]) -> Claim:
    """The claim "A > B" or "case: A > B".

    Raises:
        ConfigError: it is not of that form, or there is no such case.
    """
    case, colon, order = (part.strip() for part in text.rpartition(":"))
    better, sign, worse = (part.strip() for part in order.partition(">"))
    if not (better and sign and worse):
        raise ConfigError(f"'{text}' is not of the form \"A > B\", with A and B among the study's arms.")
    if colon and case not in cases:
        raise unknown("case", case, cases)
    return Claim(case, better, worse)


@dataclass(frozen=True)
class Side:
    """One side of a study's claim: an arm, or a point of its adaptation curve."""

    arm: str
    at: float | None = None
    """An episode (from 1) or a gradient step (from 0); None: the whole trial, or what comes after the last step."""


def side_of(text: str) -> Side:
    """The side "ARM" or "ARM @ 1".

    Raises:
        ConfigError: what follows the @ is no number.
    """
    arm, sign, at = (part.strip() for part in text.partition("@"))
    try:
        return Side(arm, float(at) if sign else None)
    except ValueError:
        raise ConfigError(
            f"'{text}' is not of the form \"ARM @ 1\", with an episode (from 1) or a gradient step (from 0)."
        ) from None


def points_of(config: TrainedSettings) -> range:
    """Where an arm's adaptation curve is measured: episodes from 1, or gradient steps from 0."""
    if isinstance(config, MAMLRunSettings):
        return range(config.env.n_episodes // max(config.learner.inner.batch_size, 1))
    return range(1, config.env.n_episodes + 1)


def faults_of(settings: StudySettings) -> list[str]:
    """Everything that is wrong with a study, its arms included."""
    if not settings.recipes and not settings.arms:
        return ["recipes is a list of at least one recipe, not []."]
    faults = []
    if settings.learning_rates and settings.selection_seeds < 1:
        faults.append(f"selection_seeds is at least 1, not {settings.selection_seeds}.")
    try:
        arms = arms_of(settings)
    except FledgeError as error:
        return [*faults, f"recipes: {error}" if settings.recipes else str(error)]
    for arm in arms:
        try:
            program = recipes.find(KINDS[arm.recipe.header.kind].program)
            where = f"{arm.case}: {arm.name}" if arm.case else arm.name
            faults += [f"{where}: {fault}" for fault in program.faults(arm.config(recipes.USUAL_SCALE))]
        except FledgeError as error:
            faults.append(f"{arm.name}: {error}")
    return faults + [f"claims: {fault}" for text in settings.claims for fault in _claim_faults(text, settings, arms)]


def _claim_faults(text: str, settings: StudySettings, arms: Sequence[Arm]) -> list[str]:
    """What is wrong with a claim: its form, or a side of it that no case has."""
    try:
        claim = claim_of(text, list(settings.cases))
        sides = [side_of(claim.better), side_of(claim.worse)]
    except ConfigError as error:
        return [str(error)]
    there = [arm for arm in arms if claim.case in ("", arm.case)]
    names = list(dict.fromkeys(arm.name for arm in there))
    faults = []
    for side in sides:
        if side.arm not in names:
            faults.append(str(unknown("arm", side.arm, names)))
        elif side.at is not None:
            own = next(arm for arm in there if arm.name == side.arm)
            points = points_of(own.config(recipes.USUAL_SCALE))
            if side.at not in points:
                faults.append(f"'{text}': {side.arm} is measured at {points[0]} to {points[-1]}, not at {side.at:g}.")
    return faults
