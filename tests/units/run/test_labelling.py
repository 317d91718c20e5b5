"""Labelling against a real HTTP server on this machine that misbehaves on purpose."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fledge.core.annotations import Item
from fledge.core.errors import ConfigError, DataError
from fledge.core.instruments import Ask, Block, Condition, Construct, Instrument
from fledge.data.pictures import frames_item
from fledge.run.chats import Asking
from fledge.run.endpoint import Pace
from fledge.run.labeller import OpenAICompatAnnotator, ReplayAnnotator
from fledge.run.limits import Budget
from fledge.run.local_endpoint import LocalEndpoint, Misbehaviour
from fledge.run.reply_cache import ReplyCache

UP = Instrument("up", (Construct("up", "Is it up?"),), (Condition("A", (Block((Ask(("up",)),)),)),))
NORMALISED = Asking(mode="normalised")
QUICK = Pace(workers=8, first_wait=0.002, longest_wait=1.0, timeout=20.0)


@pytest.fixture(scope="module", autouse=True)
def quick_turns():
    """The server is a thread: without this, each of its packets waits up to 5 ms for the interpreter's lock."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def items(n):
    return [Item(f"i{i}", f"text {i}") for i in range(n)]


def annotator(server, **settings):
    return OpenAICompatAnnotator(server.url, "m", **{"asking": NORMALISED, "pace": QUICK, **settings})


def marked(labelling):
    """How often each item has an answer or a mark."""
    failed = [name for failure in labelling.failures for name in failure.items]
    return Counter([a.item for a in labelling.annotations] + failed + labelling.left)


BAD = Misbehaviour(
    too_many_every=7, error_every=11, slow_every=97, slow_seconds=0.3, no_logprobs_every=13, truncated_every=29,
    broken_every=101,
)  # fmt: skip


@pytest.fixture(scope="module")
def two_thousand(tmp_path_factory):
    """2,000 items labelled by a server that does everything wrong that a server can."""
    cache = tmp_path_factory.mktemp("labels") / "cache.sqlite"
    with LocalEndpoint(misbehaviour=BAD) as server:
        labelling = annotator(server, cache=cache, pace=Pace(workers=16, first_wait=0.002)).label(items(2000), UP)
        return labelling, server.arrived, server, cache


def test_every_item_is_labelled_once_or_marked(two_thousand):
    labelling, _, _, _ = two_thousand
    assert marked(labelling) == Counter({f"i{i}": 1 for i in range(2000)})


def test_no_answer_is_paid_for_twice(two_thousand):
    _, arrived, _, _ = two_thousand
    paid = Counter(request["key"] for request in arrived if request["status"] == 200)
    assert set(paid.values()) == {1}


def test_dropped_logprobs_are_abstentions_and_nothing_else_is(two_thousand):
    labelling, _, _, _ = two_thousand
    values = Counter((a.value, a.missing) for a in labelling.annotations)
    assert set(values) == {("1", ""), (None, "unparsable")}
    assert 0.04 < values[None, "unparsable"] / 2000 < 0.12


def test_replies_of_a_finished_job_need_no_server(two_thousand):
    labelling, arrived, server, cache = two_thousand
    before = len(arrived)
    again = annotator(server, cache=cache).label(items(2000), UP)  # the server is gone by now
    assert again.annotations == labelling.annotations and len(arrived) == before


def test_a_budget_holds_to_the_request_with_many_workers(tmp_path):
    with LocalEndpoint(misbehaviour=Misbehaviour(error_every=5)) as server:
        labelling = annotator(server, cache=tmp_path / "c", budget=Budget(requests=60), pace=QUICK).label(
            items(100), UP
        )
        assert len(server.arrived) == labelling.spent.requests == 60
    assert marked(labelling) == Counter({f"i{i}": 1 for i in range(100)})
    assert "60 requests" in labelling.stopped and labelling.left


