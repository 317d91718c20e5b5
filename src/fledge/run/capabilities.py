"""What an endpoint and its model can do, found out by asking: OpenAI-compatible does not mean identical.

Some servers ignore a field they do not know and answer 200 without it, others refuse the request; both are found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fledge.core.annotations import Media
from fledge.data.pictures import png
from fledge.data.prompts import Turn, messages
from fledge.data.replies import first_token, json_in, text_of

ANSWERS = {"type": "object", "properties": {"answer": {"type": "string", "enum": ["green", "blue"]}}} | {
    "required": ["answer"],
    "additionalProperties": False,
}
PROBES = 7
"""Requests of a probe."""

Asker = Callable[[Mapping[str, Any], Mapping[str, Any]], Awaitable[Mapping[str, Any] | None]]
"""(what the request is known by, body without the model) → chat completion, or None where it was refused."""


@dataclass(frozen=True)
class Capabilities:
    """What an endpoint does for a model."""

    images: bool = True
    logprobs: bool = True
    top_logprobs: bool = True
    json_schema: bool = True
    seed: bool = True
    temperature: bool = True
    """Whether replies can be sampled: some models refuse the parameter."""

    def as_dict(self) -> dict[str, bool]:
        """To be stored."""
        return asdict(self)


async def probe(ask: Asker) -> Capabilities:
    """Ask a handful of one-line questions and look at what comes back.

    Args:
        ask: sends a request; its replies are cached, so that a probe is paid for once.
    """

    async def reply(name: str, turn: Turn, **params: Any) -> Mapping[str, Any] | None:
        return await ask({"probe": name}, {"messages": messages((turn,)), **params})

    yes = Turn("user", ("Is water wet? Answer with nothing but Y for Yes, N for No.",))
    top = await reply("top_logprobs", yes, max_tokens=1, temperature=0, logprobs=True, top_logprobs=5)
    token = first_token(top) if top is not None else None
    if token is None:
        plain = await reply("logprobs", yes, max_tokens=1, temperature=0, logprobs=True)
        token = first_token(plain) if plain is not None else None
    red = Media("image", png(np.full((16, 16, 3), (200, 0, 0), np.uint8)))
    seen = await reply("images", Turn("user", ("What colour is this?", red)), max_tokens=5)
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": ANSWERS}}
    shaped = await reply("json_schema", Turn("user", ("Name a colour.",)), max_tokens=50, response_format=schema)
    drawn = Turn("user", ("Write a random whole number below a million, nothing else.",))
    twice = [await reply(f"seed {i}", drawn, max_tokens=8, temperature=1, seed=7) for i in range(2)]
    texts = [text_of(found)[0] if found is not None else None for found in twice]
    warm = await reply("temperature", yes, max_tokens=1, temperature=0.7)
    found = json_in(text_of(shaped)[0]) if shaped is not None else None
    return Capabilities(
        images=seen is not None,
        logprobs=token is not None and token[1] is not None,
        top_logprobs=token is not None and bool(token[2]),
        json_schema=isinstance(found, dict) and found.get("answer") in ("green", "blue"),
        seed=texts[0] is not None and texts[0] == texts[1],
        temperature=warm is not None,
    )
