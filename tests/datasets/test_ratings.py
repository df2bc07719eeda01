"""Sets of ratings: counts of the published files, and the draw."""

import time

import numpy as np
import pytest

from pluralign import datasets
from pluralign.datasets.implied_pairs import ImpliedPairs
from pluralign.datasets.local_files import TEXT, read_csv
from pluralign.errors import ConfigError, DataError


def write_jester(folder, ratings="user,joke1,joke2,joke3\nj1,1.5,-2,\nj2,0,0.5,3\nj3,1,1,1\n"):
    (folder / "jokes.csv").write_text('item,text\njoke1,"One, two"\njoke2,"A\nB"\njoke3,Three\n')
    (folder / "ratings_wide.csv").write_text(ratings)


def test_jester_by_hand(tmp_path):
    write_jester(tmp_path)
    jokes = datasets.load("jester", tmp_path, pairs_per_user=None)
    text = jokes.items.response.to_pylist()
    found = {
        (jokes.user_ids[u], text[c], text[r]) for u, c, r in zip(jokes.user, jokes.chosen, jokes.rejected, strict=True)
    }
    # joke2 over joke1 by j2 is a difference of 0.5, below the gap; j3 rated all alike and is no user.
    assert found == {("j1", "One, two", "A\nB"), ("j2", "Three", "One, two"), ("j2", "Three", "A\nB")}
    assert jokes.items.prompts.to_pylist() == ["Tell me a joke."]
    source = {
        frozenset((text[c], text[r])): s for c, r, s in zip(jokes.chosen, jokes.rejected, jokes.source, strict=True)
    }
    assert len(set(source.values())) == 3


def test_ties_are_kept_on_request(tmp_path):
    write_jester(tmp_path)
    jokes = datasets.load("jester", tmp_path, pairs_per_user=None, ties="keep")
    assert jokes.user_ids == ("j1", "j2", "j3")
    assert sorted(jokes.outcome.tolist()) == [0.5, 0.5, 0.5, 1, 1, 1]


def test_the_seed_decides_the_draw(tmp_path):
    rng = np.random.default_rng(0)
    rows = "".join(f"j{i}," + ",".join(map(str, rng.permutation(3))) + "\n" for i in range(40))
    write_jester(tmp_path, "user,joke1,joke2,joke3\n" + rows)
    one, same, other = (datasets.load("jester", tmp_path, pairs_per_user=1, seed=seed) for seed in (0, 0, 1))
    assert len(one) == 40
    assert one.chosen.tolist() == same.chosen.tolist() != other.chosen.tolist()


@pytest.mark.data
def test_jester_counts(data_dir):
    start = time.process_time()
    jokes = datasets.load("jester", data_dir)
    assert time.process_time() - start < 3
    count = np.bincount(jokes.user)
    assert (jokes.n_users, len(jokes.items), np.median(count), count.max()) == (4017, 100, 50, 50)  # two never vary
    ratings = read_csv(data_dir / "jester5k", "ratings_wide.csv.gz", {"user": TEXT}).drop_columns(["user"])
    values = np.stack([column.to_numpy() for column in ratings.columns], axis=1)
    rated = (~np.isnan(values)).sum(1)
    assert (len(values), np.median(rated), rated.min(), rated.max()) == (4019, 72, 36, 100)
    user, item = np.nonzero(~np.isnan(values))
    implied = ImpliedPairs.of(user, values[user, item], 4019).count
    ties = 1 - implied.sum() / (rated * (rated - 1) / 2).sum()
    assert ties == pytest.approx(0.01, abs=0.002)


# conversation, users, votes, statements, votes per user (median, most), implied comparisons (millions)
POLIS = [
    ("bowling-green", 2031, 225_524, 896, (58, 612), 16.3),
    ("biodiversity", 536, 29_719, 316, (56, 165), 0.64),
    ("canadian-electoral-reform", 448, 11_950, 174, (13, 160), 0.21),
    ("football-concussions", 1487, 14_328, 298, (4, 176), 0.09),
]


@pytest.mark.data
@pytest.mark.parametrize(("conversation", "n_users", "n_votes", "n_statements", "per_user", "implied"), POLIS)
def test_polis_counts(data_dir, conversation, n_users, n_votes, n_statements, per_user, implied):
    votes = read_csv(data_dir / "polis_open", f"{conversation}.votes.csv.gz", {"user": TEXT})
    names, user = np.unique(votes["user"].to_numpy(), return_inverse=True)
    count = np.bincount(user)
    assert (len(names), len(votes), np.median(count), count.max()) == (n_users, n_votes, *per_user)
    pairs = ImpliedPairs.of(user, votes["vote"].to_numpy().astype(float), len(names)).count
    assert pairs.sum() / 1e6 == pytest.approx(implied, abs=0.05 if implied > 1 else 0.005)
    loaded = datasets.load("polis", data_dir, conversation=conversation, pairs_per_user=20)
    assert len(loaded) == np.minimum(pairs, 20).sum()
    assert loaded.n_users == (pairs > 0).sum() == loaded.users.num_rows
    # Statements of one wording are one item.
    assert n_statements * 0.98 < len(loaded.items) <= n_statements


@pytest.mark.data
def test_popquorn_dices_and_ccai_counts(data_dir):
    popquorn = datasets.load("popquorn", data_dir, pairs_per_user=None)
    assert (popquorn.n_users, len(popquorn), np.median(np.bincount(popquorn.user))) == (262, 171_329, 711.5)
    assert popquorn.users.column_names == ["gender", "race", "age", "occupation", "education"]
    dices = datasets.load("dices", data_dir)
    assert (dices.n_users, len(dices.items)) == (93, 350)  # 94 raters, one of whom never varies
    ccai = datasets.load("ccai", data_dir, pairs_per_user=None)
    assert (ccai.users.column_names[0], len(ccai)) == ("polis_group", 164_876)  # 0.2 M with the held-back fifth


def test_a_joke_without_text_is_named(tmp_path):
    write_jester(tmp_path, "user,joke1,joke9\nj1,1,2\n")
    with pytest.raises(DataError, match=r"ratings_wide.csv.gz, header names 'joke9', which has no text"):
        datasets.load("jester", tmp_path)


def test_a_rating_that_is_no_number_is_named(tmp_path):
    write_jester(tmp_path, "user,joke1,joke2\nj1,1,good\nj2,1,2\n")
    with pytest.raises(DataError, match=r"ratings_wide.csv, column joke2 holds string values; accepted: numbers"):
        datasets.load("jester", tmp_path)


def test_an_unknown_conversation_is_named(tmp_path):
    (tmp_path / "biodiversity.votes.csv").write_text("user,comment_id,vote\n")
    with pytest.raises(ConfigError, match="conversation is 'x'; accepted: bowling-green, biodiversity"):
        datasets.load("polis", tmp_path, conversation="x")
