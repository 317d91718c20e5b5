"""Two hundred annotators at once against a real server: every cell is filled exactly, nobody's label is lost."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from serving import TOKEN, Server, first_answers, form, hidden, stage_of, study_text

from fledge.annotation.export import audit_of, design_in, table_in
from fledge.annotation.schema import schema
from fledge.cli.main import main
from fledge.core.errors import DataError
from fledge.run.annotate import export, open_store

pytest.importorskip("fastapi", reason="needs the extra 'annotate'")
httpx = pytest.importorskip("httpx", reason="needs httpx")
CROWD, PLACES = 204, 200


async def annotate(url: str, number: int, gate: asyncio.Semaphore) -> str:
    """One annotator from the consent to the end; returns where they ended."""
    async with httpx.AsyncClient(base_url=url, timeout=120, follow_redirects=True, verify=False) as client:
        async with gate:
            page = (await client.get(f"/?PROLIFIC_PID=p{number}&SESSION_ID=s{number}")).text
        page = (await client.post("/consent", **form(hidden(page) | {"agree": "yes"}))).text
        for _ in range(10):
            stage = stage_of(page)
            if stage not in ("ready", "task"):
                return stage
            sent = [*hidden(page).items(), *first_answers(page)]
            page = (await client.post(f"/study/{stage}", **form(sent))).text
    return "lost"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """The study's store, and where everybody ended."""
    folder = tmp_path_factory.mktemp("crowd")
    (folder / "study.yaml").write_text(study_text(labels=4, batch_size=1, n_items=10))
    server = Server(folder / "study.yaml", folder / "data").start()

    async def everybody() -> list[str]:
        gate = asyncio.Semaphore(CROWD)
        return await asyncio.gather(*(annotate(server.url, i, gate) for i in range(CROWD)))

    try:
        ended = asyncio.run(everybody())
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("FLEDGE_ANNOTATE_TOKEN", TOKEN)
            export(server.url, folder / "by-web")
            environment.setenv("FLEDGE_ANNOTATE_TOKEN", "another-token-0123456789")
            with pytest.raises(DataError, match="403"):
                export(server.url, folder / "refused")
    finally:
        server.kill()
    store = open_store(folder / "data")
    yield store, ended, folder
    store.engine.dispose()


@pytest.mark.timeout(150)
def test_all_places_are_taken_and_the_rest_is_turned_away(crowd):
    assert Counter(crowd[1]) == {"done": PLACES, "full": CROWD - PLACES}


@pytest.mark.timeout(150)
def test_every_cell_holds_exactly_its_target(crowd):
    store = crowd[0]
    found = audit_of(store, design_in(store), 0.0)
    assert found.exact
    assert [(arm.assigned, arm.completed) for arm in found.arms] == [(40, 40)] * 5


@pytest.mark.timeout(150)
def test_no_label_is_missing_or_there_twice(crowd):
    store = crowd[0]
    rows = table_in(store, design_in(store)).rows
    assert {row.missing for row in rows} == {""}
    assert set(Counter((row.item, row.construct, row.condition) for row in rows).values()) == {4}


@pytest.mark.timeout(150)
def test_the_export_over_the_web_is_the_one_from_the_folder(crowd, capsys):
    folder = crowd[2]
    assert (
        main(["annotate", "export", str(folder / "data"), "--out", str(folder / "by-hand"), "--format", "prodigy"]) == 0
    )
    assert "annotations-prodigy.jsonl" in capsys.readouterr().out
    for name in ("annotations.csv", "revisions.csv", "assignments.csv", "instrument.json"):
        assert (folder / "by-web" / name).read_bytes() == (folder / "by-hand" / name).read_bytes()


@pytest.mark.timeout(150)
def test_the_export_of_the_page_is_analysed_even_where_everybody_says_the_same(crowd):
    pytest.importorskip("statsmodels", reason="needs the extra 'annotation'")
    quick = ["model.n_resamples=10", "labels.n_resamples=10", "labels.mixed=false", "workers=1", "curves.fractions=[]"]
    out = crowd[2] / "analysis"
    assert main(["annotate", "analyse", str(crowd[2] / "by-web"), "--out", str(out), *quick]) == 0
    page = (out / "report.html").read_text()
    assert "4 people were turned away" in page and page.count("<td>40</td>") >= 10


@pytest.mark.timeout(150)
def test_the_audit_on_the_command_line_says_that_cells_are_exact(crowd, capsys):
    assert main(["annotate", "audit", str(crowd[2] / "data")]) == 0
    assert "every cell exact: yes; over-filled: 0; turned away: 4" in capsys.readouterr().out


def test_the_tables_can_be_made_in_postgresql():
    sa = pytest.importorskip("sqlalchemy", reason="needs the extra 'annotate'")
    dialect = pytest.importorskip("sqlalchemy.dialects.postgresql").dialect()
    made = [str(sa.schema.CreateTable(t).compile(dialect=dialect)) for t in schema().metadata.sorted_tables]
    assert len(made) == 9
    assert "n SERIAL NOT NULL" in "".join(made)
