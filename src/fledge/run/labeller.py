"""Models behind OpenAI-compatible endpoints as annotators, and their recorded replies."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from fledge.core.annotations import Annotation, Item
from fledge.core.contracts import Annotator
from fledge.core.errors import ConfigError, DataError, unknown
from fledge.core.instruments import Instrument
from fledge.data.prices import Estimate, Price, price_of, read_prices
from fledge.data.prompts import Turn, answered
from fledge.data.replies import text_of
from fledge.run.capabilities import PROBES, Capabilities
from fledge.run.chats import Asking, Chat, Questioner, labeller_facts
from fledge.run.endpoint import Pace, checked_url
from fledge.run.limits import Budget
from fledge.run.reply_cache import ReplyCache, Spent
from fledge.run.work import CacheMode, Failure, Progress, Terms, Work

CACHE_MODES = ("online", "cache_only", "record")
T = TypeVar("T")


@dataclass(frozen=True)
class Labelling:
    """What came of asking: answers, failures, and what was not asked. Partial results are valid."""

    annotations: list[Annotation]
    failures: list[Failure] = field(default_factory=list)
    """Requests without a reply; never labels."""
    left: list[str] = field(default_factory=list)
    """Items with a question that was not asked, because the budget was spent or the job was stopped."""
    stopped: str = ""
    """Why it ended early; empty if it did not."""
    spent: Spent = field(default_factory=Spent)
    """By this job over all its runs."""
    money: float = 0.0
    """US dollars, as `spent`; not a number where the model has no price."""


class OpenAICompatAnnotator(Annotator):
    """A (vision-)language model behind an OpenAI-compatible endpoint: OpenAI, vLLM, llama.cpp, Ollama, LM Studio, …

    Every reply is in the cache before it is used. A killed job goes on where it was, by asking the same again: what is
    in the cache is not asked; what was sent and never answered is marked as in doubt and not sent twice, unless
    `ask_again`.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str = "",
        *,
        asking: Asking | None = None,
        cache: ReplyCache | Path | str = ":memory:",
        cache_mode: CacheMode = "online",
        pace: Pace | None = None,
        budget: Budget | None = None,
        prices: Mapping[str, Price] | None = None,
        ask_again: bool = False,
        skip_missing: bool = False,
        progress: Callable[[Progress], None] | None = None,
        name: str = "",
        source: Literal["llm", "vlm"] = "vlm",
        job: str = "",
    ):
        """
        Args:
            base_url: of the endpoint, as in https://api.openai.com/v1.
            model: its name there.
            api_key_env: the environment variable that holds the key; empty for a server that wants none.
            asking: how it is asked.
            cache: of replies, or its file.
            cache_mode: `online`: ask what the cache has not. `cache_only`: open no socket, need no key, refuse what the
                cache has not. `record`: ask everything anew and store it over what is there.
            pace: how fast and how patiently.
            budget: what the job may use at most, over all its runs with this cache.
            prices: of models; by default those that come with Fledge.
            ask_again: send again what is in doubt (it may be paid for twice).
            skip_missing: with `cache_only`, leave out what the cache has not, instead of refusing.
            progress: is told after each reply.
            name: of the annotator; by default the model's.
            source: what its annotations are marked with.
            job: what the budget belongs to. By default the endpoint, the model, how it is asked, the instrument and
                its condition; give a name where one budget covers several of these.
        """
        if cache_mode not in CACHE_MODES:
            raise unknown("cache mode", cache_mode, CACHE_MODES)
        self.base_url, self.model, self.api_key_env = checked_url(base_url), model, api_key_env
        self.asking, self.pace, self.budget = asking or Asking(), pace or Pace(), budget or Budget()
        self.cache = cache if isinstance(cache, ReplyCache) else ReplyCache(cache)
        self.cache_mode, self.ask_again, self.skip_missing = cache_mode, ask_again, skip_missing
        self.price = price_of(model, read_prices() if prices is None else prices)
        self.progress, self.name, self.source, self.job = progress, name or model, source, job

    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> list[Annotation]:
        """The annotations of `label`, if nothing failed and nothing was left.

        Raises:
            ConfigError, DataError: as `label`.
            DataError: some requests got no reply, or the budget was spent. The answers that came are in the cache;
                `label` hands them over beside what failed.
        """
        done = self.label(items, instrument, condition=condition, replicate=replicate)
        if done.failures or (done.left and not self.skip_missing):
            reason = done.stopped or done.failures[0].reason
            raise DataError(
                f"{len(done.annotations)} answers came, {len(done.failures)} requests failed and {len(done.left)} "
                f"items were not asked: {reason}. Ask again to go on from the cache, or use label(…) for what there is."
            )
        return done.annotations

    def label(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> Labelling:
        """Ask about all items.

        Raises:
            ConfigError: the settings cannot ask this instrument; the endpoint refuses the key, the model or pictures.
            DataError: `cache_only`, and the cache has not everything.
        """
        ids = [item.id for item in items]
        if len(set(ids)) < len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise ConfigError(f"Item ids are names of their own, but '{twice}' comes twice.")
        questioner = self._questioner(instrument, condition, replicate)
        if self.cache_mode != "cache_only":
            self.cache.note("labeller", labeller_facts(self.base_url, self.model, self.asking), self._about())
        work = Work(questioner, self._terms())
        run_now(work.run(items))
        return Labelling(
            work.annotations(self.name, self.source),
            work.failures,
            work.left(),
            work.stopped,
            work.ledger.spent,
            work.ledger.money,
        )

    def estimate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicates: int = 1, first: int = 0
    ) -> Estimate:
        """What labelling with replicates `first`, `first` + 1, … would need now; sends nothing.

        A probe that is still to be made counts.
        """
        total = Estimate()
        able = self.known_capabilities()
        if able is None and self.asking.mode == "auto":
            for _ in range(PROBES):
                total = total.plus(0, 40, 10, self.price)
        for replicate in range(first, first + replicates):
            questioner = self._questioner(instrument, condition, replicate)
            chats, _ = questioner.chats(items, able or Capabilities())
            seen: set[str] = set()
            for chat in chats:
                total = self._estimated(total, questioner, chat, able, seen)
        return total

    def _estimated(
        self, total: Estimate, questioner: Questioner, chat: Chat, able: Capabilities | None, seen: set[str]
    ) -> Estimate:
        history: tuple[Turn, ...] = ()
        for _, screen, mode in chat.screens:
            prompt = questioner.prompt(screen, mode, history, able)
            call = questioner.call(prompt, mode, chat.sample, able)
            reply = None if self.cache_mode == "record" else self.cache.get(call.key)
            if reply is not None or call.key in seen:
                total = replace(total, cached=total.cached + 1)
            else:
                total = total.plus(prompt.images, call.prompt_tokens, call.completion_tokens, self.price)
            seen.add(call.key)
            text = text_of(reply.body)[0] if reply is not None else "x" * 4 * call.completion_tokens
            history = answered(prompt, text)
        return total

    def known_capabilities(self) -> Capabilities | None:
        """What an earlier probe found; None where there was none, or where the mode is named and none is needed."""
        if self.asking.mode != "auto":
            return None
        found = self.cache.fact("capabilities", {"endpoint": self.base_url, "model": self.model})
        return None if found is None else Capabilities(**found)

    def _questioner(self, instrument: Instrument, condition: str, replicate: int) -> Questioner:
        name = instrument.condition(condition).name
        return Questioner(self.base_url, self.model, self.asking, instrument, name, replicate, self.price)

    def _terms(self) -> Terms:
        return Terms(
            self.cache,
            self.cache_mode,
            self.api_key_env,
            self.pace,
            self.budget,
            self.ask_again,
            self.skip_missing,
            self.progress,
            self.job,
        )

    def _about(self) -> dict[str, str]:
        return {"name": self.name, "source": self.source}


