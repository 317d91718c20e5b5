"""Meta-gradients without derivatives: evolution strategies, whole or truncated, and persistent ones (PES).

All of them estimate the gradient of the *smoothed* objective E J(η + σ ε), ε ~ N(0, I), which is J's up to O(σ²).
"""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from fledge.core.contracts import EstimatorCard, GradientEstimator
from fledge.core.errors import ConfigError
from fledge.core.types import Task
from fledge.learn.lifetimes import Lifetime, Objective, live, outer_weights, start_life
from fledge.learn.metagrad import check_window, choose_window
from fledge.learn.surrogates import PolicyGradient, Surrogate

Shaping = Literal["none", "rank", "z-score", "sign"]


class ES(GradientEstimator):
    """Antithetic evolution strategies: mean of (F(η + σε) − F(η − σε)) ε / 2σ over pairs.

    F is the return of a lifetime, or of a window of it.

    Args:
        lifetime: the problem.
        sigma: σ, standard deviation of the perturbation.
        n_pairs: pairs that one estimate averages.
        crn: the members of a pair meet the same luck (common random numbers); otherwise only the same task.
        window: K: only K + 1 batches of the lifetime count; None is the whole life.
        perturb: with a window, `window` lives up to it with η and perturbs inside it only (truncated ES, biased like
            every truncation); `lifetime` perturbs from the beginning and only measures less of the life.
        start: first batch of the window; see `MetaGrad`.
        shaping: of the fitness: `rank` centred ranks in [−.5, .5], `z-score`, `sign` of each pair's difference. A
            shaped estimate is a direction to go, no gradient: benches refuse it.
        objective: `auc` or `final`.
        surrogate: what the inner update ascends.
        expected: measure E[R_n | θ_n] where the lifetime knows it.

    Reference: Salimans et al. 2017; Metz et al. 2019 (truncated).
    """

    lifetime: Lifetime
    sigma: float = eqx.field(static=True, default=0.1)
    n_pairs: int = eqx.field(static=True, default=1)
    crn: bool = eqx.field(static=True, default=True)
    window: int | None = eqx.field(static=True, default=None)
    perturb: Literal["window", "lifetime"] = eqx.field(static=True, default="window")
    start: int | None = eqx.field(static=True, default=None)
    shaping: Shaping = eqx.field(static=True, default="none")
    objective: Objective = eqx.field(static=True, default="auc")
    surrogate: Surrogate = eqx.field(default_factory=PolicyGradient)
    expected: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        check_window(self.window, self.start, self.lifetime.n_updates)
        check_noise(self.sigma, self.n_pairs)

    @property
    def card(self) -> EstimatorCard:
        """What biases it, from its settings."""
        biases = [f"smoothing with σ = {self.sigma:g}: O(σ²)"]
        n = self.lifetime.n_updates
        if self.window is not None and self.window < n and self.perturb == "window":
            biases.append(f"truncation: credit older than {self.window} of {n} updates")
        if self.shaping != "none":
            biases.append(f"shaped fitness ({self.shaping}): no gradient estimate")
        trajectories = f"2 (N + 1) B × {self.n_pairs} pair{'s' * (self.n_pairs > 1)}"
        return EstimatorCard("lifetime", tuple(biases), "O(1)", trajectories, shaped=self.shaping != "none")

    def estimate(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> tuple[PyTree[Array], dict[str, Array]]:
        """One estimate; with `task` None each pair draws its own."""
        flat, unravel = ravel_pytree(eta)
        key_window, key_noise, key_tasks, *keys_lives = jax.random.split(key, 5)
        noise = jax.random.normal(key_noise, (self.n_pairs, len(flat)), flat.dtype)
        keys = [jax.random.split(k, self.n_pairs) for k in keys_lives]
        first, weight = choose_window(key_window, self.lifetime.n_updates, self.window, self.start, self.objective)
        n_seen = self.lifetime.n_batches if self.window is None else self.window + 1
        weights = jax.vmap(lambda n: jnp.asarray(weight(n)))(first + jnp.arange(n_seen))

        def fitness(key: Array, key_task: Array, move: Array) -> Array:
            own = self.lifetime.sample_task(key_task) if task is None else task
            moved = unravel(flat + move)
            life, _, key_data = start_life(self.lifetime, key, moved, own)
            if self.window is not None:
                before = moved if self.perturb == "lifetime" else eta
                earlier = start_life(self.lifetime, key, before, own)[0]
                later = self._skip(earlier, own, key_data, before, first)
                life = jax.tree.map(lambda begun, lived: jnp.where(first > 0, lived, begun), life, later)
            batches = first + jnp.arange(n_seen)
            found = live(self.lifetime, key_data, life, moved, own, self.surrogate, batches, expected=self.expected)[1]
            return jnp.sum(weights * found)

        keys_tasks = jax.random.split(key_tasks, self.n_pairs)
        plus = jax.vmap(fitness)(keys[0], keys_tasks, self.sigma * noise)
        minus = jax.vmap(fitness)(keys[0] if self.crn else keys[1], keys_tasks, -self.sigma * noise)
        better, worse = shape(plus, minus, self.shaping)
        gradient = jnp.mean((better - worse)[:, None] * noise, axis=0) / (2 * self.sigma)
        return unravel(gradient), {"returns": jnp.stack([plus, minus])}

    def _skip(self, life: PyTree, task: Task, key: Array, eta: PyTree[Array], first: Int[Array, ""]) -> PyTree:
        return jax.lax.fori_loop(
            0,
            first,
            lambda n, now: live(self.lifetime, key, now, eta, task, self.surrogate, jnp.asarray(n)[None])[0],
            life,
        )


def check_noise(sigma: float, n_pairs: int) -> None:
    """Nothing, if these make sense.

    Raises:
        ConfigError: they do not.
    """
    if sigma <= 0:
        raise ConfigError(f"sigma is a standard deviation above 0, not {sigma}.")
    if n_pairs < 1:
        raise ConfigError(f"One pair or more is perturbed, not {n_pairs}.")


def shape(
    plus: Float[Array, " pair"], minus: Float[Array, " pair"], shaping: Shaping
) -> tuple[Float[Array, " pair"], Float[Array, " pair"]]:
    """The fitness of both members of each pair, shaped."""
    both = jnp.concatenate([plus, minus])
    if shaping == "rank":
        both = jnp.argsort(jnp.argsort(both)) / (len(both) - 1) - 0.5
    elif shaping == "z-score":
        both = (both - jnp.mean(both)) / (jnp.std(both) + 1e-8)
    elif shaping == "sign":
        both = jnp.concatenate([plus > minus, minus > plus]).astype(plus.dtype)
    return both[: len(plus)], both[len(plus) :]


class PESState(eqx.Module):
    """The workers of PES between two windows. All leaves but `key` have the leading axis `worker`."""

    plus: PyTree
    """Lives of the positive members."""
    minus: PyTree
    task: PyTree
    key_data: Key[Array, "*worker"]
    noise: Float[Array, "*worker eta"]
    """ξ, the sum of all perturbations of the running lifetime."""
    n: Int[Array, "*worker"]
    """Its next batch."""


class PES(GradientEstimator):
    """Persistent evolution strategies: windows of a lifetime with fresh noise each, credited to the sum of it all.

    Unbiased for the smoothed lifetime, although it only ever unrolls `window_batches`; the price is a variance that
    grows with the number of windows. `estimate` lives one whole lifetime, window after window. For training online,
    `begin` and `advance` carry the workers' state explicitly, and lifetimes start anew where they end.

    Args:
        lifetime: the problem. Its θ_0 may depend on η: that is credited to the first window's noise.
        sigma: σ.
        n_workers: pairs of lives that one estimate averages.
        window_batches: batches of a window, each with its update (so no batch belongs to two); None is the whole life.
        objective: `auc` or `final`.
        surrogate: what the inner update ascends.

    Reference: Vicol, Metz and Sohl-Dickstein 2021, Unbiased Gradient Estimation in Unrolled Computation Graphs with
    Persistent Evolution Strategies, Algorithm 2.
    """

    lifetime: Lifetime
    sigma: float = eqx.field(static=True, default=0.1)
    n_workers: int = eqx.field(static=True, default=1)
    window_batches: int | None = eqx.field(static=True, default=None)
    objective: Objective = eqx.field(static=True, default="auc")
    surrogate: Surrogate = eqx.field(default_factory=PolicyGradient)

    def __check_init__(self) -> None:
        check_noise(self.sigma, self.n_workers)
        if self.window_batches is not None and not 1 <= self.window_batches <= self.lifetime.n_batches:
            raise ConfigError(
                f"A window of {self.window_batches} batches was asked for, and the lifetime has "
                f"{self.lifetime.n_batches}. Take 1 to {self.lifetime.n_batches}, or None for the whole life."
            )

    @property
    def span(self) -> int:
        """Batches of a window."""
        return self.window_batches or self.lifetime.n_batches

    @property
    def card(self) -> EstimatorCard:
        """Only smoothing biases it."""
        bias = (f"smoothing with σ = {self.sigma:g}: O(σ²)",)
        return EstimatorCard("lifetime", bias, "O(1), two lives a worker", f"2 (N + 1) B × {self.n_workers} workers")

    def begin(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> PESState:
        """Workers before their first window. Where θ_0 depends on η the first perturbation enters at once."""
        dim = ravel_pytree(eta)[0].shape[0]

        def one(k: Array) -> PESState:
            life, own, key_data = start_life(self.lifetime, k, eta, task)
            return PESState(life, life, own, key_data, jnp.zeros(dim), jnp.asarray(0))

        return jax.vmap(one)(jax.random.split(key, self.n_workers))

    def advance(
        self, key: Key[Array, ""], state: PESState, eta: PyTree[Array], task: Task, *, next_life: bool = True
    ) -> tuple[PESState, PyTree[Array]]:
        """One more window of every worker, and its estimate.

        Estimates of the windows of a lifetime add up to the gradient of its objective. A lifetime that ends inside a
        window is followed by a fresh one, which this window's noise alone is credited for (not at all, without
        `next_life`).
        """
        keys = jax.random.split(key, self.n_workers)
        unravel = ravel_pytree(eta)[1]
        state, gradients = jax.vmap(lambda k, s: self._window(k, s, eta, task, next_life))(keys, state)
        return state, unravel(jnp.mean(gradients, axis=0))

    def estimate(self, key: Key[Array, ""], eta: PyTree[Array], task: Task) -> tuple[PyTree[Array], dict[str, Array]]:
        """One estimate: the sum over the windows of one lifetime; with `task` None each worker draws its own."""
        key_begin, key_windows = jax.random.split(key)
        keys = jax.random.split(key_windows, -(-self.lifetime.n_batches // self.span))

        def step(state: PESState, k: Array) -> tuple[PESState, PyTree[Array]]:
            # What a last window sees of the next life does not belong to this one's gradient.
            return self.advance(k, state, eta, task, next_life=False)

        _, gradients = jax.lax.scan(step, self.begin(key_begin, eta, task), keys)
        return jax.tree.map(lambda g: jnp.sum(g, axis=0), gradients), {}

    def _window(
        self, key: Array, state: PESState, eta: PyTree[Array], task: Task, next_life: bool
    ) -> tuple[PESState, Float[Array, " eta"]]:
        """One window of one worker."""
        flat, unravel = ravel_pytree(eta)
        key_noise, key_next = jax.random.split(key)
        fresh = self.sigma * jax.random.normal(key_noise, flat.shape, flat.dtype)
        weights = outer_weights(self.objective, self.lifetime.n_batches)
        sides = (unravel(flat + fresh), unravel(flat - fresh))
        following = start_life(self.lifetime, key_next, eta, task)[1:]

        def step(carry: tuple, _: None) -> tuple[tuple, Float[Array, "2"]]:
            lives, (now, key_data), n, over = carry
            # A life begins with the perturbed η: θ_0 may depend on it.
            begun = tuple(self._newborn(key_data, side, now) for side in sides)
            lives = jax.tree.map(lambda old, new: jnp.where(n == 0, new, old), lives, begun)
            found = [
                live(self.lifetime, key_data, life, side, now, self.surrogate, n[None])
                for life, side in zip(lives, sides, strict=True)
            ]
            apart = weights[n] * (found[0][1][0] - found[1][1][0])
            ends = n == self.lifetime.n_updates
            known = jax.tree.map(lambda old, new: jnp.where(ends, new, old), (now, key_data), following)
            carry = (tuple(life for life, _ in found), known, jnp.where(ends, 0, n + 1), over | ends)
            return carry, jnp.where(over, jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])) * apart

        start = ((state.plus, state.minus), (state.task, state.key_data), state.n, jnp.asarray(False))
        carry, found = jax.lax.scan(step, start, None, length=self.span)
        (plus, minus), (now, key_data), n, over = carry
        this_life, next_one = jnp.sum(found, axis=0)
        noise = state.noise + fresh
        gradient = this_life * noise + (next_one * fresh if next_life else 0.0)
        # A life that has seen no batch yet owes nothing to this window's noise.
        carried = jnp.where(over, jnp.where(n == 0, 0.0, fresh), noise)
        return PESState(plus, minus, now, key_data, carried, n), gradient / (2 * self.sigma**2)

    def _newborn(self, key_data: Array, eta: PyTree[Array], task: Task) -> PyTree:
        """θ_0 of a life whose task and luck are known already."""
        return self.lifetime.begin(jax.random.fold_in(key_data, self.lifetime.n_batches), eta, task)
