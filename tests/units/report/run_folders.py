"""Run folders with made-up numbers, written through the public writers: the report reads nothing but files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fledge.core.files import write_text
from fledge.core.records import (
    Curves,
    RunRecord,
    WalkedEpisode,
    WalkedTrial,
    append_metrics,
    metrics_line,
    write_curves,
    write_paths,
    write_record,
)

GOALS = [(x, y) for x in range(5) for y in range(5) if x >= 2 or y >= 2]
MOVES = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
HORIZON = 15


def walk(goal: tuple[int, int], visits: np.ndarray, rng: np.random.Generator, *, straight: bool) -> WalkedEpisode:
    """A GridNavi episode: straight to the goal, or to the neighbour visited least in this trial; on it, stay."""
    at = np.array([0, 0])
    positions, rewards = [at], []
    for _ in range(HORIZON):
        if straight or tuple(at) == goal:
            move = np.sign([goal[0] - at[0], 0 if at[0] != goal[0] else goal[1] - at[1]])
        else:
            options = [m for m in MOVES if (at + m >= 0).all() and (at + m <= 4).all()]
            move = min(options, key=lambda m: visits[tuple(at + m)] + 0.5 * rng.random())
        at = at + move
        visits[tuple(at)] += 1
        positions.append(at)
        rewards.append(1.0 if tuple(at) == goal else -0.1)
    return WalkedEpisode(np.array(positions, float), np.array(rewards))


def gridnav_trial(goal: tuple[int, int], rng: np.random.Generator, skill: float, n_episodes: int = 4) -> WalkedTrial:
    """A search first; then straight to the goal, if it was found and the agent remembers."""
    episodes: list[WalkedEpisode] = []
    visits = np.zeros((5, 5))
    for _ in range(n_episodes):
        found = any(episode.rewards.max() > 0 for episode in episodes)
        episodes.append(walk(goal, visits, rng, straight=found and rng.random() < skill))
    scene = {
        "kind": "grid",
        "width": 5,
        "height": 5,
        "start": [0, 0],
        "goals": [{"x": goal[0], "y": goal[1], "label": "goal"}],
    }
    return WalkedTrial(f"goal at {goal}", scene, "test", "", 0, True, tuple(episodes))


def optimum(goal: tuple[int, int]) -> float:
    return HORIZON - sum(goal) + 1 - 0.1 * (sum(goal) - 1)


def gridnav_folder(
    folder: Path, *, name: str = "rl2-gridnav", skill: float = 0.95, seeds: int = 5, goals=GOALS, updates: int = 150
) -> Path:
    """A whole run folder of a GridNavi run."""
    rng = np.random.default_rng(sum(map(ord, name)))
    rows: list[tuple] = []
    trials = []
    for seed in range(seeds):
        lucky = min(1.0, skill + 0.05 * rng.normal())
        for goal in goals:
            trial = gridnav_trial(goal, rng, lucky)
            if seed == 0:
                trials.append(WalkedTrial(**{**trial.__dict__, "recipe": name}))
            for k, episode in enumerate(trial.episodes, 1):
                rows.append((name, seed, trial.task, k, episode.total))
                rows.append(("optimum", seed, trial.task, k, optimum(goal)))
                rows.append(("random", seed, trial.task, k, -1.5 + rng.exponential(0.8)))
    recipe, seed, task, x, value = zip(*rows, strict=True)
    curves = Curves.of(
        recipe=recipe, split="test", adapt="default", seed=seed, task=task, x=x, x_unit="episode",
        metric="return_greedy", value=value,
    )  # fmt: skip
    write_curves(folder / "curves.csv", curves)
    write_paths(folder / "paths.json", trials)
    lines = []
    for update in range(updates):
        for s in range(seeds):
            level = 36 * skill * (1 - np.exp(-update / (25 + 6 * s))) - 4 + rng.normal()
            values = {"return/trial": level, "loss/total": 1 / (1 + update), "speed/steps_per_s": 3e5}
            lines.append(metrics_line(update, update * 16384, s, values))
    append_metrics(folder / "metrics.jsonl", lines)
    write_text(
        folder / "config.toml", f'name = "{name}"\nscale = "laptop"\n[ppo]\ndiscount = 0.95\ngae_lambda = 0.95\n'
    )
    record = RunRecord(
        recipe=name,
        command=f"fledge run {name} --scale laptop --seeds {seeds}",
        scale="laptop",
        seeds=tuple(range(seeds)),
        device="cpu (2 cores)",
        versions={"fledge": "0.1.0", "jax": "0.10.2", "python": "3.11.7"},
        commit="0123abc",
        started="2026-01-02T03:04:05Z",
        wall_s=412.7,
        env_steps=updates * 16384,
    )
    write_record(folder / "record.json", record)
    return folder


def plane_trial(rng: np.random.Generator) -> WalkedTrial:
    """A point robot that circles once and then goes straight."""
    goal = np.array([np.cos(0.9), np.sin(0.9)])
    angles = np.linspace(0, 2.4, 20)
    search = np.concatenate(
        [[[0, 0]], np.stack([np.cos(angles), np.sin(angles)], -1) * np.minimum(1, angles * 2)[:, None]]
    )
    straight = np.concatenate([np.linspace(0, 1, 8)[:, None] * goal, np.repeat(goal[None], 12, 0)])
    episodes = tuple(
        WalkedEpisode(p + 0.01 * rng.normal(size=p.shape), -np.linalg.norm(p[1:] - goal, axis=1))
        for p in (search, straight)
    )
    scene = {
        "kind": "plane",
        "x_range": [-1.5, 1.5],
        "y_range": [-1.5, 1.5],
        "start": [0, 0],
        "goals": [{"x": float(goal[0]), "y": float(goal[1]), "radius": 0.2, "label": "goal"}],
    }
    return WalkedTrial("goal at 52°", scene, "test", "rl2-pointnav", 0, False, episodes)
