"""Accuracies of policies and reward models on held-out choices."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pluralign.comparisons import from_attributes
from pluralign.comparisons.table import from_columns
from pluralign.errors import DataError
from pluralign.features import Standardizer
from pluralign.features.encoders import Attributes
from pluralign.language_models.personal import PersonalConfig, PersonalReward
from pluralign.policies.evaluation import OTHER, POOLED, evaluate_policy, evaluate_reward
from pluralign.rewards import LinearReward
from pluralign.users import Clusters, Pooled, predict_decisions

from ..tiny_models import make_tokenizer


def opposed(shares=(0.5, 0.5)) -> LinearReward:
    """Ann likes large numbers, bob small ones."""
    users = Clusters(
        theta=torch.tensor([[1.0], [-1.0]], dtype=torch.float64),
        shares=torch.tensor(shares, dtype=torch.float64),
        membership=torch.eye(2, dtype=torch.float64),
        soft=False,
    )
    return LinearReward(
        users=users,
        user_ids=("ann", "bob"),
        encoder=Attributes(),
        standardizer=Standardizer(
            mean=torch.zeros(1), scale=torch.ones(1), columns=torch.zeros(1, dtype=torch.int64), raw_dim=1
        ),
    )


def everybody_likes_large() -> LinearReward:
    reward = opposed()
    return LinearReward(
        users=Pooled(theta=torch.ones(1, dtype=torch.float64), n_users=2),
        user_ids=reward.user_ids,
        encoder=reward.encoder,
        standardizer=reward.standardizer,
    )


def choices(*rows: tuple[str, float, float]):
    """Who chose which number over which."""
    numbers = [number for _, *pair in rows for number in pair]
    return from_attributes(
        attributes=np.array(numbers)[:, None],
        attribute_names=["size"],
        chosen=np.arange(0, len(numbers), 2),
        rejected=np.arange(1, len(numbers), 2),
        user=[user for user, *_ in rows],
    )


def texts(n_unseen: int = 0):
    users = ["ann", "bob", "cy"] * 3 + ["dee"] * n_unseen
    return from_columns(
        prompt=[f"ask {i % 4}" for i in range(len(users))],
        chosen=[f"yes {i}" for i in range(len(users))],
        rejected=[f"no, not {i % 5}" for i in range(len(users))],
        user=users,
    )


def test_accuracies_counted_by_hand():
    # Ann: 3 of 4 her way. Bob: 1 of 2 his way. Cy has never been met; the generic user (90 % ann) likes large numbers.
    ann = ("ann", 2, 1), ("ann", 5, 1), ("ann", 4, 3), ("ann", 1, 2)
    cy = ("cy", 2, 1), ("cy", 1, 3), ("cy", 9, 3)
    held_out = choices(*ann, ("bob", 1, 3), ("bob", 3, 1), *cy)
    found = evaluate_reward(opposed(shares=(0.9, 0.1)), held_out)
    assert (found.n_decisions, found.n_known_users, found.n_unseen_users) == (9, 2, 1)
    assert found.top.estimate == pytest.approx(4 / 6)
    assert found.average == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found.average_sd == pytest.approx(np.std([3 / 4, 1 / 2], ddof=1))
    assert found.generic_unseen.estimate == pytest.approx(2 / 3)
    assert found.generic_all.estimate == pytest.approx(6 / 9)
    assert found.over_generic["accuracy"].estimate == pytest.approx(4 / 6 - 4 / 6)
    assert found.over_other["accuracy"].estimate == pytest.approx(4 / 6 - 2 / 6)
    assert found.beta is None


def test_gains_are_counted_from_the_pooled_model_where_there_is_one():
    held_out = choices(("ann", 2, 1), ("ann", 5, 1), ("bob", 1, 3), ("bob", 2, 3))
    found = evaluate_reward(opposed(), held_out, pooled=everybody_likes_large())
    assert found.table.baseline == POOLED
    assert found.table["personal"].gains["accuracy"].estimate == pytest.approx(0.5)
    assert found.table[OTHER].control
    assert found.table[OTHER].scores.accuracy == 0


def test_a_margin_of_nothing_is_not_right():
    found = evaluate_reward(opposed(), choices(("ann", 2, 2), ("ann", 3, 1)))
    assert found.top.estimate == pytest.approx(0.75)  # a coin for the first


def test_strangers_alone_are_served_by_the_generic_user():
    found = evaluate_reward(opposed(shares=(0.9, 0.1)), choices(("cy", 2, 1), ("dee", 1, 3)))
    assert found.top is None
    assert found.table is None
    assert np.isnan(found.average)
    assert found.generic_unseen.estimate == found.generic_all.estimate == 0.5
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["average"] is None


def test_a_choice_among_three_is_one_decision():
    table = from_attributes(
        attributes=np.array([[0.0], [1.0], [2.0]]),
        attribute_names=["size"],
        chosen=np.array([0, 0]),
        rejected=np.array([1, 2]),
        user=["ann", "ann"],
        choice=np.array([0, 0]),
    )
    found = predict_decisions(table, np.log([2.0, 4.0]))
    np.testing.assert_allclose(found.chosen, [1 / (1 + 1 / 2 + 1 / 4)])
    np.testing.assert_allclose(found.best_other, [1 / 2 / (1 + 1 / 2 + 1 / 4)])


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_policy_is_judged_by_its_implicit_reward(make_policy, place):
    policy, held_out = make_policy(place=place), texts(n_unseen=2)
    found = evaluate_policy(policy, held_out, beta=0.3)

    prompts = [held_out.items.prompts[int(p)].as_py() for p in held_out.items.prompt]
    responses = held_out.items.response.to_pylist()
    right, log_prob = [], []
    for chosen, rejected, user in zip(held_out.chosen, held_out.rejected, held_out.user, strict=True):
        pair = [prompts[i] for i in (chosen, rejected)], [responses[i] for i in (chosen, rejected)]
        own = policy.log_prob(*pair, [held_out.user_ids[user]] * 2)
        with policy.model.without_adapter():
            kept, policy.model.config.place = policy.model.config.place, "none"
            base = policy.log_prob(*pair, [None, None])
            policy.model.config.place = kept
        margin = 0.3 * ((own[0] - base[0]) - (own[1] - base[1]))
        right.append(margin > 0)
        log_prob.append(-np.log1p(np.exp(-margin)))
    assert found.top.estimate == pytest.approx(np.mean(right[:9]))
    assert found.generic_unseen.estimate == pytest.approx(np.mean(right[9:]))
    assert found.scores.log_loss == pytest.approx(-np.mean(log_prob[:9]), abs=1e-5)
    assert json.dumps(found.as_dict(), allow_nan=False)


def test_a_policy_is_judged_on_what_its_training_read_and_by_its_beta(make_policy, caplog):
    policy, held_out = make_policy(), texts()
    policy.model.config.beta, policy.model.config.max_response = 0.2, 1
    found = evaluate_policy(policy, held_out, control=False)
    assert "responses lost their end, as in training" in caplog.text
    assert found.beta == 0.2
    assert found.scores.log_loss == evaluate_policy(policy, held_out, beta=0.2, control=False).scores.log_loss
    policy.model.config.max_response = None
    assert found.scores.log_loss != evaluate_policy(policy, held_out, control=False).scores.log_loss


def test_a_fully_tuned_policy_is_held_against_its_base(make_policy):
    policy, held_out = make_policy(tuning="full"), texts()
    begin = evaluate_policy(policy, held_out, control=False)
    with torch.no_grad():
        policy.model.lm.lm_head.weight.mul_(1.5)
    after = evaluate_policy(policy, held_out, control=False)
    assert begin.scores.log_loss != after.scores.log_loss  # a reference that moved along would hide the change


def test_a_policy_without_users_has_nothing_personal(make_policy):
    policy = make_policy(kind="uniform", n_tokens=0)
    found = evaluate_policy(policy, texts())
    for gains in (found.over_generic, found.over_other):
        assert gains["log_prob"].estimate == 0
        assert gains["accuracy"].estimate == 0


@pytest.mark.parametrize("head", ["linear", "late"])
def test_a_language_models_reward_is_judged_too(bases, head):
    config = PersonalConfig(
        base=str(bases["llama"]),
        users={"kind": "individual", "n_tokens": 1},
        user_ids=["ann", "bob", "cy"],
        head=head,
        tuning="frozen",
    )
    model = PersonalReward.make(config)
    with torch.no_grad():
        model.users.offset.normal_(generator=torch.Generator().manual_seed(0))
    found = evaluate_reward(SimpleNamespace(model=model, tokenizer=make_tokenizer()), texts(n_unseen=1))
    assert found.over_other["log_prob"].estimate != 0
    assert found.n_unseen_users == 1


def test_no_comparisons_is_an_error():
    with pytest.raises(DataError, match="no comparisons"):
        evaluate_reward(opposed(), choices(("ann", 1, 2)).take(np.array([], dtype=np.int64)))
