"""What is asked in which chat, how, and under which key: from compiled screens to requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from fledge.core.annotations import Item
from fledge.core.errors import ConfigError, unknown
from fledge.core.instruments import Instrument, Screen
from fledge.data.prices import Price, prompt_tokens
from fledge.data.prompts import LOGPROB_MODES, MODES, Prompt, Protocol, Turn, build, cache_key, fingerprint, messages
from fledge.data.prompts import single as one_choice
from fledge.run.capabilities import Capabilities
from fledge.run.endpoint import Call, checked_url

MEMORIES = ("none", "item", "session")


@dataclass(frozen=True)
class Asking:
    """How a model is asked. All of it is part of a request's key, and so of what makes two requests the same."""

    mode: str = "auto"
    """How a probability is found (`fledge.data.replies`); `auto`: the best that the endpoint can do."""
    memory: Literal["none", "item", "session"] = "none"
    """`none`: one chat per screen. `item`: the screens of an item in one chat. `session`: all screens in one chat, as
    people see them; only then can what was asked before have an effect between items."""
    session_size: int = 0
    """Items of a session, each session compiled by itself; 0: all that are handed over."""
    protocol: Protocol = "screens"
    """`bare`: the question is the system message, the pictures are the user's (Beck 2025)."""
    detail: Literal["low", "high", "auto"] = "low"
    temperature: float | None = 0.0
    """Of a request that is asked once; None leaves the parameter out, for models that refuse it."""
    n_votes: int = 5
    vote_temperature: float = 0.7
    top_logprobs: int = 5
    max_tokens: int | None = None
    """Of a reply; by default 1 for a code (8 where no probabilities are read), 64 for each answer in JSON."""
    structured: bool | None = None
    """Whether JSON replies are held to a schema; by default where a probe has found that the endpoint does."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters of the request, such as {"reasoning_effort": "low"}."""

    def __post_init__(self) -> None:
        if self.mode not in ("auto", *MODES):
            raise unknown("probability mode", self.mode, ("auto", *MODES))
        if self.memory not in MEMORIES:
            raise unknown("memory", self.memory, MEMORIES)
        if self.n_votes < 1 or self.session_size < 0:
            raise ConfigError(
                f"n_votes is at least 1, session_size at least 0; got {self.n_votes}, {self.session_size}."
            )


@dataclass(frozen=True)
class Chat:
    """Screens that one chat shows in turn, and which of the votes it is."""

    screens: tuple[tuple[int, Screen, str], ...]
    """Number among all screens, the screen, its mode."""
    sample: int = 0


