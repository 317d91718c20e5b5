"""Serving, exporting and auditing annotation studies: what opens files, databases and sockets for the studio."""

from __future__ import annotations

import io
import os
import secrets
import socket
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fledge.annotation.audit import Audit
from fledge.annotation.design import StudyDesign
from fledge.annotation.design_files import read_design
from fledge.annotation.export import audit_of, design_in, files_of, table_in, write_export
from fledge.annotation.formats import FORMATS, write_as
from fledge.annotation.planned import plan_of
from fledge.annotation.simulate import power as simulated_power
from fledge.annotation.store import Store
from fledge.core.errors import ConfigError, DataError, MissingExtra, need

DATABASE = "study.sqlite"
TOKEN = "FLEDGE_ANNOTATE_TOKEN"
"""The environment variable of the researchers' token."""


def open_store(where: str | Path) -> Store:
    """The database at a folder, a SQLite file or a URL (`postgresql+psycopg://…`).

    Raises:
        ConfigError: the URL names a database that SQLAlchemy does not know.
        MissingExtra: SQLAlchemy, or the database's driver, is not installed.
    """
    sa = need("sqlalchemy", "annotate")
    if "://" in str(where):
        try:
            engine = sa.create_engine(str(where), pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"This database needs the package '{error.name}'. For PostgreSQL: pip install 'fledge[postgresql]'."
            ) from None
        except sa.exc.ArgumentError as error:
            raise ConfigError(
                f"'{where}' is no database: {error}. Write for example postgresql+psycopg://user@host/name"
            ) from None
    else:
        path = Path(where)
        path = path if path.suffix in (".sqlite", ".db") else path / DATABASE
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=56, connect_args={"timeout": 60})
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _sturdy)
    return Store(engine)


def _sturdy(connection: Any, _: Any) -> None:
    """Readers beside one writer; what is committed survives a kill and a loss of power."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def existing(where: str | Path) -> Store:
    """The database of a study that was started.

    Raises:
        DataError: there is none.
    """
    path = Path(where)
    if "://" not in str(where):
        file = path if path.suffix in (".sqlite", ".db") else path / DATABASE
        if not file.exists():
            raise DataError(f"There is no study at {file}. Name the folder that 'fledge annotate serve' printed.")
    store = open_store(where)
    store.study()
    return store


def researcher_token() -> tuple[str, bool]:
    """The token of the researchers' pages from the environment, or a new one; and whether it is new.

    Raises:
        ConfigError: the one in the environment is too short to be safe.
    """
    token = os.environ.get(TOKEN, "")
    if token and len(token) < 16:
        raise ConfigError(
            f"{TOKEN} has {len(token)} characters; at least 16 are needed. Leave it out to get a new one."
        )
    return (token, False) if token else (secrets.token_urlsafe(24), True)


def serve(
    study: Path,
    *,
    data: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a study until it is stopped. Stopping or killing loses nothing; serving again goes on.

    Args:
        study: its YAML file.
        data: where the database is: a folder or a URL; by default a folder beside the file.
        host: the address to listen at.
        port: and the port; 0 takes a free one.
        say: how to speak to the person who started it.

    Raises:
        ConfigError: the file is wrong, the data is another study's, or the port is taken.
        MissingExtra: FastAPI or uvicorn is not installed.
    """
    from fledge.annotation.web import make_app

    uvicorn = need("uvicorn", "annotate")
    design = read_design(study)
    where = data if data is not None else Path(study).with_name(f"{Path(study).stem}-data")
    token, new = researcher_token()
    app = make_app(design, open_store(where), token=token)
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    shown = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::") else host
    say(f"{design.title}: {len(design.items)} items, {len(design.plan.arms)} arms, {design.plan.places} places")
    say(
        f"participants  http://{shown}:{port}/?PROLIFIC_PID={{{{%PROLIFIC_PID%}}}}&STUDY_ID={{{{%STUDY_ID%}}}}&SESSION_ID={{{{%SESSION_ID%}}}}"
    )
    say(f"researchers   http://{shown}:{port}/researcher")
    if new:
        say(f"token         {token}   (shown once; set {TOKEN} to choose your own)")
    say(f"data          {_without_password(where)}")
    # The access log would write down the platform's ids: they are in the first address.
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5
    )
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"{host}:{port} cannot be used: {error.strerror}. Choose another one (--port 0: any)."
        ) from None
    return listening


