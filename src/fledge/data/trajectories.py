"""Logged behaviour: episodes of observations, actions and rewards, from arrays, files or Minari."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fledge.core.errors import DataError, ShapeError, nearest, need

EXTRA = "datasets"


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Episodes, one after the other along the axis `step`."""

    observations: Float[np.ndarray, "step obs"]
    """Before each action."""
    actions: Float[np.ndarray, "step act"]
    rewards: Float[np.ndarray, " step"]
    next_observations: Float[np.ndarray, "step obs"]
    """After each action; where it is not known (`has_next`) the observation itself."""
    has_next: Bool[np.ndarray, " step"]
    """Whether the step after it is known. Only such steps may be used for temporal differences."""
    terminated: Bool[np.ndarray, " step"]
    starts: Int[np.ndarray, " episode"]
    """Index of the first step of each episode."""
    name: str = ""
    """Id and version of the data set, for the record."""
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Anything else that is known of each step (axis `step` first)."""

    @property
    def n_steps(self) -> int:
        """Transitions in all."""
        return len(self.rewards)

    @property
    def n_episodes(self) -> int:
        """Episodes in all."""
        return len(self.starts)

    @property
    def lengths(self) -> Int[np.ndarray, " episode"]:
        """Steps of each episode."""
        return np.diff(np.append(self.starts, self.n_steps))

    @property
    def returns(self) -> Float[np.ndarray, " episode"]:
        """Summed reward of each episode."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.starts)

    def with_rewards(self, rewards: Float[np.ndarray, " step"]) -> Trajectories:
        """The same behaviour, paid otherwise."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Trajectories(**{**values, "rewards": np.asarray(rewards, np.float32)})

    def summary(self) -> dict[str, float | int | str]:
        """What a record should say of the data: name, sizes, and statistics of rewards and returns."""
        return {
            "dataset": self.name,
            "episodes": self.n_episodes,
            "steps": self.n_steps,
            "reward_mean": float(self.rewards.mean()),
            "reward_std": float(self.rewards.std()),
            "return_mean": float(self.returns.mean()),
        }


def from_arrays(
    observations: Any,
    actions: Any,
    rewards: Any,
    *,
    terminated: Any = None,
    truncated: Any = None,
    next_observations: Any = None,
    name: str = "",
    extras: Mapping[str, np.ndarray] | None = None,
) -> Trajectories:
    """Trajectories from flat arrays. An episode ends where `terminated` or `truncated` holds, and at the end.

    Args:
        observations: (step, …); further axes are flattened.
        actions: (step, act), or (step,) for one number.
        rewards: (step,).
        terminated: (step,) the episode ended by itself; None: never.
        truncated: (step,) it was cut; None: never.
        next_observations: like `observations`; if None, the next step's of the same episode (the last has none).
        name: id and version of the data set.
        extras: what else is known of each step.

    Raises:
        ShapeError: lengths differ.
        DataError: there is no step, or a number is not finite.
    """
    obs = _rows(observations)
    act = _rows(actions)
    reward = np.asarray(rewards, np.float32).reshape(-1)
    n = len(obs)
    done = _flags(terminated, n, "terminated")
    cut = _flags(truncated, n, "truncated")
    for what, length in (("actions", len(act)), ("rewards", len(reward))):
        if length != n:
            raise ShapeError(f"{length} {what} came with {n} observations; give one of each for every step.")
    if n == 0:
        raise DataError("There is not a single step in these arrays; check the file or the filter before it.")
    for what, array in (("observations", obs), ("actions", act), ("rewards", reward)):
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise DataError(f"{what}[{row}] is not a finite number. Mend it, or leave its episode out.")
    ends = done | cut
    ends[-1] = True
    starts = np.concatenate([[0], np.flatnonzero(ends)[:-1] + 1]).astype(np.int64)
    if next_observations is None:
        following = np.concatenate([obs[1:], obs[-1:]])
        following[ends] = obs[ends]
        has_next = ~ends | done  # what follows a terminal state is worth nothing, whatever it looks like
    else:
        following, has_next = _rows(next_observations), np.ones(n, bool)
        if following.shape != obs.shape:
            raise ShapeError(f"next_observations are {following.shape}, observations {obs.shape}; give them alike.")
    return Trajectories(obs, act, reward, following, has_next, done, starts, name, dict(extras or {}))


def from_minari(dataset: Any) -> Trajectories:
    """Trajectories of a Minari data set, given as an object or as the id of one that is on this machine.

    Raises:
        MissingExtra: an id was given, and Minari is not installed.
        DataError: observations are not arrays (dictionaries have to be flattened first), or the id is not on this
            machine.
    """
    if isinstance(dataset, str):
        minari = need("minari", EXTRA)
        try:
            dataset = minari.load_dataset(dataset)
        except FileNotFoundError:
            raise DataError(
                f"There is no data set '{dataset}' on this machine. Fetch it with: minari download {dataset}"
            ) from None
    parts: list[tuple[np.ndarray, ...]] = []
    for episode in dataset.iterate_episodes():
        seen, done = episode.observations, np.asarray(episode.actions)
        if not isinstance(seen, np.ndarray):
            raise DataError(
                f"Observations of episode {episode.id} are a {type(seen).__name__}, not an array. "
                "Flatten them, then use from_arrays."
            )
        n = len(done)
        ends = np.zeros(n, bool)
        ends[-1] = True
        rows = seen[: n + 1]
        parts.append((rows[:n], done, episode.rewards, rows[1 : n + 1], np.asarray(episode.terminations, bool), ends))
    if not parts:
        raise DataError("The Minari data set has no episode.")
    obs, act, reward, following, terminated, ends = (np.concatenate(x) for x in zip(*parts, strict=True))
    name = str(getattr(getattr(dataset, "spec", None), "dataset_id", "") or "minari")
    return from_arrays(obs, act, reward, terminated=terminated, truncated=ends, next_observations=following, name=name)


def from_hdf5(path: Path | str, group: str = "/") -> Trajectories:
    """Trajectories of an HDF5 file with D4RL's names, or d3rlpy's flat ones.

    Needed are observations, actions and one of terminals, timeouts; `rewards` (0 where there are none) and
    `next_observations` are used where they are.

    Raises:
        MissingExtra: h5py is not installed.
        DataError: the file or a data set in it is missing; the nearest name is given.
    """
    h5py = need("h5py", EXTRA)
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}. Give the path of an HDF5 file with observations, actions, rewards.")
    try:
        with h5py.File(path, "r") as file:
            found = {key: np.asarray(value) for key, value in file[group].items() if isinstance(value, h5py.Dataset)}
    except (OSError, KeyError) as error:
        raise DataError(f"{path} cannot be read as HDF5 with a group '{group}': {error}.") from None
    return _of_named(found, path, f" in group '{group}'")


def from_npz(path: Path | str) -> Trajectories:
    """Trajectories of an .npz file with the same names; other arrays of as many steps (`frames`) become `extras`.

    Raises:
        DataError: the file or an array in it is missing; the nearest name is given.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"There is no file {path}. Give the path of an .npz with observations and actions.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}.") from None
    return _of_named(found, path, "")


