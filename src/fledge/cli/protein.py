"""`fledge protein …`: rank variants, suggest the next batch, check a file, measure, and make new weights."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from fledge.cli import protein_meta
from fledge.cli import protein_shown as shown
from fledge.core.errors import ConfigError, FledgeError

app = typer.Typer(
    help="Rank the variants of a protein from no, few or many measurements.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("evaluate")(protein_meta.evaluate)
app.command("pretrain")(protein_meta.pretrain)

File = Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, XLSX (or FASTA): variants and their scores.")]
MaybeFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Argument(metavar="FILE", help="As for 'fit'; none where nothing is measured yet."),
]
Wild = Annotated[Optional[str], typer.Option("--wild-type", "-w", help="Its sequence, or a FASTA file.")]  # noqa: UP045
Out = Annotated[Optional[Path], typer.Option(help="Write the table to this CSV file.")]  # noqa: UP045
Variant = Annotated[str, typer.Option(help="The column of variants, if it has an unusual name.")]
Score = Annotated[str, typer.Option(help="The column of scores, if it has an unusual name.")]
Offset = Annotated[str, typer.Option(help="Added to positions so that they count from 1; 'auto' finds it.")]
Round = Annotated[str, typer.Option("--round", help="The column of rounds or plates, each to be put on one scale.")]
Normalise = Annotated[
    str, typer.Option(help="How: standardise, wild_type (divide by the WT rows) or none; by default the first.")
]
Weights = protein_meta.Weights
Kind = Annotated[str, typer.Option(help="What was measured: stability, or general.")]
Steps = Annotated[str, typer.Option(help="Steps of fine-tuning: a number, 'rule' or 'cv'.")]
Candidates = Annotated[Optional[Path], typer.Option(help="A file of candidates; by default all singles.")]  # noqa: UP045
HeatMap = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Write a picture of every single mutant to this SVG file, its numbers beside it."),
]
SHOWN = 20


@dataclass(frozen=True)
class Source:
    """Where measurements come from, as the command line has it."""

    file: Path | None
    wild_type: str | None
    variant: str
    score: str
    offset: str
    round: str = ""
    normalise: str = ""


@app.command("check-data")
def check_data(
    file: File,
    wild_type: Wild = None,
    variant: Variant = "",
    score: Score = "",
    offset: Offset = "0",
    round_: Round = "",
    normalise: Normalise = "",
) -> None:
    """Read a file of measurements and say what is in it, before anything is computed."""
    import numpy as np

    from fledge.data.measurements import combine_replicates

    assay = _assay(Source(file, wild_type, variant, score, offset, round_, normalise))
    scores = assay.scores
    merged = combine_replicates(assay.variants, scores)
    counts = np.bincount(assay.variants.counts)
    out = shown.out()
    out.print(
        f"{file}: {len(assay)} variants of a protein of {len(assay.wild_type)} residues",
        highlight=False,
        soft_wrap=True,
    )
    rows = [
        ("mutations each", ", ".join(f"{n} with {k}" for k, n in enumerate(counts) if n)),
        ("scores", f"{int(np.isfinite(scores).sum())} numbers, {int(np.isneginf(scores).sum())} below detection"),
        ("missing scores", str(int(np.isnan(scores).sum()))),
        ("different variants with a score", str(len(merged.mean))),
        ("measured more than once", _replicates(merged)),
        ("different scores", str(len(np.unique(merged.mean)))),
        ("positions touched", str(len(np.unique(assay.variants.sites[assay.variants.sites >= 0])))),
        ("other columns", ", ".join(assay.columns) or "none"),
    ]
    shown.print_rows(out, ("what", "found"), rows)


@app.command("fit")
def fit(
    file: File,
    wild_type: Wild = None,
    variant: Variant = "",
    score: Score = "",
    offset: Offset = "0",
    round_: Round = "",
    normalise: Normalise = "",
    weights: Weights = None,
    n_steps: Steps = "rule",
    kind: Kind = "general",
) -> None:
    """How far a ranking from these measurements can be trusted, beside trivial ones: each label predicted unseen."""
    import numpy as np

    from fledge.protein.baselines import BASELINES
    from fledge.protein.scores import spearman

    model = _fitted(Source(file, wild_type, variant, score, offset, round_, normalise), weights, n_steps, kind)
    if model.n_labels_ < 5:
        raise ConfigError(f"{model.n_labels_} labels are too few to be held out. From 5 on this can be told.")
    fold = np.random.default_rng(0).permutation(model.n_labels_) % 5
    rows = [("Fledge", model.cross_validated_spearman())]
    for name, predictor in BASELINES.items():
        v = np.zeros(model.n_labels_)
        for k in range(5):
            seen = model.variants_.take(fold != k)
            v[fold == k] = predictor(model.wild_type_, seen, model.scores_[fold != k], model.variants_.take(fold == k))
        rows.append((name, spearman(v, model.scores_)))
    out = shown.out()
    told = [(name, f"{rho:.2f}", _interval(rho, model.n_labels_)) for name, rho in rows]
    shown.print_rows(out, ("ranking", "Spearman of held-out labels", "95 % interval"), told)
    out.print(_origin(model), highlight=False, soft_wrap=True)


@app.command("predict")
def predict(
    file: MaybeFile = None,
    candidates: Candidates = None,
    wild_type: Wild = None,
    variant: Variant = "",
    score: Score = "",
    offset: Offset = "0",
    round_: Round = "",
    normalise: Normalise = "",
    weights: Weights = None,
    n_steps: Steps = "rule",
    kind: Kind = "general",
    out: Out = None,
) -> None:
    """Predicted scores of candidates, in the candidates' order."""
    _free(out)
    model = _fitted(Source(file, wild_type, variant, score, offset, round_, normalise), weights, n_steps, kind)
    _show(model, model.rank(_candidates(candidates, model, variant, offset), in_place=True), out)


