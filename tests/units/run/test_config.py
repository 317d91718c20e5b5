"""Settings and TOML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fledge.core.errors import ConfigError
from fledge.run import config
from fledge.run.settings import MetaRLSettings, Scalar


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[str, float] = ("a", 1.0)
    end: float | None = None
    limit: int | None = 3


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    count: int = 1
    flag: bool = False
    mode: Literal["fast", "slow"] = "fast"
    inner: Inner = Inner()
    free: dict[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ConfigError("count is anything but 13.")


numbers = st.floats(allow_nan=False)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**40), 2**40),
    numbers,
    words,
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
    st.lists(words, min_size=1, max_size=3).map(tuple),
)
inners = st.builds(
    Inner,
    rate=numbers,
    sizes=st.lists(st.integers(-5, 5), max_size=3).map(tuple),
    pair=st.tuples(words, numbers),
    end=st.none() | numbers,
    limit=st.none() | st.integers(-5, 5),
)
outers = st.builds(
    Outer,
    name=words,
    count=st.integers(14, 10**9),
    flag=st.booleans(),
    mode=st.sampled_from(["fast", "slow"]),
    inner=inners,
    free=st.dictionaries(words.filter(bool), scalars, max_size=3),
)


@given(outers)
@settings(max_examples=100, deadline=None)
def test_config_to_toml_to_config_is_the_identity(value):
    assert config.parse(Outer, config.dump(value)) == value


def test_the_defaults_of_every_recipe_survive_toml():
    assert config.parse(MetaRLSettings, config.dump(MetaRLSettings())) == MetaRLSettings()


def faults(text: str) -> list[str]:
    found: list[str] = []
    config.read(Outer, config.tree_of(text, "t"), found)
    return found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("coutn = 3", "coutn: there is no such setting. Did you mean 'count'?"),
        ("inner = { raet = 1.0 }", "inner.raet: there is no such setting. Did you mean 'rate'?"),
        ("count = 1.5", "count is a whole number, not 1.5."),
        ("count = true", "count is a whole number, not true."),
        ("flag = 1", "flag is true or false, not 1."),
        ("name = 3", "name is a word in quotes, not 3."),
        ("mode = 'fats'", "mode is one of 'fast', 'slow', not 'fats'. Did you mean 'fast'?"),
        ("inner = 3", "inner is a table of settings, not 3."),
        ("inner = { sizes = [1, 'b'] }", "inner.sizes[1] is a whole number, not 'b'."),
        ("inner = { sizes = 4 }", "inner.sizes is a list (each entry a whole number), not 4."),
        ("inner = { pair = ['a'] }", "inner.pair is a list of 2 (a word in quotes, a number), not ['a']."),
        ("inner = { end = 'soon' }", "inner.end is a number or \"none\", not 'soon'."),
        ("count = 13", "count is anything but 13."),
    ],
)
def test_a_fault_says_what_came_and_what_was_wanted(text, message):
    assert faults(text) == [message]


def test_all_faults_are_listed_together():
    with pytest.raises(ConfigError) as caught:
        config.parse(Outer, "coutn = 3\nflag = 1\nmode = 'x'\ninner = { rate = 'r', siezs = [] }", "my.toml")
    assert str(caught.value).startswith("my.toml has 5 faults:")


def test_a_whole_number_does_for_a_number():
    assert config.parse(Outer, "inner = { rate = 2 }").inner.rate == 2.0


def test_none_can_be_written_where_it_is_not_the_default():
    assert config.parse(Outer, "inner = { limit = 'none' }").inner.limit is None


def test_text_that_is_not_toml_names_the_place():
    with pytest.raises(ConfigError, match=r"my\.toml is not TOML: .*line 2"):
        config.parse(Outer, "count = 1\ncount = oops", "my.toml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-4", 3e-4),
        ("1e6", 1_000_000),
        ("true", True),
        ("[32, 32]", [32, 32]),
        ("gru", "gru"),
        ('"3"', "3"),
        ("my_envs:Maze", "my_envs:Maze"),
        ("2024-01-01", "2024-01-01"),
    ],
)
def test_a_command_line_value_is_what_it_looks_like(text, value):
    assert config.value_of(text) == value


def test_overrides_are_checked_like_files():
    found: list[str] = []
    changes = config.changes_of(["inner.rate=fast", "inner.sizes=[3]", "nonsense", "count=4"], found)
    changed = config.override(Outer(), changes, found)
    assert (changed.count, changed.inner.sizes, len(found)) == (4, (3,), 2)


def test_overriding_one_entry_of_a_table_keeps_the_others():
    base = Outer(free={"a": 1, "b": 2})
    assert config.override(base, {"free": {"b": 3}}, []).free == {"a": 1, "b": 3}


LEAVES = sorted(config.flatten(config.to_tree(MetaRLSettings())))


@given(st.sampled_from(LEAVES), st.data())
@settings(max_examples=60, deadline=None)
def test_any_single_key_typo_is_refused_with_a_suggestion(key, data):
    table, _, name = key.rpartition(".")
    i = data.draw(st.integers(0, len(name) - 1))
    typo = name[:i] + name[i + 1 :] or "q"
    if config.flatten(config.to_tree(MetaRLSettings())).get(f"{table}.{typo}") is not None:
        return
    found: list[str] = []
    config.override(MetaRLSettings(), config.nest({f"{table}.{typo}": 1}), found)
    assert len(found) == 1
    assert "there is no such setting. Did you mean '" in found[0] or len(name) <= 4
