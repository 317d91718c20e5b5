"""From a study file to a study that is simulated: its power before money is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fledge.annotation.design import StudyDesign
from fledge.annotation.simulate import EFFECTS, Asked, Planted, Simulation
from fledge.core.errors import ConfigError, unknown
from fledge.core.instruments import Condition


def plan_of(
    design: StudyDesign, changes: Mapping[str, float] | None = None, *, labels: int = 0, dropout: float = 0.0
) -> Simulation:
    """The simulation of a study: its items, batches, conditions and annotators, and the effects that are planted.

    Args:
        design: the study; `planted` in its file gives effects by construct.
        changes: effects of all constructs, over those of the file.
        labels: annotators of each item under each condition; 0: the study's.
        dropout: share of annotators who leave before the second pass of a blocked condition.

    Raises:
        ConfigError: an effect or construct is unknown; or annotators meet several conditions, which is not simulated.
    """
    if any(len(arm.sequence) > 1 for arm in design.plan.arms):
        raise ConfigError(
            "Every annotator of this study meets several conditions; only studies between subjects are simulated. "
            "Take within_subject out of the assignment to compare designs."
        )
    for name in changes or {}:
        if name not in EFFECTS:
            raise unknown("planted effect", name, EFFECTS)
    constructs = {}
    for construct in design.instrument.constructs:
        planted = Planted(**dict(design.planted.get(construct.name, {})))
        constructs[construct.name] = replace(planted, **dict(changes or {}))
    names = [arm.sequence[0] for arm in design.plan.arms]
    conditions = {name: asked_of(design.instrument.condition(name)) for name in names}
    batch = max(len(items) for items in design.batches.values())
    return Simulation(len(design.items), labels or design.plan.labels, batch, dropout, constructs, conditions)


def asked_of(condition: Condition) -> Asked:
    """What planted effects act through: whether constructs have screens of their own, which is first, and passes."""
    screens = [ask.constructs for block in condition.blocks for ask in block.screens]
    split = len(screens) > 1 and all(len(names) == 1 for names in screens)
    return Asked(split, screens[0][0] if split else "", len(condition.blocks) > 1)
