"""The adjusted Rand index of restarts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from pluralign.inference.restarts import agreement

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=30)


@given(PAIRS)
def test_agreement_is_the_adjusted_rand_index_of_scikit_learn(pairs):
    first, second = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    assert agreement(first, second) == pytest.approx(adjusted_rand_score(first, second), abs=1e-12)


def test_agreement_does_not_know_the_names_of_clusters():
    one = np.array([0, 0, 1, 1, 2], dtype=np.int32)
    assert agreement(one, (one + 1) % 3) == 1
    assert agreement(one, np.zeros(5, dtype=np.int32)) == 0
