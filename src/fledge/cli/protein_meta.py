"""`fledge protein evaluate` and `pretrain`: measure models on a folder of assays, and make new ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from fledge.cli import protein_shown as shown
from fledge.core.errors import ConfigError, unknown

Weights = Annotated[Optional[Path], typer.Option(help="Weights of your own 'pretrain'.")]  # noqa: UP045


def evaluate(
    data: Annotated[Path, typer.Option(help="A folder with index.csv, assays/ and domains/.")],
    out: Annotated[Path, typer.Option(help="A new folder for curves.csv, results.csv and report.html.")],
    shots: Annotated[str, typer.Option(help="Numbers of labels.")] = "0,16,128",
    split: Annotated[
        str,
        typer.Option(help="unseen (all that were not learnt from), or the test assays of domains, strict or paper."),
    ] = "unseen",
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
                           intervals=intervals, tell=shown.tell)  # fmt: skip
    done.show(shown.out())


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
    encoder: Annotated[str, typer.Option(help="Of metalic: path:FOLDER with ESM-2, or hub:NAME.")] = "",
    download: Annotated[bool, typer.Option("--download", help="Let hub:NAME download.")] = False,
    cache: Annotated[Optional[Path], typer.Option(help="A folder to keep its features in.")] = None,  # noqa: UP045
    auxiliary: Annotated[str, typer.Option(help="Of metalic: a column of zero-shot scores.")] = "",
    tune_steps: Annotated[int, typer.Option(help="Of the axial models: fine-tuning before ranking.")] = 0,
    support: Annotated[int, typer.Option(help="Of the axial models: labels in a context.")] = 16,
    query: Annotated[int, typer.Option(help="Of the axial models: variants to rank in a context.")] = 100,
) -> None:
    """Meta-train models on a folder of assays. Killed and called again, it goes on where it was."""
    if model != "site-token":
        about = {"n_steps": steps, "n_support": support, "n_query": query, "seed": seed, "auxiliary": auxiliary}
        rest = {"split": split, "longest": min(longest, 750), "encoder": encoder, "download": download}
        rest |= {"cache": cache, "measure": measure, "tune_steps": tune_steps}
        _pretrain_axial(data, out, model, about, rest)
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
    with shown.bar() as bar:
        task = bar.add_task("training", total=None)
        prior, _ = run(
            data, out, settings, measure=measure, tell=lambda line: bar.console.print(line, markup=False),
            advance=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    shown.print_rows(
        shown.out(), ("mean Spearman", ""), [(name, f"{rho:.3f}") for name, rho in prior.about["numbers"].items()]
    )
    shown.tell(str(out))


def _pretrain_axial(data: Path, out: Path, model: str, about: dict[str, Any], rest: dict[str, Any]) -> None:
    from fledge.protein.axial_training import MODELS, AxialTraining
    from fledge.run.launch import prepare
    from fledge.run.protein_axial import pretrain_axial

    if model not in MODELS:
        raise unknown("model", model, ("site-token", *MODELS))
    prepare()
    settings = AxialTraining(model, **about)
    if model == "tiny-axial":
        steps = settings.n_steps
        settings = replace(settings, schedule_steps=steps, warmup=steps // 20, learning_rate=2e-3)
    with shown.bar() as bar:
        task = bar.add_task("training", total=None)
        found = pretrain_axial(
            data, out, settings, **rest, tell=lambda line: bar.console.print(line, markup=False),
            advance=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    shown.print_rows(shown.out(), ("Spearman", ""), [(name, f"{rho:.3f}") for name, rho in found.items()])
    shown.tell(str(out))


def _shots(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--shots is a list such as 0,16,128, not '{text}'.") from None
