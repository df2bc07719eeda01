"""Write for many users at once.

A batch of prompts is left-padded, and positions are written out, so that a text does not depend on what it is batched
with. What sequences have in common is read once and kept once: where the user's tokens stand after the prompt, its keys
and values serve all users and samples of a batch; where they stand before it, all samples of a user.

The loop is our own, over the model's public `forward` and transformers' logits processors. `generate` of transformers
would hand reserved ids, which have no logits, to processors that look their logits up; here these see the prompt's own
tokens and what was written. Random numbers belong to a sequence, not to a batch: a sample is the same whatever
`batch_size` is (up to rounding that differs between shapes).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from pluralign.errors import ConfigError, DataError
from pluralign.language_models.conditioning import user_token_ids
from pluralign.language_models.packing import SAVING
from pluralign.language_models.reading import reading
from pluralign.language_models.tokens import prompt_ids, shorten_prompt
from pluralign.policies.cache import make_cache
from pluralign.policies.policy import Policy, Prompt, Reader, read_prompt

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

logger = logging.getLogger(__name__)
STATES = "cache_params"  # what state space models call their cache


@final
@dataclass(frozen=True, kw_only=True)
class Response:
    """What was written.

    Attributes:
        text: Without special tokens.
        tokens: Token ids, the end-of-sequence token among them.
        finished: Whether it came to its end-of-sequence token.
    """

    text: str
    tokens: tuple[int, ...]
    finished: bool


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One sequence to write: what several may share, what is its own, and what processors see of both."""

    prefix: tuple[int, ...]
    own: tuple[int, ...]
    prompt: tuple[int, ...]
    seed: tuple[int, ...]


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    users: Sequence[Reader],
    *,
    max_new_tokens: int = 128,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    processors: LogitsProcessorList | None = None,
    n: int = 1,
    seed: int = 0,
    batch_size: int = 32,
    max_prompt: int | None = None,
    share: bool = True,
    progress: bool = False,
) -> list[list[Response]]:
    """Write `n` responses to each prompt for the user beside it.

    Args:
        policy: Who writes.
        prompts: Texts, lists of messages, or those as canonical JSON; a prompt may occur for many users.
        users: One per prompt: a name, a `Cluster`, or None; names that the policy does not know are the generic user.
        max_new_tokens: Most tokens of a response.
        do_sample: Whether to sample rather than take the most likely token.
        temperature: Divides logits when sampling.
        top_p: Samples from the likeliest tokens that have this much probability together.
        top_k: Samples from the likeliest so many tokens; 0 is all.
        repetition_penalty: Of tokens that the prompt or the response has (1 is none); users' tokens are not counted.
        processors: Further logits processors of transformers. In their `input_ids` the users' tokens are left out, and
            a shorter prompt of a batch is filled at its left with its first token.
        n: Responses to each; more than one must be sampled.
        seed: Of the samples.
        batch_size: Sequences written at a time.
        max_prompt: Most tokens of a prompt. A longer one, and one that leaves the model no room, loses its beginning.
        share: Whether what sequences have in common is read once.
        progress: Whether to show a bar.

    Returns:
        For each prompt its responses, (prompts, n).

    Raises:
        DataError: There is not one user for each prompt.
        ConfigError: A setting is out of range, or leaves no room for a prompt.
    """
    if len(prompts) != len(users):
        raise DataError(f"{len(prompts)} prompts and {len(users)} users were given")
    _check(max_new_tokens, do_sample, temperature, top_p, top_k, repetition_penalty, n, batch_size)
    jobs = _jobs(policy, prompts, users, n=n, seed=seed, room=_room(policy, max_new_tokens, max_prompt))
    chain = _processors(do_sample, temperature, top_p, top_k, repetition_penalty, processors)
    ends = _ends(policy)
    order = sorted(range(len(jobs)), key=lambda i: (len(jobs[i].prefix), jobs[i].prefix))
    written: list[list[int]] = [[] for _ in jobs]
    with reading(policy.model), tqdm(total=len(jobs), unit="response", disable=None if progress else True) as bar:
        for first in range(0, len(order), batch_size):
            block = order[first : first + batch_size]
            batch = _write(
                policy,
                [jobs[i] for i in block],
                chain,
                ends=ends,
                max_new_tokens=max_new_tokens,
                do_sample=do_sample,
                share=share,
            )
            for i, tokens in zip(block, batch, strict=True):
                written[i] = tokens
            bar.update(len(block))
    texts = [policy.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in written]
    made = [
        Response(text=text, tokens=tuple(tokens), finished=bool(tokens) and tokens[-1] in ends)
        for text, tokens in zip(texts, written, strict=True)
    ]
    return [made[i * n : (i + 1) * n] for i in range(len(prompts))]


