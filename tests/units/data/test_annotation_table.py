"""The long table: every format reads back what it wrote, missing codes stay apart, foreign files are understood."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fledge.annotation.formats import FORMATS, read_as, write_as
from fledge.core.annotations import MISSING, SOURCES, Annotation
from fledge.core.errors import ConfigError, DataError
from fledge.data.annotations import COLUMNS, AnnotationTable, read_answers, read_table, write_answers, write_table

pytest.importorskip("pyarrow", reason="needs the extra 'annotate'")
pytest.importorskip("pandas", reason="needs the extra 'annotate'")

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNT = st.integers(0, 50)
TIMES = st.none() | st.floats(0, 2e9, allow_nan=False)


@st.composite
def annotations(draw) -> Annotation:
    missing = draw(st.sampled_from(["", "", "", *MISSING]))
    chances = draw(st.none() | st.dictionaries(WORDS, st.floats(0, 1), min_size=1, max_size=2))
    return Annotation(
        item=draw(WORDS),
        construct=draw(WORDS),
        annotator=draw(WORDS),
        value=None if missing else draw(ANY),
        missing=missing,
        probability=chances,
        mode=draw(ANY),
        instrument=draw(ANY),
        condition=draw(ANY),
        screen=draw(st.integers(-1, 50)),
        position=draw(st.integers(-1, 50)),
        sweep=draw(COUNT),
        asked_order=draw(COUNT),
        replicate=draw(COUNT),
        revision=draw(COUNT),
        source=draw(st.sampled_from(SOURCES)),
        shown=draw(TIMES),
        submitted=draw(TIMES),
        raw=draw(ANY),
    )


@st.composite
def tables(draw) -> AnnotationTable:
    rows = draw(st.lists(annotations(), max_size=6))
    texts = {row.item: draw(ANY) for row in rows}
    people = {row.annotator: draw(st.dictionaries(WORDS, ANY, max_size=2)) for row in rows}
    return AnnotationTable(tuple(rows), texts, people)


def contents(table: AnnotationTable):
    """What a table holds, whatever the order of its rows."""
    return Counter(map(repr, table.rows)), table.texts, table.attributes


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_written_is_read_back(form, tmp_path):
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(tables())
    def examine(table):
        path = write_as(tmp_path / "table.json", table, form)
        assert contents(read_as(path, form)) == contents(table)

    examine()


HAND = AnnotationTable(
    (
        Annotation("t1", "HS", "ann", "1", condition="A", position=0, shown=1.0, submitted=3.5),
        Annotation("t1", "HS", "ann", "0", condition="A", position=0, revision=1),
        Annotation("t1", "OL", "ann", missing="dont_know", condition="A", position=0),
        Annotation("t2", "HS", "bob", missing="dropped_out", condition="D", position=1),
    ),
    {"t1": "a text", "t2": '=1+1, "quoted"\nand two lines'},
    {"ann": {"age": "31"}},
)


def test_the_frame_is_long_and_keeps_missing_codes_apart():
    frame = HAND.frame()
    assert list(frame.columns[:7]) == list(COLUMNS[:7])
    assert list(frame["missing_code"]) == ["", "", "dont_know", "dropped_out"]
    assert list(frame["position"]) == [1, 1, 1, 2]
    assert frame["attribute.age"][0] == "31"


def test_the_last_revision_of_each_answer():
    assert [row.value for row in HAND.last().rows] == ["0", None, None]


def test_a_table_without_the_optional_columns_is_read(tmp_path):
    (tmp_path / "t.csv").write_text("item,annotator,construct,value,missing_code\n1,ann,HS,1,\n2,ann,HS,,refused\n")
    assert [(row.value, row.missing) for row in read_table(tmp_path / "t.csv").rows] == [("1", ""), (None, "refused")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("item,annotator,construct,valu\n1,a,c,1\n", "line 1: the column 'value' is missing. Did you mean 'valu'"),
        ("item,annotator,construct,value,missing_code\n1,a,c,,refusd\n", "line 2: .*Did you mean 'refused'"),
        ("item,annotator,construct,value,positoin\n1,a,c,1,1\n", "line 2: There is no column 'positoin'"),
        ("item,annotator,construct,value,screen\n1,a,c,1,x\n", "line 2: could not convert"),
        ("item,annotator,construct,value\n,a,c,1\n", "line 2: 'item' is empty"),
    ],
)
def test_a_damaged_table_is_refused_by_line(text, said, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("form", ["label-studio", "argilla", "prodigy"])
@pytest.mark.parametrize("text", ["{}", "[1]", '[{"annotations": 3}]', "[", '{"data": 1}'])
def test_a_file_of_no_such_tool_is_refused(form, text, tmp_path):
    (tmp_path / "t.json").write_text(text)
    if form == "argilla" and text == '[{"annotations": 3}]':
        assert read_as(tmp_path / "t.json", form).rows == ()  # a record nobody answered
        return
    with pytest.raises(DataError):
        read_as(tmp_path / "t.json", form)


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'prodigy'"):
        write_as(tmp_path / "t", HAND, "prodgy")


def said(form, entries, tmp_path):
    text = "\n".join(map(json.dumps, entries)) if form == "prodigy" else json.dumps(entries)
    (tmp_path / "t.json").write_text(text)
    return [(r.item, r.construct, r.annotator, r.value, r.missing) for r in read_as(tmp_path / "t.json", form).rows]


def test_a_file_that_label_studio_made_is_understood(tmp_path):
    done = {"from_name": "hate", "to_name": "text", "type": "choices", "value": {"choices": ["yes", "sure"]}}
    stars = {"from_name": "stars", "to_name": "text", "type": "rating", "value": {"rating": 4}}
    annotations = [
        {"id": 1, "completed_by": 7, "result": [done, stars]},
        {"id": 2, "completed_by": {"email": "b@x.org"}, "was_cancelled": True, "result": []},
    ]
    assert said("label-studio", [{"id": 5, "data": {"text": "t"}, "annotations": annotations}], tmp_path) == [
        ("5", "hate", "7", "yes|sure", ""),
        ("5", "stars", "7", "4", ""),
        ("5", "hate", "b@x.org", None, "refused"),
        ("5", "stars", "b@x.org", None, "refused"),
    ]


def test_records_of_both_versions_of_argilla_are_understood(tmp_path):
    second = {"id": "r", "fields": {"text": "t"}, "responses": {"hate": [{"value": "yes", "user_id": "u"}]}}
    user = {"user_id": "v", "status": "submitted", "values": {"stars": {"value": 4}}}
    first = {"external_id": "s", "fields": {"body": "t"}, "responses": [user]}
    assert said("argilla", [second, first], tmp_path) == [("r", "hate", "u", "yes", ""), ("s", "stars", "v", "4", "")]


def test_tasks_that_prodigy_made_are_understood(tmp_path):
    common = {"text": "t", "_input_hash": -3, "_session_id": "data-ann"}
    options = {"options": [{"id": "HS", "text": "Hate"}, {"id": "OL", "text": "Offensive"}], "accept": ["OL"]}
    many = {"config": {"choice_style": "multiple"}}
    assert said(
        "prodigy",
        [
            common | {"label": "HATE", "answer": "reject"},
            common | options | {"answer": "accept"},
            common | options | many | {"answer": "accept"},
            common | {"label": "HATE", "answer": "ignore"},
        ],
        tmp_path,
    ) == [
        ("-3", "HATE", "data-ann", "0", ""),
        ("-3", "choice", "data-ann", "OL", ""),
        ("-3", "HS", "data-ann", "0", ""),
        ("-3", "OL", "data-ann", "1", ""),
        ("-3", "HATE", "data-ann", None, "refused"),
    ]


def test_an_answer_that_was_changed_in_the_other_tool_is_read_as_changed(tmp_path):
    path = write_as(tmp_path / "t.json", HAND, "label-studio")
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"][0]["result"][0]["value"]["choices"] = ["0"]
    path.write_text(json.dumps(tasks))
    changed = read_as(path, "label-studio").rows[0]
    assert (changed.value, changed.condition) == ("0", "A")


def test_a_table_is_not_written_under_another_ending(tmp_path):
    with pytest.raises(DataError, match="csv"):
        write_table(tmp_path / "t.xls", HAND)


def test_separators_of_lines_inside_an_answer_do_not_end_it(tmp_path):
    given = [
        Annotation("a", "up", "m", "1", raw="two\nlines\u2028three\x85four"),
        Annotation("b", "up", "m", missing="refused"),
    ]
    assert read_answers(write_answers(tmp_path / "a.jsonl", given)) == given


def test_the_last_revision_of_an_answer_counts(tmp_path):
    given = [Annotation("a", "up", "m", "1"), Annotation("a", "up", "m", "0", revision=1)]
    assert [answer.value for answer in read_answers(write_answers(tmp_path / "a.csv", given))] == ["0"]
