import numpy as np
import pytest

from pluralign.errors import ConfigError
from pluralign.populations import STYLE_NAMES, count_style, write_texts
from pluralign.populations.texts import _TOPICS, MAX_PROMPTS, _answer


def test_counts_by_hand():
    text = "Wow! Perhaps it might help.\n- Use 250 g.\n- Wait 1,5 hours! Furthermore, haha, I feel for you."
    counted = dict(zip(STYLE_NAMES, count_style([text])[0], strict=True))
    assert counted == {
        "length": 19,
        "bullets": 2,
        "warmth": 1,
        "exclamation": 2,
        "hedging": 2,
        "humour": 1,
        "detail": 2,
        "formality": 1,
    }


def test_a_plain_answer_has_no_style_and_asking_for_one_adds_it():
    rng = np.random.default_rng(0)
    for topic in _TOPICS:
        assert count_style([_answer(topic, np.zeros(8, dtype=int), rng)])[0, 1:].tolist() == [0] * 7
        for column in range(1, 8):
            level = np.zeros(8, dtype=int)
            level[column] = 1
            counted = count_style([_answer(topic, level, rng)])[0, 1:]
            assert counted[column - 1] > 0
            assert np.delete(counted, column - 1).tolist() == [0] * 6


def test_thousands_of_answers_are_distinct_and_prompts_too():
    corpus = write_texts(MAX_PROMPTS, 8, seed=0)
    assert len(corpus.responses) == 3200
    assert len(set(corpus.responses)) > 3150
    assert len(set(corpus.prompts)) == MAX_PROMPTS
    for text in corpus.responses:
        assert "  " not in text
        assert "{" not in text
        assert text[0].isupper()
        assert text[-1] in ".!"


def test_answers_of_one_prompt_never_repeat():
    corpus = write_texts(1, 500, seed=0)
    assert len(set(corpus.responses)) == 500


def test_every_style_varies_and_none_is_another_in_disguise():
    style = write_texts(100, 8, seed=1).style
    correlation = np.corrcoef(style.T) - np.eye(8)
    assert (style.std(axis=0) > 0.5).all()
    assert np.abs(correlation).max() < 0.6


def test_the_same_seed_writes_the_same_texts():
    assert write_texts(5, 4, seed=3).responses == write_texts(5, 4, seed=3).responses
    assert write_texts(5, 4, seed=3).responses != write_texts(5, 4, seed=4).responses


def test_more_prompts_than_there_are_is_an_error():
    with pytest.raises(ConfigError, match="n_prompts is 401; texts have 1 to 400 prompts"):
        write_texts(401, 2, seed=0)
    with pytest.raises(ConfigError, match="n_responses is 1; a comparison needs at least 2"):
        write_texts(4, 1, seed=0)
