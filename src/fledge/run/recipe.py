"""Recipes: named settings in TOML, at three scales, each setting beside its source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import tomli_w

from fledge.core.errors import ConfigError, DataError, nearest, unknown
from fledge.run import config as settings

SCALES = ("smoke", "laptop", "paper")
USUAL_SCALE = "laptop"


@dataclass(frozen=True)
class Kind:
    """A kind of recipe: the dataclass of its settings and the program that runs it, imported when they are needed."""

    config: str
    """`module:Class`, a frozen dataclass."""
    program: str
    """`module:NAME`, a `fledge.run.job.Program`."""
    about: str


KINDS: dict[str, Kind] = {
    "meta-rl": Kind(
        "fledge.run.settings:MetaRLSettings",
        "fledge.run.program:PROGRAM",
        "train an agent with a memory over a family of tasks",
    ),
    "pearl": Kind(
        "fledge.run.settings:PEARLRunSettings",
        "fledge.run.program:PROGRAM",
        "train PEARL, off-policy, over a family of tasks",
    ),
    "maml": Kind(
        "fledge.run.settings:MAMLRunSettings",
        "fledge.run.program:PROGRAM",
        "meta-learn what gradient steps adapt (the MAML family)",
    ),
    "lifetime": Kind(
        "fledge.run.settings:LifetimeRunSettings",
        "fledge.run.lives:PROGRAM",
        "meta-learn discounts, rewards, schedules or an update rule along lives",
    ),
    "study": Kind("fledge.run.settings:StudySettings", "fledge.run.study:PROGRAM", "several recipes side by side"),
    "consistency": Kind(
        "fledge.run.consistency:ConsistencySettings",
        "fledge.run.consistency:PROGRAM",
        "agents that learn on, further and further from the tasks they were trained on",
    ),
    "memory-gradients": Kind(
        "fledge.run.memory_gradients:MemoryGradientsSettings",
        "fledge.run.memory_gradients:PROGRAM",
        "look at memories before they have learnt anything",
    ),
    "estimator-card": Kind(
        "fledge.run.estimator_settings:EstimatorCardSettings",
        "fledge.run.estimator_card:PROGRAM",
        "bias and variance of meta-gradient estimators against a known gradient",
    ),
    "meta-ascent": Kind(
        "fledge.run.ascent:AscentSettings",
        "fledge.run.ascent:PROGRAM",
        "let estimators of meta-gradients train η, and watch what lives earn",
    ),
    "annotation-study": Kind(
        "fledge.run.sensitivity:SensitivitySettings",
        "fledge.run.sensitivity:PROGRAM",
        "what an instrument does to labels and to the models trained on them",
    ),
    "feedback": Kind(
        "fledge.run.feedback_settings:FeedbackSettings",
        "fledge.run.feedback:PROGRAM",
        "policies from logged behaviour and what annotators said of it",
    ),
    "feedback-own": Kind(
        "fledge.run.feedback_own:OwnSettings",
        "fledge.run.feedback_own:PROGRAM",
        "a policy from one's own logged behaviour and what was answered about it",
    ),
    "feedback-instruments": Kind(
        "fledge.run.feedback_settings:InstrumentSettings",
        "fledge.run.feedback_instruments:PROGRAM",
        "the same behaviour, asked about in several ways",
    ),
    "study-protein": Kind(
        "fledge.run.protein_study:ProteinStudySettings",
        "fledge.run.protein_study:PROGRAM",
        "meta-train rankers of protein variants and compare them on unseen proteins",
    ),
}
"""Name → kind. A studio's own kind is one more row."""


@dataclass(frozen=True)
class Header:
    """What a list of recipes shows."""

    name: str = ""
    kind: str = ""
    about: str = ""
    paper: str = ""
    minutes: float = 0.0
    """Of the laptop scale, on two cores."""


HEADER = tuple(f.name for f in fields(Header))


@dataclass(frozen=True)
class Recipe:
    """A recipe with all its scales."""

    header: Header
    base: Any
    """The settings before a scale changes them: the dataclass of the recipe's kind."""
    scales: dict[str, settings.Tree] = field(default_factory=dict)
    """Scale → what it changes."""
    source: dict[str, str] = field(default_factory=dict)
    """Dotted setting (or table of settings) → where its value comes from."""
    origin: str = ""
    """The file."""

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.header.name

    def config(
        self, scale: str = USUAL_SCALE, changes: Mapping[str, Any] | None = None, faults: list[str] | None = None
    ) -> Any:
        """The settings of a scale, with `changes` (nested dicts) laid over them.

        Raises:
            ConfigError: there is no such scale, or lists everything that is wrong with the changes (unless `faults`
                is given: then that is added there, and defaults stand in for it).
        """
        if scale not in SCALES:
            raise unknown("scale", scale, SCALES)
        own = [] if faults is None else faults
        config = settings.override(self.base, settings.merge(self.scales.get(scale, {}), changes or {}), own)
        if faults is None:
            settings.refuse(own, self.origin)
        return config

    def source_of(self, key: str) -> str:
        """Where a setting comes from: its own entry, or that of the table it stands in."""
        while key:
            if key in self.source:
                return self.source[key]
            key = key.rpartition(".")[0]
        return ""


