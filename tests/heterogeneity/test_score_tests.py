from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pluralign.comparisons import from_attributes
from pluralign.datasets import load
from pluralign.errors import ConfigError
from pluralign.features import Design, encode, fit_encoder, make_encoder
from pluralign.files import plain
from pluralign.heterogeneity import score_tests
from pluralign.heterogeneity.answers import Answers
from pluralign.heterogeneity.nulls import Scales, drawn
from pluralign.heterogeneity.score_tests import _Reliability, _softened, _Taste
from pluralign.populations import draw_tastes, relabel, simulate

DIM, N_NULLS = 8, 500  # of the studies


def population(kind: str, *, seed: int = 0, n_choices: int = 2, same_prompts: bool = False, **settings) -> Design:
    settings = {"n_users": 40, "comparisons_per_user": 30, "dim": 4, "noise": 0.0} | settings
    found = simulate(
        kind=kind, features="numeric", n_choices=n_choices, same_prompts=same_prompts, seed=seed, **settings
    )
    return Design.of(found.comparisons, torch.from_numpy(found.features))


def observed(design: Design, theta: torch.Tensor, log_scale: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Both statistics of the answers as they are, for a given theta and everybody at one scale."""
    answers = Answers.of(design)
    margin = answers.x @ theta
    mean = torch.full((answers.n_users,), log_scale, dtype=margin.dtype)
    taste = _Taste.of(answers, margin, Scales(mean=mean, sd=torch.zeros_like(mean), spread=0.3))
    other = answers.other[:, None]
    return taste.of_answers(other)[:, 0], _Reliability.of(answers, margin, 1.0).of_answers(other)


def test_reliability_of_two_users_by_hand():
    # One feature, margins of ln 3 at theta = 1/2: the better item is chosen with probability 3/4. User a takes it four
    # times of four and b two of four, so that 6 right answers of 8 leave theta where it is.
    ln3 = float(np.log(3))
    items = np.array([[0.0], [2 * ln3]])
    rows = [(1, 0)] * 4 + [(1, 0), (0, 1), (1, 0), (0, 1)]
    table = from_attributes(
        attributes=items,
        attribute_names=["x"],
        chosen=np.array([r[0] for r in rows]),
        rejected=np.array([r[1] for r in rows]),
        user=["a"] * 4 + ["b"] * 4,
    )
    answers = Answers.of(Design.of(table, torch.from_numpy(items)))
    margin = answers.x @ torch.tensor([0.5], dtype=torch.float64)
    found = float(_Reliability.of(answers, margin, 0.0).of_answers(answers.other[:, None])[0])
    # m e is ln 3 / 4 for a right answer and -3/4 ln 3 for a wrong one: a has 4 of the one, b 2 of each.
    m2 = ln3**2
    total = m2 * ((1.0**2 - 4 / 16) + ((-1.0) ** 2 - (2 / 16 + 2 * 9 / 16)))
    information = 4 * 3 / 16 * m2
    scale = 2 * (information**2 - 4 * (3 / 16 * m2) ** 2)
    assert found == pytest.approx(total / scale, rel=1e-6)


@pytest.mark.parametrize("n_choices", [2, 3])
def test_taste_is_the_sum_over_pairs_of_different_decisions_of_a_user(n_choices):
    design = population("individual", n_users=5, comparisons_per_user=[3, 4, 4, 5, 7], n_choices=n_choices, dim=3)
    rng = np.random.default_rng(0)
    theta = torch.from_numpy(rng.normal(size=3))
    taste, _ = observed(design, theta, log_scale=-0.3)

    # The same, decision by decision, with matrices written out.
    s = np.exp(-0.3)
    phi, chosen, rejected = (each.numpy() for each in (design.features, design.chosen, design.rejected))
    x, v, e, m = [], [], [], []
    for j in range(design.n_decisions):
        rows = np.flatnonzero(design.decisions.index.numpy() == j)
        each = s * (phi[chosen[rows]] - phi[rejected[rows]])
        margin = each @ theta.numpy()
        p = np.exp(-margin) / (1 + np.exp(-margin).sum())
        x, v, e, m = [*x, each], [*v, np.diag(p) - np.outer(p, p)], [*e, p], [*m, margin]
    user = design.user.numpy()
    information = sum(a.T @ b @ a for a, b in zip(x, v, strict=True))
    step = np.linalg.solve(information, sum(a.T @ b for a, b in zip(x, e, strict=True)))
    e = [b - c @ a @ step for a, b, c in zip(x, e, v, strict=True)]
    score, left = [], np.zeros((3, 3))
    for u in range(5):
        mine = np.flatnonzero(user == u)
        size = sum(m[j] @ v[j] @ m[j] for j in mine)
        slope = sum(m[j] @ v[j] @ x[j] for j in mine) / size
        followed = sum(m[j] @ e[j] for j in mine) / size
        for j in mine:
            own = x[j] - np.outer(m[j], slope)
            left += own.T @ v[j] @ own
            score.append((u, own.T @ (e[j] - v[j] @ m[j] * followed)))
    value, axis = np.linalg.eigh(left)
    weight = np.where(value > 1e-5 * value.max(), (value.clip(0) + 1e-3 * value.max()) ** -0.5, 0)
    metric = (axis * weight / (weight * value).sum()) @ axis.T
    expected = sum(
        a @ metric @ b for i, (u, a) in enumerate(score) for k, (w, b) in enumerate(score) if u == w and i != k
    )
    assert float(taste[0]) == pytest.approx(expected, rel=1e-4)  # the information is a millionth larger


def test_reversed_users_by_hand():
    # Every margin is ln 2, so that 4 right answers of 6 leave theta where it is. User b is wrong twice: its score at
    # s_u = 0 is twice -ln 2 / 2, of variance twice (ln 2)^2 / 4.
    items = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    table = from_attributes(
        attributes=items,
        attribute_names=["x", "y"],
        chosen=np.array([1, 2, 0, 0, 1, 2]),
        rejected=np.array([0, 0, 1, 2, 0, 0]),
        user=["a", "a", "b", "b", "c", "c"],
    )
    design = Design.of(table, torch.from_numpy(items))
    theta = torch.tensor([np.log(2), np.log(2) / 2])
    taste, _ = observed(design, theta)
    assert float(taste[1]) == pytest.approx((2 / 2) ** 2 / (2 / 4), rel=1e-5)


@pytest.mark.parametrize("n_choices", [2, 4])
def test_order_names_and_side_change_nothing(n_choices):
    design = population("clusters", n_choices=n_choices, n_users=8, comparisons_per_user=[4, 5, 6, 7, 8, 9, 20, 30])
    theta = torch.from_numpy(np.random.default_rng(1).normal(size=4))
    expected = observed(design, theta)
    rng = np.random.default_rng(2)
    order = torch.from_numpy(rng.permutation(design.n_decisions))
    rows = torch.cat([(design.decisions.index == j).nonzero()[:, 0] for j in order])
    name = torch.from_numpy(rng.permutation(8))
    number = torch.arange(len(order)).repeat_interleave(design.decisions.n_items[order] - 1)
    shuffled = replace(
        design,
        chosen=design.chosen[rows],
        rejected=design.rejected[rows],
        decisions=replace(
            design.decisions,
            index=number,
            outcome=design.decisions.outcome[rows],
            position=design.decisions.position[rows],
        ),
        user=name[design.user[order]],
        weight=design.weight[order],
        source=design.source[order],
    )
    for a, b in zip(expected, observed(shuffled, theta), strict=True):
        torch.testing.assert_close(a, b)


def test_which_of_two_is_called_chosen_changes_nothing():
    design = population("clusters", n_users=10)
    turned = replace(
        design,
        chosen=design.rejected,
        rejected=design.chosen,
        decisions=replace(design.decisions, outcome=1 - design.decisions.outcome),
    )
    first, second = (score_tests(each, ridge=1.0, n_draws=19) for each in (design, turned))
    assert first.taste.p_bootstrap == second.taste.p_bootstrap
    assert first.taste.statistic == pytest.approx(second.taste.statistic)
    assert first.reliability.statistic == pytest.approx(second.reliability.statistic)


def test_one_factor_and_a_rotation_of_the_features_change_nothing():
    design = population("individual", n_users=12)
    turn = torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).normal(size=(4, 4))))[0]
    theta = torch.from_numpy(np.random.default_rng(1).normal(size=4))
    expected, _ = observed(design, theta)
    found, _ = observed(design.with_features(3 * design.features @ turn), turn.T @ theta / 3)
    torch.testing.assert_close(found, expected)
    before = score_tests(design, ridge=2.0, n_draws=19)
    after = score_tests(design.with_features(3 * design.features), ridge=18.0, n_draws=19)
    assert after.taste.effect == pytest.approx(before.taste.effect, rel=1e-3)
    assert after.reliability.effect == pytest.approx(before.reliability.effect, rel=1e-3)


@pytest.mark.parametrize("kind", ["individual", "basis", "clusters"])
@pytest.mark.parametrize("n_choices", [2, 4])
def test_planted_tastes_are_found(kind, n_choices):
    tests = score_tests(population(kind, n_choices=n_choices, same_prompts=True), n_draws=99, n_permuted=99)
    assert tests.taste.p_bootstrap == 0.01
    assert tests.taste.p_permutation <= 0.05
    assert tests.taste.effect > 0.3


def test_planted_reliability_is_found_and_is_no_taste():
    design = population("reliability", reliability_sd=0.7, n_users=60, same_prompts=True, seed=1)
    tests = score_tests(design, n_draws=199, n_permuted=199)
    assert tests.reliability.p_bootstrap == 0.005
    assert tests.reliability.p_permutation == 0.005
    assert 0.35 < tests.reliability.effect < 0.9
    assert tests.taste.p_bootstrap > 0.05
    assert tests.taste.p_permutation > 0.05


def test_a_few_who_want_the_opposite_are_taste_though_it_lies_along_the_pooled_reward():
    design = population("null", n_users=30)
    flipped = design.user < 3
    design = replace(
        design,
        chosen=torch.where(flipped, design.rejected, design.chosen),
        rejected=torch.where(flipped, design.chosen, design.rejected),
    )
    tests = score_tests(design, n_draws=99)
    assert tests.taste.p_bootstrap == 0.01


def test_ties_and_soft_labels_keep_their_smaller_variance():
    design = population("null", n_users=40, dim=3)
    outcome = torch.where(torch.arange(design.n_decisions) % 2 == 0, 0.5, design.decisions.outcome)
    tied = replace(design, decisions=replace(design.decisions, outcome=outcome))
    answers = Answers.of(tied)
    margin = answers.x @ torch.zeros(3, dtype=torch.float64)
    p = answers.probability(margin[:, None])
    other = next(_softened(answers, p, drawn(answers, margin, None, 50, torch.Generator().manual_seed(0))))
    filled = answers.weight > 0
    assert float((other[filled] - 0.5).square().mean()) == pytest.approx(1 / 8)  # half of an answer's 1/4
    assert score_tests(tied, ridge=1.0, n_draws=99).taste.p_bootstrap > 0.05


def test_users_without_decisions_are_passed_over():
    design = population("individual", n_users=10)
    kept = design.take(design.user % 2 == 0)
    dense = replace(kept, user=kept.user // 2, n_users=5)
    assert plain(score_tests(kept, ridge=1.0, n_draws=9)) == plain(score_tests(dense, ridge=1.0, n_draws=9))


def test_users_with_questions_of_their_own_have_no_permutation():
    design = population("null", n_users=10)
    own = replace(design, source=torch.arange(design.n_decisions))
    tests = score_tests(own, ridge=1.0, n_draws=9)
    assert (tests.taste.p_permutation, tests.taste.n_permuted) == (None, 0)
    assert "cannot be told from misfit" in tests.taste.note


def test_one_feature_leaves_nothing_but_reversal():
    tests = score_tests(population("null", n_users=10, dim=1), ridge=1.0, n_draws=19)
    assert tests.taste.effect == 0
    assert tests.taste.p_bootstrap > 0.05


def test_one_user_is_refused():
    design = population("null", n_users=3)
    with pytest.raises(ConfigError, match="1 of 3 users have two decisions or more"):
        score_tests(design.take(design.user == 1))
    with pytest.raises(ConfigError, match="0 of 3 users"):
        score_tests(design.take(design.user == 5))


@pytest.mark.parametrize(("setting", "value"), [("n_draws", 0), ("n_permuted", -1)])
def test_settings_are_checked(setting, value):
    with pytest.raises(ConfigError, match=f"{setting} is {value}"):
        score_tests(population("null", n_users=3), **{setting: value})


def crowd(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features of a set's real texts in a few directions, and its real pairs."""
    comparisons = load(name, folder)
    raw = encode(comparisons, fit_encoder(make_encoder("tfidf"), comparisons), progress=False).astype(np.float64)
    left, size, _ = np.linalg.svd((raw - raw.mean(0)) / np.maximum(raw.std(0), 1e-9), full_matrices=False)
    low = np.minimum(comparisons.chosen, comparisons.rejected)
    high = np.maximum(comparisons.chosen, comparisons.rejected)
    features = left[:, :DIM] * size[:DIM]
    return features / features.std(), np.unique(np.stack([low, high], 1)[low != high], axis=0)


def answered(
    features: np.ndarray,
    pairs: np.ndarray,
    *,
    kind: str,
    same: bool,
    n_users: int,
    each: int,
    seed: int,
    **taste: object,
) -> Design:
    """Simulated answers to real questions, the same for everybody or each user's own."""
    rng = np.random.default_rng(seed)
    asked = (
        np.tile(rng.integers(len(pairs), size=each), n_users) if same else rng.integers(len(pairs), size=each * n_users)
    )
    used, place = np.unique(pairs[asked], return_inverse=True)
    place = place.reshape(-1, 2)
    user = np.arange(len(asked)) // each
    table = from_attributes(
        attributes=features[used],
        attribute_names=[f"x{i}" for i in range(features.shape[1])],
        chosen=place[:, 0],
        rejected=place[:, 1],
        user=[str(u) for u in user],
        source=[str(q) for q in asked],
    )
    x = table.items.attributes
    tastes = draw_tastes(x, n_users, kind=kind, seed=seed + 1, **taste)
    drawn = relabel(table, x, tastes, seed=seed + 2)
    return Design.of(drawn.comparisons, torch.from_numpy(drawn.features.astype(np.float32)))


@pytest.mark.study
@pytest.mark.data
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("whole_runs")
@pytest.mark.parametrize("kind", ["null", "reliability"])
@pytest.mark.parametrize("same", [True, False], ids=["same questions", "own questions"])
@pytest.mark.parametrize(("name", "folder"), [("jester", "jester5k"), ("ukpconvarg", "ukpconvarg1")])
def test_nulls_are_rejected_at_the_nominal_level(data_dir, name, folder, same, kind):
    features, pairs = crowd(name, data_dir / folder)
    found = []
    for seed in range(N_NULLS):
        design = answered(features, pairs, kind=kind, same=same, n_users=40, each=24, seed=10 * seed)
        tests = score_tests(design, ridge=1.0, n_draws=199, n_permuted=199, seed=seed)
        found.append([tests.taste.p_bootstrap, tests.taste.p_permutation, tests.reliability.p_bootstrap])
        found[-1].append(tests.reliability.p_permutation)
    rate = (np.array(found, dtype=float) <= 0.05).mean(0)
    print(f"{name}, {'same' if same else 'own'} questions, {kind}: taste {rate[:2]}, reliability {rate[2:]}")
    checked = [0, *([1] if same else []), *([2] if kind == "null" else []), *([3] if same and kind == "null" else [])]
    # 3 to 7 %, wider by one standard error of a rate of 5 % among so many nulls.
    error = (0.05 * 0.95 / N_NULLS) ** 0.5
    assert (rate[checked] >= 0.03 - error).all(), rate
    assert (rate[checked] <= 0.07 + error).all(), rate
    if kind == "reliability":
        assert (rate[[2, 3] if same else [2]] > 0.9).all(), rate


@pytest.mark.study
@pytest.mark.usefixtures("whole_runs")
def test_permutations_do_not_take_what_all_users_miss_for_taste():
    # Everybody likes some items for reasons that no feature has, and eight users at a time compare eight items.
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        block = np.repeat(np.arange(6), 8 * 28)
        low, high = (np.tile(each, 6 * 8) + 8 * block for each in np.triu_indices(8, 1))
        items = np.concatenate([rng.normal(size=(48, 3)), 1.5 * rng.normal(size=(48, 1))], 1)
        table = from_attributes(
            attributes=items,
            attribute_names=["a", "b", "c", "unseen"],
            chosen=low,
            rejected=high,
            user=[str(u) for u in np.repeat(np.arange(48), 28)],
            source=[f"{a}-{b}" for a, b in zip(low, high, strict=True)],
        )
        drawn = relabel(table, items, draw_tastes(items, 48, kind="null", seed=seed), seed=seed)
        design = Design.of(drawn.comparisons, torch.from_numpy(items[:, :3]))
        taste = score_tests(design, ridge=1.0, n_draws=99, n_permuted=99, seed=seed).taste
        found.append([taste.p_bootstrap, taste.p_permutation])
    rate = (np.array(found) <= 0.05).mean(0)
    print(f"misfit: bootstrap {rate[0]}, permutation {rate[1]}")
    assert rate[0] > 0.3  # which is why there are permutations
    assert rate[1] <= 0.05 + 3 * (0.05 * 0.95 / 100) ** 0.5
