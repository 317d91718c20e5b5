"""Walked paths: where an agent went in each episode of a trial, and the scene to draw under it (paths.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float

from fledge.core.errors import DataError, nearest
from fledge.core.files import parse_json, read_text, to_json, write_text

FORMAT = 1
Number = int | float


class Goal(TypedDict, total=False):
    """A place worth reaching. On a grid a cell; on a plane a disc of this radius."""

    x: Number
    y: Number
    radius: Number
    label: str


class Scene(TypedDict, total=False):
    """What to draw under a walked path. `kind` is "grid" (cells, (0, 0) at the lower left) or "plane"."""

    kind: str
    width: int
    """Grid: cells along x."""
    height: int
    """Grid: cells along y."""
    walls: list[list[int]]
    """Grid, optional: cells that cannot be entered, as [x, y]."""
    x_range: list[Number]
    """Plane: [lowest, highest] x to show."""
    y_range: list[Number]
    start: list[Number]
    goals: list[Goal]


_SCENE_KEYS = {
    "grid": ("kind", "width", "height", "start", "goals"),
    "plane": ("kind", "x_range", "y_range", "start", "goals"),
}
_SCENE_OPTIONS = {"grid": ("walls",), "plane": ()}
_GOAL_KEYS = {"grid": ("x", "y", "label"), "plane": ("x", "y", "radius", "label")}


@dataclass(frozen=True, eq=False)
class WalkedEpisode:
    """One episode: `positions` begins with the start, so it is one longer than `rewards`."""

    positions: Float[np.ndarray, "visit 2"]
    rewards: Float[np.ndarray, " step"]

    @property
    def total(self) -> float:
        """The undiscounted return."""
        return float(np.sum(self.rewards))


@dataclass(frozen=True, eq=False)
class WalkedTrial:
    """The episodes of one trial, in order, on one task."""

    task: str
    scene: Scene
    split: str
    recipe: str
    seed: int
    greedy: bool
    """Whether the most likely action was taken each step (otherwise actions were sampled)."""
    episodes: tuple[WalkedEpisode, ...]


def check_scene(scene: Mapping[str, Any], where: str = "The scene") -> None:
    """Nothing, if the scene can be drawn.

    Raises:
        DataError: says which key is missing, unknown or of the wrong form.
    """
    kind = scene.get("kind")
    if kind not in _SCENE_KEYS:
        raise DataError(f"{where} is of the kind '{kind}'. {nearest(str(kind), _SCENE_KEYS)}")
    keys = _SCENE_KEYS[kind]
    _check_keys(scene, keys, (*keys, *_SCENE_OPTIONS[kind]), where)
    numbers = ("width", "height") if kind == "grid" else ()
    pairs = ("start",) if kind == "grid" else ("x_range", "y_range", "start")
    if any(not _is_number(scene[key]) or scene[key] < 1 for key in numbers):
        raise DataError(
            f"{where}: width and height are numbers of cells, not {scene['width']!r} × {scene['height']!r}."
        )
    for key in pairs:
        _check_pair(scene[key], f"{where}: '{key}'")
    for wall in scene.get("walls", ()):
        _check_pair(wall, f"{where}: a wall")
    for goal in scene["goals"]:
        _check_keys(goal, _GOAL_KEYS[kind], _GOAL_KEYS[kind], f"{where}: a goal")
        _check_pair([goal["x"], goal["y"]], f"{where}: a goal")


def write_paths(path: Path, trials: Sequence[WalkedTrial]) -> Path:
    """Write paths.json, whole or not at all.

    Raises:
        DataError: a scene cannot be drawn.
    """
    scenes = []
    for trial in trials:
        check_scene(trial.scene, f"The scene of '{trial.task}'")
        fields = ("task", "split", "recipe", "seed", "greedy")
        episodes = [
            {"positions": walk.positions.tolist(), "rewards": walk.rewards.tolist(), "return": walk.total}
            for walk in trial.episodes
        ]
        scenes.append({"scene": trial.scene, **{key: getattr(trial, key) for key in fields}, "episodes": episodes})
    return write_text(path, to_json({"format": FORMAT, "scenes": scenes}))


def read_paths(path: Path) -> list[WalkedTrial]:
    """The walked trials of paths.json.

    Raises:
        DataError: the file is missing or damaged, of another format, or holds something that cannot be drawn.
    """
    path = Path(path)
    content = parse_json(read_text(path, "walked paths (paths.json)"), path, "walked paths")
    check_format(content, path)
    scenes = content.get("scenes")
    if not isinstance(scenes, list):
        raise DataError(f"{path}: a list 'scenes' was wanted. Run the evaluation again to make the file.")
    return [_trial(item, f"{path}, scene {i}") for i, item in enumerate(scenes, 1)]


def check_format(content: object, path: Path) -> None:
    """Nothing, if this Fledge can read the file.

    Raises:
        DataError: the file was written in another format; says what to do.
    """
    version = content.get("format") if isinstance(content, dict) else None
    if version == FORMAT:
        return
    if isinstance(version, int) and version > FORMAT:
        cure = "It was written by a newer Fledge: update with pip install --upgrade fledge."
    else:
        cure = "It was written by an older Fledge or another program: make it again by running the recipe."
    raise DataError(f"{path} is in format {version}, but this Fledge reads format {FORMAT}. {cure}")


def _trial(item: Any, where: str) -> WalkedTrial:
    keys = ("task", "scene", "split", "recipe", "seed", "greedy", "episodes")
    _check_keys(item, keys, keys, where)
    if not isinstance(item["episodes"], list) or not isinstance(item["scene"], dict):
        raise DataError(f"{where}: 'episodes' is a list and 'scene' an object. Run the evaluation again.")
    check_scene(item["scene"], where)
    start = item["scene"]["start"]
    episodes = tuple(_episode(walk, start, f"{where}, episode {k}") for k, walk in enumerate(item["episodes"], 1))
    return WalkedTrial(**{**item, "episodes": episodes})


def _episode(walk: Any, start: Sequence[Number], where: str) -> WalkedEpisode:
    _check_keys(walk, ("positions", "rewards"), ("positions", "rewards", "return"), where)
    try:
        positions = np.array(walk["positions"], float).reshape(-1, 2)
        rewards = np.array(walk["rewards"], float).reshape(-1)
    except (TypeError, ValueError):
        raise DataError(f"{where}: positions are pairs [x, y] and rewards numbers. Run the evaluation again.") from None
    if len(positions) == len(rewards):  # the writer left out where the episode began
        positions = np.concatenate([[start], positions])
    if len(positions) != len(rewards) + 1:
        raise DataError(
            f"{where}: {len(positions)} positions came with {len(rewards)} rewards, where one position more than "
            "rewards was wanted (the start, then one per step). Run the evaluation again."
        )
    return WalkedEpisode(positions, rewards)


def _check_keys(item: Any, wanted: Sequence[str], allowed: Sequence[str], where: str) -> None:
    if not isinstance(item, Mapping):
        raise DataError(f"{where}: an object with {', '.join(wanted)} was wanted, but {str(item)[:60]!r} came.")
    for key in item:
        if key not in allowed:
            raise DataError(f"{where}: there is no key '{key}'. {nearest(key, allowed)}")
    missing = [key for key in wanted if key not in item]
    if missing:
        raise DataError(f"{where}: missing {', '.join(missing)}; wanted are {', '.join(wanted)}.")


def _check_pair(value: Any, what: str) -> None:
    if not isinstance(value, Sequence) or len(value) != 2 or not all(_is_number(part) for part in value):
        raise DataError(f"{what} is a pair of numbers [x, y], not {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
