"""A ball on a table, stitched like the pendulum: half of each episode goes to the square, the other half flees."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from fledge.core.errors import ConfigError
from fledge.data.trajectories import Trajectories, from_arrays
from fledge.envs.pointmass import GOAL, PUSH, PointMass, roll
from fledge.feedback.domain import Domain, yes_no_questions
from fledge.feedback.raster import Canvas, Picture

EPISODES, STEPS, SEED = 400, 400, 20
GREEN, BLUE = (120, 190, 120), (40, 80, 170)


def seeker(position: Float[np.ndarray, "n 2"], speed: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Push that brings the ball to the square and holds it there."""
    return np.clip(4.0 * (np.array(GOAL) - position) - 3.0 * speed, -PUSH, PUSH)


def fugitive(position: Float[np.ndarray, "n 2"], speed: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Push towards the opposite corner."""
    return np.clip(4.0 * (np.array([-0.8, -0.8]) - position) - 3.0 * speed, -PUSH, PUSH)


def stitched(n_episodes: int = EPISODES, seed: int = SEED, n_steps: int = STEPS) -> Trajectories:
    """Episodes of which one half seeks the square and the other flees; the order is a coin's.

    Raises:
        ConfigError: an odd number of steps, or no episode.
    """
    if n_episodes < 1 or n_steps < 2 or n_steps % 2:
        raise ConfigError(f"At least one episode of an even number of steps is wanted, not {n_episodes} of {n_steps}.")
    rng = np.random.default_rng(seed)
    position, speed = rng.uniform(-1, 1, (n_episodes, 2)), np.zeros((n_episodes, 2))
    first = rng.random(n_episodes) < 0.5
    shape = (n_episodes, n_steps)
    seen, after = np.zeros((*shape, 4), np.float32), np.zeros((*shape, 4), np.float32)
    pushes, rewards, by_expert = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32), np.zeros(shape, bool)
    for t in range(n_steps):
        by_expert[:, t] = first == (t < n_steps // 2)
        push = np.where(by_expert[:, t, None], seeker(position, speed), fugitive(position, speed))
        push = np.clip(push + 0.1 * rng.standard_normal(push.shape), -PUSH, PUSH)
        seen[:, t] = np.concatenate([position, speed], -1)
        position, speed = roll(position, speed, push, np)
        rewards[:, t] = -np.linalg.norm(position - np.array(GOAL), axis=-1)
        pushes[:, t], after[:, t] = push, np.concatenate([position, speed], -1)
    cut = np.zeros(shape, bool)
    cut[:, -1] = True
    return from_arrays(
        seen.reshape(-1, 4),
        pushes.reshape(-1, 2),
        rewards.reshape(-1),
        truncated=cut.reshape(-1),
        next_observations=after.reshape(-1, 4),
        name=f"point-mass-stitched-v1 (episodes {n_episodes}, seed {seed})",
        extras={"expert": by_expert.reshape(-1)},
    )


def draw(observation: Float[np.ndarray, "obs"], size: int = 128) -> Picture:
    """The table with its square and the ball."""
    canvas = Canvas(size, 1.1)
    canvas.square(GOAL, 0.2, GREEN)
    canvas.disc((float(observation[0]), float(observation[1])), 0.08, BLUE)
    return canvas.picture()


def _distance(states: np.ndarray) -> np.ndarray:
    return np.linalg.norm(states[..., :2] - np.array(GOAL, np.float32), axis=-1)


def _inside(frames: Float[np.ndarray, "segment frame obs"]) -> Bool[np.ndarray, " segment"]:
    inside = (np.abs(frames[..., :2] - np.array(GOAL, np.float32)) < 0.2).all(-1)
    return (inside.mean(-1) >= 0.5) | inside[:, -1]


def _nearer(frames: Float[np.ndarray, "segment frame obs"]) -> Bool[np.ndarray, " segment"]:
    distance = _distance(frames)
    return distance[:, -1] < distance[:, 0] - 0.1


QUESTIONS = yes_no_questions(
    "point-mass-yes-no",
    "You see a video of a blue ball on a table. Answer with the single letter Y for yes or N for no.",
    {
        "inside": "Is the blue ball in the green square?",
        "nearer": "Did the blue ball come closer to the green square?",
    },
)

POINT_MASS = Domain(
    name="point-mass",
    env=PointMass(),
    make_data=stitched,
    n_episodes=EPISODES,
    seed=SEED,
    k=50,
    n_frames=5,
    renderer=draw,
    instrument=QUESTIONS,
    judges={"inside": _inside, "nearer": _nearer},
    merit=lambda states: -_distance(states),
    better="In which of the two clips is the blue ball nearer to the green square?",
)
"""400 episodes of 400 steps, segments of 50, five frames, two questions."""