@app.command("rank")
def rank(
    file: MaybeFile = None,
    candidates: Candidates = None,
    wild_type: Wild = None,
    variant: Variant = "",
    score: Score = "",
    offset: Offset = "0",
    round_: Round = "",
    normalise: Normalise = "",
    weights: Weights = None,
    n_steps: Steps = "rule",
    kind: Kind = "general",
    out: Out = None,
    heat_map: HeatMap = None,
) -> None:
    """Candidates from best to worst; by default all single mutants that were not measured."""
    _free(out, heat_map)
    model = _fitted(Source(file, wild_type, variant, score, offset, round_, normalise), weights, n_steps, kind)
    _show(model, model.rank(_candidates(candidates, model, variant, offset)), out)
    if heat_map is not None:
        from fledge.run.protein_evaluate import write_heatmap

        shown.tell(str(write_heatmap(model, heat_map)))


@app.command("suggest")
def suggest(
    file: MaybeFile = None,
    n: Annotated[int, typer.Option("--n", "-n", help="How many to measure next.")] = 12,
    strategy: Annotated[str, typer.Option(help="greedy, ucb or thompson.")] = "greedy",
    diversity: Annotated[float, typer.Option(help="Taken off for likeness to earlier picks (0.3 is mild).")] = 0.0,
    per_site: Annotated[Optional[int], typer.Option(help="At most so many at one position.")] = None,  # noqa: UP045
    exploration: Annotated[float, typer.Option(help="Of ucb: deviations added to the mean.")] = 1.0,
    random_share: Annotated[float, typer.Option(help="This share of the batch is drawn blindly.")] = 0.0,
    candidates: Candidates = None,
    wild_type: Wild = None,
    variant: Variant = "",
    score: Score = "",
    offset: Offset = "0",
    round_: Round = "",
    normalise: Normalise = "",
    weights: Weights = None,
    n_steps: Steps = "rule",
    kind: Kind = "general",
    out: Out = None,
) -> None:
    """The next batch to measure."""
    _free(out)
    model = _fitted(Source(file, wild_type, variant, score, offset, round_, normalise), weights, n_steps, kind)
    wanted = _candidates(candidates, model, variant, offset)
    how = {"diversity": diversity, "per_site": per_site, "exploration": exploration, "random_share": random_share}
    _show(model, model.suggest(n, wanted, strategy=strategy, **how), out)


