"""The pages that promise to be executed are executed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fledge.agents.memories import MEMORIES

sys.path.insert(0, str(Path(__file__).parent))

from pages import DOCS, blocks, run_page

EXECUTED = (
    "tour.md",
    "guides/add-an-environment.md",
    "guides/adapters.md",
    "guides/add-a-memory.md",
    "guides/add-a-recipe.md",
    "methods/analyses.md",
    "methods/annotation-sensitivity.md",
    "guides/label-with-a-model.md",
    "guides/annotation-page.md",
    "methods/evaluation.md",
    "methods/hypernetworks.md",
    "methods/maml.md",
    "methods/memories.md",
    "methods/sfbc.md",
    "methods/protein.md",
    *(f"contracts/{page.name}" for page in sorted((DOCS / "contracts").glob("*.md")) if page.name != "index.md"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; what a page adds to tables and modules is taken away again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    memories, modules = dict(MEMORIES), set(sys.modules)
    yield tmp_path
    MEMORIES.clear()
    MEMORIES.update(memories)
    for name in set(sys.modules) - modules:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


@pytest.mark.parametrize("name", EXECUTED)
def test_every_block_of_the_page_runs_and_prints_what_it_says(name, folder):
    assert run_page(DOCS / name) > 0


def test_the_tour_has_no_block_that_is_not_executed():
    assert {block.lang for block in blocks(DOCS / "tour.md")} == {"python", "bash", "text"}
