"""What wrong answers do: accuracy on clean pairs when labels of a context are flipped before a user is placed by it.

The paper (VPL, arXiv 2408.10075, Fig. 13) does this for texts alone, and its code flips more labels than it is asked
to. A latent user is not robust beyond one half: then the labels say the opposite, and it is confidently wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int
from numpy import arange, int32, ndarray

from pluralign.control.preferences import draw_sets
from pluralign.control.rewards import Reward
from pluralign.control.tasks import Task
from pluralign.errors import ConfigError
from pluralign.evaluation import Interval, Predictions, mean_interval, paired_difference
from pluralign.populations.noise import flip_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class NoiseCurve:
    """Predictions of the same clean pairs by contexts with more and more wrong labels.

    Attributes:
        shares: Probability that a label of the context is turned round.
        sizes: Comparisons in a context.
        predictions: Of each size and share.
        shared: By the reward that is the same for everybody, None where there is none to compare with.
    """

    shares: tuple[float, ...]
    sizes: tuple[int, ...]
    predictions: tuple[tuple[Predictions, ...], ...]
    shared: Predictions | None

    def score(self, size: int, share: float) -> Interval:
        """Accuracy on clean pairs."""
        return mean_interval(self._of(size, share), "accuracy")

    def gain(self, size: int, share: float) -> Interval:
        """The same less the shared reward's, paired by user.

        Raises:
            ConfigError: There is no shared reward.
        """
        if self.shared is None:
            raise ConfigError("there is no shared reward to compare with", hint="give `shared`")
        return paired_difference(self._of(size, share), self.shared, "accuracy")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, sizes in the rows and shares in the columns."""
        found: dict[str, Any] = {
            "shares": list(self.shares),
            "accuracy": {size: [self.score(size, share).as_dict() for share in self.shares] for size in self.sizes},
        }
        if self.shared is not None:
            found["shared"] = mean_interval(self.shared, "accuracy").as_dict()
        return found

    def figure(self) -> Figure:
        """Accuracy against the share of wrong labels, a line for every size, with intervals."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for number, size in enumerate(self.sizes):
            found = [self.score(size, share) for share in self.shares]
            low, high = ([getattr(each, end) for each in found] for end in ("low", "high"))
            axes.plot(self.shares, [each.estimate for each in found], "o-", color=f"C{number}", label=f"{size} answers")
            axes.fill_between(self.shares, low, high, color=f"C{number}", alpha=0.15, lw=0)
        if self.shared is not None:
            axes.axhline(mean_interval(self.shared, "accuracy").estimate, color="0.4", ls="--", label="same for all")
        axes.set(xlabel="share of wrong labels in the context", ylabel="accuracy on clean pairs")
        axes.legend(fontsize=8)
        return figure

    def _of(self, size: int, share: float) -> Predictions:
        return self.predictions[self.sizes.index(size)][self.shares.index(share)]


def noise_curve(
    fitted: Reward,
    task: Task,
    observation: Float[ndarray, "n observation"],
    *,
    shared: Reward | None = None,
    shares: Sequence[float] = SHARES,
    sizes: Sequence[int] = (2, 4, 8),
    n_users: int = 400,
    n_test: int = 32,
    asked: Int[ndarray, "pairs 2"] | None = None,
    seed: int = 0,
) -> NoiseCurve:
    """Place the same users by contexts with wrong labels, the smaller shares' being among the larger ones'.

    Args:
        fitted: A personal reward.
        task: Whose users.
        observation: Observations to compare.
        shared: A reward that is the same for everybody.
        shares: Probabilities that a label of the context is turned round.
        sizes: Comparisons in a context.
        n_users: Users, of every kind as many.
        n_test: Clean pairs to predict for each.
        asked: Pairs of observations that may be asked, as indices; None means any two.
        seed: Of pairs and flips.
    """
    kind = arange(n_users, dtype=int32) % len(task.users)
    test = draw_sets(task, observation, n_users=n_users, n_pairs=n_test, kind=kind, questions=asked, seed=seed)
    found = []
    for size in sizes:
        context = draw_sets(
            task, observation, n_users=n_users, n_pairs=size, kind=kind, questions=asked, seed=seed + 1 + size
        )
        flipped = (flip_labels(context.comparisons, share, seed=seed) for share in shares)
        placed = (fitted.place(replace(context, comparisons=table)) for table in flipped)
        found.append(tuple(fitted.predict(test, z) for z in placed))
    return NoiseCurve(
        shares=tuple(shares),
        sizes=tuple(sizes),
        predictions=tuple(found),
        shared=None if shared is None else shared.predict(test, shared.place(test)),
    )
