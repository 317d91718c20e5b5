"""Meta-gradients along long lives: windows of K updates that go on from one another, and lives of staggered ages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fledge.core.contracts import Learner
from fledge.core.errors import ConfigError, ContractError
from fledge.core.returns import gae
from fledge.core.types import Task
from fledge.envs.trial import Trial
from fledge.learn.episodes import Episodes, PolicyAgent, collect, masked_mean
from fledge.learn.eta import N_REMEMBERED, LossShape, Shaped, Targets, Theta, usual
from fledge.learn.rollout import select
from fledge.nets.adaptive import AdaptivePolicy
from fledge.nets.blocks import MLP


@dataclass(frozen=True)
class OnlineMetaSettings:
    """Lives, windows, and both loops."""

    n_lives: int = 8
    """Lived side by side; each update of η averages their gradients."""
    life_len: int = 200
    """Inner updates of a life; then it starts anew on another task."""
    window: int = 5
    """K: inner updates that one meta-gradient runs through. The next window goes on where this one ended."""
    batch_size: int = 8
    """Episodes of an inner update."""
    critic_hidden: tuple[int, ...] = (32,)
    optimiser: Literal["sgd", "adam"] = "sgd"
    """Of the inner loop. Its state belongs to the life: kept across windows, and differentiated through."""
    learning_rate: float = 0.1
    outer_learning_rate: float = 1e-2
    outer_discount: float = 0.99
    outer_lambda: float = 0.95
    staggered: bool = True
    """Lives start at different ages, so that a batch mixes early and late ones."""
    remat: bool = False
    """Recompute each inner update in the backward pass instead of storing it (`jax.checkpoint`)."""

    def __post_init__(self) -> None:
        counts = ("n_lives", "life_len", "window")
        faults = [f"{name} is at least 1, not {getattr(self, name)}." for name in counts if getattr(self, name) < 1]
        if self.batch_size < 2:
            faults.append(f"batch_size is at least 2 episodes, not {self.batch_size}.")
        if self.window > self.life_len:
            faults.append(
                f"A window of {self.window} updates is longer than a life of {self.life_len}. Take a window of 1 to "
                f"{self.life_len}, or longer lives."
            )
        if self.optimiser not in ("sgd", "adam"):
            faults.append(f"optimiser is 'sgd' or 'adam', not '{self.optimiser}'.")
        if faults:
            raise ConfigError(" ".join(faults))


class Life(eqx.Module):
    """One life between two windows."""

    theta: Theta
    optimiser: PyTree
    recent: Float[Array, " remembered"]
    """Mean rewards of its last batches, newest last."""


class OnlineMetaState(eqx.Module):
    """Everything that training carries from one window to the next. Lives have a leading axis `life`."""

    eta: LossShape
    optimiser: PyTree
    lives: Life
    tasks: Task
    age: Int[Array, " life"]
    dropped: Int[Array, ""]
    """Windows that were dropped because something in them was no number."""
    key: Key[Array, ""]


class OnlineMeta(Learner):
    """η learns while lives go on: K inner updates, one update of η, and so on from there.

    Every batch is both: it measures what the updates before it led to (outer policy gradient with fixed discount and
    λ), and the next inner update learns from it. Credit older than the window is lost, and nothing credits the data
    that was learnt from (see the cards of `fledge.core.contracts.GradientEstimator`).

    If θ of any life or η is no number after a window, the whole window is dropped, and counted.

    Args:
        trial: of one episode.
        make_policy: from a key to a fresh policy.
        make_eta: from a key to η.
        settings: see `OnlineMetaSettings`.
    """

    trial: Trial
    make_policy: Callable[[Key[Array, ""]], AdaptivePolicy] = eqx.field(static=True)
    make_eta: Callable[[Key[Array, ""]], LossShape] = eqx.field(static=True)
    settings: OnlineMetaSettings = eqx.field(static=True)

    @property
    def steps_per_update(self) -> int:
        s = self.settings
        return s.n_lives * (s.window + 1) * s.batch_size * self.trial.horizon

    def inner_optimiser(self) -> optax.GradientTransformation:
        """With a root inside Adam's square root: without it its derivative at zero is no number."""
        s = self.settings
        return optax.sgd(s.learning_rate) if s.optimiser == "sgd" else optax.adam(s.learning_rate, eps_root=1e-8)

    def outer_optimiser(self) -> optax.GradientTransformation:
        """Of η."""
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(self.settings.outer_learning_rate))

    def init(self, key: Key[Array, ""]) -> OnlineMetaState:
        key_eta, key_lives, key_tasks, key_age, key = jax.random.split(key, 5)
        s = self.settings
        eta = self.make_eta(key_eta)
        lives, tasks = self._births(key_lives, key_tasks)
        age = jnp.zeros(s.n_lives, jnp.int32)
        if s.staggered:  # only the clock is ahead: the first life of some is a short one
            n_windows = -(-s.life_len // s.window)
            age = s.window * jax.random.randint(key_age, (s.n_lives,), 0, n_windows)
        return OnlineMetaState(eta, self.outer_optimiser().init(eta), lives, tasks, age, jnp.asarray(0, jnp.int32), key)

    def agent(self, state: OnlineMetaState) -> PolicyAgent:
        """The policy of the first life."""
        return PolicyAgent(jax.tree.map(lambda leaf: leaf[0], state.lives.theta.policy))

    def _births(self, key_lives: Key[Array, ""], key_tasks: Key[Array, ""]) -> tuple[Life, Task]:
        n = self.settings.n_lives
        tasks = jax.vmap(self.trial.sample)(jax.random.split(key_tasks, n))
        return jax.vmap(self.born)(jax.random.split(key_lives, n)), tasks

    def born(self, key: Key[Array, ""]) -> Life:
        """A life before its first update."""
        key_policy, key_critic, key_predictor = jax.random.split(key, 3)
        policy = self.make_policy(key_policy)
        n_in, hidden = policy.observation_space.n_features, self.settings.critic_hidden
        n_predictions = jax.eval_shape(self.make_eta, key).n_predictions
        predictor = MLP.init(key_predictor, n_in, hidden, n_predictions) if n_predictions else None
        theta = Theta(policy, MLP.init(key_critic, n_in, hidden, 1), predictor)
        return Life(theta, self.inner_optimiser().init(theta), jnp.zeros(N_REMEMBERED))

    def update(self, state: OnlineMetaState) -> tuple[OnlineMetaState, dict[str, Float[Array, ""]]]:
        key, key_window, key_lives, key_tasks = jax.random.split(state.key, 4)
        s = self.settings
        (loss, (lives, reward)), gradient = jax.value_and_grad(self.window, has_aux=True)(
            state.eta, state.lives, state.tasks, key_window
        )
        moves, optimiser = self.outer_optimiser().update(gradient, state.optimiser, state.eta)
        eta = optax.apply_updates(state.eta, moves)
        good = finite((eta, lives, loss))
        kept = (state.eta, state.optimiser, state.lives)
        eta, optimiser, lives = jax.tree.map(lambda a, b: jnp.where(good, a, b), (eta, optimiser, lives), kept)
        age = state.age + s.window
        fresh, tasks = self._births(key_lives, key_tasks)
        over = age >= s.life_len
        lives, tasks = select(over, fresh, lives), select(over, tasks, state.tasks)
        dropped = state.dropped + ~good
        state = OnlineMetaState(eta, optimiser, lives, tasks, jnp.where(over, 0, age), dropped, key)
        metrics = {"return/per_step": reward, "loss/total": loss, "grad/norm": optax.tree.norm(gradient)}
        # A dropped window is counted, not reported: a run of good numbers goes on.
        return state, {name: jnp.nan_to_num(x) for name, x in metrics.items()} | {"meta/dropped": dropped * 1.0}

    def window(
        self, eta: LossShape, lives: Life, tasks: Task, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Life, Float[Array, ""]]]:
        """The outer loss of a window of all lives; the lives after it, and the mean reward of a step in it."""
        lives = jax.lax.stop_gradient(lives)  # credit older than the window is cut here, optimiser states included
        keys = jax.random.split(key, self.settings.n_lives)
        losses, after, rewards = jax.vmap(lambda life, task, k: self._live(eta, life, task, k))(lives, tasks, keys)
        return jnp.mean(losses), (after, jnp.mean(rewards))

    def _live(
        self, eta: LossShape, life: Life, task: Task, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], Life, Float[Array, ""]]:
        s = self.settings
        fixed = {"discount": s.outer_discount, "gae_lambda": s.outer_lambda, "value_coef": 0.0, "entropy_coef": 0.0}

        def judged(theta: Theta, episodes: Episodes) -> Array:
            """Minus the outer policy gradient's surrogate: no entropy, and the critic is the inner loop's business."""
            critic = jax.lax.stop_gradient(theta.critic)
            return actor_critic_loss(theta, episodes, Shaped(episodes.rewards, usual(fixed)), critic)

        def step(life: Life, k: Key[Array, ""]) -> tuple[Life, tuple[Array, Array]]:
            episodes = self._collect(life, task, k)
            after, penalty = self.inner_update(eta, life, episodes)
            return after, (judged(life.theta, episodes) + penalty, after.recent[-1])

        body = jax.checkpoint(step) if s.remat else step
        key_window, key_last = jax.random.split(key)
        after, (losses, rewards) = jax.lax.scan(body, life, jax.random.split(key_window, s.window))
        last = judged(after.theta, self._collect(after, task, key_last))
        return (jnp.sum(losses) + last) / (s.window + 1), after, jnp.mean(rewards)

    def inner_update(self, eta: LossShape, life: Life, episodes: Episodes) -> tuple[Life, Float[Array, ""]]:
        """The life after one more update, and what the outer loss has to pay for it. Differentiable in η and θ."""
        shaped = eta(episodes, life.recent, life.theta)
        gradient = jax.grad(actor_critic_loss)(life.theta, episodes, shaped, life.theta.critic)
        moves, optimiser = self.inner_optimiser().update(gradient, life.optimiser, life.theta)
        reward = masked_mean(episodes.rewards, episodes.mask)
        after = Life(optax.apply_updates(life.theta, moves), optimiser, jnp.append(life.recent[1:], reward))
        return after, jnp.zeros(()) if shaped.penalty is None else shaped.penalty

    def whole_life(self, eta: LossShape, task: Task, key: Key[Array, ""], n_updates: int) -> Float[Array, " update"]:
        """Mean return of an episode before each of so many updates of a fresh life, and after the last."""
        key_born, key = jax.random.split(key)

        def step(life: Life, k: Key[Array, ""]) -> tuple[Life, Array]:
            episodes = self._collect(life, task, k)
            return self.inner_update(eta, life, episodes)[0], jnp.mean(episodes.returns)

        return jax.lax.scan(step, self.born(key_born), jax.random.split(key, n_updates + 1))[1]

    def _collect(self, life: Life, task: Task, key: Key[Array, ""]) -> Episodes:
        policy = jax.lax.stop_gradient(life.theta.policy)
        return jax.lax.stop_gradient(collect(policy, self.trial, task, key, self.settings.batch_size))


