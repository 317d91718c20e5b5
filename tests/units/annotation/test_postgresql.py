"""The same study in a real PostgreSQL: many annotators at once, a server that is killed, the export."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from serving import Server, study_text
from test_crowd import annotate

from fledge.annotation.export import audit_of, design_in, table_in
from fledge.run.annotate import open_store

pytest.importorskip("fastapi", reason="needs the extra 'annotate'")
pytest.importorskip("httpx", reason="needs httpx")
pytest.importorskip("psycopg", reason="needs psycopg, PostgreSQL's driver")
CROWD, PLACES = 24, 20


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs; skips where it is not installed."""
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip(f"needs PostgreSQL's server ({name} was not found)")
    return found


@pytest.fixture(scope="module")
def url():
    """A database of a cluster that lives as long as these tests."""
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    as_user: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="fledge-pg-"))
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        try:
            shutil.chown(folder, "postgres", "postgres")
        except LookupError:
            pytest.skip("needs a user other than root to run PostgreSQL's server")
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    data, log = folder / "data", folder / "log"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
    subprocess.run([*as_user, initdb, "-D", data, "-A", "trust", "-U", "fledge", "--no-sync"], **quiet)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run([*as_user, pg_ctl, "-D", data, "-l", log, "-o", options, "-w", "start"], **quiet)
    try:
        yield f"postgresql+psycopg://fledge@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*as_user, pg_ctl, "-D", data, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def store(url, tmp_path_factory):
    """The study's store after two crowds, with the server killed between them."""
    study = tmp_path_factory.mktemp("study") / "study.yaml"
    study.write_text(study_text(labels=2, batch_size=1, n_items=2))
    server = Server(study, url)

    async def crowd(numbers: range) -> list[str]:
        gate = asyncio.Semaphore(CROWD)
        return await asyncio.gather(*(annotate(server.url, i, gate) for i in numbers))

    try:
        server.start()
        first = asyncio.run(crowd(range(CROWD // 2)))
        server.kill()
        server.start()
        second = asyncio.run(crowd(range(CROWD // 2, CROWD)))
    finally:
        server.kill()
    found = open_store(url)
    yield found, first + second
    found.engine.dispose()


@pytest.mark.timeout(150)
def test_cells_in_postgresql_are_filled_exactly(store):
    assert Counter(store[1]) == {"done": PLACES, "full": CROWD - PLACES}
    assert audit_of(store[0], design_in(store[0]), 0.0).exact


@pytest.mark.timeout(150)
def test_postgresql_holds_every_label_once(store):
    rows = table_in(store[0], design_in(store[0])).rows
    assert {row.missing for row in rows} == {""}
    assert set(Counter((row.item, row.construct, row.condition) for row in rows).values()) == {2}