def find(target: str) -> Any:
    """The thing behind `module:Name` of one of our own tables."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def names() -> list[str]:
    """The shipped recipes."""
    return sorted(path.name.removesuffix(".toml") for path in _shipped().iterdir() if path.name.endswith(".toml"))


def headers() -> list[Header]:
    """What each shipped recipe is. Reads the files' first lines only: quick."""
    found = []
    for name in names():
        tree = tomllib.loads(text_of(name))
        found.append(Header(**{key: tree[key] for key in HEADER if key in tree}))
    return found


def text_of(name: str) -> str:
    """The TOML of a shipped recipe.

    Raises:
        ConfigError: there is none of that name; the nearest is named.
    """
    if name not in names():
        raise unknown("recipe", name, names())
    return (_shipped() / f"{name}.toml").read_text(encoding="utf-8")


def load(name_or_path: str | Path, faults: list[str] | None = None) -> Recipe:
    """A shipped recipe by name, or one's own by the path of its file.

    Args:
        name_or_path: what has a slash, ends in .toml or is a file is a path.
        faults: if given, what is wrong is added here, and defaults stand in for it.

    Raises:
        ConfigError: there is no such recipe, or lists everything that is wrong with it.
        DataError: the file cannot be read.
    """
    text = str(name_or_path)
    own = [] if faults is None else faults
    if not (text.endswith(".toml") or "/" in text or Path(text).is_file()):
        content, origin = text_of(text), f"Recipe '{text}'"
    else:
        content, origin = _read(Path(text)), text
    recipe = examine(content, origin, own)
    if faults is None:
        settings.refuse(own, origin)
    return recipe


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = [str(near) for near in sorted(path.parent.glob("*.toml"))] if path.parent.is_dir() else []
        hint = nearest(str(path), known) if known else "Copy a recipe to start from: fledge cp rl2-gridnav my.toml"
        raise DataError(f"There is no file {path}. {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a recipe: {error}.") from None


def examine(text: str, origin: str, faults: list[str]) -> Recipe:
    """The recipe that TOML text spells, with defaults in place of what is wrong; that is added to `faults`.

    Raises:
        ConfigError: the text is not TOML, or its kind is unknown, so that nothing else can be said.
    """
    tree = settings.tree_of(text, origin)
    kind = tree.get("kind", "meta-rl")
    if kind not in KINDS:
        raise ConfigError(f"{origin}: {unknown('kind of recipe', str(kind), KINDS)}")
    cls = find(KINDS[kind].config)
    known = (*HEADER, "scale", "source", *(f.name for f in fields(cls)))
    faults += [f"{key}: there is no such setting. {nearest(key, known)}" for key in tree if key not in known]
    header = settings.read(Header, {key: tree[key] for key in HEADER if key in tree} | {"kind": kind}, faults)
    own = {key: value for key, value in tree.items() if key in known and key not in (*HEADER, "scale", "source")}
    base = settings.read(cls, own, faults) or cls()
    scales = _table(tree, "scale", faults)
    for name, changes in scales.items():
        if name not in SCALES:
            faults.append(f"scale.{name}: {unknown('scale', name, SCALES)}")
        elif not isinstance(changes, dict):
            faults.append(f"scale.{name} is a table of settings, not {changes!r}.")
        else:
            found: list[str] = []
            settings.override(base, changes, found)
            faults += [f"scale.{name}.{fault}" for fault in found]
    scales = {name: scales.get(name, {}) for name in SCALES if isinstance(scales.get(name, {}), dict)}
    source = settings.flatten(_table(tree, "source", faults))
    faults += [f"source.{key}: {fault}" for key in source if (fault := _not_a_setting(key, base))]
    texts = {key: str(value) for key, value in source.items()}
    return Recipe(header or Header(kind=kind), base, scales, texts, origin)


def _table(tree: settings.Tree, name: str, faults: list[str]) -> settings.Tree:
    table = tree.get(name, {})
    if isinstance(table, dict):
        return table
    faults.append(f"{name} is a table of settings, not {table!r}.")
    return {}


def _not_a_setting(key: str, config: Any) -> str:
    """Why a dotted key names no setting of these; empty if it does."""
    for part in key.split("."):
        if isinstance(config, dict):
            return ""
        known = [f.name for f in fields(config)]
        if part not in known:
            return f"there is no such setting. {nearest(part, known)}"
        config = getattr(config, part)
        if not hasattr(config, "__dataclass_fields__") and not isinstance(config, dict):
            return ""
    return ""


def dump(recipe: Recipe, config: Any) -> str:
    """A recipe file that runs with exactly these settings: what a run folder keeps as config.toml."""
    header = {key: getattr(recipe.header, key) for key in HEADER}
    tree = header | settings.to_tree(config)
    if recipe.source:
        tree["source"] = recipe.source
    return tomli_w.dumps(tree)


def _shipped() -> Any:
    return resources.files("fledge.run") / "recipes"
