"""Writes the generated tables of the documentation. Run it after a change of families, recipes, memories or metrics.

    python docs/tables.py          renew every table
    python docs/tables.py --check  exit with 1 if a table is stale

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`; what is between them is overwritten.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fledge.agents.memories import MEMORIES
from fledge.core.contracts import Env, task_batch
from fledge.core.metrics import METRICS
from fledge.core.spaces import Box, Discrete, Space
from fledge.envs.families import FAMILIES, make
from fledge.envs.findings import CHECKS
from fledge.run import recipe as recipes

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
MARK = re.compile(r"<!-- table: (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end of table -->", re.DOTALL)
N_DRAWN = 1000


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A table in Markdown. `align` has one letter per column: l or r."""
    bars = ["---:" if letter == "r" else "---" for letter in align.ljust(len(columns), "l")]
    lines = [columns, bars, *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _space(space: Space) -> str:
    if isinstance(space, Discrete):
        return f"one of {space.n}"
    assert isinstance(space, Box)
    low, high = (f"{bound:.3g}".replace("inf", "∞").replace("-", "−") for bound in (space.low, space.high))
    return f"{space.size} in [{low}, {high}]" if space.size else "nothing"


def _count(env: Env) -> str:
    tasks = env.enumerate("test")
    count = "drawn" if tasks is None else str(jax.tree.leaves(tasks)[0].shape[0])
    return count + (" held out" if env.splits_disjoint else "")


def told_optimum(env: Env) -> str:
    """Mean over the tasks of `test` of the best return of one episode; over drawn tasks with a ≈."""
    listed = env.enumerate("test")
    tasks = task_batch(env, jax.random.key(0), "test", N_DRAWN) if listed is None else listed
    if env.optimal_return(jax.tree.map(lambda leaf: leaf[0], tasks), 1) is None:
        return "not known"
    best = jax.jit(jax.vmap(lambda task: env.optimal_return(task, 1)))(tasks)
    value = f"{float(np.mean(best)):.4g}".replace("-", "−")
    return f"≈ {value}" if listed is None else value


def environments(optimum: Callable[[Env], str] = told_optimum) -> str:
    """Every family by name."""
    rows = []
    for name, row in FAMILIES.items():
        env = make(name)
        sees, acts = _space(env.observation_space), _space(env.action_space)
        rows.append((f"`{name}`", row.about, sees, acts, str(env.horizon), _count(env), optimum(env), row.paper))
    columns = ("family", "what it is", "sees", "acts", "steps", "test tasks", "told optimum", "paper")
    return markdown(columns, rows, "llllrlrl")


def recipe_table() -> str:
    """Every shipped recipe."""
    rows = [(f"`{h.name}`", h.about, h.paper, f"{h.minutes:g}") for h in recipes.headers()]
    return markdown(("recipe", "what it is", "paper", "minutes"), rows, "lllr")


def memories() -> str:
    """Every memory."""
    return markdown(("memory", "what it is"), [(f"`{name}`", about) for name, (_, about) in MEMORIES.items()])


def checks() -> str:
    """The promises that the exam for environments looks at."""
    return markdown(("promise", "what is examined"), [(f"`{name}`", about) for name, about in CHECKS.items()])


def metrics() -> str:
    """Every metric."""
    rows = [(f"`{name}`", metric.unit, metric.about) for name, metric in METRICS.items()]
    return markdown(("metric", "unit", "what it means"), rows)


def extras() -> str:
    """The optional dependencies, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = [
        (f"`fledge[{name}]`", ", ".join(f"`{x}`" for x in of)) for name, of in project["optional-dependencies"].items()
    ]
    return markdown(("extra", "installs"), rows)


def speed(folder: Path = ROOT / "benchmarks" / "results") -> str:
    """The table of every stored `speed.json` of benchmarks/speed.py (any file name), under a line about its machine."""
    parts = [_benchmark(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    return "\n".join(parts) or "*Not measured yet: no file in benchmarks/results.*\n"


def _benchmark(result: Mapping[str, Any]) -> str:
    about, rows = result["machine"], result["rows"]
    versions = ", ".join(f"{name} {about['versions'][key]}" for name, key in (("JAX", "jax"), ("PyTorch", "torch")))
    head = (
        f"{about['cpu']}, {about['cores']} cores, {about['device']}; {versions}; {about['date'][:10]}; large float32 "
        f"products: {about['matrix_gflops']:.0f} GFLOP/s.\n\n"
    )
    return head + markdown(SPEED, [_speed_row(row) for row in rows], "lrrrrrrrl")


SPEED = (
    "memory",
    "environments",
    "steps/s",
    "PyTorch",
    "ratio",
    "compile",
    "env / act / update",
    "of floor",
    "bound by",
)


def _speed_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    peer, ratio = row["peer_steps_per_s"], row["ratio"]
    shares = (row[f"share_{part}"] for part in ("environment", "acting", "update"))
    return (
        f"{row['memory']} {row['size']}",
        f"{row['n_envs']:,}",
        f"{row['steps_per_s'] / 1000:.0f}k",
        "–" if peer is None else f"{peer / 1000:.0f}k",
        "–" if ratio is None else f"{ratio:.1f}",
        f"{row['compile_s']:.1f} s",
        " / ".join(f"{share:.0%}" for share in shares),
        f"{row['floor_share']:.0%}",
        row["bound"],
    )


MUJOCO = ("environments", "steps/s", "`mujoco.rollout`", "ours over it", "Gymnasium", "ours over it", "with learning")


def mujoco(folder: Path = ROOT / "benchmarks" / "results" / "mujoco") -> str:
    """The table of every stored `mujoco.json` of benchmarks/mujoco.py, under a line about its machine."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        about, rows = result["machine"], []
        for row in result["rows"]:
            ours, engine, peer, learning = (
                f"{row[name] / 1000:.1f}k" for name in ("fledge", "engine", "gymnasium", "learning")
            )
            shares = f"{row['of_engine']:.2f}", f"{row['over_gymnasium']:.2f}"
            rows.append((f"{row['n_envs']:,}", ours, engine, shares[0], peer, shares[1], learning))
        versions = about["versions"]
        head = (
            f"{about['cpu']}, {about['cores']} cores; JAX {versions['jax']}, MuJoCo {versions['mujoco']}, Gymnasium "
            f"{versions['gymnasium']}; {about['date'][:10]}.\n\n"
        )
        parts.append(head + markdown(MUJOCO, rows, "rrrrrrr"))
    return "\n".join(parts)


TABLES: dict[str, Callable[[], str]] = {
    "environments": environments,
    "recipes": recipe_table,
    "memories": memories,
    "checks": checks,
    "metrics": metrics,
    "extras": extras,
    "speed": speed,
    "mujoco": mujoco,
}


def renewed(text: str) -> str:
    """A page with its tables made anew."""

    def renew(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- table: {name} -->\n{TABLES[name]()}<!-- end of table -->"

    return MARK.sub(renew, text)


def main(arguments: Sequence[str]) -> int:
    """Renew or check; returns the exit code."""
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = renewed(text)
        if new != text:
            stale.append(page)
            if "--check" not in arguments:
                page.write_text(new, encoding="utf-8")
    for page in stale:
        print(page.relative_to(ROOT))
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
