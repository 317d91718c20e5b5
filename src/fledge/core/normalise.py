"""Running statistics, as pytrees that live in the training state."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class RunningStats(eqx.Module):
    """Mean and variance of everything seen so far, per entry (Chan et al. 1979: exact merging of batches)."""

    mean: Float[Array, "*shape"]
    var: Float[Array, "*shape"]
    count: Float[Array, ""]

    @classmethod
    def init(cls, shape: tuple[int, ...] = ()) -> RunningStats:
        """Nothing seen: mean 0, variance 1."""
        return cls(jnp.zeros(shape), jnp.ones(shape), jnp.asarray(1e-4, jnp.float32))

    def update(self, batch: Float[Array, "*n_and_shape"]) -> RunningStats:
        """The statistics after a batch; all axes before those of `mean` are examples."""
        axes = tuple(range(batch.ndim - self.mean.ndim))
        n = jnp.asarray(batch.size / max(self.mean.size, 1), jnp.float32)
        mean, var = jnp.mean(batch, axis=axes), jnp.var(batch, axis=axes)
        total = self.count + n
        shift = mean - self.mean
        second = self.var * self.count + var * n + shift**2 * self.count * n / total
        return RunningStats(self.mean + shift * n / total, second / total, total)

    def normalise(self, x: Float[Array, "*n_and_shape"]) -> Float[Array, "*n_and_shape"]:
        """(x − mean) / sqrt(var + 1e-8), with no gradient into the statistics."""
        mean, var = jax.lax.stop_gradient((self.mean, self.var))
        return (x - mean) * jax.lax.rsqrt(var + 1e-8)


class RewardScaler(eqx.Module):
    """Divides rewards by the standard deviation of the running discounted return; the mean stays.

    G ← γ G + r, zeroed at a trial's end. One update per rollout; the rollout is scaled by the statistics that include
    it (the public VariBAD code updates after every step; the two differ only while the statistics are young).
    """

    stats: RunningStats
    running: Float[Array, " batch"]

    @classmethod
    def init(cls, n_envs: int) -> RewardScaler:
        """Nothing seen."""
        return cls(RunningStats.init(), jnp.zeros(n_envs))

    def update(
        self,
        rewards: Float[Array, "time batch"],
        trial_ends: Bool[Array, "time batch"],
        *,
        discount: float,
        clip: float = 10.0,
    ) -> tuple[RewardScaler, Float[Array, "time batch"]]:
        """The scaler after a rollout, and the rollout's rewards, scaled and clipped to ±`clip`."""

        def forward(running: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
            reward, end = x
            running = discount * running + reward
            return jnp.where(end, 0.0, running), running

        running, seen = jax.lax.scan(forward, self.running, (rewards, trial_ends))
        stats = self.stats.update(seen)
        scaled = jnp.clip(rewards * jax.lax.rsqrt(stats.var + 1e-8), -clip, clip)
        return RewardScaler(stats, running), scaled
