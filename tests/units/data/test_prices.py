"""What labelling costs, before it is asked for; and pictures as files."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from fledge.core.annotations import Media
from fledge.core.errors import DataError, ShapeError
from fledge.data.pictures import pixels, png, size
from fledge.data.prices import Estimate, price_of, prompt_tokens, read_prices
from fledge.data.prompts import Turn

PRICES = read_prices()


def test_one_pass_over_the_pendulum_costs_what_it_should():
    """3,000 segments, two questions, five pictures: 2.8 million tokens in, 6,000 out, about seven dollars."""
    price, picture = PRICES["gpt-4o"], Media("image", b"x")
    question = (
        "You see a film of a red stick. Answer with the letter Y if the black dot is at its bottom end, else with N."
    )
    tokens = prompt_tokens((Turn("system", (question,)), Turn("user", (picture,) * 5)), price)
    total = Estimate(6000, 30000, 6000 * tokens, 6000, price.money(6000 * tokens, 6000))
    assert total.prompt_tokens == pytest.approx(2.8e6, rel=0.05)
    assert total.money == pytest.approx(7, abs=0.3)


@pytest.mark.parametrize(
    ("shape", "tokens"), [((64, 64), 255), ((512, 512), 255), ((1024, 1024), 765), ((2048, 4096), 1105)]
)
def test_a_detailed_picture_counts_by_its_tiles(shape, tokens):
    turn = Turn("user", (Media("image", png(np.zeros((*shape, 3), np.uint8))),))
    assert prompt_tokens((turn,), PRICES["gpt-4o"], "high") == tokens + 4


def test_a_dated_model_has_the_price_of_its_name():
    assert price_of("gpt-4o-2024-08-06", PRICES) == PRICES["gpt-4o"]


def test_a_model_without_a_price_costs_no_number():
    assert math.isnan(price_of("my-model", PRICES).money(1, 1))


@pytest.mark.parametrize("text", ["[models.x]\ninput = 1.0", "models = 3", "= broken", '[models.x]\ninput="a"'])
def test_a_broken_table_of_prices_is_refused(text, tmp_path):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(DataError, match=r"p\.toml"):
        read_prices(tmp_path / "p.toml")


def test_a_picture_survives_being_written():
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(np.asarray(image.open(io.BytesIO(png(frame)))), frame)


def test_a_picture_is_read_back_as_it_was_written():
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(pixels(png(frame)), frame)


@pytest.mark.parametrize("content", [b"", b"GIF89a", png(np.zeros((4, 4, 3), np.uint8))[:-30]])
def test_what_is_no_picture_of_ours_is_refused(content):
    with pytest.raises(DataError, match="Pillow"):
        pixels(content)


def test_the_size_of_a_picture_is_read_from_its_head():
    assert size(png(np.zeros((5, 7, 3), np.uint8))) == (7, 5)


def test_a_frame_of_floats_is_refused():
    with pytest.raises(ShapeError, match="uint8"):
        png(np.zeros((5, 7, 3)))
