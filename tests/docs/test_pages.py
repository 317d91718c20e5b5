"""The documentation speaks of things that exist: commands, pages, recipes, links; its tables are fresh."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import typing
from pathlib import Path

import pytest
import typer

sys.path.insert(0, str(Path(__file__).parent))

from pages import DOCS, ROOT, pages

from fledge.cli.main import app
from fledge.envs.families import FAMILIES
from fledge.envs.findings import CHECKS
from fledge.run import recipe as recipes

COMMANDS: dict[str, typing.Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SPOKEN = re.compile(r"(?<![\w/])fledge ([a-z]+)\b(.*)")


def _code(text: str) -> list[str]:
    """Fenced lines and `inline code`: where commands are named."""
    fenced = re.findall(r"^```(?:bash|console|text)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in fenced for line in block.splitlines()] + re.findall(r"`(fledge [^`\n]+)`", text)


def _tables():
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def spoken() -> list[tuple[str, str, str]]:
    """Page, command and the rest of the line, for each `fledge …` that the documentation names."""
    lines = [(page.name, line) for page in pages() for line in _code(page.read_text(encoding="utf-8"))]
    matches = [(name, SPOKEN.search(line)) for name, line in lines]
    return [(name, match[1], match[2]) for name, match in matches if match is not None]


def test_every_command_that_is_named_exists():
    assert {(page, command) for page, command, _ in spoken() if command not in COMMANDS} == set()


def test_every_option_that_is_named_exists():
    unknown = set()
    for page, command, rest in spoken():
        meant = COMMANDS[command]
        for word in rest.split()[:1]:
            meant = getattr(meant, "commands", {}).get(word, meant)  # `fledge protein rank …`
        known = {option for parameter in meant.params for option in parameter.opts}
        unknown |= {(page, command, word) for word in re.findall(r"--[a-z-]+", rest) if word not in known}
    assert unknown == set()


def test_every_command_is_named_somewhere():
    assert set(COMMANDS) - {command for _, command, _ in spoken()} == set()


def test_every_recipe_that_is_named_exists():
    names = {
        (page.name, name)
        for page in pages()
        for name in re.findall(r"`((?:rl2|memoryless|oracle|study)-[a-z0-9-]+)`", page.read_text(encoding="utf-8"))
    }
    own = {"rl2-bandit-small", "rl2-lock", "study-memory"}
    assert {(page, name) for page, name in names if name not in {*recipes.names(), *own}} == set()


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": ([\w/-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    prose = re.sub(r"^```.*?^```$|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)", prose)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_generated_table_is_fresh():
    """All but most of the optima, which take long to work out (`python docs/tables.py --check` does it)."""
    tables = _tables()
    page = (DOCS / "methods" / "environments.md").read_text(encoding="utf-8")
    optima = dict(re.findall(r"^\| `([\w-]+)` .*\| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE))
    assert sorted(optima) == sorted(FAMILIES)
    names = iter(FAMILIES)

    def optimum(env):
        name = next(names)
        return tables.told_optimum(env) if name in ("gridnav", "hall", "t-l") else optima[name]

    tables.TABLES["environments"] = lambda: tables.environments(optimum)
    stale = [p.name for p in pages() if tables.renewed(text := p.read_text(encoding="utf-8")) != text]
    assert stale == [], "Run: python docs/tables.py"


def test_a_stored_benchmark_becomes_a_table(tmp_path):
    versions = {"jax": "0.10.2", "torch": None}
    about = {"cpu": "Some CPU", "cores": 2, "device": "TFRT_CPU_0", "versions": versions, "date": "2026-11-22T04:00:00"}
    row = {
        "memory": "gru",
        "size": 64,
        "n_envs": 1024,
        "steps_per_s": 216_400.0,
        "compile_s": 7.25,
        "bound": "products",
    }
    row |= {"share_environment": 0.1, "share_acting": 0.2, "share_update": 0.7, "floor_share": 0.31}
    row |= {"peer_steps_per_s": None, "ratio": None}
    (tmp_path / "a.json").write_text(json.dumps({"machine": about | {"matrix_gflops": 81.0}, "rows": [row]}))
    assert "| gru 64 | 1,024 | 216k | – | – | 7.2 s | 10% / 20% / 70% | 31% | products |" in _tables().speed(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        (r"(\d+) (?:named )?environment families|(\d+) named families", len(FAMILIES)),
        (r"of (\d+) classes|(\d+) classes behind", len({row.target for row in FAMILIES.values()})),
        (r"(?:all )?(\d+) promises", len(CHECKS)),
    ],
)
def test_numbers_of_things_are_right_wherever_they_are_written(pattern, count):
    text = {page.name: re.sub(r"\W\*\*|\*\*", " ", page.read_text(encoding="utf-8")) for page in pages()}
    found = {(name, int(next(filter(None, m)))) for name, t in text.items() for m in re.findall(f"(?:{pattern})()", t)}
    assert found
    assert {entry for entry in found if entry[1] != count} == set()
