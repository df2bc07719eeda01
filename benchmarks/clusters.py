"""Time the M-step of clusters against a scikit-learn loop, one round of EM, and the sweep of restarts over K.

    python benchmarks/clusters.py --rows 100000 --dim 384 --users 1000 --starts 20 --max-clusters 8

Times are CPU seconds, so that a busy machine does not blur them; ratios are within the run. The loop fits
scikit-learn's logistic regression once per cluster, on all rows with the members' weights, to the same optimum.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from pluralign.comparisons import from_attributes
from pluralign.features import Design
from pluralign.inference.choose_clusters import choose_clusters
from pluralign.inference.clusters import fit_clusters, screen_users
from pluralign.inference.em import Em
from pluralign.inference.heads import fit_heads
from pluralign.inference.panels import ExactPanel
from pluralign.inference.restarts import agreement
from pluralign.likelihoods import Logit


def population(rows: int, dim: int, users: int, clusters: int, seed: int) -> tuple[Design, np.ndarray]:
    """Planted clusters on features with a decaying spectrum, as encoders give them."""
    rng = np.random.default_rng(seed)
    items = (rng.standard_normal((rows, dim)) * (1 + np.arange(dim)) ** -0.5).astype(np.float32)
    theta = rng.standard_normal((clusters, dim)).astype(np.float32)
    truth = rng.integers(0, clusters, users)
    user = rng.integers(0, users, rows)
    first = rng.integers(0, rows, rows)
    second = (first + rng.integers(1, rows, rows)) % rows
    margin = np.einsum("ij,ij->i", items[first] - items[second], theta[truth[user]])
    prefers = rng.random(rows) < 1 / (1 + np.exp(-margin))
    table = from_attributes(
        attributes=items,
        attribute_names=[f"x{i}" for i in range(dim)],
        chosen=np.where(prefers, first, second),
        rejected=np.where(prefers, second, first),
        user=[str(u) for u in user],
    )
    place = np.array([int(name) for name in table.user_ids])
    return Design.of(table, torch.as_tensor(items)), truth[place]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    value = call()
    return time.process_time() - begin, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--max-clusters", type=int, default=8)
    parser.add_argument("--planted", type=int, default=3)
    parser.add_argument("--ridge", type=float, default=10.0)
    parser.add_argument("--choose", action="store_true", help="also choose K by cross-validation")
    given = parser.parse_args()
    design, truth = population(given.rows, given.dim, given.users, given.planted, seed=0)
    clusters = given.max_clusters
    membership = torch.rand(given.users, clusters, generator=torch.Generator().manual_seed(0))
    membership /= membership.sum(1, keepdim=True)
    ridge = torch.full((clusters,), given.ridge)

    own, _ = timed(lambda: fit_heads(design, ridge=ridge, group_weight=membership))
    # scikit-learn wants two classes: half of the differences are turned round.
    sign = np.where(np.arange(design.n_rows) % 2, 1, -1)
    turned = design.differences(torch.arange(design.n_rows)).numpy() * sign[:, None].astype(np.float32)
    weight = membership[design.user, 0].double().numpy()
    model = LogisticRegression(C=1 / given.ridge, fit_intercept=False, tol=1e-4, max_iter=200)
    one, _ = timed(lambda: model.fit(turned, sign, weight))
    print(
        f"M-step, K = {clusters}: {own:.2f} s; scikit-learn loop {one * clusters:.2f} s (from one head): "
        f"{one * clusters / own:.0f} times as long"
    )

    center = fit_heads(design, ridge=ridge[:1]).theta[0]
    setup, screen = timed(lambda: screen_users(design, ridge=given.ridge, center=center))
    panel = ExactPanel(
        design=design, likelihood=Logit(), ridge=given.ridge, center=center, max_norm=None, tolerance=1e-5, max_passes=2
    )
    em = Em(panel=panel, size=torch.bincount(design.user, minlength=given.users).float(), soft=True, tolerance=0.0)
    state = em.from_membership(membership[:, None])
    one_round, _ = timed(lambda: em.run(state, 1))
    print(f"one round of EM, K = {clusters}: {one_round:.2f} s; the users' expansion, once: {setup:.2f} s")

    total = setup
    for k in range(1, clusters + 1):
        took, fit = timed(
            lambda k=k: fit_clusters(design, k, ridge=given.ridge, center=center, n_starts=given.starts, screen=screen)
        )
        total += took
        found = agreement(fit.model.membership.argmax(1).numpy(), truth)
        print(
            f"K = {k}: {took:.2f} s, log-likelihood {fit.log_likelihood:.1f}, {len(fit.history)} rounds, "
            f"agreement with the planted {found:.3f}"
        )
    print(f"{given.starts} restarts of K = 1 to {clusters}: {total:.1f} s")
    if given.choose:
        took, choice = timed(
            lambda: choose_clusters(design, range(1, clusters + 1), ridge=given.ridge, n_starts=given.starts)
        )
        print(f"choice of K by cross-validation: {took:.1f} s, K = {choice.n_clusters}")


if __name__ == "__main__":
    main()
