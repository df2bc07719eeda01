"""A `results.json` with every part that the report knows, for any number of users, and texts that mean harm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

LONG = "long " * 20_000
HOSTILE = (
    "<script>window.hurt = 1</script>",
    "</script><script>window.hurt = 2</script>",
    "<img src=x onerror='window.hurt = 3'>",
    "\"'><svg onload=window.hurt=4>",
    "<!-- <script> --> {{ 7 * 7 }} {% raw %} ${7*7} $\\frac{1}{2}$",
    "\u202eright to left \u05d0\u05d1\u05d2 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "null \x00 bell \x07 escape \x1b[31m lone \ud800 surrogate \udfff, line \u2028 paragraph \u2029",
    "javascript:window.hurt=5",
    '=HYPERLINK("http://example.invalid")',
    LONG,
    "",
    "\n\n  \t",
    "_underscore & <b>bold</b> <br> &amp; &lt;",
)
RUNGS = ("pooled", "reliability", "cluster", "cluster-hard", "cluster-embedding", "basis", "individual")
Make = Callable[..., dict[str, Any]]


def interval(estimate: float, half: float, **more: Any) -> dict[str, Any]:
    return {
        "estimate": estimate, "low": estimate - half, "high": estimate + half, "level": 0.95,
        "standard_error": half / 2, "degrees": 40.0, "p_value": 0.01, "cluster": "user",
        "few_users": False, "n_users": 60, "n_sources": 80,
        "n_decisions": 900,
    } | more  # fmt: skip


def row(name: str, accuracy: float, *, control: bool = False) -> dict[str, Any]:
    gain = accuracy - 0.572
    return {
        "name": name,
        "control": control,
        "scores": {
            "accuracy": accuracy, "log_loss": 0.68 - gain, "accuracy_users": accuracy - 0.003,
            "accuracy_users_sd": 0.118, "worst_decile": 0.375, "n_users": 60,
        },
        "accuracy": interval(accuracy, 0.022),
        "gains": {}
        if name == "pooled"
        else {"accuracy": interval(gain, 0.024), "log_prob": interval(gain * 0.7, 0.016)},
        "gain_by_seed": {},
        "p_adjusted": None if control or name == "pooled" else 0.0004,
    }  # fmt: skip


def make(
    n_users: int = 60, *, answer: str = "personalise", seed: int = 0, texts: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Results of a study of `n_users` users in three clusters; `texts` take the place of every text of a user."""
    rng = np.random.default_rng(seed)
    told = iter(())

    def say(plain: str) -> str:
        nonlocal told
        if not texts:
            return plain
        try:
            return next(told)
        except StopIteration:
            told = iter(texts)
            return next(told)

    ids = [say(f"user {i}") for i in range(n_users)]
    cluster = np.sort(rng.choice(3, size=n_users, p=[0.5, 0.3, 0.2])) + 1
    cluster[-1] = 0
    center = rng.normal(size=(4, 8))
    unit = center[cluster] + 0.7 * rng.normal(size=(n_users, 8))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    drawn = np.linspace(0, n_users - 1, min(n_users, 120)).astype(int)
    mapped = min(n_users, 5000)
    spot = 12 * rng.normal(size=(4, 3))
    three = spot[cluster[:mapped]] + 2.5 * rng.normal(size=(mapped, 3))
    gain = 0.08 * rng.normal(size=n_users) + 0.06
    accuracy = dict(zip(RUNGS, (0.572, 0.575, 0.675, 0.668, 0.671, 0.672, 0.648), strict=True))
    ladder = []
    for name in RUNGS:
        ladder.append(row(name, accuracy[name]))
        if name not in ("pooled", "reliability"):
            ladder.append(row(f"{name}, another user's", 0.553, control=True))
        if name.startswith("cluster"):
            ladder.append(row(f"{name}, random clusters", 0.566, control=True))
    latent = {
        "latent_dim": 3,
        "steps": 75,
        "active_units": 2,
        "variance": [0.61, 0.2, 0.001],
        "kl": [1.1, 0.4, 0.002],
        "kl_total": 1.502,
        "fell_back": False,
        "collapsed": False,
        "own_over_shuffled": interval(0.11, 0.03),
        "accuracy": {"own": 0.68, "own, mean of z": 0.679, "shuffled": 0.55, "prior": 0.57, "pooled": 0.572},
        "log_prob": {"own": -0.6, "own, mean of z": -0.601, "shuffled": -0.71, "prior": -0.67, "pooled": -0.668},
        "words": say("not collapsed (2 of 3 units active)"),
    }
    settings = {
        "cluster": {"n_clusters": 3},
        "basis": {"rank": 2},
        "individual": {"tau": 0.125},
        "latent": latent,
    }
    choice = {
        "cluster": [
            {
                "n_clusters": k, "log_prob": -0.69 + 0.03 * min(k, 3) - 0.004 * max(k - 3, 0), "standard_error": 0.004,
                "bic": 7000.0 + 100 * k, "restart_agreement": None if k == 1 else 1 - 0.03 * k,
                "half_agreement": None if k == 1 else 0.9 - 0.1 * k,
            }
            for k in (1, 2, 3, 4, 5)
        ],
        "basis": [
            {"rank": r, "log_prob": -0.68 + 0.02 * min(r, 2) - 0.001 * r, "standard_error": 0.003}
            for r in (0, 1, 2, 4, 8)
        ],
        "individual": [
            {"tau": t, "log_prob": -0.68 + 0.02 * min(t, 0.125) * 8, "standard_error": 0.002}
            for t in (0.0, 0.06, 0.125, 0.25)
        ],
    }  # fmt: skip
    return {
        "pluralign": "0.1.0",
        "python": "3.11.7",
        "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
        "data": {
            "name": say("arguments"), "format": "text", "rows": 60 * n_users, "decisions": 60 * n_users, "items": 2400,
            "users": n_users, "sources": 300, "decisions_per_user": {"median": 60.0, "min": 60, "max": 60},
            "findings": [{"name": "contradiction", "count": 13, "message": say("13 pairs were decided both ways")}],
        },
        "settings": {"encoder": "auto", "rungs": list(RUNGS), "seeds": 2, "level": 0.95, "ridge": None, "seed": 0},
        "encoder": {"kind": "Tfidf", "topics": 128},
        "verdict": {
            "answer": answer,
            "rung": "cluster" if answer == "personalise" else "pooled",
            "candidate": "cluster",
            "reason": "Train one reward per cluster (3 clusters). On held-out decisions it gains +10.3 (+8.0 to +12.7) "
            "points of accuracy and +0.078 (+0.062 to +0.094) nats per decision over the pooled reward.",
            "gain": interval(0.078, 0.016),
            "gain_accuracy": interval(0.103, 0.024),
            "gain_over_reliability": interval(0.053, 0.016),
            "n_clusters": 3,
            "stability": 0.91,
            "kind": {"personalise": "taste", "do not personalise": "none"}.get(answer),
            "minority": {
                "cluster": 3, "share": 0.2, "users": n_users // 5, "accuracy_own": interval(0.71, 0.03),
                "accuracy_pooled": interval(0.52, 0.03), "gain_accuracy": interval(0.19, 0.05),
            },
            "losers": {"users": int((gain < 0).sum()), "share": float((gain < 0).mean()), "beyond_chance": 1},
            "detectable": 2.4,
        },
        "ladder": {"baseline": "pooled", "n_seeds": 2, "rows": ladder},
        "unknown_user": {},
        "unseen_users": [
            {
                "n_context": m, "baseline": "pooled", "n_seeds": 2,
                "rows": [row(name, 0.572 + (accuracy[name] - 0.572) * m / (m + 6)) for name in RUNGS],
            }
            for m in (0, 1, 2, 4, 8, 16, 32)
        ],
        "query_curves": [
            {
                "rung": say("basis"), "n_users": n_users // 4, "n_left_out": 0,
                "methods": {
                    name: {
                        "accuracy": [interval(0.57 + slope * n, 0.03) for n in range(5)],
                        "log_prob": [interval(-0.68 + slope * n, 0.02) for n in range(5)],
                        **({} if name == "random" else {"gain_over_random": [interval((slope - 0.01) * n, 0.02)
                                                                             for n in range(5)]}),
                    }
                    for name, slope in (("information_gain", 0.025), ("uncertainty", 0.015), ("random", 0.01))
                },
            }
        ],
        "latent": {
            "diagnosis": latent,
            "map": {
                "user": ids[:mapped], "cluster": cluster[:mapped].tolist(), "two": three[:, 1:].round(3).tolist(),
                "method": "t-SNE", "note": say("All users are drawn."),
            },
        },
        "clusters": [
            {
                "cluster": k + 1, "users": int(n_users * share), "share": share,
                "accuracy_own": interval(0.69 + 0.01 * k, 0.03), "accuracy_pooled": interval(0.64 - 0.06 * k, 0.03),
                "gain_accuracy": interval(0.05 + 0.07 * k, 0.03), "gain_log_prob": interval(0.06 + 0.04 * k, 0.02),
            }
            for k, share in enumerate((0.5, 0.3, 0.2))
        ],
        "users_of": "cluster",
        "users": [
            {
                "user": u, "cluster": int(c), "decisions": 30, "gain_accuracy": float(g * 1.4),
                "gain_log_prob": float(g), "standard_error": 0.04,
            }
            for u, c, g in zip(ids, cluster, gain, strict=True)
        ],
        "seeds": [
            {
                "seed": split, "candidate": "cluster", "cross_validation": [],
                "rungs": {
                    name: {"settings": settings.get(name, {}), "choice": choice.get(name, []), "described": name}
                    for name in (*RUNGS, "latent")
                },
                "counts": {},
            }
            for split in (0, 1)
        ],
        "heterogeneity": {
            "tests": {
                "taste": {
                    "name": "taste", "statistic": 412.3, "expected": 240.1, "effect": 0.0213, "p_bootstrap": 0.001,
                    "p_permutation": 0.001, "n_draws": 1000, "n_permuted": 1000, "note": say("Users share sources."),
                },
                "reliability": {
                    "name": "reliability", "statistic": 71.9, "expected": 60.0, "effect": 0.0041, "p_bootstrap": 0.21,
                    "p_permutation": None, "n_draws": 1000, "n_permuted": 0, "note": "",
                },
            },
            "components": {
                "disagreement": interval(0.355, 0.02), "self_disagreement": interval(0.21, 0.03),
                "taste": interval(0.33, 0.07), "reliability": interval(0.08, 0.04), "chance": interval(0.59, 0.06),
                "source": "repeats", "note": "",
            },
            "ceiling": {
                "n_repeated": 480, "n_shared": 5200, "repeat_agreement": interval(0.79, 0.03),
                "shared_agreement": interval(0.645, 0.01), "accuracy_ceiling_own": interval(0.87, 0.02),
                "accuracy_ceiling_pooled": interval(0.73, 0.01), "note": "",
            },
            "power": {
                "n_users": n_users, "n_decisions_per_user": 25.0, "standard_error": 1.2, "detectable": 2.4,
                "curve": [{"gain": g / 2, "power": float(1 / (1 + np.exp(3.2 - 1.7 * g)))} for g in range(1, 13)],
                "needed": [
                    {"gain": g, "n_users": n, "n_decisions": m, "power": 0.8}
                    for g, n, m in ((1.0, 400, 25), (1.0, 220, 60), (2.0, 95, 25))
                ],
                "note": "",
            },
            "similarity": {
                "user": [ids[i] for i in drawn],
                "cluster": cluster[drawn].tolist(),
                "cosine": (unit[drawn] @ unit[drawn].T).clip(-1, 1).round(3).tolist(),
                "null": {
                    "largest": [0.71, 0.78, 0.86], "smallest": [-0.85, -0.77, -0.7], "mean_square": [0.11, 0.125, 0.14],
                },
                "isotropic": {
                    "largest": [0.7, 0.77, 0.85], "smallest": [-0.84, -0.76, -0.7], "mean_square": [0.118, 0.125, 0.13],
                },
                "largest": 0.97, "smallest": -0.93, "mean_square": 0.31, "p_value": 0.005, "n_permuted": 200,
                "width": 8,
                "split_half": {
                    "mean": interval(0.62, 0.04),
                    "user": (0.62 + 0.2 * rng.normal(size=len(drawn))).clip(-1, 1).tolist(),
                    "null_mean": 0.11, "p_value": 0.001, "correlation": 0.6, "spearman_brown": 0.75, "n_users": n_users,
                },
                "note": "All users are drawn.",
            },
            "projection": {
                "user": ids[:mapped], "cluster": cluster[:mapped].tolist(), "two": three[:, :2].round(3).tolist(),
                "three": three.round(3).tolist(), "perplexity": 30.0, "method": "t-SNE", "note": "",
            },
            "users_apart": [
                {"user": ids[0], "n_decisions": 60, "columns": [], "detail": say("prefers short texts")}
            ],
            "missing": {"covariates": "the users have no covariates"},
            "covariates": [
                {
                    "covariate": say("age"), "kind": "number", "against": "cluster", "statistic": 0.31,
                    "name_of_statistic": "eta squared", "p_value": 0.002, "p_adjusted": 0.008, "n_users": n_users,
                    "detail": say("cluster 1 is older"),
                },
                {
                    "covariate": say("country"), "kind": "category", "against": "taste direction 1", "statistic": 0.02,
                    "name_of_statistic": "eta squared", "p_value": 0.61, "p_adjusted": 1.0, "n_users": n_users,
                    "detail": "",
                },
            ],
        },
        "likes": [
            {
                "cluster": k + 1, "share": share, "users": int(n_users * share),
                "comparisons": [
                    {
                        "prompt": say("How do I keep basil alive on a windowsill through the winter?"),
                        "preferred": say("Give it six hours of light, and let the soil dry between waterings."),
                        "other": say("**Basil care**\n\n- Light: 6 h\n- Water: sparingly\n\nShall I go on?"),
                        "margin": 1.4, "margin_others": -0.9, "observed": 0.83,
                    }
                    for _ in range(4)
                ],
                "columns": [
                    {
                        "name": say(name), "weight": 0.5 - 0.3 * k, "weight_others": 0.1, "difference": d,
                        "low": d - 0.1, "high": d + 0.1,
                    }
                    for name, d in (("log length", 0.6 - 0.4 * k), ("bullets", -0.4 + 0.3 * k), ("questions", 0.05))
                ],
                "words": [
                    {"word": say(word), "log_odds": z / 8, "z": z}
                    for word, z in (("however", 6.2), ("because", 4.1), ("bullet", -3.3), ("summary", -5.9))
                ],
            }
            for k, share in enumerate((0.5, 0.3, 0.2))
        ],
        "scan": {
            "findings": [
                {
                    "name": "length leak", "severity": "error", "message": say("Length alone scores 0.63 here."),
                    "advice": say("Balance the lengths, or report gains over the length rule."), "count": 4100,
                    "rows": [3, 17, 90], "accuracy": interval(0.63, 0.01), "users": [],
                },
                {
                    "name": "constant user", "severity": "warning", "message": "2 users always chose the first.",
                    "advice": "Drop them.", "count": 2, "rows": [], "accuracy": None, "users": ids[:2],
                },
                {
                    "name": "duplicate", "severity": "note", "message": "14 rows repeat an earlier row.", "advice": "",
                    "count": 14, "rows": [1, 2], "accuracy": None, "users": [],
                },
            ],
            "baselines": [
                {"name": name, "accuracy": interval(a, 0.012), "cross_validated": True, "message": ""}
                for name, a in (("length", 0.63), ("format", 0.55), ("position", 0.502))
            ],
            "n_rows_scanned": 60 * n_users,
            "note": "",
        },
    }  # fmt: skip


@pytest.fixture(scope="session")
def make_results() -> Make:
    return make


@pytest.fixture(scope="session")
def hostile_results() -> dict[str, Any]:
    return make(60, texts=HOSTILE)
