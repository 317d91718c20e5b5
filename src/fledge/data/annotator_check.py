"""The exam of the annotators' contract: what everybody who answers questions about items promises."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from fledge.core.annotations import Annotation, Item
from fledge.core.contracts import Annotator
from fledge.core.errors import ContractError
from fledge.core.instruments import Instrument
from fledge.data.annotators import asked


def check_annotator(
    annotator: Annotator,
    items: Sequence[Item],
    instrument: Instrument,
    *,
    condition: str = "",
    several: bool = False,
) -> None:
    """Examine an annotator on a few items. It is asked twice about the same.

    Args:
        annotator: who is examined.
        items: at least two.
        instrument: with constructs that the annotator can judge.
        condition: of the instrument, where it has several.
        several: whether an item may have several answers to a question (people do).

    Raises:
        ContractError: lists every promise that is broken.
    """
    first = list(annotator.annotate(items, instrument, condition=condition))
    again = list(annotator.annotate(items, instrument, condition=condition))
    part = list(annotator.annotate(items[:1], instrument, condition=condition))
    names = asked(instrument, condition)
    broken = [
        *_coverage(first, items, names, several),
        *(fault for annotation in first for fault in _answer(annotation, instrument)),
    ]
    if [_said(a) for a in first] != [_said(a) for a in again]:
        broken.append("asked twice about the same items, it answered differently")
    mine = [_said(a) for a in first if a.item == items[0].id]
    if [said[:2] for said in mine] != [_said(a)[:2] for a in part]:
        broken.append("asked about one item alone, it answered other questions than among others")
    if list(annotator.annotate([], instrument, condition=condition)):
        broken.append("asked about nothing, it answered")
    if broken:
        raise ContractError(
            f"{type(annotator).__name__} does not keep the contract of annotators: {'; '.join(broken)}."
        )


def _said(annotation: Annotation) -> tuple[str, str, str | None, str]:
    return annotation.item, annotation.construct, annotation.value, annotation.missing


def _coverage(found: Sequence[Annotation], items: Sequence[Item], names: Iterable[str], several: bool) -> list[str]:
    wanted = {(item.id, name) for item in items for name in names}
    given = [(a.item, a.construct) for a in found]
    faults = [f"item '{item}' has no answer about '{name}'" for item, name in sorted(wanted - set(given))]
    faults += [
        f"it answered about '{name}' of item '{item}', which was not asked" for item, name in set(given) - wanted
    ]
    if not several and len(set(given)) < len(given):
        faults.append("it answered a question about an item twice")
    return faults


def _answer(annotation: Annotation, instrument: Instrument) -> list[str]:
    options = [option.value for option in instrument.construct(annotation.construct).options]
    where = f"its answer about '{annotation.construct}' of item '{annotation.item}'"
    faults = []
    if annotation.value is not None and options and annotation.value not in options:
        faults.append(f"{where} is '{annotation.value}', which is none of {options}")
    p = annotation.probability
    if p is not None:
        if not set(p) <= set(options):
            faults.append(f"{where} has probabilities of {sorted(p)}, not of {options}")
        if not all(0 <= share <= 1 for share in p.values()) or not math.isclose(sum(p.values()), 1, abs_tol=1e-6):
            faults.append(f"{where} has probabilities that do not sum to 1: {dict(p)}")
    return faults
