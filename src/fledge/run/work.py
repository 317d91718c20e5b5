"""One labelling job on its way: chats in a queue, workers that take them, replies that become annotations."""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

from fledge.core.annotations import Annotation, Item
from fledge.core.errors import ConfigError, DataError, FledgeError
from fledge.core.instruments import Screen, as_stored
from fledge.data.packs import Reply
from fledge.data.prompts import Prompt, Turn, answered, cache_key
from fledge.data.replies import Answer, read, text_of
from fledge.run.capabilities import Capabilities, probe
from fledge.run.chats import Chat, Questioner, with_extra
from fledge.run.endpoint import Call, Endpoint, Failed, Pace, Refused, secret
from fledge.run.limits import Budget, BudgetSpent, Ledger
from fledge.run.reply_cache import ReplyCache, Spent

CacheMode = Literal["online", "cache_only", "record"]


@dataclass(frozen=True)
class Failure:
    """A screen without a reply. Never a label."""

    items: tuple[str, ...]
    constructs: tuple[str, ...]
    status: Literal["error", "in_doubt"]
    reason: str
    tries: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    done: int
    """Replies in hand, from the cache or fresh."""
    total: int
    failures: int
    spent: Spent
    money: float


@dataclass(frozen=True)
class Terms:
    """Under which a job works; see `fledge.run.labeller.OpenAICompatAnnotator`."""

    cache: ReplyCache
    cache_mode: CacheMode
    api_key_env: str
    pace: Pace
    budget: Budget
    ask_again: bool
    skip_missing: bool
    progress: Callable[[Progress], None] | None
    job: str = ""
    """What the budget belongs to; empty: what the questioner says."""


class _Skipped(Exception):
    """The cache has no reply, and that is no error."""


