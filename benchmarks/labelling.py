"""Labels per second against what the endpoint allows.

A local OpenAI-compatible server in a process of its own answers after a fixed latency, and refuses (429) whatever goes
over its limit in any window of one second. The client is told the limit, or has to find it by being refused. The last
row has no limit: what the client itself can do.

    python benchmarks/labelling.py            # half a minute; or: fledge bench labelling
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from fledge.core.annotations import Item, Media
from fledge.core.instruments import Ask, Block, Condition, Construct, Instrument
from fledge.run.chats import Asking
from fledge.run.endpoint import Pace
from fledge.run.labeller import OpenAICompatAnnotator
from fledge.run.local_endpoint import LocalEndpoint

LIMITS = (20, 50, 100)
"""Requests per second."""
PICTURE = bytes(range(256)) * 8
"""Two kilobytes, the size of a small PNG of a stick."""
UP = Instrument("up", (Construct("up", "Is it up?"),), (Condition("A", (Block((Ask(("up",)),)),)),))


@dataclass(frozen=True)
class Row:
    """One way of asking."""

    limit: float | None
    """Requests per second; None for no limit."""
    told: bool
    """Whether the client knew the limit."""
    workers: int
    labels: int
    seconds: float
    per_second: float
    of_limit: float | None
    """Labels per second over the limit."""
    refused: int
    """Requests that were answered with 429."""
    cpu_ms: float
    """Processor time of the client for one label, in milliseconds."""


def serve(per_second: float, latency: float) -> None:
    """Be the server until the parent goes."""
    with LocalEndpoint(latency=latency, requests_per_minute=60 * per_second) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def measure(limit: float, told: bool, workers: int, labels: int, latency: float) -> Row:
    """Label so many segments of five pictures."""
    command = [sys.executable, __file__, "--serve", str(limit), str(latency)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as server:  # type: ignore[call-overload]
        url = server.stdout.readline().strip()
        rate = 60 * limit if told else math.inf
        pace = Pace(workers=workers, requests_per_minute=rate, max_tries=50, first_wait=0.1, longest_wait=2.0)
        annotator = OpenAICompatAnnotator(url, "m", asking=Asking(mode="normalised"), pace=pace)
        items = [Item(str(i), str(i), (Media("image", PICTURE),) * 5) for i in range(labels)]
        begun, cpu = time.perf_counter(), time.process_time()
        done = annotator.label(items, UP)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        server.stdin.close()
    n = len(done.annotations)
    capped = math.isfinite(limit)
    return Row(
        limit if capped else None,
        told,
        workers,
        n,
        seconds,
        n / seconds,
        n / seconds / limit if capped else None,
        done.spent.requests - n,
        1000 * cpu / max(n, 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=float, nargs="*", default=LIMITS, help="requests per second")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long a row takes at its limit")
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.1, help="of a reply, in seconds")
    parser.add_argument("--out", type=Path, default=Path("runs/labelling"), help="folder of labelling.json")
    parser.add_argument("--serve", type=float, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    rows: list[Row] = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    about = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    for limit, told in [*((limit, told) for limit in arguments.limits for told in (True, False)), (math.inf, True)]:
        n = round(arguments.seconds * (limit if math.isfinite(limit) else 150))
        rows.append(measure(limit, told, arguments.workers, n, arguments.latency))
        document = {"command": " ".join(sys.argv), "machine": about, "rows": [asdict(row) for row in rows]}
        (arguments.out / "labelling.json").write_text(json.dumps(document, indent=1))
    table = Table(title=f"Labels per second, replies after {arguments.latency:g} s", box=box.SIMPLE)
    for name in ("limit /s", "told", "labels/s", "of limit", "refused", "client CPU"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        share = "–" if row.of_limit is None else f"{row.of_limit:.0%}"
        limit_text = "none" if row.limit is None else f"{row.limit:g}"
        told_text = "yes" if row.told else "no"
        table.add_row(limit_text, told_text, f"{row.per_second:.1f}", share, str(row.refused), f"{row.cpu_ms:.1f} ms")
    console = Console(width=max(100, Console().width))
    console.print(table)
    console.print(f"Written to {arguments.out}/labelling.json.")


if __name__ == "__main__":
    main()