def _check(
    max_new_tokens: int,
    do_sample: bool,
    temperature: float,
    top_p: float,
    top_k: int,
    repetition_penalty: float,
    n: int,
    batch_size: int,
) -> None:
    for name, value in (("max_new_tokens", max_new_tokens), ("n", n), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    for name, number in (("temperature", temperature), ("repetition_penalty", repetition_penalty)):
        if not number > 0:
            raise ConfigError(f"{name} is {number}; it must be above 0")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p is {top_p}; it must be above 0 and at most 1")
    if top_k < 0:
        raise ConfigError(f"top_k is {top_k}; it must be 0 (all) or more")
    if n > 1 and not do_sample:
        raise ConfigError(f"n is {n}, but without sampling all responses to a prompt are one", hint="set do_sample")


def _room(policy: Policy, max_new_tokens: int, max_prompt: int | None) -> int | None:
    """Most tokens of a prompt."""
    limit = getattr(policy.model.inner.config, "max_position_embeddings", None)
    if limit is not None:
        limit -= max_new_tokens + policy.model.users.n_tokens
        if limit < 1:
            raise ConfigError(
                f"max_new_tokens is {max_new_tokens}, which leaves no room for a prompt: the model reads "
                f"{policy.model.inner.config.max_position_embeddings} tokens"
            )
    if max_prompt is not None and max_prompt < 1:
        raise ConfigError(f"max_prompt is {max_prompt}; it must be at least 1")
    return min((each for each in (limit, max_prompt) if each is not None), default=None)


def _jobs(
    policy: Policy, prompts: Sequence[Prompt], users: Sequence[Reader], *, n: int, seed: int, room: int | None
) -> list[_Job]:
    place, n_tokens = policy.model.place, policy.model.users.n_tokens
    vocab_size = policy.embedding.num_embeddings
    known: dict[str, tuple[int, ...]] = {}
    cut = 0
    jobs = []
    for i, (prompt, user) in enumerate(zip(prompts, policy.user_index(users), strict=True)):
        key = prompt if isinstance(prompt, str) else repr(prompt)
        if key not in known:
            ids = prompt_ids(policy.tokenizer, read_prompt(prompt))
            known[key] = tuple(shorten_prompt(ids, room, policy.tokenizer))
            cut += len(ids) > len(known[key])
        text = known[key]
        own = tuple(user_token_ids(user, vocab_size=vocab_size, n_tokens=n_tokens)) if place != "none" else ()
        prefix, own = (own + text, ()) if place == "before" else (text, own)
        jobs += [_Job(prefix=prefix, own=own, prompt=text, seed=(seed, i, k)) for k in range(n)]
    if cut:
        logger.warning("%d prompts lost their beginning: there is room for %d tokens of a prompt", cut, room)
    return jobs


def _processors(
    do_sample: bool,
    temperature: float,
    top_p: float,
    top_k: int,
    repetition_penalty: float,
    further: LogitsProcessorList | None,
) -> LogitsProcessorList:
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chain = LogitsProcessorList()
    if repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(repetition_penalty))
    chain.extend(further or [])
    if do_sample and temperature != 1:
        chain.append(TemperatureLogitsWarper(temperature))
    if do_sample and top_k:
        chain.append(TopKLogitsWarper(top_k))
    if do_sample and top_p < 1:
        chain.append(TopPLogitsWarper(top_p))
    return chain


def _ends(policy: Policy) -> frozenset[int]:
    """Ids that end a response: the model's, of which there may be several, and the tokenizer's."""
    own = getattr(policy.model.inner.generation_config, "eos_token_id", None)
    several = own if isinstance(own, list | tuple) else [own]
    return frozenset(each for each in (*several, policy.tokenizer.eos_token_id) if each is not None)


