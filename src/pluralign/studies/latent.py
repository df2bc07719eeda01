"""Latent users in the results of a study: where they lie, and whether the encoder has collapsed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pluralign.features import Design
from pluralign.heterogeneity.embeddings import Embedding
from pluralign.heterogeneity.projection import project
from pluralign.studies.ladder import Rung
from pluralign.types import IntArray
from pluralign.users import Latent


def describe_latent(
    rung: Rung | None, design: Design, *, reference: IntArray | None, user_ids: Sequence[str], seed: int
) -> dict[str, object] | None:
    """The diagnosis of the latent rung fitted to all rows, and a map of its users by the means of their z.

    Two latent dimensions are drawn as they are; more by t-SNE of their directions.

    Args:
        rung: The `latent` rung; None where it was not fitted.
        design: All rows.
        reference: Cluster of every user, -1 for none, (users,); None without clusters.
        user_ids: Names of all users.
        seed: Of t-SNE.

    Returns:
        `diagnosis`, as the rung's settings have it, and `map`: names, clusters from 1 (0 for none), places on a plane,
        method and a note; None in its place where every user lies at the prior.
    """
    if rung is None or not isinstance(rung.model, Latent):
        return None
    found: dict[str, object] = {"diagnosis": rung.settings, "map": None}
    if not rung.settings["active_units"]:
        return found
    user = design.user.unique().numpy(force=True)
    center = rung.model.posterior.center.double().numpy(force=True)[user]
    embedding = Embedding(user=user, vector=center, metric="coefficient")
    laid = project(embedding, reference, user_ids=user_ids, seed=seed)
    two, method, note = laid.two, laid.method, laid.note
    if center.shape[1] <= 2:
        place = {name: i for i, name in enumerate(user_ids)}
        own = center[np.searchsorted(user, [place[name] for name in laid.user])]
        two = np.pad(own, ((0, 0), (0, 2 - center.shape[1]))).round(3)
        method, note = "z", f"{len(own)} users are drawn."
    found["map"] = {"user": laid.user, "cluster": laid.cluster, "two": two, "method": method, "note": note}
    return found
