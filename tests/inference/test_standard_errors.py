import gzip
import io

import numpy as np
import pytest
import torch

from pluralign.comparisons.table import from_attributes
from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.pooled import fit_pooled
from pluralign.inference.standard_errors import covariances
from pluralign.likelihoods import Decisions, Logit


def make_design(features: torch.Tensor, *, users: int, n: int = 90, alternatives: int = 3) -> Design:
    g = torch.Generator().manual_seed(1)
    item = torch.stack([torch.randperm(len(features), generator=g)[:alternatives] for _ in range(n)])
    rows = n * (alternatives - 1)
    return Design(
        features=features,
        chosen=item[:, :1].expand(n, alternatives - 1).reshape(-1),
        rejected=item[:, 1:].reshape(-1),
        decisions=Decisions(
            index=torch.arange(n).repeat_interleave(alternatives - 1),
            outcome=torch.ones(rows, dtype=torch.float64),
            position=torch.zeros(rows, dtype=torch.float64),
        ),
        user=torch.arange(n) % users,
        weight=torch.rand(n, generator=g, dtype=torch.float64) + 0.5,
        source=torch.arange(n),
        n_users=users + 1,  # one of whom has no decision
    )


def random_features(dim: int) -> torch.Tensor:
    return torch.randn(40, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_both_covariances_are_what_autograd_gives():
    design = make_design(random_features(3), users=6)
    theta = fit_pooled(design, ridge=0.7)[0].theta

    def by_user(at: torch.Tensor) -> torch.Tensor:
        log_prob = Logit().log_prob(design.margins(at[None]), design.decisions)[:, 0] * design.weight
        return log_prob.new_zeros(7).index_add(0, design.user, log_prob)

    hessian = torch.autograd.functional.hessian(lambda at: by_user(at).sum() - 0.35 * at.square().sum(), theta)
    inverse, score = torch.linalg.inv(-hessian), torch.autograd.functional.jacobian(by_user, theta)
    found = covariances(design, theta, ridge=0.7)
    torch.testing.assert_close(found.information, inverse)
    torch.testing.assert_close(found.by_user, inverse @ score.T @ score @ inverse * 6 / 5)


def test_a_share_of_wins_has_the_binomial_standard_error():
    # 30 of 40 wins, one feature: theta = log 3 and its variance is 1 / (n p (1 - p)) = 1 / 7.5.
    design = Design(
        features=torch.tensor([[1.0], [0.0]], dtype=torch.float64),
        chosen=(torch.arange(40) >= 30).long(),
        rejected=(torch.arange(40) < 30).long(),
        decisions=Decisions(
            index=torch.arange(40),
            outcome=torch.ones(40, dtype=torch.float64),
            position=torch.zeros(40, dtype=torch.float64),
        ),
        user=torch.arange(40),
        weight=torch.ones(40, dtype=torch.float64),
        source=torch.arange(40),
        n_users=40,
    )
    theta = fit_pooled(design, ridge=0.0)[0].theta
    found = covariances(design, theta)
    assert float(theta) == pytest.approx(np.log(3), abs=1e-9)
    assert float(found.standard_error) == pytest.approx(7.5**-0.5)
    # With one decision a user the sandwich is the same, but for its n / (n - 1).
    assert float(found.robust_standard_error) == pytest.approx((40 / 39 / 7.5) ** 0.5)


def test_decisions_copied_do_not_shrink_the_error_by_user():
    once = make_design(random_features(2), users=10, n=60)
    keep = torch.arange(60).repeat(4).sort().values
    row = (once.decisions.index[None] == keep[:, None]).nonzero()[:, 1]
    fourfold = Design(
        features=once.features,
        chosen=once.chosen[row],
        rejected=once.rejected[row],
        decisions=Decisions(
            index=torch.arange(240).repeat_interleave(2),
            outcome=torch.ones(480, dtype=torch.float64),
            position=torch.zeros(480, dtype=torch.float64),
        ),
        user=once.user[keep],
        weight=once.weight[keep],
        source=once.source[keep],
        n_users=once.n_users,
    )
    theta = fit_pooled(once, ridge=0.0)[0].theta
    one, four = covariances(once, theta), covariances(fourfold, theta)
    torch.testing.assert_close(four.standard_error, one.standard_error / 2)
    torch.testing.assert_close(four.robust_standard_error, one.robust_standard_error)


@pytest.mark.parametrize(
    ("features", "users", "message"),
    [
        (torch.cat([random_features(2), torch.ones(40, 1, dtype=torch.float64)], 1), 5, "the Hessian is singular"),
        (random_features(2), 1, "all decisions are one user's"),
        (random_features(100), 5, "there are 100 features; standard errors are for fewer than 100"),
    ],
)
def test_what_has_no_standard_error_is_named(features, users, message):
    with pytest.raises(ConfigError, match=message):
        covariances(make_design(features, users=users), torch.zeros(features.shape[1], dtype=torch.float64))


@pytest.mark.data
def test_train_nl_has_the_published_coefficients(data_dir):
    with gzip.open(data_dir / "train_nl" / "train.csv.gz", "rt") as file:
        table = np.genfromtxt(io.StringIO(file.read()), delimiter=",", names=True, dtype=None, encoding="utf-8")
    n = len(table)
    unit = {"price": 2.20371 / 100, "time": 1 / 60, "change": 1.0, "comfort": 1.0}
    sides = [np.stack([-table[f"{name}_{side}"] * scale for name, scale in unit.items()], axis=1) for side in "AB"]
    first = table["choice"] == "A"
    comparisons = from_attributes(
        attributes=np.concatenate(sides),
        attribute_names=list(unit),
        chosen=np.arange(n) + n * ~first,
        rejected=np.arange(n) + n * first,
        user=[str(user) for user in table["id"]],
    )
    design = Design.of(comparisons, torch.as_tensor(comparisons.items.attributes))
    pooled, report = fit_pooled(design, ridge=0.0)
    assert report.log_prob == pytest.approx(-1724.150, abs=1e-3)
    published = torch.tensor([0.0673580, 1.7205514, 0.3263409, 0.9457256], dtype=torch.float64)  # mlogit 1.1-3
    torch.testing.assert_close(pooled.theta, published, atol=1e-6, rtol=0)
    found = covariances(design, pooled.theta)
    assert (found.robust_standard_error > found.standard_error).all()  # 12 decisions a person are not independent
