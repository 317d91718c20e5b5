"""`fledge feedback …`: items, labels from models with their cost known before, and policies from labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

from fledge.core.errors import ConfigError

if TYPE_CHECKING:
    from fledge.run.labeller import Labelling

app = typer.Typer(help="Labels from models and people, and policies from labels.", no_args_is_help=True)

MaybePath = Optional[Path]  # noqa: UP045
MaybeInt = Optional[int]  # noqa: UP045
MaybeFloat = Optional[float]  # noqa: UP045


@app.command()
def label(
    items: Annotated[Path, typer.Argument(metavar="ITEMS", help="JSON lines (id, text, images), or frames in .npz.")],
    instrument: Annotated[Path, typer.Argument(metavar="INSTRUMENT", help="What is asked: a TOML or YAML file.")],
    base_url: Annotated[str, typer.Option(help="Of an OpenAI-compatible endpoint.")] = "https://api.openai.com/v1",
    model: Annotated[str, typer.Option(help="Its name at the endpoint.")] = "gpt-4o",
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable with the key; '' for none.")
    ] = "OPENAI_API_KEY",
    cache: Annotated[Path, typer.Option(help="SQLite file of replies; asking again is free.")] = Path("labels.sqlite"),
    out: Annotated[MaybePath, typer.Option(help="Where to write; by default ITEMS.labels.jsonl.")] = None,
    condition: Annotated[str, typer.Option(help="Of the instrument, where it has several.")] = "",
    mode: Annotated[str, typer.Option(help="auto, normalised, top_no, emitted_no, votes, verbal or hard.")] = "auto",
    memory: Annotated[str, typer.Option(help="none, item or session: what one chat has in it.")] = "none",
    session_size: Annotated[int, typer.Option(help="Items of a session; 0: all.")] = 0,
    protocol: Annotated[
        str, typer.Option(help="screens, or bare: question as system message, only pictures.")
    ] = "screens",
    replicates: Annotated[int, typer.Option(help="How often everything is asked.")] = 1,
    cache_mode: Annotated[
        str, typer.Option(help="online, cache_only (no socket, no key) or record (anew).")
    ] = "online",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and send nothing.")] = False,
    max_requests: Annotated[MaybeInt, typer.Option(help="Hard budget, over all runs.")] = None,
    max_tokens: Annotated[MaybeInt, typer.Option(help="Hard budget, in and out.")] = None,
    budget: Annotated[MaybeFloat, typer.Option(help="Hard budget in US dollars.")] = None,
    prices: Annotated[MaybePath, typer.Option(help="Table of prices (TOML) in place of Fledge's own.")] = None,
    workers: Annotated[int, typer.Option(help="Requests on their way at a time.")] = 8,
    rpm: Annotated[float, typer.Option(help="Requests per minute.")] = math.inf,
    tpm: Annotated[float, typer.Option(help="Tokens per minute.")] = math.inf,
    max_tries: Annotated[int, typer.Option(help="Of a request.")] = 6,
    again: Annotated[bool, typer.Option("--again", help="Send again what was sent and never answered.")] = False,
) -> None:
    """Ask a model about every item. Stopped or killed, the same command goes on where it was."""
    from fledge.data.annotations import write_answers
    from fledge.data.instrument_files import read_instrument
    from fledge.data.prices import PRICES, read_prices
    from fledge.run.chats import Asking
    from fledge.run.endpoint import Pace
    from fledge.run.label_files import read_items
    from fledge.run.labeller import OpenAICompatAnnotator
    from fledge.run.limits import Budget
    from fledge.run.meter import Meter

    console = Console()
    things, asked = read_items(items), read_instrument(instrument)
    with Meter(console) as meter:
        annotator = OpenAICompatAnnotator(
            base_url,
            model,
            api_key_env,
            asking=Asking(mode=mode, memory=memory, session_size=session_size, protocol=protocol),  # type: ignore[arg-type]
            cache=":memory:" if dry_run and not cache.exists() else cache,
            cache_mode=cache_mode,  # type: ignore[arg-type]
            pace=Pace(workers, rpm, tpm, max_tries=max_tries),
            budget=Budget(max_requests, max_tokens, budget),
            prices=read_prices(prices or PRICES),
            ask_again=again,
            progress=meter.show,
        )
        if dry_run:
            estimate = annotator.estimate(things, asked, condition=condition, replicates=replicates)
            _print(console, [f"{len(things):,} items", *estimate.lines()])
            return
        runs = [annotator.label(things, asked, condition=condition, replicate=r) for r in range(replicates)]
    target = out or items.with_suffix(".labels.jsonl")
    write_answers(target, [annotation for run in runs for annotation in run.annotations])
    _print(console, _told(target, runs))
    if any(run.failures or run.left for run in runs):
        raise typer.Exit(3)


def _told(target: Path, runs: Sequence[Labelling]) -> list[str]:
    from fledge.run.work import money_text

    values = [annotation.value for run in runs for annotation in run.annotations]
    failures = [failure for run in runs for failure in run.failures]
    left = {name for run in runs for name in run.left}
    spent = runs[-1].spent
    lines = [f"{target}: {len(values):,} annotations, {values.count(None):,} of them without a value"]
    lines += [f"{len(failures):,} without a reply, for example: {failures[0].reason}"] if failures else []
    lines += [f"{len(left):,} items not asked: {next(run.stopped for run in runs if run.left)}"] if left else []
    return [
        *lines,
        f"spent {spent.requests:,} requests, {spent.tokens:,} tokens, {money_text(runs[-1].money)} over all runs",
    ]


@app.command()
def items(
    data: Annotated[str, typer.Argument(metavar="DATA", help=".npz or HDF5 with an array 'frames' beside the steps.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("items"),
    k: Annotated[int, typer.Option(help="Steps of a segment.")] = 100,
    frames: Annotated[int, typer.Option(help="Pictures of a segment, spread evenly.")] = 5,
    tail: Annotated[str, typer.Option(help="Steps that k leaves over: error, drop or keep.")] = "error",
    group: Annotated[str, typer.Option(help="Of an HDF5 file.")] = "/",
) -> None:
    """Cut logged behaviour into segments, and write their pictures for 'label' or for the annotation page."""
    from fledge.run.feedback_own import items_from

    path = items_from(data, out, k=k, n_frames=frames, group=group, tail=tail)  # type: ignore[arg-type]
    _print(Console(), [str(path), f"then: fledge feedback label {path} question.toml --dry-run"])


@app.command()
def train(
    data: Annotated[str, typer.Argument(metavar="DATA", help=".npz or HDF5 file, or the id of a Minari data set.")],
    answers: Annotated[Path, typer.Argument(metavar="ANSWERS", help="Of 'label', or of the annotation page.")],
    settings: Annotated[Optional[list[str]], typer.Argument(metavar="[KEY.SUB=VALUE]...")] = None,  # noqa: UP045
    k: Annotated[int, typer.Option(help="Steps of a segment, as it was cut when it was asked about.")] = 100,
    alpha: Annotated[float, typer.Option(help="Segments with a probability of yes of alpha or more pass.")] = 0.1,
    retro_k: Annotated[int, typer.Option(help="Segments before a failing one that are dropped with it.")] = 1,
    tail: Annotated[str, typer.Option(help="Steps that k leaves over: error, drop or keep.")] = "error",
    seeds: Annotated[int, typer.Option(help="Policies, trained side by side.")] = 1,
    out: Annotated[MaybePath, typer.Option(help="The run folder.")] = None,
) -> None:
    """A policy from one's own behaviour and what was answered about it: filter, look back, clone."""
    import shlex

    from fledge.run import api
    from fledge.run.feedback_own import OwnSettings
    from fledge.run.recipe import Header, Recipe

    faults: list[str] = []
    changes = api.tomls.changes_of(settings or (), faults)
    own = {"data": data, "answers": str(answers), "k": k, "tail": tail, "training_seeds": list(range(seeds))}
    own["filter"] = {"alpha": alpha, "retro_k": retro_k}
    config = api.tomls.override(OwnSettings(), api.tomls.merge(own, changes), faults)
    api.tomls.refuse(faults, "The command line")
    words = ["fledge", "feedback", "train", data, str(answers), "--k", str(k), "--alpha", str(alpha)]
    words += ["--retro-k", str(retro_k), "--tail", tail, "--seeds", str(seeds), *(settings or ())]
    header = Header("sfbc-own-data", "feedback-own", "filter and clone one's own behaviour", "Beck 2025", 1.0)
    api.start(Recipe(header, config, origin="feedback train"), shlex.join(words), out=out).show(Console())


@app.command()
def pack(
    cache: Annotated[Path, typer.Argument(help="SQLite file of replies.")],
    to: Annotated[Path, typer.Argument(help="JSON lines to share.")],
) -> None:
    """Write all replies of a cache as a label pack: no key, no pictures, only their hashes."""
    if not cache.is_file():
        raise ConfigError(f"There is no cache at {cache}.")
    if to.exists():
        raise ConfigError(f"{to} is there already. Choose another name, or delete it first.")
    from fledge.run.reply_cache import ReplyCache

    _print(Console(), [f"{to}: {ReplyCache(cache).write_pack(to):,} replies"])


@app.command()
def unpack(
    source: Annotated[Path, typer.Argument(metavar="PACK", help="A label pack.")],
    cache: Annotated[Path, typer.Argument(help="SQLite file of replies, made where there is none.")],
) -> None:
    """Take the replies of a label pack into a cache."""
    from fledge.run.reply_cache import ReplyCache

    _print(Console(), [f"{cache}: {ReplyCache(cache).read_pack(source):,} new replies"])


def _print(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
