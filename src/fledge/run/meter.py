"""A live meter of a labelling job: replies, failures, tokens, money."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fledge.run.work import Progress, money_text


class Meter:
    """A progress bar on the console; hand `meter.show` to an annotator as its `progress`."""

    def __init__(self, console: Console | None = None):
        self._bar = Bar(
            TextColumn("asking"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, words="")

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Draw how far the job is."""
        words = (
            f"{progress.spent.requests:,} sent, {progress.spent.tokens:,} tokens, {money_text(progress.money)}, "
            f"{progress.failures:,} failed"
        )
        self._bar.update(self._task, completed=progress.done, total=progress.total, words=words)
