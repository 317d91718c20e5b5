"""The table of memories. Those of a paper are compositions of a line or two."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Key

from fledge.core.contracts import Memory
from fledge.core.errors import unknown
from fledge.nets.aggregate import AGGREGATORS, GaussianAggregator, half_of
from fledge.nets.check_memory import require_shapes
from fledge.nets.memories import AggregatedMemory, PerStepMemory
from fledge.nets.recurrent import GRUMemory, LinearMemory, LSTMMemory, NoMemory
from fledge.nets.transformer import TransformerMemory

MemoryMaker = Callable[[Key[Array, ""], int, int], Memory]


def _rnn(key: Key[Array, ""], n_in: int, size: int) -> GRUMemory:
    """The GRU of the meta-RL papers: one orthogonal matrix for all gates together."""
    return GRUMemory.init(key, n_in, size, stacked=True)


def _split(aggregator: str, *, widen: int = 1) -> MemoryMaker:
    """A GRU of `widen` times the size, half of which is aggregated."""
    return lambda key, n_in, size: AggregatedMemory.of(
        _rnn(key, n_in, widen * size), AGGREGATORS[aggregator], split=True
    )


def _set(aggregator: str) -> MemoryMaker:
    """Every token by itself, then aggregated: what comes out does not depend on their order."""
    return lambda key, n_in, size: AggregatedMemory.of(PerStepMemory.init(key, n_in, size), AGGREGATORS[aggregator])


def _pearl(key: Key[Array, ""], n_in: int, size: int) -> Memory:
    """`size` units for each transition; the latent's mean and log-variance are half as wide each.

    The released code keeps a recurrent network before the product, which then depends on the order, and its policy is
    built for both numbers but handed a sample, which fails. Here the encoder sees single transitions and the policy is
    told mean and log-variance, when acting and when learning alike.
    """
    latent = half_of(size, "A latent's mean and log-variance")
    encoder = PerStepMemory.init(key, n_in, size, n_out=2 * latent)
    return AggregatedMemory.of(encoder, lambda width: GaussianAggregator(latent))


MEMORIES: dict[str, tuple[Callable[..., Memory], str]] = {
    "gru": (GRUMemory.init, "gated recurrent unit (Cho et al. 2014)"),
    "rnn": (_rnn, "the same, with the smaller first weights of the meta-RL papers (Zintgraf et al. 2020)"),
    "lstm": (LSTMMemory.init, "long short-term memory (Hochreiter & Schmidhuber 1997)"),
    "linear": (LinearMemory.init, "gated linear recurrence, parallel over time (Feng et al. 2024)"),
    "transformer": (TransformerMemory.init, "causal transformer with a cache of the trial (Vaswani et al. 2017)"),
    "splagger": (_split("max"), "GRU; the maximum of half of its units beside the other half (Beck et al. 2024)"),
    "splagger-sum": (_split("sum"), "SplAgger with the sum"),
    "splagger-avg": (_split("avg"), "SplAgger with the mean"),
    "splagger-avgmax": (_split("avgmax"), "SplAgger with the mean of one quarter and the maximum of another"),
    "splagger-wavg": (_split("wavg", widen=2), "SplAgger with a weighted mean; twice the units"),
    "splagger-softmax": (_split("softmax"), "SplAgger with a mean weighted by the softmax of what is averaged"),
    "splagger-wsoftmax": (_split("wsoftmax", widen=2), "SplAgger with a mean weighted by a softmax; twice the units"),
    "splagger-nosplit": (
        lambda key, n_in, size: AggregatedMemory.of(_rnn(key, n_in, size), AGGREGATORS["max"]),
        "GRU; the maximum of all of its units",
    ),
    "splagger-nornn": (_set("max"), "the maximum of what each token says by itself"),
    "amrl": (_split("max-st"), "SplAgger with straight-through gradients (AMRL-Max, Beck et al. 2020)"),
    "amrl-nornn": (_set("max-st"), "the maximum of what each token says, straight-through gradients"),
    "cnp": (_set("avg"), "the mean of what each token says (conditional neural process, Garnelo et al. 2018)"),
    "pearl": (_pearl, "the product of one Gaussian factor per transition (Rakelly et al. 2019)"),
    "inv-init": (LSTMMemory.invariant, "LSTM that starts as a sum of its inputs (Beck et al. 2024)"),
    "none": (lambda key, n_in, size: NoMemory(n_in), "remembers nothing"),
}
"""Name → (constructor from key, token width and size; one line about it). A new memory is one row here."""

SIZED_BY_TRIAL: set[str] = {"transformer"}
"""Rows whose constructor also takes `horizon`, the most tokens of a trial."""


def make_memory(name: str, key: Key[Array, ""], n_in: int, size: int, *, horizon: int) -> Memory:
    """The memory of a row.

    Args:
        name: of the row.
        key: randomness.
        n_in: width of a token.
        size: number of units.
        horizon: the most tokens of a trial.

    Raises:
        ConfigError: there is no such row, or the size does not fit it.
        ContractError: its state or its output does not keep the shape that was promised.
    """
    if name not in MEMORIES:
        raise unknown("memory", name, MEMORIES)
    make = MEMORIES[name][0]
    memory = make(key, n_in, size, horizon=horizon) if name in SIZED_BY_TRIAL else make(key, n_in, size)
    require_shapes(memory, n_in)
    return memory
