"""Settings of a training run, and of what kind their values are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from transformers.trainer_pt_utils import AcceleratorConfig

from pluralign.errors import ConfigError
from pluralign.training.settings import PolicySettings, check_kinds
from pluralign.training.train import make_arguments


@dataclass
class Owner:
    n: int = 0
    share: float = 0.0
    soft: bool = False
    name: str = ""
    table: dict[str, int] | None = None
    names: list[str] | str = ""
    rate: float | None = None
    folder: str | Path | None = None
    how: Literal["one", "two"] = "one"
    anything: Any = None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 3),
        ("n", np.int64(3)),
        ("share", 1),
        ("share", np.float32(0.5)),
        ("soft", True),
        ("name", Path("x")),
        ("table", {"a": 1}),
        ("table", None),
        ("names", ["a"]),
        ("names", "a"),
        ("rate", None),
        ("folder", Path("x")),
        ("how", 3),  # whoever reads it says what it may be
        ("anything", object()),
        ("unknown", 3),
    ],
)
def test_values_of_the_kind_that_is_due(name, value):
    check_kinds(Owner, {name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n", "abc", 'n is "abc"; it must be a whole number'),
        ("n", 2.5, "n is 2.5; it must be a whole number"),
        ("n", True, "n is true; it must be a whole number"),
        ("share", None, "share is null; it must be a number"),
        ("soft", 1, "soft is 1; it must be true or false"),
        ("name", 3, "name is 3; it must be a text"),
        ("table", "a", 'table is "a"; it must be a table or nothing'),
        ("names", 3, "names is 3; it must be a list or a text"),
        ("rate", "abc", 'rate is "abc"; it must be a number or nothing'),
        ("folder", 3, "folder is 3; it must be a text or nothing"),
    ],
)
def test_values_of_another_kind_are_named_with_what_is_due(name, value, message):
    with pytest.raises(ConfigError, match=f"^of it: {message}$"):
        check_kinds(Owner, {name: value}, of="of it: ")


def test_a_functions_arguments_have_kinds_too():
    def called(n: int, *, soft: bool = False) -> None: ...

    check_kinds(called, {"n": 1, "soft": True})
    with pytest.raises(ConfigError, match=r"n is 1\.0; it must be a whole number"):
        check_kinds(called, {"n": 1.0})


@pytest.mark.parametrize(("name", "value"), [("name", True), ("n", 2.5), ("soft", 1), ("soft", np.True_)])
def test_another_library_takes_more_than_its_annotations_say(name, value):
    check_kinds(Owner, {name: value}, foreign=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n", "abc", 'n is "abc"; it must be a whole number'),
        ("soft", "maybe", 'soft is "maybe"; it must be true or false'),
        ("rate", ["a"], r'rate is \["a"\]; it must be a number or nothing'),
    ],
)
def test_another_library_does_not_take_texts_for_numbers(name, value, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        check_kinds(Owner, {name: value}, foreign=True)


def test_the_trainers_arguments_take_what_its_documentation_says(tmp_path):
    args = make_arguments({"accelerator_config": AcceleratorConfig(), "bf16": 0, "seed": np.int64(3)}, tmp_path)
    assert args.accelerator_config.split_batches is False
    assert make_arguments({"fsdp": True, "use_cpu": True}, tmp_path).fsdp is True


def test_settings_know_the_kinds_of_their_values():
    with pytest.raises(ConfigError, match="max_prompt is true; it must be a whole number or nothing"):
        PolicySettings(max_prompt=True)
