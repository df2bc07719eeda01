import numpy as np
import pyarrow as pa
import pytest
import torch

from pluralign.errors import ConfigError, DataError
from pluralign.language_models.descriptions import describe_covariates, describe_texts


def test_covariates_are_worked_by_hand():
    users = pa.table({"age": [20, 40, None], "town": ["Ulm", "Rome", "Ulm"]})
    # Age 20 and 40 standardise to -1 and 1; Ulm 1, 0, 1 to 1/sqrt 2, -sqrt 2, 1/sqrt 2, Rome to the opposite.
    half = 0.5**0.5
    wanted = np.array([[-1, half, -half], [1, -2 * half, 2 * half], [0, half, -half]]) / 3**0.5
    np.testing.assert_allclose(describe_covariates(users), wanted, atol=1e-6)


def test_an_average_user_has_length_one():
    users = pa.table({"a": ["x", "y", "z", "x"], "b": [1.0, 2.0, 5.0, 7.0], "c": [True, False, False, True]})
    rows = describe_covariates(users)
    torch.testing.assert_close(rows.pow(2).sum(1).mean(), torch.tensor(1.0))
    torch.testing.assert_close(rows.mean(0), torch.zeros(5), atol=1e-6, rtol=0)
    assert describe_covariates(users, ["b"]).shape == (4, 1)


def test_missing_values_are_the_average():
    users = pa.table({"town": ["Ulm", None, "Rome"], "never": pa.array([None, None, None], pa.float64())})
    assert not describe_covariates(users)[1].any()


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (["height"], ConfigError, 'no covariate "height"; known: same, list'),
        (["list"], DataError, 'covariate "list" is list'),
        (["same"], DataError, r"no covariate \(same\) differs between users"),
        ([], DataError, r"no covariate \(none was named\)"),
    ],
)
def test_covariates_that_say_nothing(columns, error, message):
    users = pa.table({"same": ["x", "x"], "list": [[1], [2]]})
    with pytest.raises(error, match=message):
        describe_covariates(users, columns)


def test_a_persona_is_the_mean_of_its_words(tokenizer):
    vocabulary = torch.randn(259, 8, generator=torch.Generator().manual_seed(0))
    rows = describe_texts(["ab", "ba", "", "c"], tokenizer, vocabulary)
    a, b, c = (vocabulary[tokenizer(letter)["input_ids"][0]] for letter in "abc")
    torch.testing.assert_close(rows[0], rows[1])
    assert not rows[2].any()
    # Standardising two distinct values, one of them twice: 1/sqrt 2 and -sqrt 2, by the sign of their difference.
    torch.testing.assert_close(rows[0], torch.sign((a + b) / 2 - c) * 0.5**0.5 / 8**0.5)
