"""What became of the plan: who answered, who left, and how evenly items were covered."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats as distributions

from fledge.annotation.frame import Frame, conditions_of, constructs_of, pandas


def attrition(frame: Frame) -> Frame:
    """Questions without an answer, by condition and construct.

    Returns:
        `construct, condition, asked, answered, missing_share, annotators, annotators_without` and a column for each
        missing code that occurs. `annotators_without` gave no answer at all to that construct.
    """
    codes = sorted(set(frame["missing_code"]) - {""})
    rows = []
    for construct in constructs_of(frame):
        for condition in conditions_of(frame):
            own = frame[(frame["construct"] == construct) & (frame["condition"] == condition)]
            if not len(own):
                continue
            there = own["value"].notna()
            without = ~there.groupby(own["annotator"]).any()
            rows.append(
                {
                    "construct": construct,
                    "condition": condition,
                    "asked": len(own),
                    "answered": int(there.sum()),
                    "missing_share": float(1 - there.mean()),
                    "annotators": int(own["annotator"].nunique()),
                    "annotators_without": int(without.sum()),
                }
                | {code: int((own["missing_code"] == code).sum()) for code in codes}
            )
    return pandas().DataFrame(rows)


def attrition_p(frame: Frame, construct: Any) -> float:
    """The p value of equal drop-out: annotators without any answer to a construct, by condition (χ²).

    1 where nobody, or everybody, dropped out.
    """
    own = frame[frame["construct"] == construct]
    gone = ~own["value"].notna().groupby([own["condition"], own["annotator"]]).any()
    table = np.array([[g.sum(), (~g).sum()] for _, g in gone.groupby(level=0)], float)
    if (table.sum(axis=0) == 0).any() or len(table) < 2:
        return 1.0
    return float(distributions.chi2_contingency(table, correction=False).pvalue)


def audit(frame: Frame) -> tuple[Frame, float]:
    """How annotators and items are spread over conditions, and the p value of equal numbers of annotators (χ²).

    Returns:
        `condition, annotators, items, rows, rows_per_item_min, rows_per_item_max, rows_per_annotator_median`, where a
        row is an item that an annotator was shown.
    """
    shown = frame.drop_duplicates(["item", "annotator", "condition"])
    rows = []
    for condition in conditions_of(shown):
        own = shown[shown["condition"] == condition]
        per_item, per_annotator = own.groupby("item").size(), own.groupby("annotator").size()
        rows.append(
            {
                "condition": condition,
                "annotators": len(per_annotator),
                "items": len(per_item),
                "rows": len(own),
                "rows_per_item_min": int(per_item.min()),
                "rows_per_item_max": int(per_item.max()),
                "rows_per_annotator_median": float(per_annotator.median()),
            }
        )
    counts = [row["annotators"] for row in rows]
    p = float(distributions.chisquare(counts).pvalue) if len(counts) > 1 else 1.0
    return pandas().DataFrame(rows), p


def deviations(frame: Frame) -> list[str]:
    """What differs from a complete, balanced, between-subject study, in sentences; none where nothing does."""
    found = []
    several = frame.groupby("annotator")["condition"].nunique()
    if (several > 1).any():
        found.append(f"{int((several > 1).sum())} annotators worked under more than one condition.")
    table, _ = audit(frame)
    target = int(table["rows_per_item_max"].max())
    shown = frame.drop_duplicates(["item", "annotator", "condition"])
    per_cell = shown.groupby(["condition", "item"]).size()
    for condition in table["condition"]:
        few = int((per_cell[condition] < target).sum())
        if few:
            found.append(f"Condition {condition}: {few} items have fewer than {target} annotators.")
    if table["items"].nunique() > 1:
        found.append("Conditions do not share all items: " + _listed(table, "items") + ".")
    lost = attrition(frame)
    found += [
        f"{str(row['construct']).replace('_', ' ')} in condition {row['condition']}: "
        f"{row['asked'] - row['answered']} of {row['asked']} answers are missing; "
        f"{row['annotators_without']} annotators gave none."
        for row in lost[lost["missing_share"] > 0].to_dict("records")
    ]
    if "position" in frame.columns and frame["position"].notna().any():
        orders = shown.groupby("item")["position"].nunique()
        if (orders == 1).all() and len(shown) > len(orders):
            found.append(
                "Every item was shown at one and the same position, so position and item cannot be told apart."
            )
    return found


def _listed(table: Frame, column: str) -> str:
    return ", ".join(f"{row['condition']} {row[column]}" for row in table.to_dict("records"))
