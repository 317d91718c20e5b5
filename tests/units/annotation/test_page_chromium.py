"""The annotation page in a real headless Chromium: conditions A to E, reloads, keys, two browsers, a killed server."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable

import pytest
from serving import Server, study_text

from fledge.annotation.design_files import read_design
from fledge.annotation.export import table_in
from fledge.run.annotate import open_store

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra 'test')")
pytest.importorskip("fastapi", reason="needs the extra 'annotate'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the path (Debian: apt install chromium)"),
    pytest.mark.timeout(120),
]
NEW_PAGE = "old => document.readyState === 'complete' && document.querySelector('input[name=visit]')?.value !== old"
NAMES = """() => [...document.querySelectorAll("input:not([type=hidden]), textarea, progress")]
    .map(e => [...(e.labels || [])].map(l => l.innerText).join("").trim() || e.ariaLabel)"""
NASTY = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"
ASKED = {"What does this text contain?": "HS,OL", "Does this text contain hate speech?": "HS",
         "Does this text contain offensive language?": "OL"}  # fmt: skip
ORDERS = {
    "A": ["1HS,OL", "2HS,OL"],
    "B": ["1HS", "1OL", "2HS", "2OL"],
    "C": ["1OL", "1HS", "2OL", "2HS"],
    "D": ["1HS", "2HS", "1OL", "2OL"],
    "E": ["1OL", "2OL", "1HS", "2HS"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    text = study_text(labels=4, more="warning: Strong language.\n")
    (folder / "study.yaml").write_text(
        text.replace("Message number 2", f"'2 {NASTY}'").replace("Message number 1", "'1'")
    )
    one = Server(folder / "study.yaml", folder / "data").start()
    yield one
    one.kill()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


class Participant:
    """Somebody with a browser of their own."""

    def __init__(self, browser, server: Server, **context) -> None:
        self.context = browser.new_context(**context)
        self.page, self.server = self.context.new_page(), server
        self.page.set_default_timeout(20_000)

    def begin(self) -> Participant:
        self.page.goto(self.server.url)
        self.page.check("input[name=agree]")
        self.page.click("button:has-text('Begin')")
        self.page.click("button:has-text('Begin the task')")
        self.page.wait_for_selector("#next")
        self.page.wait_for_load_state("load")
        return self

    @property
    def stage(self) -> str:
        return str(self.page.get_attribute("body", "data-stage"))

    @property
    def screen(self) -> str:
        """What is asked here, as `1HS,OL`."""
        legend = self.page.inner_text("legend").replace("Choose all that apply.", "").strip()
        return str(self.page.text_content(".words")).strip()[0] + ASKED[legend]

    @property
    def place(self) -> str:
        return str(self.page.inner_text(".progress label"))

    def turn(self, act: Callable[[], None]) -> None:
        """Do something that leads to another page, and wait for it."""
        old = self.page.get_attribute("input[name=visit]", "value")
        act()
        self.page.wait_for_function(NEW_PAGE, arg=old)

    def answer(self, choice: int = 0) -> None:
        self.page.locator(".question input").nth(choice).check()
        self.turn(lambda: self.page.click("#next"))

    def walk(self) -> list[str]:
        seen = []
        while self.stage == "task" and len(seen) < 20:
            seen.append(self.screen)
            self.answer()
        return seen


@pytest.fixture
def somebody(browser, server):
    people: list[Participant] = []

    def come(**context) -> Participant:
        people.append(Participant(browser, server, **context))
        return people[-1].begin()

    yield come
    for one in people:
        one.context.close()


@pytest.fixture
def store(server):
    found = open_store(server.data)
    yield found
    found.engine.dispose()


@pytest.fixture(scope="module")
def walks(browser, server):
    """Condition -> the screens of the annotator who was randomised to it. Five come, and the arms are filled evenly."""
    seen = []
    for _ in range(5):
        one = Participant(browser, server).begin()
        seen.append(one.walk())
        assert one.stage == "done"
        one.context.close()
    store = open_store(server.data)
    arms = [row.arm for row in store.log()][:5]
    store.engine.dispose()
    return dict(zip(arms, seen, strict=True))


@pytest.mark.parametrize("condition", "ABCDE")
def test_screens_come_in_the_compiled_order(walks, condition):
    assert walks[condition] == ORDERS[condition]


def test_a_reload_in_the_middle_resumes_with_what_was_filled_in(somebody):
    one = somebody()
    one.answer()
    place = one.place
    with one.page.expect_response(re.compile("/draft")):
        one.page.locator(".question input").nth(1).check()
    one.page.reload()
    assert one.place == place
    assert one.page.locator(".question input").nth(1).is_checked()


def test_back_and_forth_keeps_answers_and_logs_the_change(somebody, store):
    one = somebody()
    first = one.screen
    one.answer(0)
    one.turn(lambda: one.page.click("#back"))
    assert one.screen == first
    assert one.page.locator(".question input").nth(0).is_checked()
    if one.page.locator(".question input").nth(0).get_attribute("type") == "checkbox":
        one.page.locator(".question input").nth(0).uncheck()
    one.answer(1)
    who = store.log()[-1].annotator
    a = store.t.answers
    rows = store.rows(store.sa.select(a).where(a.c.annotator == who, a.c.screen == 0))
    assert {row.revision for row in rows} == {0, 1}
    assert len({row.value for row in rows if row.construct == rows[0].construct}) == 2


def test_the_keyboard_is_enough(somebody):
    one = somebody()
    for _ in range(4):
        if one.stage != "task":
            break
        one.page.keyboard.press("1")
        one.turn(lambda: one.page.keyboard.press("Enter"))
    assert one.stage == "done"


def test_two_browsers_at_once_do_not_meet(somebody, store):
    ann, bob = somebody(), somebody()
    seen = {"ann": [], "bob": []}
    for _ in range(4):
        for name, one in (("ann", ann), ("bob", bob)):
            if one.stage == "task":
                seen[name].append(one.screen)
                one.answer(0 if name == "ann" else 1)
    log = store.log()[-2:]
    assert [seen["ann"], seen["bob"]] == [ORDERS[row.arm] for row in log]
    a = store.t.answers
    for row in log:
        kept = store.rows(store.sa.select(a).where(a.c.annotator == row.annotator))
        assert Counter((k.item, k.construct) for k in kept) == {(i, c): 1 for i in ("t1", "t2") for c in ("HS", "OL")}


def test_a_killed_server_loses_no_label(somebody, server, store):
    one = somebody()
    one.answer()
    place = one.place
    before = len(store.rows(store.sa.select(store.t.answers)))
    server.kill()
    one.page.locator(".question input").nth(0).check()
    server.start()
    assert len(store.rows(store.sa.select(store.t.answers))) == before
    assert one.place == place
    one.turn(lambda: one.page.click("#next"))  # of the page that was open all the while
    one.walk()
    assert one.stage == "done"
    design = read_design(server.study)
    who = store.log()[-1].annotator
    assert len([r for r in table_in(store, design).rows if r.annotator == who and not r.missing]) == 4


def test_content_is_blurred_for_eyes_and_screen_readers_until_it_is_asked_for(somebody):
    one = somebody()
    content = one.page.locator(".content")
    assert "blur" in content.evaluate("e => getComputedStyle(e).filter")
    assert content.get_attribute("aria-hidden") == "true"
    one.page.click("text=Show the content")
    assert content.evaluate("e => getComputedStyle(e).filter") == "none"
    assert content.get_attribute("aria-hidden") == "false"


def test_every_control_has_a_name_and_the_page_one_heading(somebody):
    one = somebody()
    names = one.page.evaluate(NAMES)
    assert all(names)
    assert one.page.locator("h1").count() == 1
    assert one.page.locator("fieldset > legend").count() == 1
    assert one.page.evaluate("() => document.activeElement.id") == "main"


def test_script_in_an_item_does_not_run_and_a_narrow_phone_needs_no_sideways_scrolling(somebody):
    one = somebody(viewport={"width": 340, "height": 640})
    while one.stage == "task":
        assert one.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert one.page.evaluate("() => window.pwned === undefined")
        one.answer()
    assert one.stage == "done"
