"""What clusters like: worked by hand, planted tastes found, and names that follow the users."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign import datasets
from pluralign.comparisons import encode_chat
from pluralign.comparisons.table import from_attributes, from_columns
from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.files import plain
from pluralign.heterogeneity.columns import compare_columns, users_apart
from pluralign.heterogeneity.likes import CUT, MAX_TEXT, cut_text, likes, name_users_apart
from pluralign.heterogeneity.words import compare_words, list_words
from pluralign.inference.heads import fit_heads
from pluralign.populations import simulate
from pluralign.users import Clusters


def test_the_pairs_that_separate_are_found_with_who_chose_what():
    # Rewards by hand: the clusters disagree about (a, b) by 4, about (c, d) by 1, and agree about (e, f).
    rows = [("p", "a", "b", "u1"), ("p", "b", "a", "u2"), ("p", "b", "a", "u3"), ("q", "c", "d", "u1")]
    rows += [("r", "e", "f", "u2"), ("p", "a", "b", "u2")]
    prompt, chosen, rejected, user = (list(column) for column in zip(*rows, strict=True))
    table = from_columns(prompt=prompt, chosen=chosen, rejected=rejected, user=user)
    reward = {"a": (2.0, -2.0), "b": (0.0, 0.0), "c": (1.0, 0.0), "d": (0.0, 0.0), "e": (1.0, 1.0), "f": (0.0, 0.0)}
    features = torch.tensor([reward[text] for text in table.items.response.to_pylist()], dtype=torch.float64)
    model = Clusters(
        theta=torch.eye(2, dtype=torch.float64),
        shares=torch.tensor([1 / 3, 2 / 3], dtype=torch.float64),
        membership=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64),
        soft=False,
    )
    first, second = likes(table, np.array([0, 1, 1]), model=model, features=features)
    assert [pair.preferred for pair in first.comparisons] == ["a", "c"]  # e and f separate nobody
    top = first.comparisons[0]
    assert (top.prompt, top.other, top.margin, top.margin_others) == ("p", "b", 2.0, -2.0)
    assert (top.observed, top.n_observed) == (1.0, 1)
    assert (top.observed_others, top.n_observed_others) == (pytest.approx(1 / 3, abs=1e-4), 3)
    assert second.comparisons[0].preferred == "b"
    assert second.comparisons[0].observed == pytest.approx(2 / 3, abs=1e-4)
    assert (first.users, second.users) == (1, 2)
    assert first.share == pytest.approx(1 / 3)


def test_no_prompt_and_no_response_comes_twice():
    population = simulate(n_users=30, comparisons_per_user=30, n_clusters=2, n_prompts=20)
    for cluster in likes(population.comparisons, population.tastes.cluster, n_comparisons=6):
        prompts = [pair.prompt for pair in cluster.comparisons]
        texts = [text for pair in cluster.comparisons for text in (pair.preferred, pair.other)]
        assert len(prompts) == 6
        assert len(set(prompts)) == len(prompts)
        assert len(set(texts)) == len(texts)
        assert all(pair.margin > 0 and pair.margin > pair.margin_others for pair in cluster.comparisons)


def test_the_planted_styles_are_found():
    # Cluster 1 wants it brief; cluster 2 warm and exclaiming (`populations.TEXT_TASTES`).
    population = simulate(n_users=40, comparisons_per_user=40, n_clusters=2, seed=1)
    brief, warm = likes(population.comparisons, population.tastes.cluster, n_columns=28)
    column = {each.name: each for each in brief.columns}
    assert column["words"].weight < -0.3
    assert column["words"].high < 0
    assert column["words"].p_adjusted < 0.001
    assert column["words"].unit == "user"
    exclaims = {each.name: each for each in warm.columns}["exclamations"]
    assert exclaims.weight > 0.3
    assert exclaims.low > 0
    liked = [word.word for word in warm.words if word.z > 0]
    assert {"exciting", "love", "fun", "haha"} & set(liked)
    # Two clusters: what one does more the other does less.
    mirror = {each.name: each.difference for each in warm.columns}
    assert all(each.difference == pytest.approx(-mirror[each.name], abs=1e-6) for each in brief.columns)
    assert plain([brief, warm])[0]["columns"][0]["name"] == brief.columns[0].name


def test_numeric_attributes_are_compared_all_else_equal():
    population = simulate(
        n_users=60, comparisons_per_user=40, n_clusters=2, features="numeric", dim=3, noise=0.0, seed=2
    )
    first, _ = likes(population.comparisons, population.tastes.cluster, n_comparisons=2)
    theta = population.tastes.heads[0] - population.tastes.heads[1]
    truth = dict(zip(population.feature_names, theta * population.features.std(0), strict=True))
    assert first.words == ()
    for each in first.columns:
        assert each.low - 0.3 < truth[each.name] < each.high + 0.3
    assert first.comparisons[0].preferred.startswith("item ")
    assert "x0 " in first.comparisons[0].preferred


def test_columns_fitted_together_are_those_of_the_heads():
    population = simulate(n_users=20, comparisons_per_user=20, n_clusters=2, features="numeric", dim=3, n_choices=3)
    design = Design.of(population.comparisons, torch.as_tensor(population.features))
    member = np.eye(2)[population.tastes.cluster]
    found = compare_columns(design, population.feature_names, member, together=True)
    heads = fit_heads(design, ridge=torch.ones(2).double(), group_weight=torch.as_tensor(member)).theta
    for k in range(2):
        weight = {each.name: each.weight for each in found[k]}
        np.testing.assert_allclose([weight[n] for n in population.feature_names], heads[k], atol=1e-6)
    # One column alone is the same fit either way, and so is its interval.
    one = design.with_features(design.features[:, :1])
    alone = compare_columns(one, ["x0"], member, together=False)[0][0]
    joint = compare_columns(one, ["x0"], member, together=True)[0][0]
    assert (alone.weight, alone.low, alone.high) == pytest.approx((joint.weight, joint.low, joint.high), abs=1e-6)


def test_a_column_that_hardly_anybody_saw_differ_has_no_interval():
    population = simulate(n_users=20, comparisons_per_user=10, n_clusters=2, features="numeric", dim=2)
    design = Design.of(population.comparisons, torch.as_tensor(population.features))
    rare = torch.zeros(len(design.features), 1, dtype=torch.float64)
    rare[design.chosen[0]] = 1
    design = design.with_features(torch.cat([design.features, rare], dim=1))
    found = compare_columns(design, ["x0", "x1", "rare"], np.eye(2)[population.tastes.cluster], together=False)
    assert found[0][-1].name == "rare"
    assert np.isnan(found[0][-1].p_value)
    assert np.isnan(found[0][-1].low)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_renaming_clusters_renames_what_they_like(seed):
    rng = np.random.default_rng(seed)
    population = simulate(n_users=15, comparisons_per_user=8, n_clusters=3, features="numeric", dim=2, seed=seed % 97)
    cluster, order = np.arange(15) % 3, rng.permutation(3)
    before = likes(population.comparisons, cluster)
    after = likes(population.comparisons, order[cluster])
    for k in range(3):
        a, b = before[k], after[order[k]]
        assert [pair.preferred for pair in a.comparisons] == [pair.preferred for pair in b.comparisons]
        np.testing.assert_allclose([c.difference for c in a.columns], [c.difference for c in b.columns], atol=1e-6)


def test_words_worked_by_hand():
    # 10 members choose "red" over "blue", 10 others the reverse: each word 10 times on one side of either group.
    n = 20
    user = np.arange(n)
    chosen = np.where(user < 10, 0, 1)
    member = np.eye(2)[(user >= 10).astype(int)]
    first, second = compare_words(["red", "blue"], chosen, 1 - chosen, user, np.ones(n), member)
    # Each word is in half of the 40 responses, so that its prior is 250 of 500 on all four sides. The log-odds of red
    # among members' chosen are log(260 / 250), the same below with the sign turned, and the others' are the mirror.
    expected = 4 * np.log(260 / 250)
    assert [(w.word, w.log_odds) for w in first] == [
        ("red", pytest.approx(expected)),
        ("blue", pytest.approx(-expected)),
    ]
    assert first[0].z == pytest.approx(expected / np.sqrt(4 * (1 / 260 + 1 / 250)))
    assert [w.word for w in second] == ["blue", "red"]
    assert second[0].log_odds == pytest.approx(expected)


def test_words_that_everybody_likes_or_was_shown_do_not_count():
    # Members are shown "red" alone, others "blue" alone, and both choose it half of the time.
    user = np.arange(40)
    word = np.where(user < 20, 0, 1)
    chosen = np.where(user % 2, word, 2)
    rejected = np.where(user % 2, 2, word)
    member = np.eye(2)[(user >= 20).astype(int)]
    found = compare_words(["red", "blue", "plain"], chosen, rejected, user, np.ones(40), member)[0]
    assert all(abs(word.z) < 0.5 for word in found)


def test_one_busy_user_makes_no_word_of_a_cluster():
    # 19 members choose at random; one says "red" two hundred times.
    rng = np.random.default_rng(0)
    user = np.concatenate([np.repeat(np.arange(40), 10), np.repeat(0, 200)])
    chosen = np.concatenate([rng.integers(0, 2, 400), np.zeros(200, dtype=np.int64)])
    member = np.eye(2)[(np.arange(40) >= 20).astype(int)]
    found = compare_words(["red", "blue"], chosen, 1 - chosen, user, np.ones(600), member)[0]
    independent = found[0].log_odds / np.sqrt(4 / 250)
    assert found[0].word == "red"
    assert found[0].z < 0.6 * independent


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't STOP, don’t; (stop)!", {"don't", "stop", "don’t"}),
        ("Grüße aus Köln", {"grüsse", "aus", "köln"}),
        ("Съешь ещё этих", {"съешь", "ещё", "этих"}),
        ("हिन्दी में", {"हिन्दी", "में"}),
        ("مرحبا بالعالم", {"مرحبا", "بالعالم"}),
        ("天气很好。", {"天气", "气很", "很好"}),
        ("猫", {"猫"}),
        ("a\x00b <script>", {"a", "b", "script"}),
        ("x" * 100_000, set()),
        ("", set()),
    ],
)
def test_words_of_many_scripts(text, words):
    assert list_words(text) == words


def test_texts_are_cut_and_marked():
    assert cut_text("a" * MAX_TEXT) == "a" * MAX_TEXT
    long = cut_text("é" * 100_000)
    assert len(long) == MAX_TEXT
    assert long.endswith(CUT)
    table = from_columns(
        prompt=["p"] * 2, chosen=["<script>" * 1000, "no"], rejected=["no", "<script>" * 1000], user=["u", "v"]
    )
    found = likes(table, np.array([0, 1]))
    shown = [text for each in found for pair in each.comparisons for text in (pair.preferred, pair.other)]
    assert any(text.startswith("<script>") for text in shown)
    assert max(map(len, shown)) <= MAX_TEXT


def test_chats_choices_and_ties():
    def chat(text: str) -> str:
        return encode_chat([{"role": "assistant", "content": text}])

    table = from_columns(
        prompt=[encode_chat([{"role": "user", "content": "hello"}])] * 6,
        chosen=[chat("short")] * 6,
        rejected=[chat("a much longer answer than the other")] * 6,
        user=list("uvwxyz"),
        outcome=np.array([1.0, 1, 1, 0, 0, 0.5]),
        format="chat",
    )
    found = likes(table, np.array([0, 0, 0, 1, 1, 1]))
    top = found[0].comparisons[0]
    assert (top.prompt, top.preferred, top.observed, top.n_observed) == ("hello", "short", 1.0, 3)
    assert found[1].comparisons[0].observed == pytest.approx(5 / 6, abs=1e-4)
    choices = simulate(n_users=12, comparisons_per_user=10, n_clusters=2, n_choices=4)
    assert all(each.comparisons for each in likes(choices.comparisons, choices.tastes.cluster))


def test_users_of_no_cluster_and_soft_membership():
    population = simulate(n_users=20, comparisons_per_user=10, n_clusters=2, features="numeric", dim=2)
    hard = np.where(np.arange(20) < 4, -1, np.arange(20) % 2)
    first, second = likes(population.comparisons, hard)
    assert (first.users, second.users) == (8, 8)
    soft = np.zeros((20, 2))
    soft[np.arange(4, 20), hard[4:]] = 1
    same = likes(population.comparisons, soft)
    assert same[0].columns == first.columns
    assert len(likes(population.comparisons, np.zeros(20, dtype=np.int64))) == 1


def test_who_stands_apart_is_named_and_others_are_not():
    rng = np.random.default_rng(0)
    n_users, n = 8, 60
    a, b = rng.normal(size=(2, n_users * n, 2))
    user = np.repeat(np.arange(n_users), n)
    taste = np.where(user == 3, -1.5, 1.0)
    wins = rng.random(len(user)) < 1 / (1 + np.exp(-taste * (a - b)[:, 0]))
    attributes = np.concatenate([a, b])
    first, second = np.arange(len(user)), np.arange(len(user)) + len(user)
    table = from_attributes(
        attributes=attributes,
        attribute_names=["length", "other"],
        chosen=np.where(wins, first, second),
        rejected=np.where(wins, second, first),
        user=[f"user {u}" for u in user],
    )
    found, *rest = name_users_apart(table)
    assert not any("opposite" in each.detail for each in rest)
    assert found.user == "user 3"
    assert [column.name for column in found.columns] == ["length"]
    assert found.columns[0].high < 0
    assert found.n_decisions == 60
    assert "the opposite of the others'" in found.detail


def test_hardly_ever_is_anybody_named_where_nobody_differs():
    named = 0
    for seed in range(20):
        population = simulate(n_users=30, comparisons_per_user=20, kind="null", features="numeric", dim=5, seed=seed)
        design = Design.of(population.comparisons, torch.as_tensor(population.features))
        named += bool(users_apart(design, population.feature_names))
    assert named <= 4  # 5 % of 20 is 1; 5 or more has a chance of 0.003


@pytest.mark.data
def test_the_evaluator_of_opposite_taste_in_length_is_named(data_dir):
    news = datasets.load("news", data_dir / "news_summ_pairs")
    found = {each.user: each for each in name_users_apart(news)}
    assert "e3" in found
    assert found["e3"].columns[0].name in ("characters", "words")
    assert "the opposite of the others'" in found["e3"].detail


def test_what_cannot_be_asked_is_said():
    population = simulate(n_users=4, comparisons_per_user=5, features="numeric", dim=2)
    table = population.comparisons
    with pytest.raises(ConfigError, match=r"membership has shape \(3,\); it must be \(4,\) or \(4, clusters\)"):
        likes(table, np.zeros(3, dtype=np.int64))
    theta = torch.zeros(3, 2, dtype=torch.float64)
    model = Clusters(theta=theta, shares=torch.ones(3) / 3, membership=torch.ones(4, 3) / 3, soft=True)
    with pytest.raises(ConfigError, match="rewards are given without features"):
        likes(table, np.zeros((4, 3)), model=model)
    with pytest.raises(ConfigError, match="the model has 3 clusters and the membership 2"):
        likes(table, np.zeros((4, 2)), model=model, features=torch.as_tensor(population.features))
