"""Bodies: which XML file, how many physics steps to a control step, and how a family's bodies differ."""

from __future__ import annotations

import copy
import importlib.util
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from fledge.core.errors import ConfigError, DataError, MissingExtra, need

EXTRA = "mujoco"
SPREAD = 3.0


@dataclass(frozen=True)
class Factor:
    """Entries of one field of `MjModel` that a variant multiplies by `base` ** U(−3, 3), each on its own."""

    field: str
    size: int
    base: float


@dataclass(frozen=True)
class Variation:
    """`n` variants of a body, drawn from `seed`: variant i is the same whatever `n` is.

    The masses, inertias … of the XML file are multiplied; then MuJoCo works out what follows from them (`mj_setConst`).
    Reference: the random-parameter environments of Rothfuss et al. 2019 (ProMP), as used by PEARL and VariBAD.
    """

    factors: tuple[Factor, ...]
    n: int
    seed: int = 0

    @property
    def size(self) -> int:
        """How many numbers make a variant."""
        return sum(factor.size for factor in self.factors)

    def exponents(self) -> Float[np.ndarray, "variant factor"]:
        """The exponents in (−3, 3), one row per variant."""
        return np.random.default_rng(self.seed).uniform(-SPREAD, SPREAD, (self.n, self.size))


@dataclass(frozen=True)
class Body:
    """A body of Gymnasium, and what its engine has to report beside positions and velocities.

    `extras` names fields of `MjData` that are read, as they stand, after a control step (like Gymnasium: quantities of
    the last physics step's start, contact forces after `mj_rnePostConstraint`). `place` says whose way over a control
    step is measured: that of the root joint, or of the centre of mass.
    """

    xml: str
    frame_skip: int
    extras: tuple[str, ...] = ()
    place: Literal["root", "mass"] = "root"
    variation: Variation | None = None


def library() -> ModuleType:
    """The package `mujoco`.

    Raises:
        MissingExtra: it, or Gymnasium whose bodies are used, is not installed.
    """
    if importlib.util.find_spec("gymnasium") is None:
        raise MissingExtra(
            "This needs the package 'gymnasium' (for its bodies), which is not installed. "
            f"Install it with: pip install 'fledge[{EXTRA}]'"
        )
    return need("mujoco", EXTRA)


_SILENT = threading.Lock()


@contextmanager
def silence() -> Iterator[None]:
    """MuJoCo says nothing inside. It thinks old attributes of XML files worth a line on the terminal and in a file."""
    mujoco = library()
    with _SILENT:
        before = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(lambda text: None)
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(before)


def compile_body(body: Body) -> Any:
    """The `MjModel` of a body, without its pictures (they are most of its size, and nobody looks at them).

    Raises:
        DataError: the installed Gymnasium has no such file.
    """
    mujoco = library()
    spec = importlib.util.find_spec("gymnasium")
    assert spec is not None
    path = Path(str(spec.origin)).parent / "envs" / "mujoco" / "assets" / body.xml
    if not path.exists():
        raise DataError(f"Gymnasium has no body {path}. Install another version: pip install -U 'fledge[{EXTRA}]'.")
    tree = ET.fromstring(path.read_text(encoding="utf-8"))
    for asset in tree.iter("asset"):
        for texture in asset.findall("texture"):
            asset.remove(texture)
    for material in tree.iter("material"):
        material.attrib.pop("texture", None)
    with silence():
        return mujoco.MjModel.from_xml_string(ET.tostring(tree, encoding="unicode"))


class Models:
    """The compiled models of a body, by variant. A variant is made when it is first asked for, and kept."""

    def __init__(self, body: Body) -> None:
        self.nominal = compile_body(body)
        self.variation = body.variation
        if self.variation is None:
            self._made: list[Any] = [self.nominal]
            return
        for factor in self.variation.factors:
            if (size := getattr(self.nominal, factor.field).size) != factor.size:
                raise ConfigError(
                    f"{factor.field} of {body.xml} has {size} entries, not {factor.size}. Mend the table."
                )
        self._exponents = self.variation.exponents()
        self._made = [None] * self.variation.n

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, variant: int) -> Any:
        if (model := self._made[variant]) is None:
            model = self._made[variant] = self._make(variant)  # made twice by two threads, it is the same model
        return model

    def _make(self, variant: int) -> Any:
        assert self.variation is not None
        model, at = copy.copy(self.nominal), 0
        for factor in self.variation.factors:
            field = getattr(model, factor.field)
            field *= factor.base ** self._exponents[variant, at : at + factor.size].reshape(field.shape)
            at += factor.size
        mujoco = library()
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model
