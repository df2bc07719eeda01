"""Ordinary checkpoints: users become added tokens, and the result needs nothing of this library.

What is trained stands in rows of the input embedding, so each user, cluster and the generic user becomes so many tokens
of the tokenizer (`<|user:alice|>`; of several tokens `<|user:alice:0|><|user:alice:1|>`) with those rows. Logits of
ordinary ids stay as they were. An added token must never be written, which has two locks:

- `suppress_tokens` in `generation_config.json`, which `generate` of transformers obeys: never, at any temperature.
- For a server that ignores that file: the added tokens' rows of the output head are the mean of the ordinary rows, so
  that their logit is the mean of all logits. It is never the largest, so greedy decoding never takes it; and by
  Jensen's inequality its probability is at most 1 / (number of ordinary ids) at every temperature, in practice much
  less. Where the head has a bias, theirs is `NEVER`, which settles it.

A head that is tied to the input embedding is untied for that (vocabulary x width more numbers in the file).

Whoever may write `<|user:alice|>` into a prompt speaks as alice: tokenise what people write with
`split_special_tokens=True`, or hand over ids.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final
from urllib.parse import quote

import torch
from torch import nn

from pluralign.errors import ConfigError
from pluralign.files import write_json
from pluralign.language_models.conditioning import PersonalEmbedding
from pluralign.language_models.personal import ADAPTER, SETTINGS, PersonalPolicy
from pluralign.language_models.tokens import prompt_ids
from pluralign.language_models.user_tokens import UNKNOWN, ClusterTokens
from pluralign.policies.policy import Policy, cluster_index
from pluralign.training.cluster_policies import ClusterPolicies, policy_names

logger = logging.getLogger(__name__)

TOKENS, SERVED = "user_tokens.json", "served_by.json"
NEVER = -1e4  # a logit that no softmax writes, and that half precision has
PROBE = "Hello there"
_UNSAFE = re.compile(r"[%|<>:\s\x00-\x1f\x7f]")


@final
@dataclass(frozen=True, kw_only=True)
class Exported:
    """What a folder holds.

    Attributes:
        folder: The checkpoint.
        adapter: Folder of the adapter, where it was not merged.
        place: Where the users' tokens stand in a prompt.
        tokens: The text of each user's tokens, by name; clusters as "cluster:0", the generic user as "".
        ids: Their ids.
    """

    folder: Path
    adapter: Path | None
    place: Literal["before", "after", "none"]
    tokens: dict[str, str]
    ids: dict[str, list[int]]


def export(
    policy: Policy,
    folder: str | Path,
    *,
    users: Iterable[str] | None = None,
    merge: bool = True,
) -> Exported:
    """Write a checkpoint that transformers loads by itself.

    Args:
        policy: The policy.
        folder: Gets the model, the tokenizer with the added tokens and a chat template that writes them, and
            `user_tokens.json`.
        users: Names of the users to export; None means all. Clusters and the generic user always are.
        merge: Whether LoRA matrices are added to the weights. If not, they are PEFT's `adapter/` in the folder, to be
            loaded on top of it.

    Raises:
        ConfigError: A user is not known, a token is in the vocabulary already, or the folder holds another model.
    """
    folder = Path(folder)
    _check_folder(folder)
    tokenizer = copy.deepcopy(policy.tokenizer)
    if not merge and policy.model.config.tuning == "lora":
        _check_adapter(policy.model)
    names = _names(policy, users)
    add_tokens(tokenizer, [token for each in names.values() for token in each[0]])
    ids = {name: tokenizer.convert_tokens_to_ids(tokens) for name, (tokens, _) in names.items()}

    lm, adapter = _plain(policy, merge)
    if names:
        number = torch.tensor([index for _, index in names.values()], device=policy.embedding.weight.device)
        with torch.no_grad():
            rows = policy.model.users(number).flatten(0, 1)
        _add_rows(lm, rows, [each for own in ids.values() for each in own], n_ordinary=len(policy.tokenizer))
    lm.save_pretrained(folder)
    place = policy.model.place
    if names and tokenizer.chat_template is not None:
        tokenizer.chat_template = chat_template(tokenizer.chat_template, place, "".join(names[""][0]))
    tokenizer.save_pretrained(folder)
    if adapter is not None:
        _save_adapter(adapter, folder / ADAPTER, base=str(folder))
    exported = Exported(
        folder=folder,
        adapter=None if adapter is None else folder / ADAPTER,
        place=place,
        tokens={name: "".join(tokens) for name, (tokens, _) in names.items()},
        ids=ids,
    )
    write_json(folder / TOKENS, {"place": place, "users": exported.tokens, "ids": ids})
    if names:
        _compare_text(policy, tokenizer, exported)
    return exported


def export_adapters(policies: Mapping[str, Policy], folder: str | Path) -> dict[str, Path]:
    """Write one PEFT adapter per policy, for a server that holds one base and many adapters.

    Args:
        policies: Policies on one base without user tokens (one per cluster), by the names that the adapters get.
        folder: Gets a folder for each.

    Returns:
        Folder of each adapter.

    Raises:
        ConfigError: A policy has user tokens or no adapter, bases differ, or a name is no folder's.
    """
    bases = {policy.model.config.base for policy in policies.values()}
    if len(bases) > 1:
        raise ConfigError(f"the policies have {len(bases)} bases ({', '.join(sorted(bases))}); adapters share one")
    for name, policy in policies.items():
        if not re.fullmatch(r"[\w.-]+", name) or name.strip(".") == "":
            raise ConfigError(f'"{name}" cannot name a folder; use letters, digits, "-", "_" and "."')
        if policy.model.users.n_tokens:
            raise ConfigError(f"{name} has {policy.model.users.n_tokens} tokens per user; use `export`, merge=False")
        if policy.model.config.tuning != "lora":
            raise ConfigError(f'the tuning of {name} is "{policy.model.config.tuning}"; an adapter is LoRA')
        _check_adapter(policy.model)
    folders = {name: Path(folder) / name for name in policies}
    for name, policy in policies.items():
        _save_adapter(policy.model.lm, folders[name], base=policy.model.config.base)
    return folders


def export_clusters(policies: ClusterPolicies, folder: str | Path, *, merge: bool = True) -> dict[str, Path]:
    """Write the policy of each cluster and everybody's for use without this library.

    Args:
        policies: The policies.
        folder: Gets `cluster-0`, ..., `generic`, and `served_by.json`: which of them serves whom; who is not named
            there is served by `generic`.
        merge: Ordinary checkpoints, as `export` writes them. If not, PEFT adapters, as `export_adapters` writes them.

    Returns:
        Folder of each policy.

    Raises:
        ConfigError: Adapters are asked for, and there are none.
    """
    folder, names = Path(folder), policy_names(policies.n_clusters)
    folders: dict[str, Path] = {}
    for cluster, name in zip((*range(policies.n_clusters), None), names, strict=True):
        with policies.use(cluster) as model:
            policy = Policy(model, policies.tokenizer)
            folders |= (
                {name: export(policy, folder / name).folder} if merge else export_adapters({name: policy}, folder)
            )
    served = [names[cluster] for cluster in policies.cluster.tolist()]
    write_json(folder / SERVED, dict(zip(policies.user_ids, served, strict=True)))
    return folders


def _check_folder(folder: Path) -> None:
    """Refuse to write over a model that is no earlier export: the policy itself, say, or its base."""
    if not (folder / TOKENS).is_file():
        for name in (SETTINGS, "config.json", "adapter_config.json"):
            if (folder / name).is_file():
                raise ConfigError(f"{folder} holds another model ({name})", hint="give the export a folder of its own")


def user_tokens(name: str, n_tokens: int) -> list[str]:
    """Tokens of a user, "" the generic one. What would make a token ambiguous is written as %XX."""
    if not name:
        return _numbered("generic", n_tokens)
    return _numbered(f"user:{_UNSAFE.sub(lambda found: quote(found[0], safe=''), name)}", n_tokens)


def _numbered(stem: str, n_tokens: int) -> list[str]:
    return [f"<|{stem}|>"] if n_tokens == 1 else [f"<|{stem}:{t}|>" for t in range(n_tokens)]


def _names(policy: Policy, users: Iterable[str] | None) -> dict[str, tuple[list[str], int]]:
    """Tokens and index of everybody who is exported."""
    model = policy.model
    n_tokens = model.users.n_tokens
    known = {name: i for i, name in enumerate(policy.user_ids)}
    chosen = list(known) if users is None else list(dict.fromkeys(users))
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ConfigError(f"the policy does not know {', '.join(map(repr, unknown[:10]))}")
    if "" in chosen:
        raise ConfigError('a user is called ""; give them a name before export')
    if not n_tokens:
        return {}
    names = {"": (user_tokens("", n_tokens), UNKNOWN)}
    if isinstance(model.users, ClusterTokens):
        for k in range(model.users.n_clusters):
            if f"cluster:{k}" in chosen:
                raise ConfigError(f'a user is called "cluster:{k}", as cluster {k} is; give them another name')
            names[f"cluster:{k}"] = (_numbered(f"cluster:{k}", n_tokens), cluster_index(model, k))
    if model.users.kind == "uniform":  # everybody is the generic user
        return names
    return names | {name: (user_tokens(name, n_tokens), known[name]) for name in chosen}


def add_tokens(tokenizer: Any, tokens: list[str]) -> None:
    """Add tokens that text never spells by accident and decoding skips.

    Raises:
        ConfigError: The vocabulary has one of them already.
    """
    from transformers import AddedToken

    there = tokenizer.get_vocab()
    taken = [token for token in tokens if token in there]
    if taken:
        raise ConfigError(
            f"the vocabulary has {', '.join(taken[:10])} already",
            hint="export to a tokenizer without these tokens, or rename the users",
        )
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False, lstrip=False, rstrip=False) for token in tokens],
        special_tokens=True,
    )


def _plain(policy: Policy, merge: bool) -> tuple[Any, Any]:
    """A copy of the language model with its own embedding, and its adapter where that is not merged."""
    lm = copy.deepcopy(policy.model.lm)
    inner = lm.get_base_model() if policy.model.config.tuning == "lora" else lm
    embedding = inner.get_input_embeddings()
    if isinstance(embedding, PersonalEmbedding):
        inner.set_input_embeddings(embedding.base)
    if policy.model.config.tuning != "lora":
        return lm, None
    if merge and any(map(_adapted, (inner.get_input_embeddings(), inner.get_output_embeddings()))):
        _untie(inner)  # the adapter has changed one of the two
    return (lm.merge_and_unload(), None) if merge else (lm.unload(), policy.model.lm)


def _add_rows(lm: Any, rows: torch.Tensor, ids: list[int], *, n_ordinary: int) -> None:
    """Give a model rows for added ids, and see to it that it never writes them."""
    _untie(lm)
    # A model may have more rows than its tokenizer has tokens: then some of the added ones fit.
    lm.resize_token_embeddings(max(max(ids) + 1, lm.get_input_embeddings().num_embeddings), mean_resizing=False)
    head = lm.get_output_embeddings()
    with torch.no_grad():
        lm.get_input_embeddings().weight[ids] = rows.to(lm.get_input_embeddings().weight)
        head.weight[ids] = head.weight[:n_ordinary].float().mean(0).to(head.weight)
        if head.bias is not None:
            head.bias[ids] = NEVER
    settings = lm.generation_config
    settings.suppress_tokens = sorted({*(settings.suppress_tokens or []), *ids})


def _check_adapter(model: PersonalPolicy) -> None:
    """Refuse an adapter that would be another one without this library.

    Raises:
        ConfigError: It changes the input embedding, where it goes by names of ours, or, where users are tokens, the
            head, which gets more rows.
    """
    head_grows = model.users.n_tokens > 0
    if _adapted(model.get_input_embeddings().base) or (head_grows and _adapted(model.inner.get_output_embeddings())):
        raise ConfigError(
            "the adapter changes the input embedding or the output head, so that it cannot stand beside the weights",
            hint="merge it (--merge, or merge=True)",
        )


def _adapted(module: Any) -> bool:
    """Whether PEFT has wrapped a module, to add to it or to train a copy."""
    return hasattr(module, "base_layer") or hasattr(module, "original_module")


def _untie(lm: Any) -> None:
    """Give a model's input embedding weights of its own where they are its output head's."""
    embedding, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    if embedding.weight is head.weight:
        own = getattr(embedding, "base_layer", embedding)
        own.weight = nn.Parameter(own.weight.detach().clone())
    for config in (lm.config, lm.config.get_text_config()):
        config.tie_word_embeddings = False


def _save_adapter(lm: Any, folder: Path, *, base: str) -> None:
    """Save a PEFT adapter that names its base."""
    config = lm.peft_config["default"]
    before = config.base_model_name_or_path
    config.base_model_name_or_path = base
    try:
        lm.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
    finally:
        config.base_model_name_or_path = before


def chat_template(template: str, place: str, generic: str) -> str:
    """A chat template that writes the text of the variable `user_token` (the generic user's by default) in its place.

    After the prompt it is written where a response is asked for (`add_generation_prompt`).
    """
    token = "{{ user_token if user_token is defined and user_token else '" + generic + "' }}"
    if place == "before":
        return token + template
    return template + "{% if add_generation_prompt %}" + token + "{% endif %}"


def write_prompt(tokenizer: Any, exported: Exported, prompt: str, user: str) -> list[int]:
    """Ids of a text prompt for a user ("" the generic one), as the model was trained on them."""
    own, ids = exported.ids.get(user, exported.ids.get("", [])), prompt_ids(tokenizer, prompt)
    return [*own, *ids] if exported.place == "before" else [*ids, *own]


def _compare_text(policy: Policy, tokenizer: Any, exported: Exported) -> None:
    """Say so where a prompt written as text is not the ids that the model was trained on."""
    token = exported.tokens[""]
    text = token + PROBE if exported.place == "before" else PROBE + token
    if tokenizer(text)["input_ids"] != write_prompt(policy.tokenizer, exported, PROBE, ""):
        logger.warning(
            "this tokenizer reads a user's token and a prompt written as one text otherwise than the model was trained "
            "(a beginning-of-sequence token or a blank goes between): hand over ids, the user's from %s",
            TOKENS,
        )
