"""`fledge protein …`: rank variants, suggest the next batch, check a file, measure, and make new weights."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.table import Table

from fledge.core.errors import ConfigError, FledgeError, unknown

app = typer.Typer(
    help="Rank the variants of a protein from no, few or many measurements.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, XLSX (or FASTA): variants and their scores.")]
Wild = Annotated[Optional[str], typer.Option("--wild-type", "-w", help="Its sequence, or a FASTA file.")]  # noqa: UP045
Out = Annotated[Optional[Path], typer.Option(help="Write the table to this CSV file.")]  # noqa: UP045
Variant = Annotated[str, typer.Option(help="The column of variants, if it has an unusual name.")]
Score = Annotated[str, typer.Option(help="The column of scores, if it has an unusual name.")]
Offset = Annotated[str, typer.Option(help="Added to positions so that they count from 1; 'auto' finds it.")]
Weights = Annotated[Optional[Path], typer.Option(help="Weights of your own 'pretrain'.")]  # noqa: UP045
Kind = Annotated[str, typer.Option(help="What was measured: stability, or general.")]
Steps = Annotated[str, typer.Option(help="Steps of fine-tuning: a number, 'rule' or 'cv'.")]
Candidates = Annotated[Optional[Path], typer.Option(help="A file of candidates; by default all singles.")]  # noqa: UP045
SHOWN = 20


@app.command("check-data")
def check_data(
    file: File, wild_type: Wild = None, variant: Variant = "", score: Score = "", offset: Offset = "0"
) -> None:
    """Read a file of measurements and say what is in it, before anything is computed."""
    import numpy as np

    from fledge.data.measurements import combine_replicates

    assay = _assay(file, wild_type, variant, score, offset, scored=False)
    scores = assay.scores
    merged = combine_replicates(assay.variants, scores)
    counts = np.bincount(assay.variants.counts)
    out = _out()
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
        ("measured more than once", str(int((merged.count > 1).sum()))),
        ("different scores", str(len(np.unique(merged.mean)))),
        ("positions touched", str(len(np.unique(assay.variants.sites[assay.variants.sites >= 0])))),
        ("other columns", ", ".join(assay.columns) or "none"),
    ]
    _print_rows(out, ("what", "found"), rows)


@app.command("fit")
def fit(
    file: File,
    wild_type: Wild = None,
    variant: Variant = "",
    score: Score = "",
    offset: Offset = "0",
    weights: Weights = None,
    n_steps: Steps = "rule",
    kind: Kind = "general",
) -> None:
    """How far a ranking from these measurements can be trusted, beside trivial ones: each label predicted unseen."""
    import numpy as np

    from fledge.protein.baselines import BASELINES
    from fledge.protein.scores import spearman

    model = _fitted(file, wild_type, variant, score, offset, weights, n_steps, kind)
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
    out = _out()
    told = [(name, f"{rho:.2f}", _interval(rho, model.n_labels_)) for name, rho in rows]
    _print_rows(out, ("ranking", "Spearman of held-out labels", "95 % interval"), told)
    out.print(_origin(model), highlight=False)


@app.command("predict")
def predict(
    file: File,
    candidates: Candidates = None,
    wild_type: Wild = None,
    variant: Variant = "",
    score: Score = "",
    offset: Offset = "0",
    weights: Weights = None,
    n_steps: Steps = "rule",
    kind: Kind = "general",
    out: Out = None,
) -> None:
    """Predicted scores of candidates, in the candidates' order."""
    model = _fitted(file, wild_type, variant, score, offset, weights, n_steps, kind)
    _show(model, model.rank(_candidates(candidates, model, variant, offset), in_place=True), out)


@app.command("rank")
def rank(
    file: File,
    candidates: Candidates = None,
    wild_type: Wild = None,
    variant: Variant = "",
    score: Score = "",
    offset: Offset = "0",
    weights: Weights = None,
    n_steps: Steps = "rule",
    kind: Kind = "general",
    out: Out = None,
) -> None:
    """Candidates from best to worst; by default all single mutants that were not measured."""
    model = _fitted(file, wild_type, variant, score, offset, weights, n_steps, kind)
    _show(model, model.rank(_candidates(candidates, model, variant, offset)), out)