@dataclass(frozen=True)
class Questioner:
    """Turns an instrument's screens into chats and requests, for one endpoint and model."""

    base_url: str
    model: str
    asking: Asking
    instrument: Instrument
    condition: str
    replicate: int
    price: Price

    @cached_property
    def version(self) -> str:
        """The instrument's."""
        return self.instrument.version

    def job(self) -> str:
        """What a budget belongs to: the endpoint, the model, how it is asked, the instrument and its condition."""
        return cache_key(
            {
                **labeller_facts(self.base_url, self.model, self.asking),
                "instrument": self.version,
                "condition": self.condition,
            }
        )[:16]

    def chats(self, items: Sequence[Item], able: Capabilities) -> tuple[list[Chat], list[tuple[Screen, str]]]:
        """The chats, and all screens in order with their modes."""
        asking = self.asking
        screens: list[Screen] = []
        groups: list[list[int]] = []
        size = asking.session_size if asking.memory == "session" and asking.session_size else max(len(items), 1)
        for n, start in enumerate(range(0, len(items), size)):
            seed = f"{self.model}/{self.replicate}" + (f"/{n}" if n else "")
            compiled = self.instrument.compile(self.condition, items[start : start + size], seed)
            by: dict[Any, list[int]] = defaultdict(list)
            for screen in compiled:
                chat = {"none": screen.index, "item": screen.positions, "session": 0}[asking.memory]
                by[chat].append(len(screens))
                screens.append(screen)
            groups += list(by.values())
        modes = [self._mode(screen, able) for screen in screens]
        chats: list[Chat] = []
        for group in groups:
            voted = any(modes[i] == "votes" for i in group)
            for i in group if voted else ():
                modes[i] = "votes"
            shown = tuple((i, screens[i], modes[i]) for i in group)
            chats += [Chat(shown, sample) for sample in range(asking.n_votes if voted else 1)]
        return chats, list(zip(screens, modes, strict=True))

    def _mode(self, screen: Screen, able: Capabilities) -> str:
        if self.asking.mode != "auto":
            return self.asking.mode
        if screen.confidence:
            return "verbal"
        if all(not construct.options for construct in screen.constructs):
            return "hard"
        if one_choice(screen) and able.top_logprobs:
            return "normalised"
        return "votes" if able.temperature else "verbal"

    def prompt(self, screen: Screen, mode: str, history: Sequence[Turn], able: Capabilities | None) -> Prompt:
        """The prompt of a screen after the earlier turns of its chat."""
        return build(
            screen,
            mode=mode,
            instructions=self.instrument.instructions,
            history=history,
            protocol=self.asking.protocol,
            structured=self._structured(able),
        )

    def _structured(self, able: Capabilities | None) -> bool:
        return bool(able and able.json_schema) if self.asking.structured is None else self.asking.structured

    def call(self, prompt: Prompt, mode: str, sample: int, able: Capabilities | None) -> Call:
        """The request of a prompt."""
        params = self._params(prompt, mode, able)
        request = {
            "endpoint": self.base_url,
            "model": self.model,
            "params": params,
            "detail": self.asking.detail,
            "text": fingerprint(prompt.turns),
            "instrument": self.version,
            "replicate": self.replicate,
            "sample": sample,
        }
        body = {"model": self.model, "messages": messages(prompt.turns, self.asking.detail), **params}
        if mode == "votes" and able is not None and able.seed:
            body["seed"] = params["seed"] = self.replicate * 1000 + sample
        tokens = prompt_tokens(prompt.turns, self.price, self.asking.detail)
        return Call(cache_key(request), request, body, tokens, _limit(params))

    def _params(self, prompt: Prompt, mode: str, able: Capabilities | None) -> dict[str, Any]:
        asking = self.asking
        params: dict[str, Any] = {"max_tokens": asking.max_tokens or _longest(prompt, mode)}
        temperature = asking.vote_temperature if mode == "votes" else asking.temperature
        if temperature is not None and (able is None or able.temperature):
            params["temperature"] = temperature
        if mode in LOGPROB_MODES:
            params |= {"logprobs": True, "top_logprobs": asking.top_logprobs}
        if prompt.schema is not None and self._structured(able):
            shape = {"name": "answers", "strict": True, "schema": dict(prompt.schema)}
            params["response_format"] = {"type": "json_schema", "json_schema": shape}
        return with_extra(params, asking.extra)


def with_extra(params: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the user's own; `max_completion_tokens` takes the place of `max_tokens`, as newer models want."""
    old = {"max_tokens"} if "max_completion_tokens" in extra else set()
    return {name: value for name, value in params.items() if name not in old} | dict(extra)


def _limit(params: Mapping[str, Any]) -> int:
    return int(params.get("max_completion_tokens", params.get("max_tokens", 0)))


def _longest(prompt: Prompt, mode: str) -> int:
    if prompt.form == "json":
        return 32 + 64 * len(prompt.slots)
    if prompt.form == "text":
        return 256
    return 1 if mode in LOGPROB_MODES else 8


def labeller_facts(base_url: str, model: str, asking: Asking) -> dict[str, Any]:
    """What a cache and a pack note about how a model was asked."""
    return {
        "endpoint": checked_url(base_url),
        "model": model,
        "asking": {**asdict(asking), "extra": dict(asking.extra)},
    }
