"""What a process of the tests of several processes does: `torchrun ... distributed.py WHAT FOLDER BASE`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # for the tests' own modules

import torch
from tests.training.conftest import make_comparisons

from pluralign.language_models.personal import PersonalPolicy
from pluralign.training.train import train_policy

RUN = {
    "args": {"max_steps": 6, "learning_rate": 1e-2, "logging_steps": 1, "disable_tqdm": True, "save_steps": 2},
    "lora": {"r": 4},
}


def train(folder: Path, base: str, *, batch: int, accumulation: int = 1, **settings) -> PersonalPolicy:
    """A run on 22 comparisons in steps of 8."""
    args = {
        **RUN["args"],
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "ddp_backend": "gloo" if "RANK" in os.environ else None,
        "use_cpu": True,
    }
    model, _ = train_policy(
        make_comparisons(), base, out=folder, cache=folder.parent / "cache", args=args, lora=RUN["lora"], **settings
    )
    return model


def together(folder: Path, base: str) -> None:
    """Train in several processes; each writes what it ended with."""
    model = train(folder, base, batch=2, accumulation=2)
    rank, world = int(os.environ["RANK"]), torch.distributed.get_world_size()
    sums = {name: value.double().sum().item() for name, value in model.named_parameters() if value.requires_grad}
    (folder / f"rank-{rank}.json").write_text(json.dumps({"world": world, "sums": sums}))


def sharded(folder: Path, base: str) -> None:
    """Shard a policy by rows over processes, step, gather, save and read it again."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    from pluralign.language_models.packing import Sequence, pack
    from pluralign.language_models.personal import PersonalConfig
    from pluralign.training.tables import hold_absent_rows

    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    users = {"kind": "individual", "n_tokens": 2}

    def make() -> PersonalPolicy:
        config = PersonalConfig(base=base, users=users, user_ids=list("abcdef"), tuning="full")
        return PersonalPolicy.make(config)

    sequences = [
        Sequence(prompt=(5, 6, 7, 8 + i), response=(20 + i, 21, 2), user=user) for i, user in enumerate([0, 2, 5, -1])
    ]

    def steps(model, mine, scale) -> None:
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
        hold_absent_rows(optimiser, lambda: model.users.tables())
        for some in ([0, 1, 2, 3], [1, 3]):  # the second step lacks users a and f
            packed = pack([sequences[i] for i in some[mine]], **model.layout)
            optimiser.zero_grad()
            (-model(**packed.tensors()).sum() / len(some) * scale).backward()
            optimiser.step()

    model, plain = make(), make()
    assert model.layout["n_tokens"] == 2  # which asks the model whether it sees trees, while it is whole
    mesh = init_device_mesh("cpu", (world,))
    for layer in model.inner.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert isinstance(model.users.offset, DTensor)
    assert model.users.offset.to_local().shape[0] == 6 // world
    steps(model, slice(rank, None, world), world)  # gradients are averaged over processes
    steps(plain, slice(None), 1)
    state = {name: value.full_tensor() for name, value in model.named_parameters()}
    worst = max((state[name] - value).abs().max().item() for name, value in plain.named_parameters())
    if rank == 0:
        fresh = make()
        fresh.load_state_dict(state, strict=False)
        fresh.save(folder)
        again = PersonalPolicy.load(folder)
        equal = all(torch.equal(value, state[name]) for name, value in again.named_parameters())
        (folder / "found.json").write_text(json.dumps({"world": world, "worst": worst, "equal": equal}))
    torch.distributed.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, folder, base = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    {"together": together, "sharded": sharded, "alone": lambda f, b: train(f, b, batch=8)}[what](folder, base)
