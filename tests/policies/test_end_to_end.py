"""From choices of users with two tastes to what a language model says to each: planted truth, recovered."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluralign.evaluation import mean_interval
from pluralign.policies.best_of_n import choose_best
from pluralign.policies.evaluation import predict_decisions
from pluralign.populations.dialogues import (
    AXES,
    Dialogues,
    embedded_language_model,
    read_style,
    simulate_dialogues,
    write_dialogues,
)

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
