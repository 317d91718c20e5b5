"""What a study found: its rows of results.csv, from the adaptation curves of its arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from fledge.core.records import Metrics, Result
from fledge.core.stats import Estimate, Scores, bootstrap, probability_of_improvement
from fledge.run.arms import Side, claim_of, side_of
from fledge.run.curve import AdaptationCurve
from fledge.run.settings import StudySettings

UNTESTED = "not tested at this scale"
TRIAL = "return of a trial"
AFTER = "return after the last gradient step"
LATENT_GRADIENT = "grad/value_by_latent"
GAP = "belief gap (nats)"
OVER_OTHERS = "chance of improvement over another arm"


def compare(
    study: str, scale: str, settings: StudySettings, curves: Mapping[str, AdaptationCurve], case: str = ""
) -> list[Result]:
    """The rows of one case: each arm's returns, the ranking, and what became of each claim.

    Args:
        study: name in the first column; a case is written behind it.
        scale: at `smoke` nothing is judged.
        settings: the claims and published numbers.
        curves: arm → its curve.
        case: of the study.
    """
    title = f"{study}/{case}" if case else study
    results = []
    for arm, curve in curves.items():
        scores = curve.cube("return").scores
        last = scores.shape[-1]
        published = settings.published.get(f"{case}: {arm}", settings.published.get(arm))
        whole = AFTER if curve.by_step else TRIAL
        results.append(_judged(_result(title, arm, whole, curve.trial("return")), published, scale))
        if curve.by_step:
            results.append(_result(title, arm, "return before the first gradient step", scores[..., 0]))
            continue
        results.append(_result(title, arm, "return of episode 1", scores[..., 0]))
        if last > 1:
            results.append(_result(title, arm, f"return of episode {last}", scores[..., -1]))
        if "belief_gap" in curve.metrics:
            results.append(_result(title, arm, GAP, curve.cube("belief_gap").scores.mean(-1)))
    first = next(iter(curves.values()))
    whole = AFTER if first.by_step else TRIAL
    results += [_result(title, name, whole, first.trial("return", name)) for name in first.references]
    trials = {arm: curve.trial("return") for arm, curve in curves.items()}
    results += ranking(title, trials)
    for text in settings.claims:
        claim = claim_of(text, list(settings.cases))
        sides = [side_of(claim.better), side_of(claim.worse)]
        if claim.case in ("", case) and all(side.arm in curves for side in sides):
            better, worse = (_scores(curves[side.arm], side) for side in sides)
            results.append(improvement(title, claim.text, better, worse, scale))
    return results


def _scores(curve: AdaptationCurve, side: Side) -> Float[np.ndarray, "seed task"]:
    """What a side of a claim earned: the whole trial (after the last gradient step), or one point of the curve."""
    if side.at is None:
        return curve.trial("return")
    cube = curve.cube("return")
    return cube.scores[..., int(np.flatnonzero(cube.xs == side.at)[0])]


def diagnoses(study: str, metrics: Mapping[str, Metrics]) -> list[Result]:
    """How strongly the value hung on the latent when training began and in its last tenth, where that was measured.

    Args:
        study: name in the first column.
        metrics: arm → what its training said.
    """
    results = []
    for arm, said in metrics.items():
        if LATENT_GRADIENT not in said.values:
            continue
        late = 0.9 * said.env_steps.max()
        for when, rows in (("first", said.env_steps == said.env_steps.min()), ("last tenth", said.env_steps > late)):
            values = [np.nanmean(said.values[LATENT_GRADIENT][rows & (said.seed == seed)]) for seed in set(said.seed)]
            results.append(_result(study, arm, f"{LATENT_GRADIENT}, {when}", np.array(values)[:, None]))
    return results


def ranking(study: str, trials: Mapping[str, Float[np.ndarray, "seed task"]]) -> list[Result]:
    """For each arm the chance that its trial beats that of another arm, taken at random; best first.

    Agarwal et al. (2021) take the chance of improvement for pairs; this is its mean over the others. 0.5 is average.
    """
    if len(trials) < 2:
        return []
    means = {
        arm: float(
            np.mean([probability_of_improvement(own, other)[0] for name, other in trials.items() if name != arm])
        )
        for arm, own in trials.items()
    }
    order = sorted(means, key=means.__getitem__, reverse=True)
    return [Result(study, arm, OVER_OTHERS, means[arm], n=trials[arm].shape[0]) for arm in order]


def row_of(study: str, arm: str, metric: str, estimate: Estimate) -> Result:
    """A row of results.csv: the value, with its interval where there is one."""
    value, lo, hi = (float(x) for x in estimate[:3])
    bounds = (None if np.isnan(lo) else lo, None if np.isnan(hi) else hi)
    return Result(study, arm, metric, value, *bounds, estimate.n_seeds)


def improvement(study: str, claim: str, better: Scores, worse: Scores, scale: str) -> Result:
    """The row of a claim "A > B" on scores (seed, task): reproduced where the whole interval lies above one half."""
    row = row_of(study, claim, "chance of improvement", probability_of_improvement(better, worse))
    if scale == "smoke" or row.lo is None:
        return replace(row, verdict=UNTESTED)
    return replace(row, verdict="reproduced" if row.lo > 0.5 else "not reproduced")


def _result(study: str, arm: str, metric: str, scores: np.ndarray) -> Result:
    return row_of(study, arm, metric, bootstrap(scores))


def _judged(row: Result, published: float | None, scale: str) -> Result:
    """A row beside the published number: reproduced if that lies inside the interval or below it (higher is better)."""
    if published is None:
        return row
    verdict = UNTESTED
    if scale == "paper" and row.hi is not None:
        verdict = "reproduced" if row.hi >= published else "not reproduced"
    return Result(row.study, row.arm, row.metric, row.value, row.lo, row.hi, row.n, published, verdict)


def told(results: Sequence[Result]) -> list[Result]:
    """The rows to show at the end of a study: what was judged, or stands beside a published number."""
    return [row for row in results if row.verdict or row.published is not None]