class Work:
    """One call of `label`."""

    def __init__(self, questioner: Questioner, terms: Terms):
        self.questioner, self.terms = questioner, terms
        self.job = terms.job or questioner.job()
        self.ledger = Ledger(terms.budget, questioner.price, terms.cache.spent(self.job))
        self.screens: list[tuple[Screen, str]] = []
        self.stopped = ""
        self._able: Capabilities | None = None
        self._fatal: FledgeError | None = None
        self._prompts: dict[int, Prompt] = {}
        self._replies: dict[int, dict[int, tuple[str, Reply]]] = defaultdict(dict)
        self._failures: dict[int, Failure] = {}
        self._flying: dict[str, asyncio.Future[Reply]] = {}
        self._fresh: dict[str, Reply] = {}
        self._open: Endpoint | None = None
        self._done = self._total = 0

    async def run(self, items: Sequence[Item]) -> None:
        """Ask everything. A cancelled job waits for what is on its way, so that nothing is left in doubt.

        Raises:
            ConfigError, DataError: see `OpenAICompatAnnotator.label`.
        """
        async with AsyncExitStack() as stack:
            self._stack = stack
            self._able = await self._capabilities()
            if self._able is not None and not self._able.images and any(_pictures(item) for item in items):
                raise ConfigError(
                    f"{self.questioner.model} at {self.questioner.base_url} takes no pictures, and the items have "
                    "some. Name a model that sees."
                )
            chats, self.screens = self.questioner.chats(items, self._able or Capabilities())
            self._total = sum(len(chat.screens) for chat in chats)
            queue = deque(chats)
            workers = asyncio.gather(*(self._worker(queue) for _ in range(self.terms.pace.workers)))
            try:
                await asyncio.shield(workers)
            except asyncio.CancelledError:
                self.stopped = "stopped"
                await workers
                raise
        if self._fatal is not None:
            raise self._fatal

    async def _capabilities(self) -> Capabilities | None:
        if self.questioner.asking.mode != "auto":
            return None  # even where a probe was made: what is asked must not depend on what happened before
        about = {"endpoint": self.questioner.base_url, "model": self.questioner.model}
        found = self.terms.cache.fact("capabilities", about)
        if found is not None:
            return Capabilities(**found)
        if self.terms.cache_mode == "cache_only":
            raise DataError(
                f"mode='auto' needs to know what {about['model']} can do, and the cache does not say. "
                "Name the mode in which the answers were recorded, or ask online once."
            )
        try:
            able = await probe(self._probed)
        except (Failed, BudgetSpent, Refused) as error:
            raise ConfigError(f"The endpoint could not be probed: {error}. Try later, or name a mode.") from None
        self.terms.cache.note("capabilities", about, able.as_dict())
        return able

    async def _probed(self, known_by: Mapping[str, Any], body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        questioner = self.questioner
        extra = dict(questioner.asking.extra)
        request = {"endpoint": questioner.base_url, "model": questioner.model, "extra": extra, **known_by}
        sent = {"model": questioner.model, **with_extra(body, extra)}
        call = Call(cache_key(request), request, sent, 150, int(body["max_tokens"]))
        try:
            return (await self._reply(call)).body
        except Failed as error:
            if error.not_understood:
                return None
            raise

    async def _worker(self, queue: deque[Chat]) -> None:
        while queue and not self.stopped:
            try:
                await self._chat(queue.popleft())
            except BudgetSpent as error:
                self.stopped = self.stopped or str(error)
            except Refused as error:
                self._fatal = ConfigError(f"{error}. Check the key's environment variable, the address and the model.")
                self.stopped = self.stopped or str(error)
            except FledgeError as error:
                self._fatal = error
                self.stopped = self.stopped or str(error)

    async def _chat(self, chat: Chat) -> None:
        history: tuple[Turn, ...] = ()
        for place, (n, screen, mode) in enumerate(chat.screens):
            if self.stopped:
                return
            prompt = self.questioner.prompt(screen, mode, history, self._able)
            self._prompts.setdefault(n, prompt)
            call = self.questioner.call(prompt, mode, chat.sample, self._able)
            try:
                reply = await self._reply(call)
            except _Skipped:
                return
            except Failed as error:
                self._failed(call, chat, place, error)
                return
            self._replies[n][chat.sample] = (call.key, reply)
            history = answered(prompt, text_of(reply.body)[0])
            self._done += 1
            self._tell()

    def _failed(self, call: Call, chat: Chat, place: int, error: Failed) -> None:
        status: Literal["error", "in_doubt"] = "in_doubt" if isinstance(error, _InDoubt) else "error"
        for later, (n, screen, _) in enumerate(chat.screens[place:]):
            reason = f"an earlier screen of this chat failed: {error}" if later else str(error)
            names = tuple(item.id for item in screen.items), tuple(c.name for c in screen.constructs)
            self._failures.setdefault(n, Failure(*names, status, reason, error.tries))
        ids = [item.id for _, screen, _ in chat.screens[place:] for item in screen.items]
        self.terms.cache.failed(call.key, self.job, list(dict.fromkeys(ids)), status, str(error), error.tries)
        self._tell()

    def _tell(self) -> None:
        if self.terms.progress is not None:
            spent, money = self.ledger.spent, self.ledger.money
            self.terms.progress(Progress(self._done, self._total, len(self._failures), spent, money))

    async def _reply(self, call: Call) -> Reply:
        """From the cache, from a twin that is on its way, or from the endpoint."""
        terms, key = self.terms, call.key
        found = self._fresh.get(key) if terms.cache_mode == "record" else terms.cache.get(key)
        if found is not None:
            return found
        if terms.cache_mode == "cache_only":
            if terms.skip_missing:
                raise _Skipped
            raise DataError(
                f"The cache at {terms.cache.path} has no answer to a question ({key[:12]}…). The pictures, the "
                "wording, the model or its settings are not those that were recorded, or recording was not finished. "
                "Ask online, or leave out what is missing (skip_missing)."
            )
        if key in self._flying:
            return await self._flying[key]
        if terms.cache.in_doubt(key):
            if not terms.ask_again:
                raise _InDoubt("sent before, and stopped before a reply was stored; ask again to send it twice", 0)
            terms.cache.forget_doubts(key)
        self._flying[key] = asyncio.get_running_loop().create_future()
        try:
            reply = await (await self._endpoint()).ask(call)
        except Exception as error:
            self._flying[key].set_exception(error)
            self._flying[key].exception()  # looked at: twins may or may not be waiting
            raise
        finally:
            flown = self._flying.pop(key)
        flown.set_result(reply)
        self._fresh[key] = reply
        return reply

    async def _endpoint(self) -> Endpoint:
        if self._open is None:
            terms = self.terms
            key = secret(terms.api_key_env)
            endpoint = Endpoint(self.questioner.base_url, key, terms.pace, terms.cache, self.ledger, self.job)
            self._open = await self._stack.enter_async_context(endpoint)
        return self._open

    # --- what came of it ---

    @property
    def failures(self) -> list[Failure]:
        """In the order of the screens."""
        return [self._failures[n] for n in sorted(self._failures)]

    def complete(self, n: int) -> bool:
        """Whether a screen has all its replies."""
        wanted = self.questioner.asking.n_votes if self.screens[n][1] == "votes" else 1
        return n not in self._failures and len(self._replies.get(n, ())) == wanted

    def left(self) -> list[str]:
        """Items with a screen that has neither a reply nor a failure."""
        open_screens = [n for n in range(len(self.screens)) if n not in self._failures and not self.complete(n)]
        return list(dict.fromkeys(item.id for n in open_screens for item in self.screens[n][0].items))

    def annotations(self, name: str, source: str) -> list[Annotation]:
        """One per answer, in the order of the screens."""
        found: list[Annotation] = []
        for n, (screen, mode) in enumerate(self.screens):
            if self.complete(n):
                keyed = [self._replies[n][sample] for sample in sorted(self._replies[n])]
                prompt = self._prompts[n]
                answers = read(prompt, [reply.body for _, reply in keyed], mode)
                found += [
                    self._annotation(prompt, i, answer, keyed, name, source, screen) for i, answer in enumerate(answers)
                ]
        return found

    def _annotation(
        self,
        prompt: Prompt,
        i: int,
        answer: Answer,
        keyed: Sequence[tuple[str, Reply]],
        name: str,
        source: str,
        screen: Screen,
    ) -> Annotation:
        slot, replies = prompt.slots[i], [reply for _, reply in keyed]
        raw = [{"key": key, "reply": text_of(reply.body)[0]} for key, reply in keyed]
        p = answer.probability
        return Annotation(
            item=slot.item.id,
            construct=slot.construct.name,
            annotator=name,
            value=None if answer.value is None else as_stored(slot.item, answer.value),
            missing=answer.missing,
            probability=None if p is None else {as_stored(slot.item, option): share for option, share in p.items()},
            mode=answer.mode,
            instrument=self.questioner.version,
            condition=self.questioner.condition,
            screen=screen.index,
            position=slot.position,
            sweep=screen.sweep,
            asked_order=slot.asked_order,
            replicate=self.questioner.replicate,
            source=source,
            shown=min(reply.time - reply.latency for reply in replies),
            submitted=max(reply.time for reply in replies),
            raw=json.dumps(raw, ensure_ascii=False),
        )


class _InDoubt(Failed):
    """It was sent, and nobody lived to see the reply."""


def _pictures(item: Item) -> bool:
    return bool(item.media) or any(_pictures(half) for half in item.pair)


def money_text(money: float) -> str:
    """US dollars for people."""
    return "price unknown" if math.isnan(money) else f"${money:,.4f}"
