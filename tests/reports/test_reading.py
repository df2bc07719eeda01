"""Texts that any file can hold, intervals that may be missing, numbers as they are read."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.errors import DataError
from pluralign.reports.reading import (
    Estimate,
    clean,
    estimate,
    fixed,
    number,
    p_value,
    read_results,
    short,
    signed,
    span,
)


@given(st.text(alphabet=st.characters(codec=None)))
def test_clean_text_can_be_written_and_turns_nothing_around(text):
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert "\x00" not in cleaned
    assert not set(cleaned) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert clean(cleaned) == cleaned


def test_surrogates_and_control_characters_are_seen_to_be_gone():
    assert clean("a\x00b\ud800c\x1b[31m\u202ed") == "a\ufffdb\ufffdc\ufffd[31m\ufffdd"
    assert clean("two\r\nlines\tand a tab") == "two\nlines\tand a tab"


def test_a_long_text_says_how_much_is_left():
    assert clean("x" * 2500, 1200) == "x" * 1200 + "… (1,300 more characters)"


def test_values_that_are_no_texts():
    assert clean(None) == ""
    assert clean([{"role": "user"}]) == '[{"role": "user"}]'


def test_a_label_is_one_line_of_its_length():
    assert short("a  b\n\nc") == "a b c"
    assert short(" \n ") == "(empty)"
    assert len(short("long " * 20_000, 30)) == 30


def test_an_interval_without_ends_is_an_estimate():
    assert estimate({"estimate": 0.5, "low": None, "high": None}) == Estimate(value=0.5, low=None, high=None)
    assert estimate({"estimate": None, "low": 0, "high": 1}) is None
    assert estimate(None) is None
    assert span(estimate({"estimate": 0.5, "low": None, "high": None})) == "0.500"


def test_an_interval_in_points():
    gain = estimate({"estimate": 0.1034, "low": -0.0799, "high": 0.1269})
    assert span(gain, 1, sign=True, factor=100) == "+10.3 [\u22128.0, +12.7]"


def test_only_finite_numbers_are_numbers():
    assert [number(v) for v in (1, 0.5, True, None, math.nan, math.inf, "1")] == [1, 0.5, None, None, None, None, None]


def test_numbers_as_a_reader_expects_them():
    assert (signed(0.04), signed(-2.5), fixed(-0.5, 1), fixed(None)) == ("0.0", "\u22122.5", "\u22120.5", "–")
    assert [p_value(p) for p in (0.0004, 0.0123, 0.4321)] == ["< 0.001", "0.012", "0.43"]


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(DataError, match=r"has no results\.json"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is not JSON"), ("[]", "has no verdict"), ('{"verdict": {}}', "has no ladder")]
)
def test_a_file_that_is_no_study_is_named(tmp_path, text, said):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match=said):
        read_results(tmp_path)


def test_results_are_read_as_they_were_written(tmp_path, make_results):
    made = make_results(12)
    (tmp_path / "results.json").write_text(json.dumps(made))
    assert read_results(tmp_path) == made
