"""The exam that every registered annotator takes: one answer per item and question, the same when asked again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fledge.core.annotations import Annotation, Item
from fledge.core.contracts import Annotator
from fledge.core.errors import ContractError
from fledge.core.instruments import Ask, Block, Condition, Construct, Instrument
from fledge.data.annotator_check import check_annotator
from fledge.data.annotators import EmbeddingAnnotator, NoisyAnnotator, PeopleAnnotator
from fledge.data.ensembles import EnsembleAnnotator
from fledge.run.annotators import ANNOTATORS
from fledge.run.chats import Asking
from fledge.run.labeller import OpenAICompatAnnotator, ReplayAnnotator
from fledge.run.local_endpoint import LocalEndpoint

TWO = Instrument(
    "two",
    (Construct("up", "Is it up?"), Construct("out", "Is it out?")),
    (Condition("A", (Block((Ask(("up",)), Ask(("out",)))),)),),
)
ITEMS = [Item(str(i), f"text {i}") for i in range(6)]


def people():
    return PeopleAnnotator(
        Annotation(item.id, name, "ann", str(i % 2)) for i, item in enumerate(ITEMS[:5]) for name in ("up", "out")
    )


@pytest.fixture(scope="module")
def server():
    with LocalEndpoint() as server:
        yield server


@pytest.fixture
def build(server, tmp_path):
    """An annotator of each kind by name."""
    endpoint = OpenAICompatAnnotator(server.url, "m", asking=Asking(mode="normalised"), cache=tmp_path / "cache")

    def replay():
        endpoint.annotate(ITEMS, TWO)
        endpoint.cache.write_pack(tmp_path / "pack")
        return ReplayAnnotator(tmp_path / "pack")

    return {
        "endpoint": lambda: endpoint,
        "replay": replay,
        "people": people,
        "embedding": lambda: EmbeddingAnnotator(lambda items: np.array([float(item.id) - 2 for item in items])),
        "noisy": lambda: NoisyAnnotator(endpoint, flip=0.3, temperature=2.0),
        "ensemble": lambda: EnsembleAnnotator([people(), endpoint], combine="vote"),
    }


@pytest.mark.parametrize("name", sorted(ANNOTATORS))
def test_a_registered_annotator_keeps_the_contract(name, build):
    annotator = build[name]()
    assert isinstance(annotator, ANNOTATORS[name][0])
    check_annotator(annotator, ITEMS, TWO, several=name == "people")


def test_an_endpoint_is_paid_once_for_the_whole_exam(server, build):
    before = len(server.arrived)
    check_annotator(build["endpoint"](), ITEMS, TWO)
    assert len(server.arrived) - before == 12


class Spoilt(Annotator):
    """An annotator whose answers something is done to; `spoil` is handed the answers and how often it was asked."""

    def __init__(self, spoil):
        self.spoil, self.times = spoil, 0

    def annotate(self, items, instrument, *, condition="", replicate=0):
        self.times += 1
        found = [Annotation(item.id, name, "me", "1") for item in items for name in ("up", "out")]
        return self.spoil(found, self.times)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda found, _: found[:-1], "no answer about 'out'"),
        (lambda found, _: found * 2, "twice"),
        (lambda found, _: [*found, Annotation("who", "up", "me", "1")], "not asked"),
        (lambda found, _: [replace(a, value="maybe") for a in found], "none of"),
        (lambda found, _: [replace(a, probability={"1": 0.9, "0": 0.9}) for a in found], "sum to 1"),
        (lambda found, _: [replace(a, probability={"yes": 1.0}) for a in found], "not of"),
        (lambda found, n: [replace(a, value=str(n % 2)) for a in found], "differently"),
    ],
)
def test_a_broken_promise_is_named(spoil, message):
    with pytest.raises(ContractError, match=message):
        check_annotator(Spoilt(spoil), ITEMS, TWO)


def test_the_class_that_the_exam_spoils_would_pass_it_unspoilt():
    check_annotator(Spoilt(lambda found, _: found), ITEMS, TWO)