@app.command("suggest")
def suggest(
    file: File,
    n: Annotated[int, typer.Option("--n", "-n", help="How many to measure next.")] = 12,
    strategy: Annotated[str, typer.Option(help="greedy, ucb or thompson.")] = "greedy",
    diversity: Annotated[float, typer.Option(help="Taken off for likeness to earlier picks (0.3 is mild).")] = 0.0,
    per_site: Annotated[Optional[int], typer.Option(help="At most so many at one position.")] = None,  # noqa: UP045
    candidates: Candidates = None,
    wild_type: Wild = None,
    variant: Variant = "",
    score: Score = "",
    offset: Offset = "0",
    weights: Weights = None,
    n_steps: Steps = "rule",
    kind: Kind = "general",
    out: Out = None,
) -> None:
    """The next batch to measure."""
    model = _fitted(file, wild_type, variant, score, offset, weights, n_steps, kind)
    wanted = _candidates(candidates, model, variant, offset)
    _show(model, model.suggest(n, wanted, strategy=strategy, diversity=diversity, per_site=per_site), out)


@app.command("evaluate")
def evaluate(
    data: Annotated[Path, typer.Option(help="A folder with index.csv, assays/ and domains/.")],
    out: Annotated[Path, typer.Option(help="A new folder for curves.csv, results.csv and report.html.")],
    shots: Annotated[str, typer.Option(help="Numbers of labels.")] = "0,16,128",
    split: Annotated[str, typer.Option(help="domains, strict, paper or all: which assays are ranked.")] = "strict",
    repeats: Annotated[int, typer.Option(help="Shuffles of each assay.")] = 2,
    limit: Annotated[int, typer.Option(help="At most so many assays; 0: all.")] = 0,
    weights: Weights = None,
    intervals: Annotated[bool, typer.Option(help="Also how often intervals hold, from 30 labels on.")] = True,
) -> None:
    """Spearman against labels on assays that were not learnt from, beside trivial rankings."""
    from fledge.run.launch import prepare
    from fledge.run.protein_evaluate import evaluate_folder

    prepare()
    done = evaluate_folder(data, out, shots=_shots(shots), split=split, repeats=repeats, limit=limit, weights=weights,
                           intervals=intervals, tell=_tell)  # fmt: skip
    done.show(_out())


