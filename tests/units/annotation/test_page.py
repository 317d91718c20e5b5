"""The annotation page without a browser: the way through, what is stored, and everything that is refused."""

from __future__ import annotations

import csv
import io
import json
import logging
import zipfile
from pathlib import Path

import pytest
from serving import FIELD, TOKEN, Walker, first_answers, form, hidden, stage_of, study_text

from fledge.annotation.design_files import read_design
from fledge.annotation.export import audit_of, files_of, table_in
from fledge.annotation.guard import Limits
from fledge.annotation.web import make_app
from fledge.core.errors import ConfigError
from fledge.run.annotate import open_store

pytest.importorskip("fastapi", reason="needs the extra 'annotate'")
pytest.importorskip("sqlalchemy", reason="needs the extra 'annotate'")
TestClient = pytest.importorskip("starlette.testclient", reason="needs httpx").TestClient
AROUND = """
contact: team@example.org
warning: Strong language.
attributes:
  - {name: age, label: Your age, kind: number, low: 18, high: 99}
  - {name: english, label: English, options: ['yes', 'no'], required: false}
comprehension:
  questions:
    - {question: Which, options: [right, wrong], answer: right, explain: It is the first.}
practice:
  - {text: A practice message, answers: {HS: 0, OL: 0}, explain: Neither applies.}
exit:
  - {name: comments, label: Comments, kind: text, required: false}
completion: {screened_out_code: SORRY}
"""
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20
BEARER = {"authorization": f"Bearer {TOKEN}"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


class Place:
    """A study in a folder, with clients of its page."""

    def __init__(self, folder: Path, text: str, **limits) -> None:
        (folder / "study.yaml").write_text(text)
        self.folder, self.clock = folder, Clock()
        self.design = read_design(folder / "study.yaml")
        self.store = open_store(folder)
        self.app = make_app(self.design, self.store, token=TOKEN, clock=self.clock, limits=Limits(**limits))

    def client(self):
        return TestClient(self.app, base_url="http://study", raise_server_exceptions=False)

    def walker(self, platform: str = "") -> Walker:
        return Walker(self.client(), platform).open().agree()

    def rows(self, table: str):
        return self.store.rows(self.store.sa.select(getattr(self.store.t, table)))

    def refusals(self) -> list[str]:
        return [json.loads(row.detail)["why"] for row in self.rows("events") if row.kind == "refused"]


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path, study_text(labels=2))


