"""The contracts: one page of abstract nouns that the whole house is built on.

Every class here is abstract; every class elsewhere that keeps one is final (tweak by wrapping, not by subclassing).
Nothing has a batch axis unless the signature says so: batch with `jax.vmap`.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree, Shaped

from fledge.core.annotations import Annotation, Item
from fledge.core.distributions import Distribution
from fledge.core.instruments import Instrument
from fledge.core.spaces import Space
from fledge.core.types import Decision, Task, TimeStep, Token, Trajectory


class TaskFamily(eqx.Module):
    """A distribution of tasks with named splits. A task is a value: a pytree of arrays."""

    @property
    @abstractmethod
    def splits_disjoint(self) -> bool:
        """Whether no task of `test` (or `ood`) is ever drawn in `train`."""

    @abstractmethod
    def sample(self, key: Key[Array, ""], split: str = "train") -> Task:
        """One task of a split (`train`, `test` or `ood`). Pure, and safe under `jit` and `vmap`."""

    @abstractmethod
    def describe(self, task: Task) -> str:
        """One line that tells a person what this task is. Runs outside `jit`."""

    def enumerate(self, split: str = "test") -> Task | None:
        """Every task of a split, stacked along a leading `task` axis; None where they cannot be listed."""
        return None


class Env(TaskFamily):
    """An environment: a pure function of key, state, action and task.

    `horizon` is the most steps that one episode can take. The environment itself raises `truncated` at the horizon.
    """

    # No `from __future__ import annotations` in this file: Equinox has to see this annotation as an object.
    # A type checker is shown a property, or it would ask every constructor for a `horizon`.
    if TYPE_CHECKING:

        @property
        def horizon(self) -> int: ...
    else:
        horizon: eqx.AbstractVar[int]

    @property
    @abstractmethod
    def observation_space(self) -> Space:
        """What observations may be."""

    @property
    @abstractmethod
    def action_space(self) -> Space:
        """What actions may be."""

    @property
    @abstractmethod
    def fixed_length(self) -> bool:
        """Whether every episode takes exactly `horizon` steps (then whole trials can be unrolled without masks)."""

    @abstractmethod
    def reset(self, key: Key[Array, ""], task: Task) -> tuple[PyTree, Shaped[Array, "*obs"]]:
        """The state and observation that an episode starts from."""

    def restart(self, key: Key[Array, ""], state: PyTree, task: Task) -> tuple[PyTree, Shaped[Array, "*obs"]]:
        """The start of the next episode on the same task, after one that ended in `state`. By default a plain reset.

        For what outlives an episode inside a trial (the doors already tried …); shapes and dtypes are those of `reset`.
        """
        return self.reset(key, task)

    @abstractmethod
    def step(
        self, key: Key[Array, ""], state: PyTree, action: Shaped[Array, "*act"], task: Task
    ) -> tuple[PyTree, TimeStep]:
        """The next state, and what the agent is given. Never resets by itself; `trial_end` stays False."""

    @abstractmethod
    def task_vector(self, task: Task) -> Float[Array, " task"]:
        """The task as the vector that an oracle is told, and that task inference has to find."""

    def optimal_return(self, task: Task, n_episodes: int = 1) -> Float[Array, " episode"] | None:
        """The best expected return of each episode for an agent that is told the task; None where it is unknown."""
        return None

    def position(self, state: PyTree) -> Float[Array, "2"] | None:
        """Where the agent is, in the coordinates of `scene`; None where there is nothing to draw."""
        return None

    def scene(self, task: Task) -> Mapping[str, Any] | None:
        """What to draw under the walked path (`fledge.core.records.Scene` lists the keys); None for no picture."""
        return None


class Memory(eqx.Module):
    """A sequence model that is fed one embedded token per decision.

    `scan` takes batch axes itself instead of leaving them to `vmap`: so the weight gradient of a whole batch of
    sequences is one matrix product. All three tell the same story: step by step = scan = scan in pieces.
    """

    @property
    @abstractmethod
    def out_size(self) -> int:
        """The width of what `step` and `scan` put out."""

    @abstractmethod
    def begin(self) -> PyTree[Array]:
        """The state before the first token of a trial (no batch axis)."""

    @abstractmethod
    def step(
        self, state: PyTree[Array], token: Float[Array, "*batch token"]
    ) -> tuple[PyTree[Array], Float[Array, "*batch out"]]:
        """The state after one more token, and the output."""

    @abstractmethod
    def scan(
        self,
        state: PyTree[Array],
        tokens: Float[Array, "time *batch token"],
        resets: Bool[Array, "time *batch"],
    ) -> tuple[PyTree[Array], Float[Array, "time *batch out"]]:
        """All steps at once. Where `resets[t]` holds, the state is `begin()` *before* token t is consumed."""


class Agent(eqx.Module):
    """Something that acts, remembers inside a trial, and forgets between trials.

    The agent *is* its parameters (a pytree); everything that changes inside a trial is in the memory that it is handed
    and hands back: a recurrent state, a transformer's cache, a posterior, or adapted weights.
    """

    adapts: ClassVar[bool] = False
    """Whether `adapt` does anything: then whoever drives the agent must hand it each finished episode."""

    @property
    def told(self) -> bool:
        """Whether the agent reads `Token.task`. Agents that are not told get None there: they cannot cheat."""
        return False

    @abstractmethod
    def begin(self) -> PyTree[Array]:
        """The memory at the start of a trial."""

    @abstractmethod
    def act(self, memory: PyTree[Array], token: Token, noise: PyTree[Array] | None = None) -> tuple[Decision, PyTree]:
        """The decision on one token, and the memory after it. `noise=None` means greedy."""

    def sample_noise(self, key: Key[Array, ""]) -> PyTree[Array]:
        """The randomness of one decision. Drawn apart from `act`, so that a rollout can draw it in bulk.

        By default the key itself; an agent with a softmax head returns its Gumbel noise.
        """
        return key

    def adapt(
        self, key: Key[Array, ""], memory: PyTree[Array], episode: Trajectory, mask: Bool[Array, " time"]
    ) -> PyTree[Array]:
        """The memory after an episode inside the trial has ended (gradient steps of MAML, a drawn posterior …).

        Args:
            key: randomness.
            memory: as it stands after the last step.
            episode: the finished episode, padded at its end to the environment's horizon.
            mask: which of its steps are real.
        """
        return memory


class ReplayAgent(Agent):
    """An agent whose decisions on recorded tokens can be recomputed in one pass, with gradients.

    The memory handed to `replay` is the one from *before* the first token. It takes batch axes like `Memory.scan`.
    """

    @abstractmethod
    def replay(
        self, memory: PyTree[Array], tokens: Token
    ) -> tuple[Distribution, Float[Array, "time *batch"], PyTree[Array]]:
        """The action distribution and value at each token, and the memory after the last. Resets at `tokens.start`."""

    def update_statistics(self, tokens: Token) -> "ReplayAgent":
        """The agent with its running input statistics moved on. Called once per iteration, *after* the gradient steps
        (so that recorded decisions replay with the statistics they were made with)."""
        return self


class Learner(eqx.Module):
    """A training algorithm as a pure function of its state.

    `update` belongs here and not on the agent: it needs environments, an optimiser and statistics, none of which an
    agent that acts, is exported or is tested should carry.
    """

    @abstractmethod
    def init(self, key: Key[Array, ""]) -> PyTree:
        """The state before training: agent, optimiser, environments, statistics, key."""

    @abstractmethod
    def update(self, state: PyTree) -> tuple[PyTree, dict[str, Float[Array, ""]]]:
        """One iteration: new state, and scalar metrics named as in `fledge.core.records.METRICS`."""

    @abstractmethod
    def agent(self, state: PyTree) -> Any:
        """What the state has learnt so far, ready to be evaluated."""

    @property
    @abstractmethod
    def steps_per_update(self) -> int:
        """Environment steps (or examples) that one `update` consumes."""


Estimand = Literal["lifetime", "expected_update"]


class EstimatorCard(eqx.Module):
    """What a gradient estimator promises."""

    estimand: Estimand = eqx.field(static=True)
    biased_by: tuple[str, ...] = eqx.field(static=True, default=())
    memory: str = eqx.field(static=True, default="O(K)")
    trajectories: str = eqx.field(static=True, default="(N + 1) B")
    shaped: bool = eqx.field(static=True, default=False)
    """Whether returns are ranked or rescaled first: then the estimate is a direction and no gradient."""


class GradientEstimator(eqx.Module):
    """An estimate of the gradient of an expected objective with respect to meta-parameters."""

    @property
    @abstractmethod
    def card(self) -> EstimatorCard:
        """What is estimated, what biases it, and what it costs."""

    @abstractmethod
    def estimate(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> tuple[PyTree[Array], dict[str, Array]]:
        """One estimate, shaped like `eta`, and diagnostics."""


class Estimator:
    """scikit-learn's manners: `fit` learns from pairs and returns self, `predict` answers for new inputs."""

    @abstractmethod
    def fit(self, X: Any, y: Any) -> "Estimator":
        """Learn from labelled examples (possibly none)."""

    @abstractmethod
    def predict(self, X: Any) -> Any:
        """One number or label per example."""


class Annotator:
    """Whoever answers questions about items: an oracle, people, a model behind an endpoint, a recorded cache."""

    @abstractmethod
    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> Sequence[Annotation]:
        """One annotation per item and question of a condition; abstentions are annotations, errors are not.

        Args:
            items: what is judged.
            instrument: what is asked.
            condition: which version of the instrument; may be left out where there is only one.
            replicate: which time the same is asked, from 0; the same replicate gives the same answers.
        """


def task_batch(family: TaskFamily, key: Key[Array, ""], split: str, n: int) -> Task:
    """`n` tasks of a split: all of them in turn where they can be listed, otherwise drawn. Leading axis: task."""
    tasks = family.enumerate(split)
    if tasks is None:
        return jax.vmap(lambda k: family.sample(k, split))(jax.random.split(key, n))
    count = jax.tree.leaves(tasks)[0].shape[0]
    return jax.tree.map(lambda leaf: leaf[jnp.arange(n) % count], tasks)
