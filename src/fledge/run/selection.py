"""The learning rate of an arm: every candidate on the same number of seeds, none of which is reported."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fledge.core.files import write_text
from fledge.core.records import to_csv
from fledge.report.read import read_run
from fledge.run.arms import Arm
from fledge.run.settings import StudySettings

COLUMNS = ("learning_rate", "mean_return_over_training", "seeds")


def choose_rate(arm: Arm, settings: StudySettings, folder: Path, run: Callable[[Arm, Path], Path]) -> float:
    """Run the candidates that have not been run, and take the one with the best mean return over the whole of training.

    The choice is written to `learning_rates.csv` beside the candidates' folders. The score is that of Beck et al.
    (2023); unlike there, the chosen rate is then run on other seeds than it was chosen on.

    Args:
        arm: whose rate.
        settings: the candidates and their seeds.
        folder: of the arm's candidates.
        run: does a run in a folder, if it is not done already, and returns the folder.
    """
    table = folder / "learning_rates.csv"
    if table.exists():
        with table.open(encoding="utf-8") as file:
            scores = {float(row["learning_rate"]): float(row[COLUMNS[1]]) for row in csv.DictReader(file)}
    else:
        scores = {rate: over_training(run(tried, folder / tried.name)) for rate, tried in arm.candidates(settings)}
        write_text(table, to_csv(COLUMNS, [(rate, score, settings.selection_seeds) for rate, score in scores.items()]))
    return max(scores, key=lambda rate: (np.nan_to_num(scores[rate], nan=-np.inf), -rate))


def over_training(folder: Path) -> float:
    """The mean return of trials over all updates and seeds of a run."""
    metrics = read_run(folder).metrics
    if metrics is None or "return/trial" not in metrics.values:
        return float("nan")
    return float(np.nanmean(metrics.values["return/trial"]))
