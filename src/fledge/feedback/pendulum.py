"""The stitched pendulum of Beck 2025 (arXiv 2503.01062): data, pictures, questions and their right answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fledge.core.errors import ConfigError, need
from fledge.data.trajectories import Trajectories, from_arrays
from fledge.envs.pendulum import TORQUE, Pendulum, swing
from fledge.feedback.domain import Domain, yes_no_questions
from fledge.feedback.raster import Canvas, Picture, Renderer

EPISODES, STEPS, SEED = 500, 600, 20
RED, BLACK = (204, 77, 77), (0, 0, 0)


def expert(angle: Float[np.ndarray, " n"], speed: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Torque that pumps energy while the stick hangs (|angle| ≥ 3π/4), and balances it elsewhere."""
    pump = np.where(speed > 0, 0.7, -0.7)
    return np.clip(np.where(np.abs(angle) >= 0.75 * np.pi, pump, -70.0 * angle - 10.0 * speed), -TORQUE, TORQUE)


def anti_expert(angle: Float[np.ndarray, " n"], speed: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Torque that damps at the bottom, tips over at the top, pushes one way on one side, and else brakes."""
    bottom = np.where(angle > 0, np.pi, -np.pi)
    at_bottom, at_top = np.abs(angle - bottom) < 0.1, np.abs(angle) < 0.15
    pushed = (angle > -7 * np.pi / 8) & (angle < -np.pi / 4)
    torque = np.select([at_bottom, at_top, pushed], [-5.0 * speed, np.full_like(speed, -0.1), np.full_like(speed, 2.0)])
    return np.clip(np.where(at_bottom | at_top | pushed, torque, -200.0 * speed), -TORQUE, TORQUE)


def stitched(n_episodes: int = EPISODES, seed: int = SEED, n_steps: int = STEPS) -> Trajectories:
    """Episodes of which one half is the expert's and the other the anti-expert's, in an order that a coin decides.

    The state is not reset in between, and nothing ends by itself.

    Raises:
        ConfigError: an odd number of steps, or no episode.
    """
    if n_episodes < 1 or n_steps < 2 or n_steps % 2:
        raise ConfigError(f"At least one episode of an even number of steps is wanted, not {n_episodes} of {n_steps}.")
    rng = np.random.default_rng(seed)
    angle, speed = rng.uniform(-np.pi, np.pi, n_episodes), rng.uniform(-1.0, 1.0, n_episodes)
    expert_first = rng.random(n_episodes) < 0.5
    shape = (n_episodes, n_steps)
    seen, after = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 3), np.float32)
    torques, rewards, by_expert = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, bool)
    for t in range(n_steps):
        wrapped = np.arctan2(np.sin(angle), np.cos(angle))
        by_expert[:, t] = expert_first == (t < n_steps // 2)
        torque = np.where(by_expert[:, t], expert(wrapped, speed), anti_expert(wrapped, speed))
        seen[:, t] = _observe(angle, speed)
        angle, speed, rewards[:, t] = swing(angle, speed, torque, np)
        torques[:, t], after[:, t] = torque, _observe(angle, speed)
    cut = np.zeros(shape, bool)
    cut[:, -1] = True
    flat: dict[str, Any] = {"truncated": cut.reshape(-1), "next_observations": after.reshape(-1, 3)}
    name = f"pendulum-stitched-v1 (episodes {n_episodes}, seed {seed})"
    extras = {"expert": by_expert.reshape(-1)}
    return from_arrays(
        seen.reshape(-1, 3), torques.reshape(-1, 1), rewards.reshape(-1), name=name, extras=extras, **flat
    )


def _observe(angle: np.ndarray, speed: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle), speed], axis=-1)


def draw(observation: Float[np.ndarray, "obs"], size: int = 500) -> Picture:
    """The red stick and the black dot of its pivot, in the places and sizes of Gymnasium's picture, without arrow."""
    canvas = Canvas(size, 2.2)
    tip = (float(observation[1]) * -1.0, float(observation[0]))
    canvas.stick((0.0, 0.0), tip, 0.1, RED)
    canvas.disc((0.0, 0.0), 0.05, BLACK)
    return canvas.picture()


def gymnasium_renderer() -> Renderer:
    """The same pictures from Gymnasium's own renderer (slower; needs pygame).

    Raises:
        MissingExtra: Gymnasium or pygame is not installed.
    """
    gymnasium = need("gymnasium", "gymnasium")
    need("pygame", "gymnasium")
    env = gymnasium.make("Pendulum-v1", render_mode="rgb_array").unwrapped

    def render(observation: np.ndarray, size: int) -> Picture:
        env.reset()  # so that there is no torque, and no arrow
        env.screen_dim = size
        env.state = np.array([np.arctan2(observation[1], observation[0]), observation[2]])
        return np.asarray(env.render(), np.uint8)

    return render


def _upright(frames: Float[np.ndarray, "segment frame obs"]) -> Bool[np.ndarray, " segment"]:
    high = np.abs(np.arctan2(frames[..., 1], frames[..., 0])) < np.pi / 4
    return (high.mean(-1) >= 0.5) | high[:, -1]


def _crossed(frames: Float[np.ndarray, "segment frame obs"]) -> Bool[np.ndarray, " segment"]:
    side = frames[..., 1]
    return np.asarray((side > 0.1).any(-1) & (side < -0.1).any(-1))


QUESTIONS = yes_no_questions(
    "pendulum-yes-no",
    "You see a video of a red stick that turns about a black dot. Answer with the single letter Y for yes or N for no.",
    {
        "upright": "Is the black dot at the bottom end of the stick?",
        "crossed": "Did the stick move from one side of the screen to the other, in either direction?",
    },
)

PENDULUM = Domain(
    name="pendulum",
    env=Pendulum(),
    make_data=stitched,
    n_episodes=EPISODES,
    seed=SEED,
    k=100,
    n_frames=5,
    renderer=draw,
    instrument=QUESTIONS,
    judges={"upright": _upright, "crossed": _crossed},
    merit=lambda states: states[..., 0],
    better="In which of the two clips is the free end of the red stick higher, or on its way up?",
)
"""A1 of the paper: 500 episodes of 600 steps, segments of 100, five frames, two questions."""