def test_a_budget_of_tokens_is_not_overdrawn():
    with LocalEndpoint() as server:
        labelling = annotator(server, budget=Budget(tokens=500)).label(items(100), UP)
    assert 400 < labelling.spent.tokens <= 500


def test_stopping_at_the_budget_and_going_on_gives_what_one_run_gives(tmp_path):
    with LocalEndpoint() as server:
        annotator(server, cache=tmp_path / "a", budget=Budget(requests=7)).label(items(20), UP)
        resumed = annotator(server, cache=tmp_path / "a", budget=Budget(requests=20)).label(items(20), UP)
        whole = annotator(server, cache=tmp_path / "b").label(items(20), UP)

    def what(labelling):
        return [(a.item, a.value, a.probability, a.raw) for a in labelling.annotations]

    assert what(resumed) == what(whole) and resumed.spent.requests == 20


def test_a_second_run_cannot_spend_what_the_first_has_spent(tmp_path):
    with LocalEndpoint() as server:
        for _ in range(2):
            annotator(server, cache=tmp_path / "a", budget=Budget(requests=7)).label(items(20), UP)
        assert len(server.arrived) == 7


KILLED = """
    import sys
    from fledge.core.annotations import Item
    from fledge.core.instruments import Ask, Block, Condition, Construct, Instrument
    from fledge.run.chats import Asking
    from fledge.run.endpoint import Pace
    from fledge.run.labeller import OpenAICompatAnnotator

    url, cache = sys.argv[1:]
    up = Instrument("up", (Construct("up", "Is it up?"),), (Condition("A", (Block((Ask(("up",)),)),)),))
    annotator = OpenAICompatAnnotator(url, "m", cache=cache, asking=Asking(mode="normalised"), pace=Pace(workers=4))
    annotator.label([Item(f"i{i}", f"text {i}") for i in range(300)], up)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A job in a process of its own, killed with SIGKILL in the middle, and gone on with."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "job.py").write_text(textwrap.dedent(KILLED))
    source = str(Path(__file__).resolve().parents[3] / "src")
    with LocalEndpoint(latency=0.02) as server:
        command = [sys.executable, str(folder / "job.py"), server.url, str(folder / "cache.sqlite")]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": source})
        deadline = time.monotonic() + 60
        while len(server.arrived) < 60 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len(server.arrived)
        resumed = annotator(server, cache=folder / "cache.sqlite").label(items(300), UP)
        return before, list(server.arrived), resumed, server, folder / "cache.sqlite"


def test_a_killed_job_was_in_the_middle(killed):
    before, arrived, _, _, _ = killed
    assert 60 <= before < 296 <= len(arrived) <= 300  # what was written down but not yet sent counts as sent


def test_a_killed_job_goes_on_without_repeating_a_request(killed):
    _, arrived, _, _, _ = killed
    assert set(Counter(request["key"] for request in arrived).values()) == {1}


def test_what_was_on_its_way_is_marked_as_in_doubt(killed):
    _, _, resumed, _, _ = killed
    assert {failure.status for failure in resumed.failures} <= {"in_doubt"}
    assert len(resumed.failures) <= 4
    assert marked(resumed) == Counter({f"i{i}": 1 for i in range(300)})


def test_what_is_in_doubt_is_asked_again_where_that_is_wanted(tmp_path):
    with LocalEndpoint() as server:
        annotator(server, cache=tmp_path / "whole").label(items(1), UP)
        cache = ReplyCache(tmp_path / "cache")
        cache.sending(server.arrived[0]["key"], "job", 10, 1)  # and then the lights went out
        assert [failure.status for failure in annotator(server, cache=cache).label(items(1), UP).failures] == [
            "in_doubt"
        ]
        assert len(server.arrived) == 1
        assert len(annotator(server, cache=cache, ask_again=True).label(items(1), UP).annotations) == 1


@pytest.fixture
def no_sockets(monkeypatch):
    """Whoever opens a socket fails."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def recorded(tmp_path):
    """A cache of two answers and its label pack."""
    with LocalEndpoint(lambda request: {"N": 0.8, "Y": 0.2}) as server:
        asking = annotator(server, cache=tmp_path / "cache.sqlite")
        labelling = asking.label(items(2), UP)
        asking.cache.write_pack(tmp_path / "pack.jsonl")
        asking.cache.close()
    return labelling.annotations, tmp_path, server