def _without_password(where: str | Path) -> str:
    if "://" not in str(where):
        return str(where)
    return str(need("sqlalchemy", "annotate").make_url(str(where)).render_as_string(hide_password=True))


def export(where: str, out: Path, form: str = "csv") -> list[Path]:
    """Write everything that a study collected into a folder; returns the files.

    Args:
        where: a data folder, a database URL, or the address of a running study (https://…, with the token in the
            environment).
        out: the folder to write to.
        form: a format of `fledge.annotation.formats`; the annotations are written in it too.

    Raises:
        ConfigError: there is no such format, or no token for an address.
        DataError: there is no study.
    """
    if form not in FORMATS:
        from fledge.core.errors import unknown

        raise unknown("format", form, FORMATS)
    if where.startswith(("http://", "https://")):
        return _fetch(where, Path(out), form)
    store = existing(where)
    design = design_in(store)
    written = write_export(files_of(store, design, time.time()), Path(out))
    return [*written, *_also(table_in(store, design), Path(out), form)]


def _also(table: Any, out: Path, form: str) -> list[Path]:
    if form in ("csv", "jsonl"):
        return []
    ending = {"parquet": "parquet", "prodigy": "jsonl"}.get(form, "json")
    name = f"annotations.{ending}" if form == "parquet" else f"annotations-{form}.{ending}"
    return [write_as(out / name, table, form)]


def _fetch(address: str, out: Path, form: str) -> list[Path]:
    from fledge.data.annotations import read_table

    token = os.environ.get(TOKEN, "")
    if not token:
        raise ConfigError(f"Set {TOKEN} to the study's token: exporting over the network needs it.")
    url = f"{address.split('?')[0].rstrip('/')}/researcher/export.zip"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            archive = zipfile.ZipFile(io.BytesIO(reply.read()))
    except (urllib.error.URLError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{url} gave no export: {error}. Check the address and {TOKEN}.") from None
    files = {Path(name).name: archive.read(name).decode() for name in archive.namelist()}
    written = write_export(files, out)
    return [*written, *_also(read_table(out / "annotations.jsonl"), out, form)]


def audit(where: str) -> tuple[StudyDesign, Audit]:
    """The study at a place, and the audit of its assignment.

    Raises:
        DataError: there is no study.
    """
    store = existing(where)
    design = design_in(store)
    return design, audit_of(store, design, time.time())


@dataclass(frozen=True)
class PowerRow:
    """What simulated studies found of one difference."""

    labels: int
    """Annotators of each item and condition."""
    annotators: int
    construct: str
    condition: str
    """Compared with the first."""
    planted: float
    found: float
    """Share of studies with p < 0.05."""
    joint: float
    """The same of the joint test of all conditions."""
    coverage: float
    """Share of studies whose 95 % interval holds what was planted."""


def power(
    study: Path,
    effects: Mapping[str, float] | None = None,
    *,
    labels: Sequence[int] = (),
    n_studies: int = 200,
    dropout: float = 0.0,
    seed: int = 0,
) -> list[PowerRow]:
    """How often a study like this would find what is planted.

    Args:
        study: its YAML file.
        effects: planted in all constructs, over those of the file (`fledge.annotation.simulate.Planted`).
        labels: annotators of each item and condition, one row each; by default the study's.
        n_studies: how many are simulated.
        dropout: share of annotators who leave before the second pass of a blocked condition.
        seed: of the simulation.

    Raises:
        ConfigError: the study, an effect or its size is wrong.
    """
    design, rows = read_design(study), []
    for n in labels or [design.plan.labels]:
        plan = plan_of(design, effects, labels=n, dropout=dropout)
        for construct, truth in ((name, plan.truth(name)) for name in plan.constructs):
            found, first = simulated_power(plan, construct, n_studies=n_studies, seed=seed), next(iter(truth))
            for name, share in found.detected.items():
                numbers = truth[name] - truth[first], share, found.joint, found.coverage[name]
                rows.append(PowerRow(n, found.n_annotators, construct, name, *numbers))
    return rows
