"""The page of an annotation study, read from the files of its folder: analysis.json, curves.csv, record.json.

`analysis.json` is one object of tables (lists of rows). No table holds a text of an item, and neither does the page.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fledge.core.curves import Curves, read_curves
from fledge.core.errors import DataError
from fledge.core.files import parse_json, read_text, to_json, write_text
from fledge.core.records import RunRecord, read_record, read_results
from fledge.report.instrument_figures import draw_dots, draw_heat, draw_learning, said_of
from fledge.report.page import save_figures, templates
from fledge.report.style import Drawn

FORMAT = 1
ANALYSIS = "analysis.json"
SCREENSHOTS = "screenshots"
"""Folder of pictures (.png) of the instrument's screens; each is shown under its file's name."""
_TEMPLATE = "instrument.html.j2"


def write_analysis(path: Path, tables: Mapping[str, Any]) -> Path:
    """Write analysis.json, whole or not at all."""
    return write_text(path, to_json({"format": FORMAT, **tables}, indent=1) + "\n")


def read_analysis(path: Path) -> dict[str, Any]:
    """The tables of analysis.json.

    Raises:
        DataError: it is missing, damaged, or of another version.
    """
    found = parse_json(read_text(path, "analysis of an annotation study (analysis.json)"), path, "analysis")
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"{path} is not an analysis of format {FORMAT}. Run the study again, or use its own version.")
    return found


def write_instrument_report(folder: Path, page: Path | None = None) -> Path:
    """Write the page of a study's folder; returns its path. Figures are also saved as SVG and CSV beside it.

    Raises:
        DataError: analysis.json is missing or damaged.
    """
    folder = Path(folder)
    tables = read_analysis(folder / ANALYSIS)
    curves = read_curves(folder / "curves.csv") if (folder / "curves.csv").exists() else Curves.empty()
    record: RunRecord | None = read_record(folder / "record.json") if (folder / "record.json").exists() else None
    page = page or folder / "report.html"
    figures = {drawn.name: drawn for drawn in draw_all(tables, curves)}
    beside = page.with_name(f"{page.stem}_files")
    save_figures(list(figures.values()), beside)
    results = read_results(folder / "results.csv") if (folder / "results.csv").exists() else []
    environment = templates()
    environment.filters |= {"said_of": said_of, "pct": _percent, "num": _number, "p": _p_value}
    html = environment.get_template(_TEMPLATE).render(
        title=tables["title"],
        t=tables,
        figures=figures,
        sentences=summary(tables),
        record=record,
        beside=beside.name,
        by=_by,
        judged=[row for row in results if row.verdict],
        screenshots=[_picture(path) for path in sorted((folder / SCREENSHOTS).glob("*.png"))],
    )
    return write_text(page, html)


def draw_all(tables: Mapping[str, Any], curves: Curves) -> list[Drawn]:
    """Every figure that the tables have data for."""
    figures = []
    shares = [row for row in tables["prevalence"] if row["condition"] != "all"]
    planted = {(row["construct"], row["condition"]): row["share"] for row in tables.get("planted", ())}
    note = " Hollow diamonds: what was planted in the simulation." if planted else ""
    figures.append(
        draw_dots(
            shares,
            name="prevalence",
            title="How often each construct is found",
            caption="Share of positive answers by condition; bars are 95 % intervals with annotators as clusters."
            + note,
            label="positive answers, %",
            scale=100.0,
            planted=planted,
        )
    )
    slopes = [
        row | {"condition": row["term"][len("condition[") : -1]}
        for row in tables["effects"]
        if row["term"].startswith("condition[")
    ]
    if slopes:
        figures.append(
            draw_dots(
                slopes,
                name="effects",
                title="What a condition adds",
                caption="Difference of shares from the first condition, linear probability model; 95 % intervals "
                "clustered by annotator and item at once.",
                label="difference, percentage points",
                scale=100.0,
                zero=True,
                order=tables["about"]["conditions"],
            )
        )
    alphas = [row for row in tables["within"] if row["measure"] == "alpha"]
    figures.append(
        draw_dots(
            alphas,
            name="agreement",
            title="How well annotators of one condition agree",
            caption="Krippendorff's α (nominal) of the answers to one item inside a condition; 95 % intervals from "
            "resampling items. 0 is chance, 1 is full agreement.",
            label="α",
        )
    )
    return figures + _maps(tables) + _learning(tables, curves)


def _maps(tables: Mapping[str, Any]) -> list[Drawn]:
    names = tables["about"]["conditions"]
    constructs = tables["about"]["constructs"]
    figures = []
    if tables["between"]:
        panels = [(said_of(c), names, names, _pairs(tables["between"], c, names, "value")) for c in constructs]
        figures.append(
            draw_heat(
                panels,
                name="between",
                title="How well conditions agree with one another",
                caption=f"Krippendorff's α of two conditions' aggregated labels (rule: {tables['rule']}).",
                down="condition",
                across="condition",
            )
        )
    for metric, title in (("balanced_accuracy", "balanced accuracy"), ("auc", "area under the ROC curve")):
        rows = [row for row in tables.get("matrix", ()) if row["metric"] == metric]
        if rows:
            there = [c for c in constructs if any(row["construct"] == c for row in rows)]
            panels = [(said_of(c), names, names, _square(rows, c, names)) for c in there]
            figures.append(
                draw_heat(
                    panels,
                    name=f"matrix-{metric}",
                    title=f"Trained on one condition, tested on another: {title}",
                    caption="Rows: whose labels the model learnt from; columns: whose labels it is tested on, on the "
                    "same held-out items. Each panel has its own colour scale.",
                    down="trained on",
                    across="tested on",
                )
            )
    if tables.get("predictions"):
        there = [c for c in constructs if any(row["construct"] == c for row in tables["predictions"])]
        panels = [(said_of(c), names, names, _pairs(tables["predictions"], c, names, "alpha")) for c in there]
        figures.append(
            draw_heat(
                panels,
                name="predictions",
                title="How well the models agree with one another",
                caption="Krippendorff's α of the predictions of two conditions' models on the same test items.",
                down="trained on",
                across="trained on",
            )
        )
    return figures


def _learning(tables: Mapping[str, Any], curves: Curves) -> list[Drawn]:
    said = {"pooled": "the test labels of all conditions", "own": "the test labels of the model's own condition"}
    return [
        draw_learning(
            curves,
            metric="auc",
            test=test,
            name=f"curves-{test}",
            title=f"Learning curves, tested on {where}",
            caption="Area under the ROC curve against the number of training labels; nested subsets of whole items. "
            "Line: mean over random orders of the items; band: their range.",
        )
        for test, where in said.items()
        if len(curves.where(adapt=test, metric="auc"))
    ]


def _picture(path: Path) -> dict[str, str]:
    return {
        "name": path.stem.replace("_", " "),
        "src": f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}",
    }


def _square(rows: Sequence[Mapping[str, Any]], construct: str, names: Sequence[str]) -> np.ndarray:
    found = np.full((len(names), len(names)), np.nan)
    for row in rows:
        if str(row["construct"]) == construct:
            found[names.index(str(row["train"])), names.index(str(row["test"]))] = row["value"]
    return found


def _pairs(rows: Sequence[Mapping[str, Any]], construct: str, names: Sequence[str], key: str) -> np.ndarray:
    found = np.full((len(names), len(names)), np.nan)
    for row in rows:
        if str(row["construct"]) == construct and row[key] is not None:
            i, j = names.index(str(row["first"])), names.index(str(row["second"]))
            found[i, j] = found[j, i] = row[key]
    return found


def summary(tables: Mapping[str, Any]) -> list[str]:
    """The study in a few sentences, one or two for each construct."""
    found = []
    for construct in tables["about"]["constructs"]:
        shares = [r for r in tables["prevalence"] if r["construct"] == construct and r["condition"] != "all"]
        low, high = (f(shares, key=lambda row: row["value"]) for f in (min, max))
        text = f"{said_of(construct).capitalize()}: from {_percent(low['value'])} of answers under {low['condition']} "
        text += f"to {_percent(high['value'])} under {high['condition']}"
        if construct in tables["joint_p"]:
            p = _p_value(tables["joint_p"][construct])
            text += f" (all conditions alike: p {p if p[0] == '<' else '= ' + p})"
        if construct in tables["between_all"]:
            text += f"; aggregated labels of the conditions agree with α = {_number(tables['between_all'][construct])}"
        found.append(text + ".")
        effects = {
            row["effect"]: row
            for row in tables.get("matrix_effects", ())
            if row["construct"] == construct and row["metric"] == "balanced_accuracy" and not row["condition"]
        }
        if effects:
            train, test, own = (effects[key] for key in ("train_range", "test_range", "own"))
            found.append(
                f"Its models: the choice of the training condition moves balanced accuracy by up to "
                f"{_points(train['value'])}, that of the test condition by up to {_points(test['value'])}; testing on "
                f"one's own condition gains {_points(own['value'])} [{_points(own['lo'])}, {_points(own['hi'])}]."
            )
    return found


def _by(rows: Sequence[Mapping[str, Any]], **equals: object) -> list[Mapping[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in equals.items())]


def _percent(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.1f} %".replace("-", "−")


def _points(value: float | None) -> str:
    return "–" if value is None else f"{round(100 * value, 1) + 0.0:.1f} pp".replace("-", "−")


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def _p_value(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    if value < 1e-16:
        return "< 1e−16"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-").replace("-", "−")