class ReplayAnnotator(Annotator):
    """What a model once answered: from a cache of replies or a label pack. Opens no socket and needs no key."""

    def __init__(self, path: Path | str, *, model: str = "", skip_missing: bool = False):
        """
        Args:
            path: of a cache (SQLite) or a label pack (JSON lines).
            model: whose answers, where several were recorded.
            skip_missing: leave out what was not recorded, instead of refusing.

        Raises:
            DataError: there is no such file, or it is neither.
            ConfigError: it has several labellers, or not this one.
        """
        cache = _opened(Path(path))
        facts = [fact for fact in cache.noted("labeller") if model in ("", fact["about"]["model"])]
        if len(facts) != 1:
            known = [fact["about"]["model"] for fact in cache.noted("labeller")]
            raise ConfigError(
                f"{path} has the answers of {known}, which is not one labeller of the model '{model or 'any'}'. "
                "Name one with model=…, or open the cache with OpenAICompatAnnotator(…, cache_mode='cache_only')."
            )
        about, value = facts[0]["about"], facts[0]["value"]
        self.inner = OpenAICompatAnnotator(
            about["endpoint"],
            about["model"],
            asking=Asking(**about["asking"]),
            cache=cache,
            cache_mode="cache_only",
            skip_missing=skip_missing,
            name=value["name"],
            source=value["source"],
        )

    def annotate(
        self, items: Sequence[Item], instrument: Instrument, *, condition: str = "", replicate: int = 0
    ) -> list[Annotation]:
        """The recorded answers, exactly as they were.

        Raises:
            DataError: something was not recorded: other pictures, another wording, another replicate.
        """
        return self.inner.annotate(items, instrument, condition=condition, replicate=replicate)


def _opened(path: Path) -> ReplyCache:
    if not path.is_file():
        raise DataError(f"There is no cache or label pack at {path}. Check the name.")
    with path.open("rb") as file:
        if file.read(15) == b"SQLite format 3":
            return ReplyCache(path)
    cache = ReplyCache(":memory:")
    cache.read_pack(path)
    return cache


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; in a thread of its own where an event loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    found: deque[tuple[T | None, BaseException | None]] = deque()

    def run() -> None:
        try:
            found.append((asyncio.run(work), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    value, error = found[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