def _fitted(source: Source, weights: Path | None, n_steps: str, kind: str) -> Any:
    from fledge.run.launch import prepare

    prepare()
    import numpy as np

    from fledge.data.assays import read_wild_type
    from fledge.protein.estimator import FitnessEstimator

    steps: Any = int(n_steps) if n_steps.isdigit() else n_steps
    if source.file is None:
        if source.wild_type is None:
            raise ConfigError("There is neither a FILE of measurements nor a wild type. Give one of them, or both.")
        return FitnessEstimator(read_wild_type(source.wild_type), weights=weights, n_steps=steps, kind=kind).fit()
    assay = _assay(source)
    if np.isnan(assay.scores).all():
        columns = f" Name the column of scores (--score): {', '.join(assay.columns)}." if assay.columns else ""
        shown.tell(f"{source.file} has no scores: variants are ranked without labels.{columns}")
    model = FitnessEstimator(assay.wild_type, weights=weights, n_steps=steps, kind=kind)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", UserWarning)
        model.fit(assay.variants, assay.scores.tolist())
    for note in noted:
        shown.tell(str(note.message))
    return model


def _assay(source: Source) -> Any:
    from fledge.data.assays import normalised, read_assay, read_wild_type

    sequence = None if source.wild_type is None else read_wild_type(source.wild_type)
    assay = read_assay(
        source.file or "", sequence, variant=source.variant, score=source.score, offset=_offset(source.offset),
        scored=False,
    )  # fmt: skip
    if source.round or source.normalise:
        how: Any = source.normalise or "standardise"
        return normalised(assay, source.round, how=how)
    return assay


def _candidates(file: Path | None, model: Any, variant: str, offset: str) -> Any:
    from fledge.data.assays import read_assay

    if file is None:
        return None
    return read_assay(file, model.wild_type_, variant=variant, offset=_offset(offset), scored=False).variants


def _offset(text: str) -> Any:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--offset is a whole number or 'auto', not '{text}'.") from None


def _free(*paths: Path | None) -> None:
    """Refuse to overwrite, before anything is computed."""
    for path in paths:
        if path is not None and path.exists():
            raise FledgeError(f"{path} is there already. Choose another name, or delete it first.")


def _show(model: Any, found: Any, out: Path | None) -> None:
    console = shown.out()
    names = ("rank", "mutant", "predicted", "std", "nearest_measured", "distance", "flags")
    rows = [[_cell(row[name]) for name in names] for row in itertools.islice(found, SHOWN)]
    rho = model.cross_validated_spearman()
    if rho == rho:
        bounds = _interval(rho, model.n_labels_)
        console.print(f"Spearman of held-out labels: {rho:.2f} ({bounds}; {model.n_labels_} labels)", highlight=False)
    shown.print_rows(console, names, rows)
    if len(found) > SHOWN:
        console.print(f"… and {len(found) - SHOWN} more" + ("" if out else " (--out FILE.csv writes all)"))
    if out is not None:
        found.write(out)
        console.print(str(out), highlight=False, soft_wrap=True)
    console.print(_origin(model), highlight=False, soft_wrap=True)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _replicates(merged: Any) -> str:
    import numpy as np

    n = int((merged.count > 1).sum())
    return f"{n} (averaged; they differ by {np.nanmean(merged.sd):.3g} on average)" if n else "0"


def _interval(rho: float, n: int) -> str:
    """Fisher's, of a rank correlation of n pairs."""
    middle, half = math.atanh(min(max(rho, -0.999), 0.999)), 1.96 / max(n - 3, 1) ** 0.5
    return f"{math.tanh(middle - half):.2f} … {math.tanh(middle + half):.2f}"


def _origin(model: Any) -> str:
    prior = model.prior_
    return (
        f"site-token ensemble of {prior.n_members}, learnt from {len(prior.about['train'])} assays; "
        f"{model.n_labels_} labels, {model.n_steps_} steps of fine-tuning"
    )
