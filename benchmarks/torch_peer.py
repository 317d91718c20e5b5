"""The peer: recurrent PPO on GridNavi as a careful PyTorch user would write it. PyTorch is imported in this file only.

Same problem, same token, same network, same algorithm and settings as `speed.py` gives to Fledge, and every habit that
makes PyTorch fast on a CPU: environments stepped in place by NumPy on the memory of the token tensor (no copies),
`inference_mode` and preallocated buffers in the rollout, all noise drawn at once, log probabilities and values read off
after the rollout in one go, the library's own GRU for the replay (memory starts from zero, so an unroll needs no
resets), one matrix for both heads, returns and advantages as one product with a triangular matrix, fused Adam.

Tried and left out, because it was slower or no faster: `torch.compile` of the loss around `nn.GRU` (level), of the loss
with the recurrence unrolled by hand (about 100 s to compile; 1.4 times faster at 16 environments, half as fast at 128),
gradients in smaller pieces.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE, HORIZON, N_ACTIONS, N_TOKEN = 5, 15, 5, 11
MOVES = np.array([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]], np.float32)
GOALS = np.array([(x, y) for x in range(SIZE) for y in range(SIZE) if x >= 2 or y >= 2], np.float32)
ONE_HOT = np.eye(N_ACTIONS, dtype=np.float32)


@dataclass(frozen=True)
class Settings:
    """The settings of the comparison; `speed.py` fills them from Fledge's own."""

    n_envs: int
    hidden: int
    joint: int = 32
    n_episodes: int = 4
    n_epochs: int = 2
    n_minibatches: int = 4
    discount: float = 0.95
    gae_lambda: float = 0.95
    clip_ratio: float = 0.05
    huber: float = 1.0
    value_coef: float = 0.5
    entropy_coef: float = 0.1
    learning_rate: float = 1e-3
    adam_eps: float = 1e-5
    max_grad_norm: float = 0.5


