"""From choices of users with two tastes to what a language model says to each: planted truth, recovered."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

import pluralign
from pluralign.evaluation import mean_interval
from pluralign.policies.best_of_n import choose_best
from pluralign.populations.dialogues import (
    AXES,
    Dialogues,
    embedded_language_model,
    parse_styles,
    read_style,
    simulate_dialogues,
    write_dialogues,
)
from pluralign.users import predict_decisions

MAJORITY, MINORITY = 0, 1
NOBODY = {"kind": "uniform", "n_tokens": 0}
QUIET = {"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}

pytestmark = pytest.mark.usefixtures("whole_runs")


def learn(kind: str, world: Dialogues, base: Path, out: Path, *, rate: float, epochs: float, **settings: Any) -> Any:
    """A trained reward model or policy, as it is shipped."""
    from pluralign.policies.policy import Policy
    from pluralign.rewards.transformer import TransformerReward
    from pluralign.training.train import train_policy, train_reward

    args = {"learning_rate": rate, "num_train_epochs": epochs, **QUIET}
    if kind == "reward":
        model, tokenizer = train_reward(world.train, base, out=out, args=args, **settings)
        return TransformerReward(model=model, tokenizer=tokenizer)
    model, tokenizer = train_policy(world.train, base, out=out, args=args, cache=out.parent / "reference", **settings)
    return Policy(model, tokenizer)


def accuracy(world: Dialogues, shipped: Any, group: int, *, generic: bool = False) -> float:
    """Of held-out choices of a group, by its users' own models or by the generic user's."""
    from pluralign.policies.evaluation import evaluate_policy, evaluate_reward
    from pluralign.policies.policy import Policy

    rows = world.test.take(world.cluster[world.test.user] == group)
    judged = (evaluate_policy if isinstance(shipped, Policy) else evaluate_reward)(shipped, rows, control=False)
    return (judged.generic_all if generic else judged.top).estimate


def oracle(world: Dialogues, group: int) -> float:
    """Accuracy on the same choices of somebody who knows every taste."""
    rows, truth = world.test.take(world.cluster[world.test.user] == group), world.population
    pull = truth.features[rows.chosen] - truth.features[rows.rejected]
    return mean_interval(predict_decisions(rows, (pull * truth.tastes.theta[rows.user]).sum(1))).estimate


def held_out_requests(world: Dialogues) -> list[str]:
    return [world.test.source_ids[i] for i in np.unique(world.test.source)]


def someone_of(world: Dialogues, group: int) -> tuple[int, str]:
    user = int(np.flatnonzero(world.cluster == group)[0])
    return user, world.comparisons.user_ids[user]


def test_a_reward_learns_two_tastes_and_chooses_by_them(tmp_path):
    from pluralign.language_models.tiny import TinySettings

    settings = TinySettings(hidden=64, steps=60, row_tokens=96)
    base = embedded_language_model(settings=settings, n_topics=2, cache=tmp_path, progress=False)
    world = simulate_dialogues(n_users=10, comparisons_per_user=100, n_topics=2, test=0.3, seed=0)
    one = {"kind": "cluster", "n_clusters": 2, "n_tokens": 1}
    vanilla = learn(
        "reward", world, base, tmp_path / "vanilla", rate=2e-3, epochs=2, users=NOBODY, alpha=0.0, tuning="full"
    )
    personal = learn(
        "reward",
        world,
        base,
        tmp_path / "personal",
        rate=2e-3,
        epochs=4,
        users=one,
        head="late",
        user_learning_rate=0.1,
        tuning="full",
    )
    assert accuracy(world, vanilla, MINORITY) < 0.5
    for group in (MAJORITY, MINORITY):
        assert accuracy(world, personal, group) > 0.9 * oracle(world, group)
    requests, written = held_out_requests(world)[:6], write_dialogues(1000, seed=1, n_topics=2)
    candidates = [[answer for asked, answer in written if asked == request][:12] for request in requests]
    for group, wanted in ((MAJORITY, 0), (MINORITY, 1)):
        _, name = someone_of(world, group)
        best = choose_best(requests, [name] * len(requests), candidates, personal)
        assert read_style(best.texts)[:, AXES.index("detail")].tolist() == [wanted] * len(requests)


@pytest.fixture(scope="module")
def world() -> Dialogues:
    """Forty users, 70 to 30; 2,400 choices to learn from and 1,600 held out."""
    return simulate_dialogues(n_topics=4, comparisons_per_user=100, test=0.4, seed=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return embedded_language_model(
        settings="small", n_topics=4, cache=tmp_path_factory.mktemp("models"), progress=False
    )


def found_clusters(world: Dialogues) -> dict[str, int]:
    """The cluster of every user by a fit to frozen features."""
    reward = pluralign.fit(world.train, users="cluster", clusters=2, starts=5, ridge=1.0).reward
    return dict(zip(reward.user_ids, reward.users.membership.argmax(1).tolist(), strict=True))


def plain(base: Path) -> Any:
    """The language model as it is."""
    from pluralign.language_models.loading import load_tokenizer
    from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
    from pluralign.policies.policy import Policy

    return Policy(PersonalPolicy.make(PersonalConfig(base=str(base), tuning="frozen")), load_tokenizer(base))


def rewards(world: Dialogues, texts: list[str], user: int) -> np.ndarray:
    """True reward of an answer to each held-out request."""
    return world.reward(held_out_requests(world), texts, np.full(len(texts), user))


def write(policy: Any, requests: list[str], reader: str | None, **settings: Any) -> list[str]:
    rows = policy.generate(requests, [reader] * len(requests), max_new_tokens=64, **settings)
    return [row[0].text for row in rows]


@pytest.mark.study
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("kind", "users", "rate", "settings"),
    [
        ("reward", {"kind": "individual", "n_tokens": 4}, 0.02, {"place": "before"}),
        ("policy", {"kind": "cluster", "hard": True, "n_clusters": 2, "n_tokens": 4}, 0.02, {"mixture": "sampled"}),
    ],
)
def test_personal_models_serve_both_groups(kind, users, rate, settings, world, base, tmp_path):
    learning = {"reward": 2e-3, "policy": 3e-3}[kind]
    if kind == "policy":
        users = {**users, "assignment": found_clusters(world)}
    shipped = learn(
        kind, world, base, tmp_path / "out", rate=learning, epochs=4, users=users, user_learning_rate=rate, **settings
    )
    for group in (MAJORITY, MINORITY):
        assert accuracy(world, shipped, group) >= 0.95 * oracle(world, group)
    # Strangers are served as the majority is.
    assert accuracy(world, shipped, MAJORITY, generic=True) > 0.7
    assert accuracy(world, shipped, MINORITY, generic=True) < 0.5


@pytest.mark.study
@pytest.mark.timeout(1800)
def test_a_policy_writes_to_each_groups_taste(world, base, tmp_path):
    users = {"kind": "cluster", "hard": True, "n_clusters": 2, "n_tokens": 4, "assignment": found_clusters(world)}
    personal = learn(
        "policy", world, base, tmp_path / "personal", rate=3e-3, epochs=4, users=users, user_learning_rate=0.02,
        mixture="sampled",
    )  # fmt: skip
    vanilla = learn("policy", world, base, tmp_path / "vanilla", rate=3e-3, epochs=3, users=NOBODY, alpha=0.0)
    assert accuracy(world, vanilla, MINORITY) < 0.5
    requests = held_out_requests(world)
    sampled = write(plain(base), requests, None, do_sample=True, temperature=0.8)
    for group, wants_detail in ((MAJORITY, False), (MINORITY, True)):
        user, name = someone_of(world, group)
        texts = write(personal, requests, name)
        assert ((read_style(texts)[:, AXES.index("detail")] == 1) == wants_detail).mean() > 0.9
        assert (parse_styles(requests, texts) >= 0).mean() > 0.5  # some answers mix the steps of two topics
        base_reward = rewards(world, sampled, user).mean()
        assert rewards(world, texts, user).mean() > base_reward
        assert (rewards(world, write(vanilla, requests, name), user).mean() > base_reward) == (group == MAJORITY)


@pytest.mark.study
@pytest.mark.timeout(1800)
def test_best_of_16_by_a_personal_reward_raises_both_groups_reward(world, base, tmp_path):
    requests = held_out_requests(world)
    rows = plain(base).generate(requests, [None] * len(requests), n=16, do_sample=True, temperature=0.8)
    candidates = [[each.text for each in row] for row in rows]
    users = {"kind": "cluster", "n_clusters": 2, "n_tokens": 1}
    personal = learn(
        "reward",
        world,
        base,
        tmp_path / "personal",
        rate=2e-3,
        epochs=3,
        users=users,
        head="late",
        user_learning_rate=0.1,
    )
    pooled = learn("reward", world, base, tmp_path / "pooled", rate=2e-3, epochs=3, users=NOBODY, alpha=0.0)
    single = [row[0] for row in candidates]
    by_pooled = choose_best(requests, [None] * len(requests), candidates, pooled).texts
    for group in (MAJORITY, MINORITY):
        user, name = someone_of(world, group)
        best = rewards(world, choose_best(requests, [name] * len(requests), candidates, personal).texts, user)
        assert ttest_rel(best, rewards(world, single, user), alternative="greater").pvalue < 0.01
        over_pooled = best - rewards(world, by_pooled, user)
        if group == MINORITY:
            assert ttest_1samp(over_pooled, 0, alternative="greater").pvalue < 0.01
        else:
            assert over_pooled.mean() > -0.5  # what everybody's reward chooses is what most want