@app.command("pretrain")
def pretrain(
    data: Annotated[Path, typer.Option(help="A folder with index.csv, assays/ and domains/.")],
    out: Annotated[Path, typer.Option(help="The file of weights; checkpoints go beside it.")] = Path(
        "protein.safetensors"
    ),
    split: Annotated[str, typer.Option(help="domains, strict, paper or all: what is held out.")] = "strict",
    members: Annotated[int, typer.Option(help="Models in the ensemble.")] = 3,
    steps: Annotated[int, typer.Option(help="Of meta-training, each member.")] = 1500,
    seed: Annotated[int, typer.Option(help="Of the first member.")] = 0,
    longest: Annotated[int, typer.Option(help="Leave assays of longer proteins out.")] = 1024,
    validation: Annotated[float, typer.Option(help="Share of the training assays that choose when to stop.")] = 0.0,
    measure: Annotated[bool, typer.Option(help="Rank the held-out assays afterwards.")] = True,
    model: Annotated[str, typer.Option(help="site-token, tiny-axial or metalic.")] = "site-token",
    encoder: Annotated[str, typer.Option(help="Of metalic: path:FOLDER with ESM-2.")] = "",
    support: Annotated[int, typer.Option(help="Of the axial models: labels in a context.")] = 16,
    query: Annotated[int, typer.Option(help="Of the axial models: variants to rank in a context.")] = 100,
) -> None:
    """Meta-train models on a folder of assays. Killed and called again, it goes on where it was."""
    if model != "site-token":
        _pretrain_axial(data, out, model, encoder, split, steps, seed, min(longest, 750), measure, support, query)
        return
    from fledge.protein.pretrain import PretrainSettings
    from fledge.run.launch import prepare
    from fledge.run.protein_pretrain import MemberSettings
    from fledge.run.protein_pretrain import pretrain as run

    prepare()
    settings = MemberSettings(
        split=split,
        n_members=members,
        seed=seed,
        longest=longest,
        validation=validation,
        train=PretrainSettings(n_steps=steps),
    )
    with _bar() as bar:
        task = bar.add_task("training", total=None)
        prior, _ = run(
            data, out, settings, measure=measure, tell=lambda line: bar.console.print(line, markup=False),
            advance=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    _print_rows(_out(), ("mean Spearman", ""), [(name, f"{rho:.3f}") for name, rho in prior.about["numbers"].items()])
    _tell(str(out))


def _pretrain_axial(
    data: Path,
    out: Path,
    model: str,
    encoder: str,
    split: str,
    steps: int,
    seed: int,
    longest: int,
    measure: bool,
    support: int,
    query: int,
) -> None:
    from fledge.protein.axial_training import MODELS, AxialTraining
    from fledge.run.launch import prepare
    from fledge.run.protein_axial import pretrain_axial

    if model not in MODELS:
        raise unknown("model", model, ("site-token", *MODELS))
    prepare()
    settings = AxialTraining(model, n_steps=steps, n_support=support, n_query=query, seed=seed)
    if model == "tiny-axial":
        settings = replace(settings, schedule_steps=steps, warmup=steps // 20, learning_rate=2e-3)
    with _bar() as bar:
        task = bar.add_task("training", total=None)
        found = pretrain_axial(
            data, out, settings, split=split, longest=longest, encoder=encoder, measure=measure,
            tell=lambda line: bar.console.print(line, markup=False),
            advance=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    _print_rows(_out(), ("Spearman", ""), [(name, f"{rho:.3f}") for name, rho in found.items()])
    _tell(str(out))


def _fitted(
    file: Path,
    wild_type: str | None,
    variant: str,
    score: str,
    offset: str,
    weights: Path | None,
    n_steps: str,
    kind: str,
) -> Any:
    from fledge.run.launch import prepare

    prepare()
    from fledge.protein.estimator import FitnessEstimator

    assay = _assay(file, wild_type, variant, score, offset, scored=False)
    steps: Any = int(n_steps) if n_steps.isdigit() else n_steps
    model = FitnessEstimator(assay.wild_type, weights=weights, n_steps=steps, kind=kind)
    return model.fit(assay.variants, assay.scores.tolist())


def _assay(file: Path, wild_type: str | None, variant: str, score: str, offset: str, *, scored: bool) -> Any:
    from fledge.data.assays import read_assay, read_wild_type

    sequence = None if wild_type is None else read_wild_type(wild_type)
    return read_assay(file, sequence, variant=variant, score=score, offset=_offset(offset), scored=scored)


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


def _shots(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--shots is a list such as 0,16,128, not '{text}'.") from None


def _show(model: Any, found: Any, out: Path | None) -> None:
    console = _out()
    names = ("rank", "mutant", "predicted", "std", "nearest_measured", "distance", "flags")
    rows = [[_cell(row[name]) for name in names] for row in itertools.islice(found, SHOWN)]
    rho = model.cross_validated_spearman()
    if rho == rho:
        console.print(f"Spearman of held-out labels: {rho:.2f} ({model.n_labels_} labels)", highlight=False)
    _print_rows(console, names, rows)
    if len(found) > SHOWN:
        console.print(f"… and {len(found) - SHOWN} more" + ("" if out else " (--out FILE.csv writes all)"))
    if out is not None:
        if out.exists():
            raise FledgeError(f"{out} is there already. Choose another name, or delete it first.")
        found.write(out)
        console.print(str(out), highlight=False, soft_wrap=True)
    console.print(_origin(model), highlight=False)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


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


def _print_rows(console: Console, columns: Any, rows: Any) -> None:
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _bar() -> Any:
    """A progress bar on the error channel; shown where a person looks on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True, highlight=False, soft_wrap=True))


def _tell(line: str) -> None:
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


def _out() -> Console:
    return Console()
