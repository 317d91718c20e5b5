"""The long table of answers that every statistic of this room reads: one row per item, annotator and construct.

| column | what it holds |
|---|---|
| `item`, `annotator`, `condition`, `construct` | names: text or whole numbers |
| `value` | the answer as a number (0 and 1 for yes/no); NaN where there is none |
| `missing_code` | why there is none: one of `MISSING_CODES`; "" beside a value |
| `position` | 1, 2, … in the annotator's sequence; optional |
| `text` | of the item, optional; statistics never look at it |
| `split` | `train` or `test`, the same for all rows of an item; optional |

A question that was not answered is never a "no": rows without a value drop out of every estimate, and are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fledge.core.errors import DataError, nearest, need, unknown

Frame = Any
"""A `pandas.DataFrame`; pandas comes with the extra `annotation`."""
KEYS = ("item", "annotator", "condition", "construct")
COLUMNS = (*KEYS, "value", "missing_code", "position", "text")
MISSING_CODES = ("not_asked", "dropped_out", "dont_know", "refused", "unparsable")
"""Never answered for different reasons; none of them is a "no"."""
EXTRA = "annotation"


def pandas() -> Any:
    """The package pandas.

    Raises:
        MissingExtra: it is not installed.
    """
    return need("pandas", EXTRA)


def check_frame(frame: Frame) -> Frame:
    """The same rows, with `value` as numbers and `missing_code` filled in.

    Raises:
        DataError: a column is missing, an answer is no number, a code is unknown, or a row is there twice.
    """
    pd = pandas()
    lacking = [name for name in (*KEYS, "value") if name not in frame.columns]
    if lacking:
        raise DataError(
            f"A long table with the columns {', '.join((*KEYS, 'value'))} was wanted, but {', '.join(lacking)} "
            f"is not among {', '.join(map(str, frame.columns))}. Rename or add it."
        )
    frame = frame.reset_index(drop=True)
    try:
        frame = frame.assign(value=pd.to_numeric(frame["value"]).astype(float))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"Answers are numbers here, but one is not: {error}. Code categories as 0, 1, 2 …, and put words such as "
            "'dont_know' into missing_code."
        ) from None
    empty = frame["value"].isna()
    code = frame["missing_code"] if "missing_code" in frame.columns else pd.Series("", index=frame.index)
    code = code.fillna("").where(~empty | (code.fillna("") != ""), "not_asked").where(empty, "")
    strange = sorted(set(code.unique()) - {"", *MISSING_CODES})
    if strange:
        raise DataError(f"There is no missing_code '{strange[0]}'. {nearest(str(strange[0]), MISSING_CODES)}")
    repeated = frame.duplicated(list(KEYS))
    if repeated.any():
        first = frame.loc[repeated].iloc[0]
        raise DataError(
            f"{int(repeated.sum())} rows repeat an item, annotator, condition and construct; the first is "
            f"item {first['item']}, annotator {first['annotator']}. Keep one answer of each (say the last revision)."
        )
    return frame.assign(missing_code=code)


def answered(frame: Frame, construct: Any, conditions: Sequence[Any] | None = None) -> Frame:
    """The rows of one construct (and of some conditions) that hold an answer.

    Raises:
        ConfigError: there is no such construct or condition.
        DataError: it was never answered.
    """
    known = constructs_of(frame)
    if construct not in known:
        raise unknown("construct", str(construct), map(str, known))
    rows = frame[frame["construct"] == construct]
    if conditions is not None:
        for name in conditions:
            if name not in conditions_of(rows):
                raise unknown("condition", str(name), map(str, conditions_of(rows)))
        rows = rows[rows["condition"].isin(list(conditions))]
    rows = rows[rows["value"].notna()]
    if not len(rows):
        raise DataError(f"Nobody answered '{construct}'. Statistics need one answer or more.")
    return rows


def conditions_of(frame: Frame) -> list[Any]:
    """The conditions, sorted by name."""
    return sorted(frame["condition"].unique(), key=str)


def constructs_of(frame: Frame) -> list[Any]:
    """The constructs, in the order of their first row."""
    return list(frame["construct"].unique())


def codes(column: Any) -> tuple[Int[np.ndarray, " row"], list[Any]]:
    """A column as whole numbers from 0, and what each stands for."""
    number, names = pandas().factorize(column, sort=True)
    return np.asarray(number, np.int64), list(names)


def ratings(rows: Frame, by: str = "annotator") -> Float[np.ndarray, "unit rater"]:
    """Answers as a table of items by raters (or by conditions, of aggregated rows); NaN where there is none."""
    item, items = codes(rows["item"])
    rater, raters = codes(rows[by])
    table = np.full((len(items), len(raters)), np.nan)
    table[item, rater] = rows["value"].to_numpy(float)
    return table


@dataclass(frozen=True)
class Study:
    """Answers, the texts of items, and which items are for testing. The answers carry no text."""

    frame: Frame
    """The long table, checked."""
    texts: Mapping[Any, str] = field(default_factory=dict, repr=False)
    """Item → text; empty where items are no text."""
    split: Mapping[Any, str] = field(default_factory=dict, repr=False)
    """Item → `train` or `test`."""
    name: str = "study"

    @classmethod
    def of(cls, frame: Frame, name: str = "study") -> Study:
        """A study from one long table with the columns `text` and `split`, where it has them.

        Raises:
            DataError: as `check_frame`, or an item is in both splits.
        """
        frame = check_frame(frame)
        first = frame.drop_duplicates("item").set_index("item")
        texts = first["text"].fillna("").to_dict() if "text" in frame.columns else {}
        split = {}
        if "split" in frame.columns:
            both = frame.groupby("item")["split"].nunique()
            if (both > 1).any():
                raise DataError(
                    f"Item {both.index[both > 1][0]} and {int((both > 1).sum()) - 1} more are in several splits. "
                    "Models would be tested on what they were trained on: give every item one split."
                )
            split = first["split"].to_dict()
        return cls(frame.drop(columns=["text", "split"], errors="ignore"), texts, split, name)

    @property
    def conditions(self) -> list[Any]:
        """Sorted by name."""
        return conditions_of(self.frame)

    @property
    def constructs(self) -> list[Any]:
        """In the order of their first row."""
        return constructs_of(self.frame)

    def items(self, split: str) -> list[Any]:
        """The items of a split, in the order of their first row.

        Raises:
            DataError: no item is in that split.
        """
        found = [item for item in dict.fromkeys(self.frame["item"]) if self.split.get(item) == split]
        if not found:
            raise DataError(f"No item of {self.name} is in the split '{split}'. Divide the items first: split_items.")
        return found


def split_items(study: Study, test_frac: float = 0.25, seed: int = 0) -> Study:
    """The study with its items divided at random; the same items are tested in all conditions."""
    items = np.array(list(dict.fromkeys(study.frame["item"])), object)
    order = np.random.default_rng(seed).permutation(len(items))
    test = set(items[order[: max(1, round(test_frac * len(items)))]])
    split = {item: "test" if item in test else "train" for item in items}
    return Study(study.frame, study.texts, split, study.name)