def read_trajectories(source: Path | str, group: str = "/") -> Trajectories:
    """Trajectories of an .npz or HDF5 file (`group` of it), or of the Minari data set of that id.

    Raises:
        MissingExtra, DataError: as `from_npz`, `from_hdf5` and `from_minari`.
    """
    ending = Path(source).suffix
    if ending == ".npz":
        return from_npz(source)
    return from_hdf5(source, group) if ending in (".h5", ".hdf5") else from_minari(str(source))


def _of_named(found: Mapping[str, np.ndarray], path: Path, where: str) -> Trajectories:
    """Trajectories of arrays with D4RL's names. Behaviour that nobody rewarded has rewards of 0."""
    for wanted in ("observations", "actions"):
        if wanted not in found:
            raise DataError(f"{path} has no '{wanted}'{where}. {nearest(wanted, found)}")
    ends = {name: _first(found, names) for name, names in _ENDS.items()}
    if all(value is None for value in ends.values()):
        raise DataError(
            f"{path} says nowhere where episodes end: it has none of {', '.join(sum(_ENDS.values(), ()))}{where}. "
            "Without it segments would cross from one episode into the next; add timeouts."
        )
    n, used = len(found["observations"]), {"observations", "actions", "rewards", "next_observations"}
    used |= set(sum(_ENDS.values(), ()))
    return from_arrays(
        found["observations"],
        found["actions"],
        found.get("rewards", np.zeros(n)),
        next_observations=found.get("next_observations"),
        name=path.name,
        extras={name: rows for name, rows in found.items() if name not in used and rows.ndim and len(rows) == n},
        **ends,
    )


_ENDS: dict[str, tuple[str, ...]] = {
    "terminated": ("terminals", "terminations"),
    "truncated": ("timeouts", "truncations", "truncateds"),
}


def _first(found: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray | None:
    return next((found[name] for name in names if name in found), None)


def _rows(x: Any) -> np.ndarray:
    rows = np.asarray(x, np.float32)
    return rows.reshape(len(rows), -1)


def _flags(x: Any, n: int, what: str) -> np.ndarray:
    if x is None:
        return np.zeros(n, bool)
    flags = np.asarray(x).reshape(-1).astype(bool)
    if len(flags) != n:
        raise ShapeError(f"{len(flags)} entries of {what} came with {n} observations; give one for every step.")
    return flags
