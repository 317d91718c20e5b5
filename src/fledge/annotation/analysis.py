"""The whole analysis of a study as plain tables (lists of rows): what is written to `analysis.json` and reported."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fledge.annotation.aggregate import Rule, aggregate, wide
from fledge.annotation.agreement import agreement, counts, krippendorff_alpha, of_counts
from fledge.annotation.crossed import (
    METRICS,
    ceilings,
    compare_predictions,
    draws,
    effects_table,
    matrix_table,
)
from fledge.annotation.curves import fit_power_law
from fledge.annotation.effects import contrasts, regress
from fledge.annotation.fieldwork import attrition, attrition_p, audit, deviations
from fledge.annotation.frame import Frame, Study, answered
from fledge.annotation.matrix import Crossed, LabelMode, Progress, cross_condition
from fledge.annotation.mixed import cumulative_design_effects, fit_linear_mixed
from fledge.annotation.prevalence import prevalence

Rows = list[dict[str, Any]]
WITHIN = ("percent", "alpha", "fleiss", "gwet", "entropy")


def plain(table: Frame) -> Rows:
    """A table as rows of plain Python values."""
    return [{key: _plain(value) for key, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return value


def describe(study: Study) -> dict[str, Any]:
    """How much there is of everything."""
    frame = study.frame
    shown = frame.drop_duplicates(["item", "annotator", "condition"])
    return {
        "name": study.name,
        "items": int(frame["item"].nunique()),
        "annotators": int(frame["annotator"].nunique()),
        "rows": len(shown),
        "answers": int(frame["value"].notna().sum()),
        "conditions": [str(name) for name in study.conditions],
        "constructs": [str(name) for name in study.constructs],
        "train_items": sum(1 for part in study.split.values() if part == "train"),
        "test_items": sum(1 for part in study.split.values() if part == "test"),
    }


def field_tables(study: Study) -> dict[str, Any]:
    """Audit, attrition and deviations."""
    table, p = audit(study.frame)
    return {
        "audit": plain(table),
        "audit_p": p,
        "attrition": plain(attrition(study.frame)),
        "attrition_p": {str(name): attrition_p(study.frame, name) for name in study.constructs},
        "deviations": deviations(study.frame),
    }


def label_tables(
    study: Study, *, rule: Rule = "median", n_resamples: int = 1000, mixed: bool = True, seed: int = 0
) -> dict[str, Any]:
    """Prevalence, contrasts, effects, variance components and agreement.

    Args:
        study: the answers.
        rule: how an item's answers become one before conditions are compared.
        n_resamples: of bootstraps.
        mixed: also the crossed mixed model (seconds on 45,000 answers).
        seed: of bootstraps.
    """
    frame, parts = study.frame, study.constructs
    few = min(frame.groupby("condition")["annotator"].nunique()) < 100
    fits = {name: regress(frame, name, few_clusters=bool(few)) for name in parts} if len(study.conditions) > 1 else {}
    found: dict[str, Any] = {
        "prevalence": plain(prevalence(frame, pooled=True)),
        "effects": [{"construct": str(name)} | row for name, fit in fits.items() for row in plain(fit.table())],
        "joint_p": {str(name): fit.joint_p() for name, fit in fits.items()},
        "contrasts": [row for name in fits for row in plain(contrasts(frame, name, few_clusters=bool(few)))],
        "few_clusters": bool(few),
        "design_effects": [{"construct": str(name)} | cumulative_design_effects(frame, name) for name in fits],
        "variances": [],
        "rule": rule,
    }
    for name in parts if mixed else ():
        if answered(frame, name).groupby("condition")["value"].nunique().max() < 2:
            continue  # nothing varies inside a condition
        fit = fit_linear_mixed(frame, name, terms=("condition",) if fits else ())
        found["variances"] += [
            {"construct": str(name), "grouping": group, "variance": value, "share": fit.icc[group]}
            for group, value in fit.variances.items()
        ]
    return found | agreement_tables(study, rule=rule, n_resamples=n_resamples, seed=seed)


def agreement_tables(study: Study, *, rule: Rule, n_resamples: int, seed: int = 0) -> dict[str, Any]:
    """Agreement of annotators inside each condition, and of conditions after aggregation."""
    within: Rows = []
    between: Rows = []
    overall: dict[str, float] = {}
    for name in study.constructs:
        frame = answered(study.frame, name)
        for condition in study.conditions:
            own = frame[frame["condition"] == condition]
            for measure in WITHIN if len(own) else ():
                found = agreement(own, name, measure=measure, n_resamples=n_resamples, seed=seed)
                row = {"construct": str(name), "condition": str(condition), "measure": measure}
                within.append(row | {key: getattr(found, key) for key in found._fields})
        table = wide(aggregate(frame, name, rule))
        rng = np.random.default_rng(seed)
        chosen = rng.integers(len(table), size=(min(n_resamples, 300), len(table)))
        overall[str(name)] = krippendorff_alpha(table)
        for i, j in combinations(range(table.shape[1]), 2):
            pair = table[:, [i, j]]
            there = ~np.isnan(pair).any(axis=1)
            drawn = [of_counts(counts(pair[rows]), "alpha") for rows in chosen]
            lo, hi = np.nanquantile(drawn, [0.025, 0.975]) if not np.isnan(drawn).all() else (np.nan, np.nan)
            between.append(
                {"construct": str(name), "first": str(study.conditions[i]), "second": str(study.conditions[j])}
                | {"value": krippendorff_alpha(pair), "lo": float(lo), "hi": float(hi), "n": int(there.sum())}
                | {"differ": float(np.mean(pair[there, 0] != pair[there, 1]))}
            )
    return {"within": within, "between": between, "between_all": overall}


def model_tables(
    study: Study,
    backend: Any,
    *,
    seeds: Sequence[int] = (0,),
    label_mode: LabelMode = "rows",
    equal_size: bool = False,
    n_resamples: int = 1000,
    folder: Path | None = None,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], dict[Any, Crossed]]:
    """The train × test matrix of every construct with everything that is read off it, and the scores themselves."""
    kept: dict[Any, Crossed] = {}
    tables: dict[str, Any] = {"matrix": [], "matrix_effects": [], "ceilings": [], "predictions": []}
    tables |= {"predictions_all": {}, "n_train": {}}
    total = len(study.constructs) * len(study.conditions) * len(seeds)
    for i, name in enumerate(study.constructs):
        before = i * len(study.conditions) * len(seeds)
        crossed = cross_condition(
            study,
            name,
            backend,
            seeds=seeds,
            label_mode=label_mode,
            equal_size=equal_size,
            folder=folder,
            n_jobs=n_jobs,
            progress=_shifted(progress, before, total),
        )
        kept[name] = crossed
        for metric in METRICS:
            found = draws(crossed, metric, n_resamples=n_resamples)
            tables["matrix"] += plain(matrix_table(crossed, metric, found))
            tables["matrix_effects"] += plain(effects_table(crossed, metric, found))
        tables["ceilings"] += plain(ceilings(crossed))
        pairs, alpha = compare_predictions(crossed)
        tables["predictions"] += plain(pairs)
        tables["predictions_all"][str(name)] = alpha
        tables["n_train"][str(name)] = {str(key): n for key, n in crossed.n_train.items()}
    return tables, kept


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of a part, told as progress of the whole."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)


def curve_fits(table: Frame, metric: str = "auc", test: str = "pooled") -> Rows:
    """A power law for each construct and condition, and how many labels it takes to reach a common score.

    Returns:
        `construct, condition, limit, gap, rate, at_all, labels, target, labels_needed`. The target is the mean score
        of all conditions on all their labels, the same for every condition of a construct.
    """
    rows: Rows = []
    chosen = table[(table["metric"] == metric) & (table["test"] == test)]
    for construct, own in chosen.groupby("construct", sort=False):
        last = own[own["n_items"] == own["n_items"].max()]
        target = float(last["value"].mean())
        for condition, part in own.groupby("condition"):
            if part["n_labels"].nunique() < 3:
                continue
            law = fit_power_law(part["n_labels"].to_numpy(float), part["value"].to_numpy(), part["repeat"].to_numpy())
            most = float(part["n_labels"].max())
            rows.append(
                {"construct": str(construct), "condition": str(condition)}
                | {"limit": law.limit, "gap": law.gap, "rate": law.rate}
                | {"limit_lo": float(law.interval[0, 0]), "limit_hi": float(law.interval[1, 0])}
                | {"at_all": float(last[last["condition"] == condition]["value"].mean()), "labels": most}
                | {"target": target, "labels_needed": law.labels_needed(target)}
            )
    return rows
