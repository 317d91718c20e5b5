"""Token encoders: what of a token reaches the memory, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fledge.core.errors import ConfigError, unknown
from fledge.core.spaces import Space
from fledge.core.types import Token
from fledge.nets.blocks import Linear

FIELDS = ("observation", "last_observation", "action", "reward", "done", "final_observation", "task")
OBSERVATIONS = ("observation", "last_observation", "final_observation")

EVERYTHING_NEW = ("observation", "action", "reward", "done", "final_observation")
"""The last transition's outcome and the observation to act from: RL² with nothing lost at an inner reset."""
FULL_TRANSITIONS = ("last_observation", "action", "reward", "done", "final_observation", "observation")
"""The whole last transition (Beck et al. 2024) and the observation to act from."""


class TokenEncoder(eqx.Module):
    """Embeds the named fields of a token.

    With `joint` > 0 all fields enter one linear layer + ReLU of that width (fast). Otherwise each kind has a layer of
    its own, as in VariBAD's code: E_s (shared by all observations), E_a, E_r and E_task, each linear + ReLU, outputs
    concatenated; a size of 0 drops the kind. `done` enters as it is. Discrete actions are one-hot (the published code
    feeds the index as one float).
    """

    layers: dict[str, Linear]
    fields: tuple[str, ...] = eqx.field(static=True)
    observation_space: Space
    action_space: Space

    @classmethod
    def init(
        cls,
        key: Key[Array, ""],
        observation_space: Space,
        action_space: Space,
        *,
        fields: Sequence[str] = EVERYTHING_NEW,
        task_size: int = 0,
        joint: int = 64,
        sizes: Mapping[str, int] | None = None,
    ) -> TokenEncoder:
        """Random weights.

        Args:
            key: randomness.
            observation_space: of the environment.
            action_space: of the environment.
            fields: which fields of `Token` to embed.
            task_size: length of the task vector, if `task` is among the fields.
            joint: width of the one joint layer; 0 for separate layers.
            sizes: widths of separate layers, by kind (`observation`, `action`, `reward`, `task`).
        """
        for field in fields:
            if field not in FIELDS:
                raise unknown("token field", field, FIELDS)
        if not fields:
            raise ConfigError("A token encoder needs at least one field; an agent that reads nothing cannot act.")
        widths = {
            "observation": observation_space.n_features,
            "action": action_space.n_features,
            "reward": 1,
            "done": 1,
            "task": task_size,
        }
        kinds = [_kind(field) for field in fields]
        if joint > 0:
            layers = {"joint": Linear.init(key, sum(widths[kind] for kind in kinds), joint)}
        else:
            wanted = {"observation": 32, "action": 8, "reward": 8, "task": 32} | dict(sizes or {})
            named = [kind for kind in dict.fromkeys(kinds) if wanted.get(kind, 0) > 0]
            keys = jax.random.split(key, len(named))
            layers = {k: Linear.init(subkey, widths[k], wanted[k]) for k, subkey in zip(named, keys, strict=True)}
        return cls(layers, tuple(fields), observation_space, action_space)

    def __call__(self, token: Token) -> Float[Array, "*batch token"]:
        parts = [(_kind(field), self._features(token, field)) for field in self.fields]
        if "joint" in self.layers:
            return jax.nn.relu(self.layers["joint"](jnp.concatenate([x for _, x in parts], axis=-1)))
        embedded = [
            jax.nn.relu(self.layers[kind](x)) if kind in self.layers else x
            for kind, x in parts
            if kind in self.layers or kind == "done"
        ]
        return jnp.concatenate(embedded, axis=-1)

    def _features(self, token: Token, field: str) -> Float[Array, "*batch features"]:
        value = getattr(token, field)
        if field in OBSERVATIONS:
            return self.observation_space.features(value)
        if field == "action":
            return self.action_space.features(value) * (1.0 - token.start[..., None])
        if field == "task":
            if value is None:
                raise ConfigError(
                    "This agent reads the task, but the token has none. Whoever drives it must fill Token.task "
                    "(the rollout does so for agents whose `told` is True)."
                )
            return value
        return value[..., None].astype(jnp.float32)

    def out_size(self) -> int:
        """Width of the output."""
        if "joint" in self.layers:
            return self.layers["joint"].bias.shape[0]
        kinds = [_kind(field) for field in self.fields]
        return sum(self.layers[k].bias.shape[0] if k in self.layers else int(k == "done") for k in kinds)


class TaskIdEncoder(eqx.Module):
    """Which of the known tasks the token tells of, one-hot: for agents that are told the task as an id.

    A task is known by its vector; one that is not among `rows` counts as the nearest. Nothing here is learnt: what
    reads the id embeds it (a linear layer on a one-hot id is a table of task embeddings).
    """

    rows: Float[Array, "task vector"]
    observation_space: Space
    fields: tuple[str, ...] = eqx.field(static=True, default=("task",))

    def __call__(self, token: Token) -> Float[Array, "*batch task"]:
        if token.task is None:
            raise ConfigError(
                "This agent is told the task, but the token has none. Whoever drives it must fill Token.task "
                "(the rollout does so for agents whose `told` is True)."
            )
        rows = jax.lax.stop_gradient(self.rows)
        distance = jnp.sum((token.task[..., None, :] - rows) ** 2, axis=-1)
        return jax.nn.one_hot(jnp.argmin(distance, axis=-1), rows.shape[0])

    def out_size(self) -> int:
        """How many tasks are known."""
        return self.rows.shape[0]


def _kind(field: str) -> str:
    return "observation" if field in OBSERVATIONS else field