def actor_critic_loss(theta: Theta, episodes: Episodes, shaped: Shaped, critic: MLP) -> Float[Array, ""]:
    """−c_π mean log π · A + c_v mean ½ (V − G)² − c_e mean entropy, over real steps.

    A and G are over the values of `critic`, not of θ's own: so they are constants to whoever differentiates in θ, but
    functions of the shaped rewards, of discount and λ, and of all that made the critic. Through them η is learnt. Where
    a shape has targets of its own, π̂ is in the place of A, and c_y KL(y ‖ ŷ) is added.
    """
    w, mask = shaped.weights, episodes.mask
    distribution = theta.policy(episodes.features)
    values = theta.critic(episodes.features)[..., 0]
    known = critic(episodes.features)[..., 0] * mask
    cuts = jnp.concatenate([~mask[1:], jnp.ones_like(mask[:1])])
    following = jnp.concatenate([known[1:], jnp.zeros_like(known[:1])]) * ~cuts
    gains, targets = gae(
        shaped.rewards * mask, known, following, cuts, discount=w["discount"], gae_lambda=w["gae_lambda"]
    )
    more: Array | float = 0.0
    if shaped.targets is not None:
        gains = shaped.targets.gains
        more = shaped.targets.prediction_coef * _prediction_error(theta, episodes, shaped.targets)
    policy = masked_mean(distribution.log_prob(episodes.actions) * gains, mask)
    error = 0.5 * masked_mean((values - targets) ** 2, mask)
    entropy = masked_mean(distribution.entropy(), mask)
    return -w["policy_coef"] * policy + w["value_coef"] * error - w["entropy_coef"] * entropy + more


def _prediction_error(theta: Theta, episodes: Episodes, targets: Targets) -> Float[Array, ""]:
    """Mean KL(y ‖ ŷ) over real steps, in nats."""
    if theta.predictor is None:
        raise ContractError("This η has targets for predictions; its n_predictions has to say how many there are.")
    ours = jax.nn.log_softmax(theta.predictor(episodes.features))
    kl = jnp.sum(jnp.exp(ours) * (ours - jax.nn.log_softmax(targets.predictions)), axis=-1)
    return masked_mean(kl, episodes.mask)


def finite(tree: PyTree[Array]) -> Bool[Array, ""]:
    """Whether every number of a tree is one."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
