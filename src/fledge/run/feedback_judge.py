"""What feedback runs found: rows of results.csv, beside the published ones, and what became of the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fledge.core.errors import ConfigError, unknown
from fledge.core.records import Result
from fledge.feedback.arms import ARMS, ArmSettings
from fledge.feedback.evaluate import Rollouts, difference, interval
from fledge.run.arms import claim_of
from fledge.run.feedback_settings import FeedbackSettings

UNTESTED = "not tested at this scale"
AHEAD = "difference of success"
_PAPER = ArmSettings()
_WIDE = 1.96
"""Standard errors in a 95 % interval."""


def claims_of(claims: Sequence[str], arms: Sequence[str], bounds: Sequence[str]) -> list[str]:
    """What is wrong with claims about these arms, as sentences."""
    faults = []
    for text in claims:
        try:
            claim = claim_of(text, list(bounds))
        except ConfigError as error:
            faults.append(f"claims: {error}")
            continue
        strange = [arm for arm in (claim.better, claim.worse) if arm not in arms]
        faults += [f"claims: {unknown('arm', arm, arms)}" for arm in strange]
    return faults


def as_published(arm: str, bound: str, config: FeedbackSettings) -> bool:
    """Whether an arm was run with the paper's sizes, budget and number of seeds (the annotator may be another)."""
    own, row = config.learner, ARMS[arm]
    if (
        bound != "tanh1"
        or config.data.domain != "pendulum"
        or own.n_steps != _PAPER.n_steps
        or len(config.training_seeds) < 15
    ):
        return False
    if row.learner == "clone":
        return (own.hidden, own.batch_size) == (_PAPER.hidden, _PAPER.batch_size)
    batches = ("td3_batch_size", "awac_batch_size", "pair_batch_size")
    return own.other_hidden == _PAPER.other_hidden and all(getattr(own, b) == getattr(_PAPER, b) for b in batches)


def judge(
    study: str,
    scale: str,
    config: FeedbackSettings,
    scores: Mapping[tuple[str, str], Rollouts],
    keeps: Mapping[tuple[str, str], float],
) -> list[Result]:
    """Success, return and share kept of every arm under every bound, and the claims.

    A row that was run as published is reproduced if its interval and the published one (± 1.96 standard errors) meet.
    A claim is reproduced if the interval of the paired difference lies above 0.
    """
    rows = []
    for (bound, arm), found in scores.items():
        title = f"{study}/{bound}" if len(config.bounds) > 1 else study
        paper = ARMS[arm].published if config.data.domain == "pendulum" else None
        like = as_published(arm, bound, config) and scale != "smoke"
        success = (paper.success, paper.success_error) if paper else None
        returned = (paper.returned, paper.return_error) if paper else None
        rows.append(_row(title, arm, "success", found.success, success, like))
        rows.append(_row(title, arm, "return", found.returns, returned, like))
        rows.append(Result(title, arm, "kept", keeps[bound, arm]))
    for text in config.claims:
        claim = claim_of(text, list(config.bounds))
        for bound in config.bounds:
            if claim.case in ("", bound):
                title = f"{study}/{bound}" if len(config.bounds) > 1 else study
                rows.append(_claim(title, claim.text, scores[bound, claim.better], scores[bound, claim.worse], scale))
    return rows


def _row(
    study: str, arm: str, metric: str, values: np.ndarray, published: tuple[float, float] | None, like: bool
) -> Result:
    value, lo, hi = (float(x) for x in interval(values)[:3])
    if published is None:
        return Result(study, arm, metric, value, _known(lo), _known(hi), len(values))
    number, error = published
    verdict = UNTESTED
    if like and not np.isnan(lo):
        meets = lo <= number + _WIDE * error and hi >= number - _WIDE * error
        verdict = "reproduced" if meets else "not reproduced"
    return Result(study, arm, metric, value, _known(lo), _known(hi), len(values), number, verdict)


def _claim(study: str, text: str, better: Rollouts, worse: Rollouts, scale: str) -> Result:
    value, lo, hi = (float(x) for x in difference(better.success, worse.success)[:3])
    judged = scale != "smoke" and not np.isnan(lo)
    verdict = ("reproduced" if lo > 0 else "not reproduced") if judged else UNTESTED
    return Result(study, text, AHEAD, value, _known(lo), _known(hi), len(better.success), None, verdict)


def _known(bound: float) -> float | None:
    return None if np.isnan(bound) else bound
