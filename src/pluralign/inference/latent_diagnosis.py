"""Has a latent user model collapsed? Active units, KL, and what it predicts with other contexts than the user's own.

A collapsed model looks like a trained one and predicts like the pooled one. Two things can have happened: q stays at
the prior (no *active unit*: a dimension whose posterior mean varies over users by more than 0.005, Burda et al. 2016,
arXiv 1509.00519, with the threshold of arXiv 2603.12595), or q varies and the decoder does not listen. The second
shows only in what is predicted of held-out sources: the user's own context has to beat another user's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pluralign.evaluation import Interval, Predictions, other_users, paired_difference
from pluralign.features import Design
from pluralign.inference.latent_prior import divergence, message_of
from pluralign.inference.selection import NEGLIGIBLE
from pluralign.users.latent import Latent
from pluralign.users.model import UNKNOWN

ACTIVE = 0.005


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentDiagnosis:
    """Printed with every fit.

    Attributes:
        variance: Of the posterior means over users, for each dimension.
        kl: KL(q || prior) of each dimension, mean over users, in nats (`latent_prior.divergence`).
        kl_total: The whole, which for a mixture is not their sum.
        accuracy: On held-out sources by what z was: "own", "own, mean of z", "shuffled", "prior", and "pooled".
        log_prob: The same in nats per decision.
        own_over_shuffled: Gain in log-probability of the own context over another user's.
        own_over_pooled: Over the pooled model.
        variational: Whether the KL had any weight.
    """

    variance: tuple[float, ...]
    kl: tuple[float, ...]
    kl_total: float
    accuracy: dict[str, float]
    log_prob: dict[str, float]
    own_over_shuffled: Interval
    own_over_pooled: Interval
    variational: bool

    @property
    def active_units(self) -> int:
        """Dimensions in use."""
        return sum(each > ACTIVE for each in self.variance)

    @property
    def listens(self) -> bool:
        """Whether the user's own context beats another user's, beyond chance and by more than nothing."""
        return self.own_over_shuffled.low > 0 and self.own_over_shuffled.estimate > NEGLIGIBLE

    @property
    def collapsed(self) -> bool:
        """Whether z carries nothing that predicts: no active unit, or a decoder that does not listen."""
        return not self.active_units or not self.listens

    @property
    def words(self) -> str:
        """All of it in a few sentences."""
        units = f"{self.active_units} of {len(self.variance)} units active, KL {self.kl_total:.2f} nats per user"
        gain = (
            f"the user's own context gains {self.own_over_shuffled.estimate:.4f} nats per decision over another user's "
            f"({self.own_over_shuffled.low:.4f} to {self.own_over_shuffled.high:.4f})"
        )
        if not self.active_units:
            said = "collapsed: every user stays at the prior, and the model is one reward for everybody"
        elif not self.listens:
            said = "collapsed: users differ in z, but the decoder does not use it beyond chance"
        else:
            said = "not collapsed"
        kind = "" if self.variational else "; not variational: the KL had no weight"
        return f"{said} ({units}; {gain}{kind})"


def diagnose_latent(
    fitted: Latent, held: Design, *, pooled: Predictions, everybody: Latent, users: Tensor, variational: bool, seed: int
) -> LatentDiagnosis:
    """Diagnose a fit.

    Args:
        fitted: The model whose users were placed without the held-out rows.
        held: Those rows.
        pooled: The pooled model's predictions of them.
        everybody: The model whose posterior is described: the one that is returned.
        users: Users with comparisons, whom the means are over.
        variational: Whether the KL had any weight.
        seed: Whose context is whose, when shuffled.
    """
    known = users.numpy(force=True)
    other = (
        torch.arange(held.n_users)
        if len(known) < 2
        else torch.as_tensor(other_users(known, held.n_users, seed=seed)).long()
    )
    predicted = {
        "own": fitted.predict(held),
        "own, mean of z": fitted.predict(held, draws=0),
        "shuffled": fitted.predict(held, other.to(held.user.device)[held.user]),
        "prior": fitted.predict(held, torch.full_like(held.user, UNKNOWN)),
        "pooled": pooled,
    }
    kl, parts = divergence(everybody.prior, message_of(everybody.prior, everybody.posterior))
    center = everybody.posterior.center[users]
    return LatentDiagnosis(
        variance=tuple(center.var(0, unbiased=False).tolist()),
        kl=tuple(parts[users].mean(0).tolist()),
        kl_total=float(kl[users].mean()),
        accuracy={name: _mean(each, "correct") for name, each in predicted.items()},
        log_prob={name: _mean(each, "log_prob") for name, each in predicted.items()},
        own_over_shuffled=paired_difference(predicted["own"], predicted["shuffled"], "log_prob"),
        own_over_pooled=paired_difference(predicted["own"], pooled, "log_prob"),
        variational=variational,
    )


def _mean(predictions: Predictions, what: str) -> float:
    values = torch.from_numpy(getattr(predictions, what)).double()
    weight = torch.from_numpy(predictions.weight).double()
    told = ~values.isnan()  # a tie is neither right nor wrong
    return float((values[told] * weight[told]).sum() / weight[told].sum())