def test_cache_only_opens_no_socket_and_needs_no_key(recorded, no_sockets):
    annotations, folder, server = recorded
    asking = annotator(server, cache=folder / "cache.sqlite", cache_mode="cache_only", api_key_env="FLEDGE_NO_SUCH_KEY")
    assert asking.label(items(2), UP).annotations == annotations


def test_cache_only_refuses_what_was_not_recorded(recorded, no_sockets):
    _, folder, server = recorded
    with pytest.raises(DataError, match="no answer"):
        annotator(server, cache=folder / "cache.sqlite", cache_mode="cache_only").label(items(3), UP)


@pytest.mark.parametrize("name", ["cache.sqlite", "pack.jsonl"])
def test_recorded_answers_replay_exactly(recorded, no_sockets, name):
    annotations, folder, _ = recorded
    assert ReplayAnnotator(folder / name).annotate(items(2), UP) == annotations


def test_a_replay_can_leave_out_what_is_missing(recorded):
    annotations, folder, _ = recorded
    assert ReplayAnnotator(folder / "pack.jsonl", skip_missing=True).annotate(items(5), UP) == annotations


def test_recording_asks_anew(recorded):
    _, folder, _ = recorded
    with LocalEndpoint() as server:
        for _ in range(2):
            annotator(server, cache=folder / "new", cache_mode="record").label(items(2), UP)
        assert len(server.arrived) == 4


def test_a_pack_that_was_changed_by_hand_is_refused(recorded):
    _, folder, _ = recorded
    path = folder / "pack.jsonl"
    path.write_text(path.read_text().replace("text 0", "text 7"))
    with pytest.raises(DataError, match="changed by hand"):
        ReplayAnnotator(path)


@pytest.mark.parametrize("change", ["model", "wording", "replicate", "pixels"])
def test_another_question_is_another_request(change):
    pixels = [np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)]
    one, other = (frames_item("a", [frame]) for frame in pixels)
    down = Instrument("up", (Construct("up", "Is it down?"),), UP.conditions)
    with LocalEndpoint() as server:
        cache = ReplyCache(":memory:")
        annotator(server, cache=cache).label([one], UP)
        changed = OpenAICompatAnnotator(server.url, "n" if change == "model" else "m", asking=NORMALISED, cache=cache)
        instrument, item = down if change == "wording" else UP, other if change == "pixels" else one
        changed.label([item], instrument, replicate=int(change == "replicate"))
        assert len(server.arrived) == 2


def test_equal_items_are_asked_once():
    with LocalEndpoint(latency=0.05) as server:
        found = annotator(server).annotate([Item("a", "same"), Item("b", "same")], UP)
        assert [a.item for a in found] == ["a", "b"] and len(server.arrived) == 1


def test_annotate_says_so_where_something_is_missing():
    with LocalEndpoint() as server, pytest.raises(DataError, match=r"2 answers came.*3 items were not asked.*budget"):
        annotator(server, budget=Budget(requests=2)).annotate(items(5), UP)


def test_a_stopped_job_waits_for_what_is_on_its_way(tmp_path):
    """Ctrl-C: whatever was sent is answered and stored, so nothing is in doubt."""
    with LocalEndpoint(latency=0.1) as server:
        asking = annotator(server, cache=tmp_path / "c")

        def stop(progress):
            if progress.done == 20:
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            annotator(server, cache=asking.cache, progress=stop).label(items(100), UP)
        assert 20 <= len(server.arrived) <= 36
        assert asking.label(items(100), UP).failures == [] and len(server.arrived) == 100


