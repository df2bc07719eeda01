"""A YAML file in place of a command's flags."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer


def take_flags(context: typer.Context, config: Path | None) -> Path | None:
    """Take flags from a YAML file, by their names, as if they were this command's defaults.

    Raises:
        ConfigError: The file cannot be read, or names no flag of the command.
    """
    if config is not None:
        from pluralign.errors import ConfigError
        from pluralign.studies.settings import read_yaml

        options = [each for each in context.command.params if each.param_type_name == "option"]
        known = {each.opts[-1].lstrip("-"): each for each in options if each.name not in ("config", "help")}
        taken = {}
        for flag, value in read_yaml(config).items():
            name = str(flag).replace("_", "-")
            if name not in known:
                raise ConfigError(f'{config} has "{flag}"; known: {", ".join(sorted(known))}')
            taken[known[name].name] = _repeated(value) if getattr(known[name], "multiple", False) else value
        context.default_map = taken
    return config


def _repeated(value: Any) -> Any:
    """What a flag that may be given several times is: a list, `name=value` for each of a mapping."""
    if isinstance(value, Mapping):
        return [f"{name}={each}" for name, each in value.items()]
    return value if isinstance(value, list) or value is None else [value]