@pytest.fixture
def full(tmp_path) -> Place:
    return Place(tmp_path, study_text(labels=2, more=AROUND))


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Walker:
    """An annotator at the first task screen whom nothing that is refused moves from there; `.place` is their study."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "media").mkdir()
    (folder / "media" / "one.png").write_bytes(PNG)
    place = Place(
        folder, study_text(labels=50, more="media: media\n").replace("text: Message number 2", "image: one.png")
    )
    walker = place.walker().walk_to("task")
    walker.place = place  # type: ignore[attr-defined]
    return walker


@pytest.fixture
def kept(shared):
    """After the test, the shared annotator is where they were, nothing was stored, and one refusal was logged."""
    page, before = shared.page, len(shared.place.refusals())
    yield shared
    shared.page = page
    assert len(shared.place.refusals()) == before + 1
    assert (shared.place.rows("answers"), shared.place.rows("drafts")) == ([], [])
    assert [row.stage for row in shared.place.rows("annotators")] == ["task"]


# The way through


def test_the_stages_come_in_order(full):
    walker, seen = full.walker(), []
    for stage in ("attributes", "check", "practice", "ready", "task", "exit", "done"):
        seen.append(stage_of(walker.walk_to(stage).page))
        if stage != "done":
            walker.send()
    assert seen == ["attributes", "check", "practice", "ready", "task", "exit", "done"]


def test_nothing_is_stored_before_consent(place):
    Walker(place.client(), "PROLIFIC_PID=abc").open()
    assert (place.rows("annotators"), place.rows("door"), place.rows("visits")) == ([], [], [])


def test_everybody_gets_a_completion_code_of_their_own(place):
    codes = set()
    for _ in range(2):
        walker = place.walker().walk_to("done")
        codes.add(walker.page.split('id="code"')[1].split(">")[1].split("<")[0])
    assert len(codes) == 2
    assert codes == {row.code for row in place.rows("annotators")}


def test_two_wrong_checks_end_the_way_without_a_condition(full):
    walker = full.walker()
    walker.send([("f.0", "30")])
    walker.send([("f.0", "wrong")])
    assert "It is the first." in walker.page
    assert "one more try" in walker.page
    walker.send([("f.0", "wrong")])
    assert stage_of(walker.page) == "screened_out"
    assert "SORRY" in walker.page
    assert full.store.log() == []


def test_practice_says_what_was_expected(full):
    walker = full.walker().walk_to("practice")
    walker.send()
    assert "Neither applies." in walker.page


@pytest.mark.parametrize(
    ("age", "said"),
    [("17", "from 18 to 99"), ("many", "from 18 to 99"), ("nan", "from 18 to 99"), ("", "Please answer")],
)
def test_an_attribute_that_is_none_is_asked_again(full, age, said):
    walker = full.walker()
    reply = walker.send([("f.0", age)])
    assert reply.status_code == 422
    assert said in reply.text
    assert stage_of(reply.text) == "attributes"


def test_an_empty_screen_is_asked_again_and_nothing_is_kept(place):
    walker = place.walker().walk_to("task")
    assert walker.send([]).status_code == 422
    assert place.rows("answers") == []


def test_a_reload_resumes_at_the_same_screen(place):
    walker = place.walker().walk_to("task")
    walker.send()
    again = walker.client.get("/study").text
    assert hidden(again)["visit"] != hidden(walker.page)["visit"]
    assert again.split("<title>")[1][:20] == walker.page.split("<title>")[1][:20]


def test_a_draft_is_there_after_a_reload(place):
    walker = place.walker().walk_to("task")
    own, name, value = hidden(walker.page), *first_answers(walker.page)[0]
    sent = {"visit": own["visit"], "fields": {name: [value]}}
    assert walker.client.post("/draft", json=sent, headers={"x-csrf": own["csrf"]}).status_code == 204
    assert f'value="{value}" id="{name}" checked' in walker.client.get("/study").text


def test_back_shows_what_was_answered_and_a_change_is_a_revision(place):
    walker = place.walker().walk_to("task")
    walker.send()
    name, _value = first_answers(walker.page)[0]
    walker.page = walker.client.post("/back", **form(hidden(walker.page)), follow_redirects=True).text
    assert "checked" in walker.page
    other = [v for kind, n, v in FIELD.findall(walker.page) if n == name][-1]
    walker.send([(name, other)])
    revisions = sorted((row.screen, row.revision) for row in place.rows("answers") if row.screen == 0)
    assert revisions[0] == (0, 0)
    assert revisions[-1] == (0, 1)
    assert [row.kind for row in place.rows("events")] == ["back"]


def test_a_screen_that_is_sent_twice_is_kept_once(place):
    walker = place.walker().walk_to("task")
    own, answers = hidden(walker.page), first_answers(walker.page)
    for _ in range(2):
        walker.client.post("/study/task", **form([*own.items(), *answers]))
    assert {row.revision for row in place.rows("answers")} == {0}


def test_times_clicks_and_the_device_are_recorded(place):
    walker = Walker(place.client()).open()
    device = {"viewport": "390x844", "device": "phone", "language": "de-AT"}
    walker.page = walker.client.post(
        "/consent", **form(hidden(walker.page) | {"agree": "yes"} | device), follow_redirects=True
    ).text
    walker.walk_to("task")
    timing = {
        "client_shown": 1.0,
        "client_submitted": 2.5e12,
        "first_click_ms": 900,
        "changes": 2,
        "focus_losses": 1,
        "hidden_ms": 5,
    }
    walker.send(timing=json.dumps(timing | {"viewport": "390x700", "pointer": "coarse"}))
    visit = next(row for row in place.rows("visits") if row.stage == "task" and row.submitted)
    assert (visit.first_click_ms, visit.changes, visit.focus_losses, visit.viewport) == (900, 2, 1, "390x700")
    assert visit.submitted > visit.shown
    assert (place.rows("annotators")[0].device, place.rows("annotators")[0].language) == ("phone", "de-AT")


# Assignment


def test_when_all_places_are_taken_people_are_turned_away(tmp_path):
    place = Place(tmp_path, study_text(labels=1))
    stages = [stage_of(place.walker().page) for _ in range(7)]
    assert stages == ["ready"] * 5 + ["full"] * 2
    assert audit_of(place.store, place.design, place.clock()).turned_away == 2


def test_a_place_that_ran_out_goes_to_the_next_and_labels_are_kept(tmp_path):
    place = Place(tmp_path, study_text(labels=1))
    slow = place.walker().walk_to("task")
    slow.send()
    for _ in range(4):
        place.walker().walk_to("done")
    place.clock.now += 2 * 3600
    assert stage_of(place.walker().walk_to("done").page) == "done"
    assert stage_of(slow.client.get("/study").text) == "expired"
    assert audit_of(place.store, place.design, place.clock()).exact
    assert len({row.annotator for row in place.rows("answers")}) == 6


def test_who_withdraws_gives_the_place_back(place):
    walker = place.walker()
    walker.client.post("/withdraw", **form({"csrf": hidden(walker.page)["csrf"]}))
    assert stage_of(walker.client.get("/study").text) == "withdrawn"
    assert [row.outcome for row in place.store.log()] == ["withdrawn"]


def test_within_subjects_every_item_is_annotated_once_under_each_condition(tmp_path):
    text = study_text(labels=1, n_items=5, batch_size=5).replace("seed: 3", "seed: 3, within_subject: true")
    place = Place(tmp_path, text)
    for _ in range(5):
        place.walker().walk_to("done")
    rows = table_in(place.store, place.design).rows
    cells = [(row.item, row.condition) for row in rows if row.construct == "HS"]
    assert sorted(cells) == sorted((f"t{i}", c) for i in range(1, 6) for c in "ABCDE")


# Platform ids


def test_platform_ids_are_in_no_table_but_salted_at_the_door(place):
    place.walker("PROLIFIC_PID=pid123&STUDY_ID=stu9&SESSION_ID=ses7").walk_to("done")
    with place.store.engine.connect() as c:
        dump = "\n".join(c.connection.iterdump())
    for secret in ("pid123", "stu9", "ses7"):
        assert secret not in dump
    assert len(place.rows("door")[0].person) == 64


def test_the_export_knows_nothing_of_the_door(place):
    place.walker("PROLIFIC_PID=pid123&SESSION_ID=ses7").walk_to("done")
    files = "".join(files_of(place.store, place.design, place.clock()).values())
    door = place.rows("door")[0]
    assert door.person not in files
    assert door.visit not in files
    assert place.store.study().salt not in files
    assert place.store.study().secret not in files


def test_the_same_person_takes_part_once(place):
    place.walker("PROLIFIC_PID=p&SESSION_ID=one")
    assert stage_of(place.walker("PROLIFIC_PID=p&SESSION_ID=two").page) == "again"
    assert len(place.rows("annotators")) == 1


def test_the_same_platform_session_resumes_in_another_browser(place):
    first = place.walker("PROLIFIC_PID=p&SESSION_ID=one").walk_to("task")
    first.send()
    second = place.walker("PROLIFIC_PID=p&SESSION_ID=one")
    assert stage_of(second.page) == "task"
    assert len(place.rows("annotators")) == 1


def test_after_forgetting_nobody_is_recognised(place):
    place.walker("PROLIFIC_PID=p&SESSION_ID=one")
    salt = place.store.study().salt
    assert place.store.forget() == 1
    assert place.store.study().salt != salt
    assert place.rows("door") == []


# The export


def test_the_export_is_long_with_a_row_for_every_question(place):
    place.walker().walk_to("done")
    walker = place.walker().walk_to("task")
    walker.send()
    walker.client.post("/withdraw", **form({"csrf": hidden(walker.page)["csrf"]}))
    reply = place.client().get("/researcher/export.zip", headers=BEARER)
    archive = zipfile.ZipFile(io.BytesIO(reply.content))
    rows = list(csv.DictReader(io.StringIO(archive.read("annotations.csv").decode(), newline="")))
    assert len(rows) == 2 * 2 * 2  # annotators, items, constructs
    assert {row["missing_code"] for row in rows} == {"", "dropped_out"}
    assert {row["instrument"] for row in rows} == {place.design.instrument.version}
    assert [row["position"] for row in rows if row["item"] == "t2"] == ["2"] * 4


def test_a_construct_that_is_not_asked_is_missing_and_never_a_no(tmp_path):
    only = "{constructs: {HS: Hate, OL: Offensive}, conditions: {A: {per_item: [HS]}, B: {per_item: [HS, OL]}}}"
    place = Place(tmp_path, study_text().replace("kern-2023", only))
    for _ in range(2):
        place.walker().walk_to("done")
    rows = table_in(place.store, place.design).rows
    assert {(r.condition, r.construct, r.missing) for r in rows} == {
        ("A", "HS", ""), ("A", "OL", "not_asked"), ("B", "HS", ""), ("B", "OL", "")
    }  # fmt: skip


def test_a_confidence_becomes_a_probability(tmp_path):
    only = "{constructs: {HS: Hate}, conditions: {A: {per_item: [HS], confidence: true}}}"
    place = Place(tmp_path, study_text().replace("kern-2023", only))
    place.walker().walk_to("task").send([("a.0.0", "1"), ("c.0.0", "80")])
    assert table_in(place.store, place.design).rows[0].probability == {"1": 0.8}


def test_swapped_sides_are_stored_as_the_pair_is(tmp_path):
    asked = "{per_item: [best], shuffle: [pair_sides]}"
    only = f"{{constructs: {{best: {{question: Best, options: pair}}}}, conditions: {{A: {asked}}}}}"
    pairs = "\n".join(f"  - {{id: p{i}, pair: [left words {i}, right words {i}]}}" for i in range(12))
    place = Place(
        tmp_path,
        study_text().replace("kern-2023", only).split("items:")[0].replace("batch_size: 2", "batch_size: 12")
        + f"items:\n{pairs}\n",
    )
    walker, said = place.walker().walk_to("task"), []
    for _ in range(12):
        left_first = walker.page.index("left words") < walker.page.index("right words")
        said.append("first" if left_first else "second")
        walker.send([("a.0.0", "first")])
    assert set(said) == {"first", "second"}
    assert [row.value for row in table_in(place.store, place.design).rows] == said


def test_a_changed_study_is_not_mixed_with_the_old_answers(place):
    (place.folder / "study.yaml").write_text(study_text(labels=2).replace("Message number 1", "Another text"))
    with pytest.raises(ConfigError, match="under way"):
        make_app(read_design(place.folder / "study.yaml"), place.store, token=TOKEN)


# Security: refused, logged, nothing lost

EXPORTS = ("/researcher/export.zip", "/researcher/progress.json")


@pytest.mark.parametrize("path", EXPORTS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"cookie": "fledge_researcher=9999999999." + "0" * 64},
    ],
)
def test_an_export_without_the_token_is_refused_and_logged(kept, path, headers):
    reply = kept.place.client().get(path, headers=headers)
    assert reply.status_code == 403
    assert kept.place.refusals()[-1] == "the researchers' pages need the token"


def test_an_annotator_is_no_researcher(place):
    walker = place.walker()
    assert walker.client.get(EXPORTS[0]).status_code == 403
    assert walker.client.post("/researcher/forget", **form({"csrf": hidden(walker.page)["csrf"]})).status_code == 403


def test_the_token_opens_the_researchers_pages(place):
    client = place.client()
    page = client.get("/researcher").text
    csrf = page.split('name="csrf" value="')[1].split('"')[0]
    assert client.post("/researcher", **form({"csrf": csrf, "token": "wrong"})).status_code == 403
    page = client.post("/researcher", **form({"csrf": csrf, "token": TOKEN}), follow_redirects=True).text
    assert "Progress" in page
    assert client.get(EXPORTS[0]).status_code == 200


def test_guessing_the_token_is_slowed_down(place):
    client = place.client()
    codes = [client.get(EXPORTS[0], headers={"authorization": f"Bearer {i}"}).status_code for i in range(15)]
    assert codes[0] == 403
    assert codes[-1] == 429


def test_another_participants_page_cannot_be_answered(place):
    ann, bob = place.walker().walk_to("task"), place.walker().walk_to("task")
    stolen = hidden(ann.page)["visit"]
    reply = bob.send(visit=stolen)
    assert reply.status_code == 403
    assert place.rows("answers") == []
    assert place.refusals() == ["an answer to a page that was not shown to this session"]


def test_a_made_up_session_sees_nothing(place):
    place.walker()
    client = place.client()
    client.cookies.set("fledge_session", "guess")
    assert client.get("/study").status_code == 403
    assert "no session" in place.refusals()


def test_the_id_of_an_annotator_is_no_session(place):
    place.walker()
    client = place.client()
    client.cookies.set("fledge_session", place.rows("annotators")[0].id)
    assert client.get("/study").status_code == 403


@pytest.mark.parametrize("csrf", ["", "0" * 64, "\u00e9"])
@pytest.mark.parametrize("path", ["/consent", "/study/task", "/back", "/withdraw", "/researcher", "/researcher/forget"])
def test_a_post_from_elsewhere_is_refused(kept, path, csrf):
    assert kept.client.post(path, **form({"csrf": csrf})).status_code == 403
    assert kept.place.refusals()[-1] == "a form that is not from this session's page"


NASTY = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


def test_script_in_an_item_is_shown_as_text(tmp_path):
    place = Place(tmp_path, study_text().replace("Message number 1", f"'{NASTY}'"))
    page = place.walker().walk_to("task").page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_script_in_an_answer_comes_back_as_text_and_unchanged_in_the_export(tmp_path):
    place = Place(
        tmp_path,
        study_text().replace(
            "kern-2023", "{constructs: {why: {question: Why, options: text}}, conditions: {A: [[why]]}}"
        ),
    )
    walker = place.walker().walk_to("task")
    walker.send([("a.0.0", NASTY)])
    walker.page = walker.client.post("/back", **form(hidden(walker.page)), follow_redirects=True).text
    assert "<script>alert" not in walker.page
    assert "&lt;script&gt;" in walker.page
    assert table_in(place.store, place.design).rows[0].value == NASTY


def test_no_page_may_load_or_run_anything_from_elsewhere(place):
    reply = place.client().get("/")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "style=" not in reply.text
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert "httponly" in reply.headers["set-cookie"].lower()
    assert "samesite=lax" in reply.headers["set-cookie"].lower()


def test_over_https_cookies_are_secure(place):
    client = TestClient(place.app, base_url="https://study")
    assert "; secure" in client.get("/").headers["set-cookie"].lower()


FORM = {"content-type": "application/x-www-form-urlencoded"}


def chunks():
    for _ in range(9):
        yield b"x" * 40_000


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"x" * 300_000, FORM, 413),
        (chunks, FORM, 413),
        (b"csrf=" + b"%ff%fe", FORM, 400),
        (b"csrf=a&b", FORM, 400),
        (b"\xff\x00", FORM, 400),
        (b"a=1&" * 500 + b"b=2", FORM, 400),
        (b"csrf=%00", FORM, 400),
        (b"{}", {"content-type": "multipart/form-data; boundary=x"}, 415),
        (b"csrf=x", {"content-type": "text/plain"}, 415),
    ],
    ids=["large", "large-in-chunks", "no-utf8", "no-value", "bytes", "many", "nul", "multipart", "plain"],
)  # fmt: skip
def test_an_oversized_or_malformed_post_is_refused_and_logged(kept, content, headers, status):
    body = content() if callable(content) else content
    assert kept.client.post("/study/task", content=body, headers=headers).status_code == status


@pytest.mark.parametrize(
    "changes",
    [
        {"timing": "{"},
        {"timing": "[1]"},
        {"timing": '{"first_click_ms": "soon"}'},
        {"timing": '{"first_click_ms": -1}'},
        {"timing": '{"changes": 1e400}'},
        {"timing": '{"more": 1}'},
        {"timing": "[" * 100_000},
        {"visit": "' OR 1=1 --"},
        {"visit": ""},
        {"a.9.9": "1"},
        {"secret": "1"},
    ],
)
def test_an_answer_that_no_page_sends_is_refused(kept, changes):
    assert kept.send(**changes).status_code in (400, 403, 413)


def test_after_a_refusal_the_same_page_can_be_sent(place):
    walker = place.walker().walk_to("task")
    page = walker.page
    assert walker.send(secret="1").status_code == 400
    walker.page = page
    assert walker.send().status_code == 200
    assert len(place.rows("answers")) > 0


@pytest.mark.parametrize("value", ["2", "", "~dont_know", "1' --", "yes"])
def test_a_choice_that_was_not_offered_is_refused(kept, value):
    assert kept.send([(first_answers(kept.page)[0][0], value)]).status_code == 400


@pytest.mark.parametrize(
    "sent",
    [
        [],
        {"visit": "x" * 24, "fields": {}},
        {"visit": "0" * 24, "fields": {}},
        {"fields": {}},
        {"visit": "0" * 24, "fields": {"a.0.0": "1"}},
    ],
)
def test_a_draft_that_no_page_sends_is_refused(kept, sent):
    reply = kept.client.post("/draft", json=sent, headers={"x-csrf": hidden(kept.page)["csrf"]})
    assert reply.status_code in (400, 403)


def test_a_draft_of_another_participant_is_refused(place):
    ann, bob = place.walker().walk_to("task"), place.walker().walk_to("task")
    sent = {"visit": hidden(ann.page)["visit"], "fields": {}}
    assert bob.client.post("/draft", json=sent, headers={"x-csrf": hidden(bob.page)["csrf"]}).status_code == 403


@pytest.mark.parametrize(
    "query", ["PROLIFIC_PID=" + "x" * 65, "PROLIFIC_PID=<script>", "SESSION_ID=a b", "STUDY_ID=../x"]
)
def test_platform_parameters_of_another_shape_are_refused(kept, query):
    assert kept.place.client().get(f"/?{query}").status_code == 400


def test_a_picture_is_served_to_participants_only(kept):
    name = next(iter(kept.place.design.media()))
    reply = kept.client.get(f"/media/{name}")
    assert (reply.content, reply.headers["content-type"]) == (PNG, "image/png")
    assert kept.place.client().get(f"/media/{name}").status_code == 403


def test_a_part_of_a_film_can_be_asked_for(shared):
    name = next(iter(shared.place.design.media()))
    reply = shared.client.get(f"/media/{name}", headers={"range": "bytes=1-3"})
    assert (reply.status_code, reply.content) == (206, b"PNG")
    assert shared.client.get(f"/media/{name}", headers={"range": "bytes=90-"}).status_code == 416


@pytest.mark.parametrize(
    "name",
    [
        "one.png",
        "../study.yaml",
        "..%2fstudy.yaml",
        "%2e%2e%2fstudy.sqlite",
        "....//study.yaml",
        "%00",
        "C:%5cx.png",
        "/etc/passwd",
    ],
)
@pytest.mark.parametrize("root", ["/media/", "/static/"])
def test_path_tricks_are_refused_and_logged(kept, root, name):
    assert kept.client.get(root + name).status_code == 404


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("../secret.png", "leads out of the folder"),
        ("/etc/passwd", "leads out"),
        ("link.png", "leads out"),
        ("evil.svg", "is none of"),
        ("no.png", "no file"),
    ],
)
def test_a_study_cannot_name_files_outside_its_media(tmp_path, file, said):
    (tmp_path / "media").mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "media" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "media" / "evil.svg").write_text("<svg onload='alert(1)'/>")
    with pytest.raises(ConfigError, match=said):
        Place(tmp_path, study_text(more="media: media\n").replace("text: Message number 1", f"image: {file}"))


def test_a_session_that_hammers_is_slowed_down_and_loses_nothing(tmp_path):
    place = Place(tmp_path, study_text(), session_burst=8, session_rate=1.0)
    walker = place.walker().walk_to("task")
    codes = [walker.client.get("/study").status_code for _ in range(20)]
    assert 429 in codes
    place.clock.now += 60
    assert walker.send().status_code == 200


def test_an_address_that_hammers_is_slowed_down(tmp_path):
    place = Place(tmp_path, study_text(), address_burst=5, address_rate=0.1)
    assert [place.client().get("/").status_code for _ in range(7)][-1] == 429


def test_an_unknown_page_is_logged_too(place):
    assert place.client().get("/wp-admin.php").status_code == 404
    assert place.client().put("/study").status_code == 405
    assert len(place.refusals()) == 2


def test_a_fault_of_ours_is_one_calm_page(place, monkeypatch, caplog):
    walker = place.walker()
    monkeypatch.setattr(place.store, "assignment", lambda name: 1 / 0)
    with caplog.at_level(logging.ERROR):
        reply = walker.client.get("/study")
    assert reply.status_code == 500
    assert "Your answers so far are kept" in reply.text
    assert "ZeroDivisionError" not in reply.text
    assert "ZeroDivisionError" in caplog.text