def _write(
    policy: Policy,
    jobs: list[_Job],
    processors: LogitsProcessorList,
    *,
    ends: frozenset[int],
    max_new_tokens: int,
    do_sample: bool,
    share: bool,
) -> list[list[int]]:
    """Write one batch."""
    branches = _Branches(policy, jobs, share=share, max_new_tokens=max_new_tokens)
    logits, job, used = branches.begin(jobs)
    device = logits.device
    uniform = (
        np.stack([np.random.default_rng(each.seed).random(max_new_tokens) for each in jobs]) if do_sample else None
    )
    history = _history([jobs[j].prompt for j in job.tolist()], device) if processors else job[:, None]
    stop = torch.tensor(sorted(ends), device=device, dtype=torch.int64)
    written = torch.zeros(len(jobs), max_new_tokens, dtype=torch.int64)
    n_written = torch.full((len(jobs),), max_new_tokens)
    done = ~used
    for step in range(max_new_tokens):
        scores = processors(history, logits) if processors else logits
        if uniform is None:
            token = scores.argmax(1)
        else:
            token = draw(scores, torch.from_numpy(uniform[job.numpy(force=True), step]).to(device))
        written[job[used].cpu(), step] = token[used].cpu()
        ended = torch.isin(token, stop) & ~done
        n_written[job[ended].cpu()] = step + 1
        done = done | ended
        if done.all() or step + 1 == max_new_tokens:
            break
        if processors:
            history = torch.cat([history, token[:, None]], dim=1)
        alive = (~done).view(-1, branches.width).any(1)
        if 2 * alive.sum() <= len(alive):
            branches.keep(alive)
            kept = alive.repeat_interleave(branches.width)
            history, token, done, job, used = history[kept], token[kept], done[kept], job[kept], used[kept]
        logits = branches.go_on(token[:, None])
    return [tokens[:count] for tokens, count in zip(written.tolist(), n_written.tolist(), strict=True)]


