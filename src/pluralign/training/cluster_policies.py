"""One policy per cluster of users, and who is in which: Algorithm 1 of arXiv 2601.20760 for language models.

Park et al. (arXiv 2405.00254, Algorithm 3) assign each user to the cluster whose reward makes the user's choices
likeliest and give each cluster the policy that is best for its reward. Here the reward is the policy's own: the
implicit reward of DPO, so that a cluster's estimate is its policy. By turns,

    f(u) = argmax_k sum_j log sigma(margin of decision j of u under adapter k),           (Eq. 4)
    adapter k goes on with DPO on the choices of its members.

There is one language model and a LoRA adapter for each cluster. (The other way to have clusters is one model with a
token per cluster, the user model `cluster` of `train_policy`, hard or soft: cheaper still, and less of a model each.)

Choices that the papers leave open or print otherwise:
    Eq. 3 of 2601.20760 as printed lacks the max over clusters; every cluster would solve the pooled problem and Eq. 4
    would be a tie. The estimator that is meant, sum_u max_k, is what is trained.
    J of its Eq. 1 has a KL penalty; Park et al.'s has none, and neither gives beta, a reference or mu_1. Here: DPO's
    objective E_pi[r] - beta KL(pi || pi_ref), `beta` of the settings, pi_ref the language model before any training,
    which knows no user and no cluster. The reward of the baseline trajectories, E_mu_1[r], is subtracted from every
    policy alike and changes no argmax for a point estimate; it matters inside a minimum over rewards
    (`pluralign.policies.pessimism`).
    Start: clusters of a hard fit on frozen features, or at random with restarts, or given. An empty cluster takes the
    worst served user; ties go to the lowest index.
    Inner training is inexact, a few steps on from where the adapter stood. So the classification likelihood
    sum_u max_k need not rise from round to round: it is recorded, and the best round is kept.
    Soft clusters (`soft`) weight a user's rows by its posterior and are another estimator: maximum likelihood of the
    mixture instead of the assignment.
A user's own choices are in the training of its cluster, which flatters that cluster when the user is assigned again,
and an adapter can learn single responses by heart, which raises the likelihood and says nothing of users. `held_out`
keeps the decisions on a share of the sources (prompts) out of training, to assign and to choose the round by.

The rounds' adapters have followed users about, and with `held_out` they have not seen all decisions. So once it is
known who is where, every adapter is trained anew, from the language model as it was, on all decisions of its members
(`refit`).

The generic policy, for whom nothing is known of, is an adapter trained on everybody with as many passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from pluralign.comparisons import Comparisons
from pluralign.errors import CacheError, ConfigError, NoComparisonsError
from pluralign.features import Design, Standardizer, Trainable, encode, fit_encoder, make_encoder, used_items
from pluralign.features.pretrained import pick_device
from pluralign.files import plain, write_json
from pluralign.inference.clusters import fit_clusters
from pluralign.inference.hard_em import assign_users
from pluralign.language_models.loading import load_tokenizer, read_json
from pluralign.language_models.personal import ADAPTER, PersonalPolicy, load_adapter
from pluralign.language_models.reading import BATCH_TOKENS
from pluralign.language_models.tokens import PreferenceTokens, tokenize
from pluralign.training.data import PairDataset
from pluralign.training.margins import policy_reference
from pluralign.training.reference import default_cache_dir, reference_log_probs
from pluralign.training.rounds import (
    Alternation,
    Round,
    Values,
    cluster_margins,
    copy_values,
    decision_log_probs,
    load_values,
)
from pluralign.training.settings import PolicySettings, changed
from pluralign.training.train import (
    CHECKPOINTS,
    TOKENIZER,
    autocast_dtype,
    find_run,
    make_arguments,
    make_config,
    prepare,
    run_key,
)
from pluralign.types import FloatArray, IntArray

CLUSTERS, GENERIC = "clusters.json", "generic"
NOBODY = {"kind": "uniform", "n_tokens": 0}


@dataclass(frozen=True, eq=False, kw_only=True)
class ClusterPolicies:
    """A language model with an adapter for each cluster and one for everybody.

    Attributes:
        model: The language model; between uses its adapter holds anything.
        tokenizer: Its tokenizer.
        adapters: Trained values of each cluster, by name.
        generic: Those of everybody's adapter.
        user_ids: The users' names.
        cluster: Cluster of each user, (users,).
        membership: Posterior of each cluster for every user, one-hot where hard, (users, clusters).
        rounds: Every round of every restart.
        settings: What training depended on; `beta` holds the policies to the reference.
    """

    model: PersonalPolicy
    tokenizer: Any
    adapters: tuple[Values, ...]
    generic: Values
    user_ids: tuple[str, ...]
    cluster: IntArray
    membership: FloatArray
    rounds: tuple[Round, ...]
    settings: PolicySettings

    @property
    def n_clusters(self) -> int:
        return len(self.adapters)

    @contextmanager
    def use(self, cluster: int | None) -> Iterator[PersonalPolicy]:
        """The policy of a cluster, None the generic one, until the context ends."""
        if cluster is not None and not 0 <= cluster < self.n_clusters:
            raise ConfigError(f"there is no cluster {cluster}; there are {self.n_clusters}")
        load_values(self.model, self.generic if cluster is None else self.adapters[cluster])
        yield self.model

    def margins(
        self,
        comparisons: Comparisons,
        *,
        reference: np.ndarray | None = None,
        cache: str | Path | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> FloatArray:
        """Margin of every row under every cluster's policy, and last under the generic one, (rows, clusters + 1)."""
        tokens = _tokens(comparisons, self.tokenizer, self.settings)
        if reference is None:
            reference = policy_reference(self.model, tokens, cache=cache, batch_tokens=batch_tokens)
        columns = []
        for cluster in (*range(self.n_clusters), None):
            with self.use(cluster) as model:
                columns.append(cluster_margins(model, tokens, reference, self.settings.beta, batch_tokens))
        return np.stack(columns, axis=1)

    def assign(self, comparisons: Comparisons, **settings: Any) -> IntArray:
        """Cluster of every user of some comparisons from the user's own choices alone (Eq. 4), (users,).

        Args:
            comparisons: Their choices; the users need not be known.
            settings: As of `margins`.

        Raises:
            NoComparisonsError: A user has no choice.
        """
        margin = self.margins(comparisons, **settings)[:, :-1]
        log_prob = decision_log_probs(comparisons, margin)
        user = torch.as_tensor(comparisons.user[comparisons.first_row], dtype=torch.int64)
        return assign_users(log_prob, user, comparisons.n_users).numpy().astype(np.int32)

    def save(self, folder: str | Path) -> None:
        """Write one policy folder for each cluster and for everybody, and who is in which cluster.

        `cluster-K/adapter` is an ordinary PEFT adapter, which engines that serve several adapters on one base load.
        """
        folder = Path(folder)
        for cluster, name in zip((*range(self.n_clusters), None), policy_names(self.n_clusters), strict=True):
            own = folder / name
            with self.use(cluster) as model:
                model.save(own)
            self.tokenizer.save_pretrained(own / TOKENIZER)
        write_json(folder / CLUSTERS, self.as_dict())

    @classmethod
    def load(
        cls, folder: str | Path, *, base: str | None = None, device: str | None = None, **loading: Any
    ) -> ClusterPolicies:
        """Read what `save` wrote.

        Args:
            folder: The folder.
            base: The language model, where it no longer lies where it did.
            device: Where it computes; None is the GPU if there is one.
            loading: What `from_pretrained` needs.

        Raises:
            CacheError: The folder holds no policies of clusters, not all of them, or damaged ones.
        """
        folder = Path(folder)
        path = folder / CLUSTERS
        if not path.is_file():
            raise CacheError(f"{folder} holds no policies of clusters: there is no {CLUSTERS}")
        kept = read_json(path)
        names = policy_names(kept["n_clusters"])
        missing = [name for name in names if not (folder / name).is_dir()]
        if missing:
            raise CacheError(f"{folder} holds not all policies of its clusters: there is no {missing[0]}/")
        settings = PolicySettings(**kept["settings"])
        model = PersonalPolicy.load(folder / GENERIC, base=base, **loading)
        model.to(pick_device(device))
        values = []
        for name in names:
            if settings.tuning == "lora":  # the language model is read once
                load_adapter(model.lm, folder / name / ADAPTER)
                values.append(copy_values(model))
            else:
                values.append(copy_values(PersonalPolicy.load(folder / name, base=base, **loading)))
        return cls(
            model=model,
            tokenizer=load_tokenizer(folder / GENERIC / TOKENIZER),
            adapters=tuple(values[:-1]),
            generic=values[-1],
            user_ids=tuple(kept["cluster"]),
            cluster=np.array(list(kept["cluster"].values()), dtype=np.int32),
            membership=np.array(list(kept["membership"].values()), dtype=np.float64),
            rounds=tuple(Round(**{**each, "sizes": tuple(each["sizes"])}) for each in kept["rounds"]),
            settings=settings,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the adapters."""
        return {
            "n_clusters": self.n_clusters,
            "cluster": dict(zip(self.user_ids, self.cluster.tolist(), strict=True)),
            "membership": dict(zip(self.user_ids, self.membership.tolist(), strict=True)),
            "rounds": [asdict(each) for each in self.rounds],
            "settings": plain(asdict(self.settings)),
            "reference": {"model": self.model.config.base, "users": None, "beta": self.settings.beta},
        }


def policy_names(n_clusters: int) -> list[str]:
    """Folders of the clusters' policies, and last of everybody's."""
    return [*(f"cluster-{k}" for k in range(n_clusters)), GENERIC]


def train_cluster_policies(
    comparisons: Comparisons,
    base: str | Path,
    *,
    n_clusters: int = 2,
    assignment: Mapping[str, int] | None = None,
    max_rounds: int = 5,
    soft: bool = False,
    start: str = "features",
    features: str = "tfidf",
    n_starts: int = 1,
    held_out: float = 0.0,
    refit: bool = True,
    resume: bool = True,
    out: str | Path | None = None,
    settings: PolicySettings | None = None,
    args: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    loading: Mapping[str, Any] | None = None,
    seed: int = 0,
    **changes: Any,
) -> ClusterPolicies:
    """Train an adapter for each cluster by DPO and assign users, in turns.

    Args:
        comparisons: What to learn from.
        base: Hub id or folder of the language model, which is the reference too.
        n_clusters: K.
        assignment: Cluster of every user by name, to begin with; those of a study, say. With `max_rounds=0` the users
            stay there and each adapter is trained once.
        max_rounds: Rounds of training and assigning, which end before when nobody moves and training gains no more.
        soft: Posterior memberships.
        start: Where there is no assignment: "features", a hard fit on frozen features, or "random".
        features: Encoder of that fit, by name.
        n_starts: Random starts, all run to their end.
        held_out: Share of the sources whose decisions are not trained on and that users are assigned by.
        refit: Whether to train the adapters anew on the clusters found, which costs as much as a round.
        resume: Go on where a killed run of the same call stopped. Else begin anew, over what `out` holds.
        out: Folder to save to; every adapter that was trained on the way is in `out/checkpoints`.
        settings: Of training; its users are nobody's and its alpha 0.
        args: Fields of `TrainingArguments`, for one adapter's training in one round.
        cache: Folder of the reference's log-probabilities.
        loading: What `from_pretrained` needs.
        seed: Of starts and of who is held out.
        changes: Fields of `settings`, by name.

    Raises:
        ConfigError: A setting is not accepted, a user has no cluster in `assignment`, or `out` holds another run.
        NoComparisonsError: All of a user's decisions are held out, or none.
    """
    settings = changed(PolicySettings(users=NOBODY, alpha=0.0, seed=seed) if settings is None else settings, changes)
    if settings.users.get("kind") != "uniform" or settings.users.get("n_tokens", 0):
        raise ConfigError(f"users are {dict(settings.users)}; an adapter per cluster has no user tokens beside it")
    _check(n_clusters, max_rounds, n_starts, held_out, start)
    tokenizer, tokens = prepare(comparisons, base, settings, loading)
    n_users = len(tokens.user_ids)
    if n_clusters > n_users:
        raise ConfigError(f"n_clusters is {n_clusters}, but there are {n_users} users")
    with TemporaryDirectory() as scratch:
        arguments = make_arguments({"save_strategy": "no", **(args or {})}, scratch)
        config = make_config(base, (), settings, beta=settings.beta, loss=settings.loss)
        model = PersonalPolicy.make(config, seed=settings.seed, **(loading or {}))
        model.to(arguments.device)
        fit = Alternation(
            model=model,
            comparisons=comparisons,
            tokens=tokens,
            reference=reference_log_probs(
                model,
                tokens,
                cache=default_cache_dir() if cache is None else cache,
                autocast=autocast_dtype(arguments),
                rank=arguments.process_index,
                world=arguments.world_size,
                progress=not arguments.disable_tqdm,
            ),
            settings=settings,
            args=arguments,
            begin=copy_values(model),
            judged=_hold_out(comparisons, held_out, seed),
            soft=soft,
        )
        if assignment is not None:
            starts = [_given(assignment, tokens.user_ids, n_clusters)]
        elif start == "features":
            starts = [cluster_by_features(comparisons, tokens.user_ids, n_clusters, features=features, seed=seed)]
        else:
            rng = np.random.default_rng(seed)
            starts = [rng.permutation(np.arange(n_users) % n_clusters).astype(np.int32) for _ in range(n_starts)]
        if out is not None:
            kept = Path(out) / CHECKPOINTS
            note = run_key(model, PairDataset(tokens=tokens), settings, arguments)
            note["clusters"] = {
                "n_clusters": n_clusters, "starts": starts, "soft": soft, "held_out": held_out, "seed": seed
            }  # fmt: skip
            with arguments.main_process_first(desc="looking for a run to go on with"):
                if arguments.process_index == 0:
                    find_run(kept, note, resume)
            fit = replace(fit, kept=kept)
        ended = [fit.run(each, n_clusters, max_rounds, number) for number, each in enumerate(starts)]
        best = max(ended, key=lambda each: each.log_likelihood)
        if refit and max_rounds:
            whole = replace(fit, judged=None)
            begin = (fit.begin,) * (n_clusters + 1)
            best = replace(best, adapters=whole.train_all(begin, best.membership, f"refit-{len(best.rounds)}"))
        found = ClusterPolicies(
            model=model,
            tokenizer=tokenizer,
            adapters=best.adapters[:-1],
            generic=best.adapters[-1],
            user_ids=tokens.user_ids,
            cluster=best.cluster,
            membership=best.membership,
            rounds=tuple(each for run in ended for each in run.rounds),
            settings=settings,
        )
        model.eval()
        if out is not None and arguments.should_save:
            found.save(out)
    return found


def cluster_by_features(
    comparisons: Comparisons, user_ids: tuple[str, ...], n_clusters: int, *, features: str = "tfidf", seed: int = 0
) -> IntArray:
    """Clusters of a hard fit on frozen features, where training may begin, (users,)."""
    maker = make_encoder(features)
    encoder = fit_encoder(maker, comparisons) if isinstance(maker, Trainable) else maker
    raw = encode(comparisons, encoder, progress=False)
    design = Design.of(comparisons, Standardizer.fit(raw, used_items(comparisons)).transform(raw))
    found = fit_clusters(design, n_clusters, soft=False, ridge=1.0, seed=seed, exact=False).model.membership.argmax(1)
    number = {name: i for i, name in enumerate(comparisons.user_ids)}
    return found.numpy(force=True)[[number[name] for name in user_ids]].astype(np.int32)


def _tokens(comparisons: Comparisons, tokenizer: Any, settings: PolicySettings) -> PreferenceTokens:
    return tokenize(comparisons, tokenizer, max_prompt=settings.max_prompt, max_response=settings.max_response)


def _check(n_clusters: int, max_rounds: int, n_starts: int, held_out: float, start: str) -> None:
    for name, value, least in (("n_clusters", n_clusters, 1), ("max_rounds", max_rounds, 0), ("n_starts", n_starts, 1)):
        if value < least:
            raise ConfigError(f"{name} is {value}; it must be at least {least}")
    if not 0 <= held_out < 1:
        raise ConfigError(f"held_out is {held_out}; it must be at least 0 and below 1")
    if start not in ("features", "random"):
        raise ConfigError(f'start is "{start}"; it must be features or random')


def _given(assignment: Mapping[str, int], user_ids: tuple[str, ...], n_clusters: int) -> IntArray:
    missing = [name for name in user_ids if name not in assignment]
    if missing:
        raise ConfigError(f"users {missing[:10]} have no cluster in the assignment")
    cluster = np.array([assignment[name] for name in user_ids], dtype=np.int32)
    if cluster.min() < 0 or cluster.max() >= n_clusters:
        raise ConfigError(f"the assignment has clusters {cluster.min()} to {cluster.max()}, not 0 to {n_clusters - 1}")
    return cluster


def _hold_out(comparisons: Comparisons, share: float, seed: int) -> np.ndarray | None:
    """Decisions that users are assigned by and nothing is trained on, (decisions,): those of a share of the sources.

    Raises:
        NoComparisonsError: A user has decisions on one side only.
    """
    if not share:
        return None
    user, source = (column[comparisons.first_row] for column in (comparisons.user, comparisons.source))
    present = np.unique(source)
    drawn = np.random.default_rng([seed, 1]).permutation(present)[: max(1, round(share * len(present)))]
    judged = np.isin(source, drawn)
    n, n_judged = (np.bincount(each, minlength=comparisons.n_users) for each in (user, user[judged]))
    torn = np.flatnonzero((n > 0) & ((n_judged == 0) | (n_judged == n)))
    if len(torn):
        raise NoComparisonsError(torn.tolist())
    return judged
