"""What the encoders that run a pretrained network share: which weights exactly, on what device, in what precision."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from pluralign.errors import ConfigError

WHOLE_BYTES = 1 << 28  # files up to here are hashed whole
SAMPLES, SAMPLE_BYTES = 256, 1 << 14
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
STORED = ("float16", "float32")


def require(package: str, spec: str, extra: str) -> None:
    """Raise a ConfigError where a package that an encoder needs is not installed."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f'encoder "{spec}" needs the package {package.replace("_", "-")}, which is not installed',
            hint=f"pip install 'pluralign[{extra}]'",
        )


def check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ConfigError(f"{name} is {value!r}; accepted: {', '.join(accepted)}")


def is_folder(model: str) -> bool:
    """Say whether a model is a local folder; else it is a hub id."""
    return Path(model).expanduser().is_dir()


def check_source(model: str, revision: str | None) -> None:
    """Raise a ConfigError where a model reads like a path that is not there, or a folder is given a revision."""
    if is_folder(model):
        if revision is not None:
            raise ConfigError(f'revision is "{revision}", but "{model}" is a local folder, which has none')
    elif model.startswith((".", "/", "~")) or model.count("/") > 1 or not model:
        raise ConfigError(f'there is no folder "{model}"', hint="give a local folder, or a hub id such as owner/name")


def identify(model: str, revision: str | None) -> dict[str, object]:
    """Name the weights exactly: a hub id by its commit, a folder by its content.

    A file above 256 MiB is known by its size and by 256 blocks spread over it. The path is not part of the name: a
    folder that was moved is the same model.

    Raises:
        ConfigError: There is no such model.
    """
    if not is_folder(model):
        from huggingface_hub import hf_hub_download

        try:
            config = hf_hub_download(model, "config.json", revision=revision)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f'cannot get the model "{model}" (revision {revision or "main"}): {error}',
                hint="check the id and the network, or give a local folder",
            ) from error
        return {"model": model, "revision": Path(config).parent.name}
    folder = Path(model).expanduser()
    digest = sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in WEIGHT_AND_CONFIG and p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        _feed(digest, path)
    return {"model": folder.resolve().name, "sha256": digest.hexdigest()}


WEIGHT_AND_CONFIG = {".safetensors", ".bin", ".pt", ".json", ".txt", ".model", ".jinja", ".py"}


def _feed(digest, path: Path) -> None:  # type: ignore[no-untyped-def]  # hashlib does not export its type
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            while block := file.read(1 << 20):
                digest.update(block)
            return
        for i in range(SAMPLES):
            file.seek((size - SAMPLE_BYTES) * i // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))


def load_argument(model: str, identity: dict[str, object]) -> tuple[str, str | None]:
    """Return what to load and at which revision: the commit that was identified, not what `main` is by now."""
    if "revision" in identity:
        return model, str(identity["revision"])
    return str(Path(model).expanduser()), None


@contextmanager
def no_loading_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar per loaded weight."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def pick_device(device: str | None) -> str:
    """Return the device asked for, else this process's GPU, else the CPU."""
    import torch

    if device is not None:
        return device
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def pick_precision(precision: str) -> str:
    """Settle "auto": bfloat16 where this machine computes in it (a GPU or a CPU that can), else float32."""
    import torch

    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bfloat16" if supported() else "float32"