class Network(nn.Module):
    """Joint linear + ReLU, GRU, and one matrix for five logits and the value."""

    def __init__(self, joint: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Linear(N_TOKEN, joint)
        self.memory = nn.GRU(joint, hidden)
        self.heads = nn.Linear(hidden, N_ACTIONS + 1)
        with torch.no_grad():
            for weight in (self.memory.weight_ih_l0, self.memory.weight_hh_l0):
                for gate in weight.chunk(3):
                    nn.init.orthogonal_(gate)
            nn.init.orthogonal_(self.heads.weight[:N_ACTIONS], 0.01)
        for name, parameter in self.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Outputs (time, batch, 6) of a whole unroll from an empty memory."""
        return self.heads(self.memory(functional.relu(self.embed(tokens)))[0])

    def n_parameters(self) -> int:
        """How many there are, without the recurrent biases of r and z: PyTorch adds them to the input's biases."""
        return sum(p.numel() for p in self.parameters()) - 2 * self.memory.hidden_size


class TorchPeer:
    """The whole training loop; one `update` is one rollout of whole trials and the epochs on it.

    Args:
        settings: what to train.
        n_threads: intra-op threads of PyTorch.
        seed: of everything random.
    """

    def __init__(self, settings: Settings, *, n_threads: int = 2, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.settings, self.n_threads = settings, n_threads
        self.random = np.random.default_rng(seed)
        self.network = Network(settings.joint, settings.hidden)
        self.parameters = list(self.network.parameters())
        self.optimiser = torch.optim.Adam(self.parameters, lr=settings.learning_rate, eps=settings.adam_eps, fused=True)
        n_steps, n = HORIZON * settings.n_episodes, settings.n_envs
        self.n_steps = n_steps
        self.tokens = torch.zeros(n_steps + 1, n, N_TOKEN)
        self.outputs = torch.zeros(n_steps, n, N_ACTIONS + 1)
        self.actions = torch.zeros(n_steps, n, dtype=torch.int64)
        self.rewards = torch.zeros(n_steps, n)
        steps = torch.arange(n_steps)
        gap = steps[:, None] - steps
        self.discounts = torch.where(gap >= 0, settings.discount ** gap.clamp(min=0), 0.0)
        decay = settings.discount * settings.gae_lambda
        self.decays = torch.where(gap <= 0, decay ** (-gap).clamp(min=0), 0.0)
        self.mean, self.var, self.count = 0.0, 1.0, 1e-4

    @property
    def steps_per_update(self) -> int:
        return self.n_steps * self.settings.n_envs

    def update(self) -> float:
        """One iteration; returns the mean raw return of a trial."""
        torch.set_num_threads(self.n_threads)
        self._rollout()
        self._learn(*self._prepare())
        return float(self.rewards.sum()) / self.settings.n_envs

    def gradient_seconds(self) -> float:
        """Seconds of one minibatch's gradient on the current number of threads: enough to compare thread counts."""
        torch.set_num_threads(self.n_threads)
        rows = torch.arange(self.settings.n_envs // self.settings.n_minibatches)
        tokens, zeros = self.tokens[:-1, rows], torch.zeros(self.n_steps, len(rows))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            self._loss(tokens, self.actions[:, rows], zeros, zeros, zeros, zeros).backward()
            times.append(time.perf_counter() - start)
        self.optimiser.zero_grad(set_to_none=True)
        return min(times)

    def share_of_rollout(self) -> float:
        """The part of an update's time that acting and the environments take."""
        torch.set_num_threads(self.n_threads)
        start = time.perf_counter()
        self._rollout()
        acted = time.perf_counter()
        self._learn(*self._prepare())
        return (acted - start) / (time.perf_counter() - start)

    @torch.inference_mode()
    def _rollout(self) -> None:
        n = self.settings.n_envs
        embed, memory, heads = self.network.embed, self.network.memory, self.network.heads
        weights = (memory.weight_ih_l0, memory.weight_hh_l0, memory.bias_ih_l0, memory.bias_hh_l0)
        noise = torch.empty_like(self.outputs[..., :N_ACTIONS]).exponential_().log_().neg_()  # Gumbel
        tokens, actions, rewards = self.tokens.numpy(), self.actions.numpy(), self.rewards.numpy()
        goals = GOALS[self.random.integers(len(GOALS), size=n)]
        position = np.zeros((n, 2), np.float32)
        hidden = torch.zeros(n, self.settings.hidden)
        self.tokens[0] = 0.0
        for t in range(self.n_steps):
            hidden = torch.gru_cell(embed(self.tokens[t]).relu_(), hidden, *weights)
            torch.addmm(heads.bias, hidden, heads.weight.t(), out=self.outputs[t])
            torch.argmax(self.outputs[t, :, :N_ACTIONS] + noise[t], dim=-1, out=self.actions[t])
            self._step(t, position, goals, actions[t], rewards[t], tokens[t + 1])

    def _step(
        self, t: int, position: np.ndarray, goals: np.ndarray, action: np.ndarray, reward: np.ndarray, token: np.ndarray
    ) -> None:
        """All environments, in place: moves `position`, fills `reward` and the next `token`."""
        position += MOVES[action]
        np.clip(position, 0, SIZE - 1, out=position)
        hit = position == goals
        reward[:] = np.where(hit[:, 0] & hit[:, 1], np.float32(1.0), np.float32(-0.1))
        done = (t + 1) % HORIZON == 0
        token[:, 2:7] = ONE_HOT[action]
        token[:, 7] = reward
        token[:, 8] = done
        token[:, 9:] = position
        if done:
            position[:] = 0.0
        token[:, :2] = position

    @torch.inference_mode()
    def _prepare(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log probabilities, values, normalised advantages and value targets, all (time, batch)."""
        s = self.settings
        values = self.outputs[..., N_ACTIONS]
        log_probs = functional.log_softmax(self.outputs[..., :N_ACTIONS], -1)
        log_probs = log_probs.gather(-1, self.actions[..., None])[..., 0]
        self._merge(self.discounts @ self.rewards)
        rewards = (self.rewards / (self.var + 1e-8) ** 0.5).clamp_(-10, 10)
        deltas = rewards - values
        deltas[:-1] += s.discount * values[1:]
        advantages = self.decays @ deltas
        targets = advantages + values
        advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-5)
        return log_probs, values.clone(), advantages, targets

    def _merge(self, seen: Tensor) -> None:
        """Running mean and variance of the discounted returns (Chan et al. 1979)."""
        n, mean, var = seen.numel(), float(seen.mean()), float(seen.var(correction=0))
        total, shift = self.count + n, mean - self.mean
        second = self.var * self.count + var * n + shift**2 * self.count * n / total
        self.mean, self.var, self.count = self.mean + shift * n / total, second / total, total

    def _learn(self, log_probs: Tensor, values: Tensor, advantages: Tensor, targets: Tensor) -> None:
        s = self.settings
        tokens = self.tokens[:-1]
        for _ in range(s.n_epochs):
            for rows in torch.randperm(s.n_envs).chunk(s.n_minibatches):
                loss = self._loss(*(x[:, rows] for x in (tokens, self.actions, log_probs, values, advantages, targets)))
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters, s.max_grad_norm, foreach=True)
                self.optimiser.step()

    def _loss(
        self, tokens: Tensor, actions: Tensor, old: Tensor, old_values: Tensor, advantages: Tensor, targets: Tensor
    ) -> Tensor:
        s = self.settings
        outputs = self.network(tokens)
        logits, values = outputs[..., :N_ACTIONS], outputs[..., N_ACTIONS]
        log_p = functional.log_softmax(logits, -1)
        ratio = (log_p.gather(-1, actions[..., None])[..., 0] - old).exp()
        clipped = ratio.clamp(1 - s.clip_ratio, 1 + s.clip_ratio)
        policy_loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        near = old_values + (values - old_values).clamp(-s.clip_ratio, s.clip_ratio)
        error = torch.maximum(
            functional.huber_loss(values, targets, reduction="none", delta=s.huber),
            functional.huber_loss(near, targets, reduction="none", delta=s.huber),
        )
        entropy = -(log_p.exp() * log_p).sum(-1).mean()
        return policy_loss + s.value_coef * 0.5 * error.mean() - s.entropy_coef * entropy
