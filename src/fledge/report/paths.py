"""Walked paths: one row for a task, its episodes side by side, so that search and straight way are seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.markers import MarkerStyle
from matplotlib.patches import Circle, Rectangle

from fledge.core.records import Scene, WalkedEpisode, WalkedTrial
from fledge.report.style import CELL, GRID, INK, MUTED, SERIES, TIME, WALL, Drawn, canvas, to_svg
from fledge.report.summarise import show

MAX_TASKS, MAX_EPISODES = 4, 6
_SIDE, _GAP, _LEFT, _TITLE, _FOOT = 1.62, 0.14, 0.42, 0.3, 0.55  # inches
_LANE = 0.13  # cells between two walks along one edge
_GOAL = SERIES[2]
WALK_COLUMNS = ("task", "split", "recipe", "seed", "greedy", "episode", "step", "x", "y", "reward")


def choose(trials: Sequence[WalkedTrial], recipe: str) -> list[WalkedTrial]:
    """At most `MAX_TASKS` trials of one recipe, split, seed and way of acting, spread evenly over its tasks."""
    own = [trial for trial in trials if trial.recipe == recipe] or list(trials)
    if not own:
        return []
    split = min({trial.split for trial in own}, key=lambda s: (s != "test", s != "ood", s))
    own = [trial for trial in own if trial.split == split]
    first = min(own, key=lambda trial: (not trial.greedy, trial.seed))
    own = [t for t in own if (t.recipe, t.seed, t.greedy) == (first.recipe, first.seed, first.greedy)]
    return [own[i] for i in _evenly(len(own), MAX_TASKS)]


def draw_walks(trials: Sequence[WalkedTrial], name: str, label: str) -> Drawn:
    """The chosen trials, a row each. Colour is time within the episode; walks along one edge lie side by side."""
    shown = [_evenly(len(trial.episodes), MAX_EPISODES) for trial in trials]
    n_columns = max(map(len, shown))
    width = _LEFT + n_columns * (_SIDE + _GAP)
    height = len(trials) * (_SIDE + _TITLE) + _FOOT
    width = max(width, 5.4)
    figure = canvas(width, height)
    rows: list[tuple[object, ...]] = []
    for i, (trial, episodes) in enumerate(zip(trials, shown, strict=True)):
        bottom = height - (i + 1) * (_SIDE + _TITLE)
        for j, k in enumerate(episodes):
            left = _LEFT + j * (_SIDE + _GAP)
            axes = figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height))
            _draw_scene(axes, trial.scene)
            walk = trial.episodes[k]
            (_walk_grid if trial.scene["kind"] == "grid" else _walk_plane)(axes, walk)
            _draw_marks(axes, trial.scene)
            axes.set_title(f"episode {k + 1}: return {show(walk.total)}", fontsize=9, color=INK, pad=4)
            if j == 0:
                axes.set_ylabel(trial.task, fontsize=9.5, color=INK, labelpad=5)
            rows += _rows(trial, k, walk)
    _legend(figure.add_axes((0, 0, 1, 0.42 / height)), width)
    grid = any(trial.scene["kind"] == "grid" for trial in trials)
    caption = (
        "One row for a task, its episodes from left to right, each titled with its return. Colour runs from the "
        "episode's first step to its last"
        + ("; moves along one edge are drawn side by side; ×n counts steps spent in place. " if grid else ". ")
        + f"{'Most likely' if trials[0].greedy else 'Sampled'} actions, {trials[0].split} tasks, seed {trials[0].seed}."
    )
    return Drawn(name, f"Walked paths: {label}", caption, to_svg(figure), WALK_COLUMNS, rows)


def _evenly(n: int, most: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, most)).round()}) if n else []


def _rows(trial: WalkedTrial, k: int, walk: WalkedEpisode) -> list[tuple[object, ...]]:
    rewards = [None, *walk.rewards.tolist()]
    fixed = (trial.task, trial.split, trial.recipe, trial.seed, trial.greedy, k + 1)
    return [(*fixed, t, *walk.positions[t].tolist(), rewards[t]) for t in range(len(walk.positions))]


def _draw_scene(axes: Axes, scene: Scene) -> None:
    axes.set_facecolor("none")
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(MUTED)
    if scene["kind"] == "plane":
        axes.set_xlim(*scene["x_range"])
        axes.set_ylim(*scene["y_range"])
        return
    width, height = scene["width"], scene["height"]
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(-0.5, height - 0.5)
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, facecolor=CELL, edgecolor="none", zorder=0))
    lines = [[(x - 0.5, -0.5), (x - 0.5, height - 0.5)] for x in range(1, width)]
    lines += [[(-0.5, y - 0.5), (width - 0.5, y - 0.5)] for y in range(1, height)]
    axes.add_collection(LineCollection(lines, colors=GRID, linewidths=0.9, zorder=1))
    for x, y in scene.get("walls", ()):
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=WALL, edgecolor="none", zorder=1))


def _draw_marks(axes: Axes, scene: Scene) -> None:
    size = 6.5 if scene["kind"] == "plane" else float(np.clip(38 / max(scene["width"], scene["height"]), 3, 8))
    for goal in scene["goals"]:
        at = (goal["x"], goal["y"])
        if scene["kind"] == "plane":
            axes.add_patch(Circle(at, goal["radius"], facecolor=_GOAL, alpha=0.22, edgecolor=_GOAL, zorder=1))
        else:
            corner = (at[0] - 0.5, at[1] - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=_GOAL, alpha=0.25, edgecolor="none", zorder=1))
        axes.plot(*at, marker="*", markersize=1.35 * size, color=_GOAL, markeredgewidth=0, zorder=2)
    axes.plot(*scene["start"], marker="s", markersize=size, color="none", markeredgecolor=INK, zorder=5)


def _walk_grid(axes: Axes, walk: WalkedEpisode) -> None:
    moved, times = _lanes(walk.positions)
    n = max(1, len(walk.positions) - 1)
    if len(moved):
        _end(axes, moved[-1, 1], times[-1] / n)
        joints = np.stack([moved[:-1, 1], moved[1:, 0]], axis=1)
        axes.add_collection(
            LineCollection(list(joints), colors=TIME(times[1:] / n), linewidths=1.8, capstyle="round", zorder=3)
        )
        axes.add_collection(
            LineCollection(list(moved), colors=TIME(times / n), linewidths=1.8, capstyle="round", zorder=3)
        )
        _arrows(axes, moved.mean(axis=1), moved[:, 1] - moved[:, 0], times / n)
    stays = Counter(tuple(p) for p, q in pairwise(walk.positions) if (p == q).all())
    for (x, y), count in stays.items():
        axes.text(x - 0.45, y + 0.47, f"×{count}", fontsize=7.5, color=INK, ha="left", va="top", zorder=6)


def _lanes(positions: Float[np.ndarray, "visit 2"]) -> tuple[Float[np.ndarray, "move 2 2"], Float[np.ndarray, " move"]]:
    """Each move as a segment, and when it was made. Each further walk along an edge is shifted to its right."""
    used: Counter[frozenset[tuple[float, ...]]] = Counter()
    moves, times = [], []
    for t, (a, b) in enumerate(pairwise(positions)):
        if (a == b).all():
            continue
        edge = frozenset((tuple(a.tolist()), tuple(b.tolist())))
        along = (b - a) / np.linalg.norm(b - a)
        side = np.array([along[1], -along[0]]) * _LANE * min(used[edge], 3)
        used[edge] += 1
        moves.append((a + side, b + side))
        times.append(t)
    return np.array(moves).reshape(-1, 2, 2), np.array(times, float)


def _walk_plane(axes: Axes, walk: WalkedEpisode) -> None:
    segments = np.stack([walk.positions[:-1], walk.positions[1:]], axis=1)
    if not len(segments):
        return
    time = np.arange(len(segments)) / len(segments)
    axes.add_collection(LineCollection(list(segments), colors=TIME(time), linewidths=1.8, capstyle="round", zorder=3))
    _end(axes, walk.positions[-1], 1.0)
    some = np.array(_evenly(len(segments), 7)[1:], int)
    _arrows(axes, segments[some].mean(axis=1), segments[some, 1] - segments[some, 0], time[some])


def _end(axes: Axes, at: Float[np.ndarray, "2"], time: float) -> None:
    """A dot where the path ends."""
    axes.plot(*at, marker="o", markersize=4.5, color=TIME(time), markeredgewidth=0, zorder=4)


def _arrows(
    axes: Axes, at: Float[np.ndarray, "arrow 2"], along: Float[np.ndarray, "arrow 2"], time: Float[np.ndarray, " arrow"]
) -> None:
    """A small triangle for each move, pointing where it went."""
    angles = np.degrees(np.arctan2(along[:, 1], along[:, 0])).round(-1)
    for angle in np.unique(angles):
        here = angles == angle
        triangle = MarkerStyle((3, 0, float(angle) - 90))
        x, y = at[here].T
        axes.scatter(x, y, marker=triangle, s=34, c=TIME(time[here]), linewidths=0, zorder=4)


def _legend(axes: Axes, width: float) -> None:
    """Start, goal and the colours of time, below the rows."""
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, 1)
    text: dict[str, Any] = {"va": "center", "fontsize": 9.5, "color": INK}
    axes.plot(_LEFT + 0.08, 0.5, marker="s", markersize=7, color="none", markeredgecolor=INK)
    axes.text(_LEFT + 0.24, 0.5, "start", **text)
    axes.plot(_LEFT + 0.84, 0.5, marker="*", markersize=11, color=_GOAL, markeredgewidth=0)
    axes.text(_LEFT + 1.0, 0.5, "goal", **text)
    left, long = _LEFT + 2.35, 1.1
    edges = np.linspace(left, left + long, 25)
    bar = [[(a, 0.5), (b, 0.5)] for a, b in pairwise(edges)]
    axes.add_collection(LineCollection(bar, colors=TIME(np.linspace(0, 1, 24)), linewidths=4))
    axes.text(left - 0.1, 0.5, "first step", ha="right", **text)
    axes.text(left + long + 0.1, 0.5, "last step", **text)
