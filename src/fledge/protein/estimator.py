"""`FitnessEstimator`: rank the variants of a protein from no, few or many measurements, in scikit-learn's manners."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fledge.core.contracts import Estimator
from fledge.core.errors import ConfigError, DataError, FledgeError, nearest, need, unknown
from fledge.data.assays import read_wild_type
from fledge.data.measurements import combine_replicates, place_censored, read_scores
from fledge.data.mutations import Offset, Variants, all_singles, parse
from fledge.protein.adapt import Adapted, adapt, references, steps_by_rule
from fledge.protein.calibrate import Calibration, calibrate
from fledge.protein.choose import choose
from fledge.protein.ranking import Ranking, ranked
from fledge.protein.scores import spearman
from fledge.protein.tasks import KINDS
from fledge.protein.weights import load_prior

N_FOLDS = 5
FEWEST_FOR_CV = 32
STEP_CHOICES = (0, 5, 20, 50)
"""Of fine-tuning, to choose from by cross-validation."""


class FitnessEstimator(Estimator):
    """Ranks variants of one protein; higher is fitter.

    Meta-trained models are handed the labels as context and, from 32 labels on, fine-tuned on random halves of them.
    Without labels they rank by what proteins have in common.

    Attributes after `fit`: `wild_type_`, `n_labels_`, `n_steps_` (of fine-tuning).
    """

    def __init__(
        self,
        wild_type: str | Path | None = None,
        *,
        weights: str | Path | None = None,
        n_steps: int | str = "rule",
        offset: Offset = 0,
        kind: str = "general",
        seed: int = 0,
    ) -> None:
        """Nothing is computed here.

        Args:
            wild_type: its sequence or a FASTA file; can be given to `fit` instead.
            weights: a file of `fledge protein pretrain`; by default the shipped models.
            n_steps: of fine-tuning: a number, "rule" (0 below 32 labels, then 20), or "cv" (the best of 0, 5, 20, 50
                by cross-validation on the labels, from 32 on).
            offset: added to the positions that mutation strings have, so that they count from 1; "auto" finds it.
            kind: what was measured: "stability", or "general" for anything else.
            seed: of the splits and of the unlabelled variants.
        """
        self.wild_type = wild_type
        self.weights = weights
        self.n_steps = n_steps
        self.offset = offset
        self.kind = kind
        self.seed = seed

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {name: getattr(self, name) for name in _parameters()}

    def set_params(self, **params: Any) -> FitnessEstimator:
        """Change arguments of the constructor.

        Raises:
            ConfigError: there is none of that name.
        """
        for name, value in params.items():
            if name not in _parameters():
                raise ConfigError(f"FitnessEstimator has no parameter '{name}'. {nearest(name, _parameters())}")
            setattr(self, name, value)
        return self

    def fit(self, X: Any = (), y: Any = (), *, wild_type: str | Path | None = None) -> FitnessEstimator:
        """Learn from measured variants; possibly none.

        Args:
            X: variants: mutation strings, full sequences, or `Variants`.
            y: their scores, higher is fitter. NaN is left out; "<LOD" is tied at the bottom; several scores of one
                variant are averaged.
            wild_type: sequence or FASTA file, if it was not given to the constructor.

        Raises:
            DataError: lists the variants or scores that cannot be used.
            ConfigError: there is no wild type, or a parameter is out of range.
        """
        X, y = () if X is None else X, () if y is None else y
        source = wild_type if wild_type is not None else self.wild_type
        if source is None:
            raise ConfigError("There is no wild type. Write: fit(variants, y, wild_type='MKT…'), or give a FASTA file.")
        self.wild_type_ = read_wild_type(source)
        variants, scores = self._variants(X), _scores(y)
        if len(variants) != len(scores):
            raise DataError(
                f"{len(variants)} variants came with {len(scores)} scores. Give one score for each; nan where missing."
            )
        merged = combine_replicates(variants, place_censored(scores))
        self.variants_, self.scores_, self.replicates_ = merged.variants, merged.mean, merged.count
        self.n_labels_ = len(self.scores_)
        self.n_features_in_ = 1
        self._shown = (self.variants_, self.scores_)
        if self._constant():
            self._shown = (self.variants_.take(np.zeros(0, np.int64)), np.zeros(0))
            warnings.warn(
                f"All {self.n_labels_} scores are {self.scores_[0]:g}: they say nothing about an order. Variants are "
                "ranked as if there were no labels.",
                stacklevel=2,
            )
        self.prior_ = load_prior(self.weights)
        self.n_steps_ = self._chosen_steps()
        self.adapted_ = adapt(self.prior_.members, self.wild_type_, [self._shown], n_steps=self.n_steps_, **self._how())
        self._folded: tuple[Adapted, Calibration, np.ndarray] | None = None
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predicted scores, in the assay's unit from 5 labels on; before, relative to random single mutants.

        Args:
            X: variants, as in `fit`.
            return_std: also how unsure each prediction is, in the same unit.
        """
        variants = self._variants(X)
        v = self.adapted_.predict(variants).mean(axis=0)
        if self.n_labels_ == 0 and not return_std:
            return v
        folded, calibration, _ = self._folds()
        values = calibration.value(v)
        if not return_std:
            return values
        return values, calibration.std(folded.predict(variants).std(axis=0))

    def predict_interval(self, X: Any, coverage: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds that hold a new measurement with this chance (conformal; from 30 labels on).

        Raises:
            ConfigError: there are fewer labels, or the chance is not between 0 and 1.
        """
        if not 0 < coverage < 1:
            raise ConfigError(f"A coverage lies between 0 and 1, not at {coverage}. 0.9 is usual.")
        variants = self._variants(X)
        calibration = self._folds()[1]
        half = calibration.half_width(len(variants), coverage)
        if np.isnan(half).any():
            raise ConfigError(
                f"Intervals take at least 30 labels that differ; there are {self.n_labels_}. Use "
                "predict(…, return_std=True)."
            )
        middle = calibration.value(self.adapted_.predict(variants).mean(axis=0))
        return middle - half, middle + half

    def rank(self, X: Any = None, *, in_place: bool = False) -> Ranking:
        """The candidates from best to worst (`in_place`: as they came); by default all singles not yet measured."""
        candidates = self._candidates(X)
        values, spread = self.predict(candidates, return_std=True)
        return ranked(self.wild_type_, candidates, values, spread, self.variants_, in_place=in_place)

    def suggest(
        self,
        n: int,
        X: Any = None,
        *,
        strategy: str = "greedy",
        diversity: float = 0.0,
        per_site: int | None = None,
        exploration: float = 1.0,
        random_share: float = 0.0,
    ) -> Ranking:
        """The next batch to measure, in the order of choice; see `fledge.protein.choose.choose`.

        Raises:
            ConfigError: the strategy is unknown, or there are not so many candidates.
        """
        candidates = self._candidates(X)
        folded, calibration, _ = self._folds()
        copies = folded.predict(candidates)
        v = self.adapted_.predict(candidates).mean(axis=0)
        picks = choose(
            candidates,
            copies - copies.mean(axis=0) + v,
            n,
            strategy=strategy,
            diversity=diversity,
            per_site=per_site,
            exploration=exploration,
            random_share=random_share,
            seed=self.seed,
        )
        spread = calibration.std(copies.std(axis=0))
        return ranked(self.wild_type_, candidates, calibration.value(v), spread, self.variants_, order=picks)

    def score(self, X: Any, y: Any) -> float:
        """Spearman's rank correlation of predictions with measurements."""
        scores = place_censored(_scores(y))
        kept = np.isfinite(scores)
        return spearman(self.adapted_.predict(self._variants(X).take(kept)).mean(axis=0), scores[kept])

    def cross_validated_spearman(self) -> float:
        """Of the labels, each predicted without itself: how far to trust the ranking. NaN below 5 labels."""
        held_out = self._folds()[2]
        return spearman(held_out, self.scores_) if self.n_labels_ >= N_FOLDS else float("nan")

    def _variants(self, X: Any) -> Variants:
        if isinstance(X, Variants):
            return X
        if isinstance(X, str):
            raise DataError(f"A list of variants was wanted, not the single string '{X[:20]}'. Write: ['{X[:20]}'].")
        texts = [str(x[0] if isinstance(x, (list, tuple, np.ndarray)) and len(x) == 1 else x) for x in X]
        if not hasattr(self, "wild_type_"):
            raise _unfitted()
        return parse(texts, self.wild_type_, offset=self.offset)

    def _candidates(self, X: Any) -> Variants:
        if X is not None:
            found = self._variants(X)
            if not len(found):
                raise DataError("There is no candidate to rank. Give some, or nothing for all single mutants.")
            return found
        if not hasattr(self, "wild_type_"):
            raise _unfitted()
        singles, measured = all_singles(self.wild_type_), set(self.variants_.keys())
        return singles.take(np.array([key not in measured for key in singles.keys()]))  # noqa: SIM118

    def _how(self) -> dict[str, Any]:
        """What every adaptation of this estimator shares."""
        return {"kind": self._kind(), "seed": self.seed, "in_context": self.prior_.in_context}

    def _kind(self) -> int:
        if self.kind not in KINDS:
            raise unknown("kind of measurement", self.kind, KINDS)
        return KINDS.index(self.kind)

    def _constant(self) -> bool:
        """Whether there are several labels that are all equal."""
        return self.n_labels_ > 1 and bool(np.ptp(self.scores_) == 0)

    def _chosen_steps(self) -> int:
        if self._constant():
            return 0
        if self.n_steps == "rule":
            return steps_by_rule(self.n_labels_, in_context=self.prior_.in_context)
        if self.n_steps == "cv":
            return self._steps_by_cv() if self.n_labels_ >= FEWEST_FOR_CV else 0
        if not isinstance(self.n_steps, int) or self.n_steps < 0:
            raise ConfigError(f"n_steps is a number, 'rule' or 'cv', not {self.n_steps!r}.")
        return self.n_steps if self.n_labels_ > 3 else 0

    def _steps_by_cv(self) -> int:
        found = {steps: spearman(self._held_out(4, steps)[1], self.scores_) for steps in STEP_CHOICES}
        return max(found, key=lambda steps: (round(found[steps], 3), -steps))

    def _held_out(self, n_folds: int, n_steps: int) -> tuple[Adapted, np.ndarray]:
        """Copies that each miss a fold, and predictions of the labels by those that miss them."""
        fold = np.random.default_rng(self.seed).permutation(self.n_labels_) % n_folds
        parts = [(self.variants_.take(fold != k), self.scores_[fold != k]) for k in range(n_folds)]
        adapted = adapt(
            self.prior_.members, self.wild_type_, parts, n_steps=n_steps, room=self.n_labels_, **self._how()
        )
        every = adapted.predict(self.variants_)
        mine = np.arange(len(every)) % n_folds
        held_out = np.zeros(self.n_labels_)
        for k in range(n_folds):
            held_out[fold == k] = every[mine == k][:, fold == k].mean(axis=0)
        return adapted, held_out

    def _folds(self) -> tuple[Adapted, Calibration, np.ndarray]:
        """Made when first asked for: copies for the spread, and what turns values into the assay's unit."""
        if not hasattr(self, "adapted_"):
            raise _unfitted()
        if self._folded is None:
            if self.n_labels_ >= N_FOLDS and not self._constant():
                adapted, held_out = self._held_out(N_FOLDS, self.n_steps_)
                usual = adapted.predict(references(self.wild_type_, 0, self.seed)).std(axis=0)
                self._folded = (adapted, calibrate(held_out, self.scores_, float(np.median(usual))), held_out)
            else:
                parts = [self._shown] * 3  # what differs is the unlabelled part of the context
                adapted = adapt(self.prior_.members, self.wild_type_, parts, n_steps=0, **self._how())
                self._folded = (adapted, Calibration(1.0, 0.0, np.zeros(0), False), np.zeros(self.n_labels_))
        return self._folded

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in _parameters())
        return f"FitnessEstimator({given})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know of an estimator."""
        utils = need("sklearn.utils", "protein")

        return utils.Tags(
            estimator_type="regressor",
            target_tags=utils.TargetTags(required=False),
            regressor_tags=utils.RegressorTags(),
            input_tags=utils.InputTags(two_d_array=False, string=True, one_d_array=True),
        )


def _unfitted() -> FledgeError:
    """The error before `fit`; for scikit-learn, where it is installed, also its own."""
    text = "The estimator knows no protein yet. Call fit first (without labels: fit(wild_type=…))."
    try:
        from sklearn.exceptions import NotFittedError
    except ImportError:
        return ConfigError(text)
    return type("NotFitted", (ConfigError, NotFittedError), {})(text)


def _parameters() -> list[str]:
    return [name for name in inspect.signature(FitnessEstimator.__init__).parameters if name != "self"]


def _scores(y: Any) -> Float[np.ndarray, " row"]:
    cells: Sequence[Any] = list(y)
    if all(isinstance(cell, (int, float, np.number)) for cell in cells):
        scores = np.asarray(cells, float)
        if np.isposinf(scores).any():
            raise DataError(f"Score {int(np.isposinf(scores).argmax()) + 1} is infinite. Leave that row out.")
        return scores
    return read_scores(cells)