SECRET = "sk-very-secret-key"


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("FLEDGE_TEST_KEY", SECRET)


def test_the_key_is_never_written_down(key, tmp_path):
    """Not even by a server that repeats it."""
    with LocalEndpoint(lambda request: f"Your key is {SECRET}") as server:
        asking = annotator(server, api_key_env="FLEDGE_TEST_KEY", cache=tmp_path / "c", asking=Asking(mode="hard"))
        (annotation,) = asking.annotate(items(1), UP)
        asking.cache.write_pack(tmp_path / "pack")
    assert "[key]" in annotation.raw
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_a_key_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("FLEDGE_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="FLEDGE_TEST_KEY"):
        OpenAICompatAnnotator("http://127.0.0.1:9/v1", "m", "FLEDGE_TEST_KEY", asking=NORMALISED).annotate(items(1), UP)


def test_an_endpoint_that_refuses_everything_ends_the_job():
    with LocalEndpoint() as server:
        wrong = OpenAICompatAnnotator(server.url.replace("/v1", "/v2"), "m", asking=NORMALISED, pace=QUICK)
        with pytest.raises(ConfigError, match="404"):
            wrong.annotate(items(50), UP)


def test_nobody_at_home_is_a_failure_and_no_label():
    pace = Pace(workers=2, max_tries=2, first_wait=0.001)
    labelling = OpenAICompatAnnotator("http://127.0.0.1:9/v1", "m", asking=NORMALISED, pace=pace).label(items(2), UP)
    assert labelling.annotations == [] and {failure.status for failure in labelling.failures} == {"error"}


def test_retry_after_is_waited_for():
    with LocalEndpoint(misbehaviour=Misbehaviour(too_many_every=2, retry_after="0.4")) as server:
        begun = time.monotonic()
        annotator(server, pace=Pace(workers=1, first_wait=0.001)).label(items(2), UP)
        assert time.monotonic() - begun >= 0.4 and len(server.arrived) == 3


def test_a_retry_after_of_an_hour_fails_the_item():
    with LocalEndpoint(misbehaviour=Misbehaviour(too_many_every=1, retry_after="3600")) as server:
        labelling = annotator(server, pace=Pace(workers=1, longest_wait=0.01)).label(items(1), UP)
    assert "3600 seconds" in labelling.failures[0].reason and labelling.failures[0].tries == 1


def test_a_reply_that_comes_too_late_is_asked_for_again():
    with LocalEndpoint(misbehaviour=Misbehaviour(slow_every=2, slow_seconds=2.0)) as server:
        pace = Pace(workers=1, timeout=0.5, first_wait=0.001)
        assert len(annotator(server, pace=pace).label(items(2), UP).annotations) == 2
        assert [request["status"] for request in server.arrived] == [200, 0, 200]


def test_something_that_is_no_chat_completion_is_a_failure_and_is_asked_for_by_the_next_run():
    with LocalEndpoint(misbehaviour=Misbehaviour(garbage_every=3)) as server:
        asking = annotator(server, pace=Pace(workers=1))
        assert "no chat completion" in asking.label(items(3), UP).failures[0].reason
        assert len(asking.label(items(3), UP).annotations) == 3 and len(server.arrived) == 4
        assert asking.cache.failures()[0][:2] == ("error", ["i2"])


def test_half_a_character_is_stored_and_shared_like_any_reply(tmp_path):
    with LocalEndpoint(lambda request: "Yes \ud83d") as server:
        asking = annotator(server, cache=tmp_path / "c", asking=Asking(mode="hard", memory="session"))
        asking.label(items(2), UP)
        assert asking.cache.write_pack(tmp_path / "pack") == 2


def test_a_rate_is_kept():
    with LocalEndpoint() as server:
        begun = time.monotonic()
        annotator(server, pace=Pace(requests_per_minute=3000.0)).label(items(30), UP)
        assert time.monotonic() - begun >= 27.5 / 50 - 0.01  # two and a half at once, then 50 a second