class _Branches:
    """Sequences as branches of the prefixes that they share, and the cache of both.

    A row is a prefix with `width` branches, which see it and themselves, as in `packing`: its keys and values are kept
    once, not once for every branch. Where an architecture does not see such trees, or where many branches would stand
    empty, every sequence gets a row with a copy of its prefix's cache.
    """

    def __init__(self, policy: Policy, jobs: list[_Job], *, share: bool, max_new_tokens: int) -> None:
        self.model = policy.model
        self.known = inspect.signature(self.model.inner.forward).parameters  # ALiBi has no positions, say
        if not {"past_key_values", STATES} & set(self.known):
            raise ConfigError(f"{type(self.model.inner).__name__} keeps no cache that could be written with")
        self.cache = make_cache(self.model.inner.config)
        self.device = policy.embedding.weight.device
        number: dict[Any, int] = {}
        self.row = [number.setdefault(job.prefix if share else i, len(number)) for i, job in enumerate(jobs)]
        self.prefixes = [jobs[self.row.index(r)].prefix for r in range(len(number))]
        widest = max(self.row.count(r) for r in range(len(number)))
        length = max(map(len, self.prefixes)) + widest * (len(jobs[0].own) + max_new_tokens)
        full = len(number) * widest <= SAVING * len(jobs)
        self.width = widest if widest > 1 and full and self._sees(length) else 1
        # Branch and time of every column after the prefixes.
        self.branch = self.time = torch.empty(0, dtype=torch.int64, device=self.device)

    def _sees(self, length: int) -> bool:
        limit = self.model.share_limit
        return limit is None or length <= limit

    def begin(
        self, jobs: list[_Job]
    ) -> tuple[Float[Tensor, "slots words"], Int[Tensor, " slots"], Bool[Tensor, " slots"]]:
        """Read prefixes and users; return logits, the job of every slot, and whether it is one (or stands empty)."""
        ids, self.mask = _left_padded(self.prefixes, self.device)
        self.length = self.mask.sum(1)
        logits = self._read(ids, (self.mask.cumsum(1) - 1).clamp(min=0), self.mask, 1)[:, 0]
        if self.width == 1:
            rows = torch.tensor(self.row, device=self.device)
            if len(self.prefixes) < len(jobs):
                self._select(rows)
                logits = logits[rows]
            of = [[j] for j in range(len(jobs))]
        else:
            of = [[j for j, r in enumerate(self.row) if r == row] for row in range(len(self.prefixes))]
            logits = logits.repeat_interleave(self.width, dim=0)
        # An empty slot writes along with its row's first, and nobody looks.
        job = torch.tensor([each + each[:1] * (self.width - len(each)) for each in of], device=self.device).flatten()
        used = torch.tensor([[i < len(each) for i in range(self.width)] for each in of], device=self.device).flatten()
        if jobs[0].own:
            own = torch.tensor([jobs[j].own for j in job.tolist()], device=self.device)
            # Some state spaces go on with one token at a time alone.
            at_once = own.shape[1] if own.shape[1] > 1 and self.model.share_limit != 0 else 1
            for tokens in own.split(at_once, dim=1):
                logits = self.go_on(tokens)
        return logits, job, used

    def go_on(self, tokens: Int[Tensor, "slots new"]) -> Float[Tensor, "slots words"]:
        """Logits after the tokens that every branch goes on with."""
        new = tokens.shape[1]
        later = torch.arange(new, device=self.device).repeat(self.width)
        position = self.length[:, None] + later
        self.length = self.length + new
        if self.width == 1:
            attention = self.mask = torch.cat([self.mask, torch.ones_like(tokens)], dim=1)
        else:
            branch = torch.arange(self.width, device=self.device).repeat_interleave(new)
            time = len(self.time) + later  # counted in columns: any number that grows does
            self.branch, self.time = torch.cat([self.branch, branch]), torch.cat([self.time, time])
            own = (self.branch == branch[:, None]) & (self.time <= time[:, None])
            n_rows, n_new = position.shape
            prefix = self.mask.bool()[:, None].expand(-1, n_new, -1)
            attention = self.model.as_mask(torch.cat([prefix, own.expand(n_rows, -1, -1)], dim=2)[:, None])
        logits = self._read(tokens.reshape(position.shape), position, attention, position.shape[1])
        return logits[:, new - 1 :: new].flatten(0, 1)

    def keep(self, alive: Bool[Tensor, " rows"]) -> None:
        """Go on with some rows."""
        self._select(alive.nonzero()[:, 0])

    def _select(self, rows: Int[Tensor, " kept"]) -> None:
        self.cache.reorder_cache(rows)
        self.mask, self.length = self.mask[rows], self.length[rows]

    def _read(
        self, tokens: Int[Tensor, "rows new"], position: Int[Tensor, "rows new"], attention: Tensor, last: int
    ) -> Float[Tensor, "rows last words"]:
        """Logits of the last columns."""
        more = {"position_ids": position, "logits_to_keep": last, "past_key_values": self.cache}
        if STATES in self.known:  # a state space model: its mask is of the new tokens alone
            more[STATES], attention = self.cache, attention[:, -tokens.shape[1] :]
        output = self.model.lm(
            input_ids=tokens,
            attention_mask=attention,
            use_cache=True,
            **{name: value for name, value in more.items() if name in self.known},
        )
        return output.logits[:, -last:].float()


def draw(scores: Float[Tensor, "rows words"], uniform: Float[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Sample from the softmax of scores by one uniform number in [0, 1) for each row."""
    total = scores.double().softmax(1).cumsum(1)
    # The product may round up to the total, which nothing exceeds: the last word with any probability is then meant.
    below = torch.minimum(uniform.double() * total[:, -1], torch.nextafter(total[:, -1], total.new_zeros(())))
    return torch.searchsorted(total, below[:, None], right=True)[:, 0]


def _left_padded(
    lists: Sequence[tuple[int, ...]], device: torch.device
) -> tuple[Int[Tensor, "rows length"], Int[Tensor, "rows length"]]:
    """Ids, and 1 where they are not padding."""
    length = max(map(len, lists))
    ids = torch.tensor([[0] * (length - len(each)) + list(each) for each in lists], device=device)
    mask = torch.tensor([[0] * (length - len(each)) + [1] * len(each) for each in lists], device=device)
    return ids, mask


def _history(prompts: Sequence[tuple[int, ...]], device: torch.device) -> Int[Tensor, "rows length"]:
    """What processors see of prompts: a filled-in first token adds no token that a prompt lacks."""
    length = max(map(len, prompts))
    return torch.tensor([[each[0]] * (length - len(each)) + list(each) for each in prompts], device=device)
