"""Save and load a fitted user model: tensors as safetensors, the rest as JSON. No pickle, and no half-written files."""

import json
from dataclasses import fields
from pathlib import Path

from torch import Tensor

from pluralign.errors import CacheError
from pluralign.files import replacing, write_json
from pluralign.users.distribution import Distribution
from pluralign.users.gaussian import Basis, Individual
from pluralign.users.heads import Clusters, Pooled
from pluralign.users.latent import Latent
from pluralign.users.model import UserModel
from pluralign.users.reliability import Reliability

KINDS: dict[str, type] = {
    each.kind: each for each in (Pooled, Reliability, Clusters, Basis, Individual, Latent, Distribution)
}


def save(model: UserModel, folder: Path) -> None:
    """Write `users.safetensors` and `users.json` into a folder; a field of named weights becomes `field.name`."""
    from safetensors.torch import save_file

    values: dict[str, object] = {}
    for field in fields(model):  # type: ignore[arg-type]
        value = getattr(model, field.name)
        values |= (
            {f"{field.name}.{name}": each for name, each in value.items()}
            if isinstance(value, dict)
            else {field.name: value}
        )
    with replacing(folder / "users.safetensors") as part:
        save_file({name: value.contiguous() for name, value in values.items() if isinstance(value, Tensor)}, part)
    settings = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
    write_json(folder / "users.json", {"kind": model.kind, **settings})


def load(folder: Path) -> UserModel:
    """Read what `save` wrote.

    Raises:
        CacheError: The folder holds no user model, a damaged one, or one of a kind this version does not know.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    missing = [name for name in ("users.json", "users.safetensors") if not (folder / name).is_file()]
    if missing:
        raise CacheError(
            f"{folder} holds no user model: {missing[0]} is missing",
            hint="name the folder that `pluralign fit --out` or `pluralign study --out` wrote",
        )
    try:
        settings = json.loads((folder / "users.json").read_text(encoding="utf-8"))
        kind = settings.pop("kind")
        tensors = _gather(load_file(folder / "users.safetensors"))
    except (ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise CacheError(f"the user model in {folder} is damaged: {error}", hint="fit again") from error
    if kind not in KINDS:
        raise CacheError(f'unknown user model "{kind}" in {folder}; known: {", ".join(sorted(KINDS))}')
    return KINDS[kind](**tensors, **settings)


def _gather(tensors: dict[str, Tensor]) -> dict[str, Tensor | dict[str, Tensor]]:
    """Collect `field.name` into a mapping for each field."""
    found: dict[str, Tensor | dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        field, _, rest = name.partition(".")
        if rest:
            group = found.setdefault(field, {})
            assert isinstance(group, dict)
            group[rest] = tensor
        else:
            found[name] = tensor
    return found
