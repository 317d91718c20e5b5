"""What labelling will cost, before the first request: tokens of texts and pictures, and money by a table of prices."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fledge.core.annotations import Media
from fledge.core.errors import DataError
from fledge.core.files import read_text
from fledge.data.pictures import size
from fledge.data.prompts import Turn

PRICES = Path(__file__).with_name("prices.toml")
"""The table that comes with Fledge."""
_BYTES_PER_TOKEN = 4
_PER_MESSAGE = 4


@dataclass(frozen=True)
class Price:
    """What a model costs."""

    input: float
    """US dollars per million tokens."""
    output: float
    low: int
    """Tokens of a low-detail picture."""
    base: int
    """Tokens of a high-detail picture: base + tile * tiles."""
    tile: int

    def money(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


UNKNOWN = Price(math.nan, math.nan, 85, 85, 170)
"""A model without a price: tokens are estimated, money is not a number."""


def read_prices(path: Path = PRICES) -> dict[str, Price]:
    """The table of prices by model.

    Raises:
        DataError: the file is missing, is not TOML, or has a row that is not whole.
    """
    try:
        table = tomllib.loads(read_text(path, "table of prices"))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not TOML: {error}. Compare it with {PRICES}.") from None
    rows = table.get("models")
    if not isinstance(rows, dict):
        raise DataError(f'{path} has no table [models."NAME"]. Compare it with {PRICES}.')
    return {name: _price(name, row, path) for name, row in rows.items()}


def _price(name: str, row: Any, path: Path) -> Price:
    wanted = [field.name for field in fields(Price)]
    good = isinstance(row, dict) and set(row) == set(wanted)
    if not good or not all(isinstance(v, (int, float)) and not isinstance(v, bool) and v >= 0 for v in row.values()):
        raise DataError(f'{path}: models."{name}" wants exactly {", ".join(wanted)}, numbers of at least 0; got {row}.')
    return Price(float(row["input"]), float(row["output"]), int(row["low"]), int(row["base"]), int(row["tile"]))


def price_of(model: str, prices: Mapping[str, Price]) -> Price:
    """The model's own row, that of the model it is a dated version of (`gpt-4o-2024-08-06`), or `UNKNOWN`."""
    known = [name for name in prices if model == name or model.startswith(f"{name}-20")]
    return prices[max(known, key=len)] if known else UNKNOWN


def prompt_tokens(turns: Sequence[Turn], price: Price, detail: str = "low") -> int:
    """Tokens of a prompt, estimated: four bytes of text to a token, pictures by the model's rule."""
    total = 0
    for turn in turns:
        total += _PER_MESSAGE
        for part in turn.parts:
            total += _picture(part, price, detail) if isinstance(part, Media) else _text(part)
    return total


def _text(text: str) -> int:
    return math.ceil(len(text.encode()) / _BYTES_PER_TOKEN)


def _picture(media: Media, price: Price, detail: str) -> int:
    if detail == "low":
        return price.low
    width, height = size(media.content) or (768, 768)
    shrink = min(1.0, 2048 / max(width, height))
    shrink *= min(1.0, 768 / (min(width, height) * shrink))
    tiles = math.ceil(width * shrink / 512) * math.ceil(height * shrink / 512)
    return price.base + price.tile * tiles


@dataclass(frozen=True)
class Estimate:
    """What a labelling run will need, not counting answers that are in the cache already."""

    requests: int = 0
    images: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """At most: the longest reply that is allowed, for each request."""
    money: float = 0.0
    """US dollars; not a number where the model has no price."""
    cached: int = 0
    """Requests that are answered already."""

    def plus(self, images: int, prompt: int, completion: int, price: Price) -> Estimate:
        """With one more request."""
        return Estimate(
            self.requests + 1,
            self.images + images,
            self.prompt_tokens + prompt,
            self.completion_tokens + completion,
            self.money + price.money(prompt, completion),
            self.cached,
        )

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def lines(self) -> list[str]:
        """For people."""
        money = "unknown (the model is not in the table of prices)" if math.isnan(self.money) else f"${self.money:,.2f}"
        return [
            f"requests  {self.requests:,} (and {self.cached:,} answered already)",
            f"images    {self.images:,}",
            f"tokens    about {self.prompt_tokens:,} in, at most {self.completion_tokens:,} out",
            f"money     {money}",
        ]
