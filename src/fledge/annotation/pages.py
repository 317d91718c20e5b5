"""How the pages look: templates and what they are filled with. Everything that people wrote is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from fledge.annotation.answers import DONT_KNOW, NONE
from fledge.annotation.design import Step, StudyDesign, media_name
from fledge.annotation.store import Given
from fledge.core.annotations import Item

STATIC = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
ENDINGS = {
    "done": "Thank you",
    "declined": "You chose not to take part",
    "withdrawn": "You stopped taking part",
    "screened_out": "Thank you for your interest",
    "full": "All places are taken",
    "expired": "Your place was given away",
    "again": "You have begun already",
}


@lru_cache(maxsize=8)
def static(name: str) -> bytes:
    """A style sheet or script."""
    return resources.files("fledge.annotation").joinpath("static", name).read_bytes()


class Pages:
    """The pages of one study."""

    def __init__(self, design: StudyDesign) -> None:
        self.design = design
        loader = PackageLoader("fledge.annotation")
        self.env = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self.env.filters |= {"prose": prose, "media_name": media_name}
        self.env.globals |= {"design": design, "NONE": NONE, "DONT_KNOW": DONT_KNOW, "kind_of": kind_of}

    def render(self, template: str, **values: Any) -> str:
        """A page."""
        return self.env.get_template(f"{template}.html.j2").render(**values)

    def consent(self, csrf: str, platform: dict[str, str], returning: bool) -> str:
        """The first page."""
        return self.render("consent", csrf=csrf, platform=platform, returning=returning, stage="consent", visit="")

    def stage(self, stage: str, common: dict[str, Any], n_screens: int) -> str:
        """Attributes, comprehension check, readiness or exit."""
        fields = self.design.attributes if stage == "attributes" else self.design.exit
        template = stage if stage in ("check", "ready") else "fields"
        asked = [check.text for check in self.design.checks] if stage == "check" else [one.label for one in fields]
        labels = {f"f.{i}": _stop(label) for i, label in enumerate(asked)}
        return self.render(template, stage=stage, fields=fields, n_screens=n_screens, labels=labels, **common)

    def screen(self, stage: str, step: Step, cursor: int, count: int, common: dict[str, Any]) -> str:
        """A practice or task screen."""
        back = stage == "task" and self.design.back and cursor > 0
        asked = enumerate(step.screen.constructs)
        labels = {f"a.{i}.{j}": _stop(c.question) for j, c in asked for i in range(len(step.screen.items))}
        return self.render(
            "screen", stage=stage, screen=step.screen, cursor=cursor, count=count, back=back, labels=labels, **common
        )

    def end(self, stage: str, code: str = "") -> str:
        """A page after which nothing comes."""
        return self.render("end", stage=stage, heading=ENDINGS[stage], code=code)

    def message(self, heading: str, text: str) -> str:
        """A page that says what went wrong."""
        return self.render("message", heading=heading, text=text, stage="message")

    def feedback(self, step: Step, given: Sequence[Given]) -> dict[str, Any]:
        """What is said after a practice screen."""
        lines, right = [], True
        practices = {practice.item.id: practice for practice in self.design.practice}
        for one in given:
            wanted = practices[one.item].answers.get(one.construct)
            construct = self.design.instrument.construct(one.construct)
            if wanted is None or wanted == one.value:
                continue
            right = False
            label = next((option.label for option in construct.options if option.value == wanted), wanted)
            lines.append(f"{construct.question} The expected answer is: {label}.")
        lines += [practices[item.id].explain for item in step.screen.items if practices[item.id].explain]
        return {"kind": "right" if right else "corrected", "lines": lines}


def kind_of(item: Item) -> str:
    """How an item is shown: `pair`, `clip`, `strip`, `image` or `text`."""
    if item.pair:
        return "pair"
    if any(media.kind == "clip" for media in item.media):
        return "clip"
    return ("text", "image")[len(item.media)] if len(item.media) < 2 else "strip"


def prose(text: str) -> Markup:
    """Plain text as paragraphs, lists (`- `) and **bold**; everything else is escaped."""
    parts = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in block.splitlines()]
        bullets = [line[2:] for line in lines if line.startswith("- ")]
        rest = [line for line in lines if not line.startswith("- ")]
        if rest and any(rest):
            parts.append(Markup("<p>{}</p>").format(Markup("<br>").join(_bold(line) for line in rest)))
        if bullets:
            parts.append(
                Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(_bold(b)) for b in bullets))
            )
    return Markup("\n").join(parts)


def _stop(label: str) -> str:
    """A label with a full stop, if it has no mark of its own."""
    return label if label.endswith(("?", ".", ":", "!")) else f"{label}."


def _bold(line: str) -> Markup:
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(line))))
