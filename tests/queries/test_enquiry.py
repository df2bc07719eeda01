"""Enquiries and interviews of one user, on texts and on numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.comparisons import read, write_jsonl
from pluralign.errors import ConfigError, DataError
from pluralign.features import Attributes, Design, Standardizer, encode, used_items
from pluralign.inference.adapt import adapt
from pluralign.inference.basis import fit_basis
from pluralign.inference.clusters import fit_clusters
from pluralign.inference.individual import fit_individual
from pluralign.inference.latent import fit_latent
from pluralign.inference.latent_elbo import LatentSettings
from pluralign.inference.pooled import fit_pooled
from pluralign.populations import simulate
from pluralign.queries import Enquiry, Question, believe, interview, read_pool
from pluralign.queries.regions import regions
from pluralign.rewards import LinearReward


@pytest.fixture(scope="module", autouse=True)
def fast(whole_runs):
    """Whole fits."""


@pytest.fixture(scope="module")
def population():
    return simulate(features="numeric", dim=3, n_users=30, comparisons_per_user=30, n_prompts=20, noise=0.0, seed=3)


@pytest.fixture(scope="module")
def rewards(population):
    table = population.comparisons
    raw = encode(table, Attributes())
    standardizer = Standardizer.fit(raw, used_items(table))
    design = Design.of(table, standardizer.transform(raw))
    users = {
        "pooled": fit_pooled(design, ridge=1.0)[0],
        "cluster": fit_clusters(design, 3, ridge=1.0, n_starts=4).model,
        "basis": fit_basis(design, 2, tolerance=1e-4, max_evaluations=30).model,
        "individual": fit_individual(design, tolerance=1e-4, max_evaluations=30).model,
    }
    return {
        name: LinearReward(users=each, user_ids=table.user_ids, encoder=Attributes(), standardizer=standardizer)
        for name, each in users.items()
    }


@pytest.fixture(params=["cluster", "basis", "individual"])
def reward(rewards, request) -> LinearReward:
    return rewards[request.param]


def answer_as(population, enquiry, user, row):
    """What a user of known taste prefers."""
    pool, theta = enquiry.pool, population.tastes.theta[user]
    attributes = pool.items.attributes
    return bool((attributes[pool.chosen[row]] - attributes[pool.rejected[row]]) @ theta > 0)


def test_a_stranger_is_soon_found_among_those_alike(population, reward):
    enquiry = Enquiry.of(reward, population.comparisons, user="somebody new")
    assert not enquiry.known
    before, start = enquiry.value(), enquiry.belief.information_gain().max()
    for _ in range(8):
        row = int(enquiry.propose().rows[0])
        enquiry = enquiry.answer(row, first=answer_as(population, enquiry, 4, row))
    assert len(np.unique(enquiry.rows)) == 8
    assert enquiry.open.sum() == len(enquiry.pool) - 8
    assert enquiry.belief.information_gain().max() < start
    assert enquiry.value().best < before.best
    # Those found alike are of the cluster whose taste answered.
    alike = enquiry.resembles(5)
    cluster = population.tastes.cluster
    same = [cluster[population.comparisons.user_ids.index(each.user)] == cluster[4] for each in alike]
    assert sum(same) >= (5 if reward.users.kind == "cluster" else 3)  # of chance 1.7
    assert alike[0].agreement >= alike[-1].agreement > 0.5


def test_the_placed_user_is_the_one_that_adapt_places(population, reward, tmp_path):
    enquiry = Enquiry.of(reward, population.comparisons, user="somebody new")
    for row in (0, 5, 9):
        enquiry = enquiry.answer(row, first=row != 5, position=1)
    table = enquiry.table()
    assert table.user_ids == ("somebody new",)
    assert table.position.tolist() == [1, -1, 1]
    pool = enquiry.pool
    assert table.chosen.tolist() == [pool.chosen[0], pool.rejected[5], pool.chosen[9]]
    enquiry.finished().save(tmp_path)
    saved = LinearReward.load(tmp_path)
    assert saved.user_ids == ("somebody new",)
    expected = adapt(reward.users, reward.design(table)).predict(reward.design(pool)).chosen
    assert saved.users.predict(saved.design(pool)).chosen == pytest.approx(expected, abs=1e-5)


def test_answers_given_before_count_and_are_not_asked_again(population, reward):
    table = population.comparisons
    enquiry = Enquiry.of(reward, table, user="somebody new")
    answered = enquiry.answer(3, first=False).answer(8, first=True)
    again = Enquiry.of(reward, table, user="somebody new", answers=answered.table())
    assert again.open.tolist() == answered.open.tolist()
    torch.testing.assert_close(again.belief.predictive(), answered.belief.predictive(), atol=1e-6, rtol=1e-6)
    # Together with more answers, in whatever order.
    one, other = again.answer(0, first=True), answered.answer(0, first=True)
    torch.testing.assert_close(one.belief.predictive(), other.belief.predictive(), atol=1e-6, rtol=1e-6)


def test_someone_the_model_knows_begins_where_it_has_them(population, reward):
    enquiry = Enquiry.of(reward, population.comparisons, user="user 4")
    assert enquiry.known
    own = reward.users.predict(reward.design(enquiry.pool), torch.full((len(enquiry.pool),), 4)).chosen
    assert enquiry.belief.predictive().numpy() == pytest.approx(own, abs=1e-4)
    assert "user 4" not in [each.user for each in enquiry.resembles(29)]
    stranger = Enquiry.of(reward, population.comparisons)
    assert enquiry.belief.information_gain().max() < stranger.belief.information_gain().max()


def test_a_latent_user_goes_on_from_its_own_posterior(population, tmp_path):
    table = population.comparisons
    raw = encode(table, Attributes())
    standardizer = Standardizer.fit(raw, used_items(table))
    design = Design.of(table, standardizer.transform(raw))
    users = fit_latent(design, LatentSettings(latent_dim=2, steps=25, hidden=8, fall_back=False)).model
    parts = {"user_ids": table.user_ids, "encoder": Attributes(), "standardizer": standardizer}
    LinearReward(users=users, **parts).save(tmp_path)
    reward = LinearReward.load(tmp_path)
    enquiry = Enquiry.of(reward, table, user="user 4")
    start = enquiry.belief.information_gain().max()
    for _ in range(6):
        row = int(enquiry.propose().rows[0])
        enquiry = enquiry.answer(row, first=answer_as(population, enquiry, 4, row))
    assert enquiry.belief.information_gain().max() < start
    # Every answer was more likely to be right for having been given.
    before = believe(users, enquiry.design, torch.full((len(enquiry.pool),), 4)).predictive()[enquiry.rows]
    after, said = enquiry.belief.predictive()[enquiry.rows], torch.from_numpy(enquiry.outcomes) == 1
    assert float((torch.where(said, after, 1 - after) - torch.where(said, before, 1 - before)).mean()) > 0
    # Answers in a file are as good as answers at the keyboard.
    again = Enquiry.of(reward, table, user="user 4", answers=enquiry.table())
    torch.testing.assert_close(again.belief.predictive(), enquiry.belief.predictive(), atol=1e-4, rtol=1e-4)


def test_a_pair_is_in_the_pool_once_and_is_answered_once(population, rewards):
    twice = replace(
        population.comparisons,
        chosen=np.array([0, 1, 1, 0], dtype=np.int32),
        rejected=np.array([1, 0, 2, 1], dtype=np.int32),
        user=np.zeros(4, dtype=np.int32),
        source=np.zeros(4, dtype=np.int32),
    )
    enquiry = Enquiry.of(rewards["basis"], twice)
    assert enquiry.origin.tolist() == [0, 2]
    enquiry = enquiry.answer(1, first=True)
    with pytest.raises(ConfigError, match="pair 1 of the pool cannot be answered: it has been asked"):
        enquiry.answer(1, first=True)
    with pytest.raises(DataError, match="there is no pair left to ask"):
        enquiry.skip(0).propose()


def test_where_there_is_nothing_to_ask(population, rewards):
    table = population.comparisons
    with pytest.raises(ConfigError, match="there is nothing to ask: a pooled model is the same for everybody"):
        Enquiry.of(rewards["pooled"], table)
    with pytest.raises(DataError, match="the pool is empty"):
        Enquiry.of(rewards["basis"], table.take(np.zeros(len(table), dtype=np.bool_)))
    with pytest.raises(DataError, match='the answers have no row of user "ada"; they are of "user 0", "user 1"'):
        Enquiry.of(rewards["basis"], table, user="ada", answers=table)
    with pytest.raises(DataError, match="the answers are of 30 users"):
        Enquiry.of(rewards["basis"], table, answers=table)


def hold(population, reward, user, **settings):
    said: list[Question] = []
    start = Enquiry.of(reward, population.comparisons)

    def put(question):
        said.append(question)
        enquiry, row = start, int(np.flatnonzero(start.origin == question.row)[0])
        first = answer_as(population, enquiry, user, row)
        turned = question.first != shown(enquiry.pool, enquiry.pool.chosen[row])
        return "first" if first != turned else "second"

    return interview(start, put, **settings), said


def shown(pool, item):
    from pluralign.queries.pool import show_response

    return show_response(pool, item)


def test_an_interview_stops_when_no_answer_would_gain_enough(population, rewards):
    ended, said = hold(population, rewards["cluster"], 4, epsilon=0.02)
    assert ended.reason == "enough"
    assert ended.value.best < 0.02
    assert [each.number for each in said] == list(range(1, len(said) + 1))
    assert 1 < len(said) < 15
    # All of it for user 4's own cluster.
    (first, *_) = regions(ended.enquiry.placed)
    own = rewards["cluster"].users.membership[4].argmax()
    assert first.name == f"cluster {int(own) + 1}"
    assert first.probability > 0.8
    # Responses are shown in random order, and the answers say in which.
    positions = ended.enquiry.positions
    assert set(positions.tolist()) <= {1, -1}
    assert 0.5 < sum(each.probability > 0.5 for each in said) / len(said) + 0.5 <= 1.5


def test_the_other_ends_of_an_interview(population, rewards):
    ended, said = hold(population, rewards["basis"], 0, epsilon=0.0, n=3)
    assert (ended.reason, len(said), len(ended.enquiry.rows)) == ("limit", 3, 3)
    start = Enquiry.of(rewards["basis"], population.comparisons.take(np.arange(3)))
    ended = interview(start, lambda question: "skip", epsilon=0.0)
    assert (ended.reason, ended.skipped, len(ended.enquiry.rows)) == ("pool", 3, 0)
    ended = interview(start, lambda question: "quit", epsilon=0.0)
    assert (ended.reason, ended.skipped) == ("quit", 0)
    with pytest.raises(ConfigError, match=r"n is 0 and epsilon 0\.01"):
        interview(start, lambda question: "quit", n=0)


def test_both_orders_are_shown(population, rewards):
    orders = [hold(population, rewards["basis"], 0, n=1, seed=seed)[0].enquiry.positions[0] for seed in range(12)]
    assert set(orders) == {1, -1}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    file = tmp_path_factory.mktemp("pool") / "rows.jsonl"
    write_jsonl(simulate(n_users=3, comparisons_per_user=5, n_prompts=4, seed=1).comparisons, file)
    return file


def test_a_pool_needs_no_user_and_may_say_first_and_second(texts, tmp_path):
    import json

    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    for names in (("first", "second"), ("chosen", "rejected"), ("a", "b")):
        file = tmp_path / "pool.jsonl"
        lines = ({"prompt": row["prompt"], names[0]: row["chosen"], names[1]: row["rejected"]} for row in rows)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        found = read_pool(file, columns={"chosen": "a", "rejected": "b"} if names[0] == "a" else None)
        assert found.user_ids == ("nobody",)
        expected = read(texts)
        assert found.items.response.take(found.chosen).equals(expected.items.response.take(expected.chosen))
        assert found.items.response.take(found.rejected).equals(expected.items.response.take(expected.rejected))
    with pytest.raises(DataError, match=r"pool.jsonl has no column chosen; it has: prompt, a, b"):
        read_pool(file)


def test_outcomes_of_a_pool_are_not_read(texts):
    assert read_pool(texts).outcome is None
    assert len(read_pool(texts)) == 15
