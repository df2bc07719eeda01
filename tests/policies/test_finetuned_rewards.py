"""The recipe that fine-tunes personal reward models on real sets: what it takes, keeps and counts."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from pluralign.comparisons import from_columns
from pluralign.evaluation import Predictions

RECIPE = Path(__file__).parents[2] / "recipes" / "finetuned_rewards"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("finetuned_rewards", RECIPE / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def votes(*rows: tuple[str, str]):
    """A table of (prompt, user), each row a pair of its own."""
    return from_columns(
        prompt=[prompt for prompt, _ in rows],
        chosen=[f"better {i}" for i in range(len(rows))],
        rejected=[f"worse {i}" for i in range(len(rows))],
        user=[user for _, user in rows],
    )


def predictions(*correct: int, user: tuple[int, ...]) -> Predictions:
    chosen = np.where(np.array(correct) == 1, 0.8, 0.2)
    one, who = np.ones(len(chosen)), np.array(user, dtype=np.int32)
    return Predictions(chosen=chosen, best_other=1 - chosen, outcome=one, user=who, source=who, weight=one)


def test_the_prompts_with_most_rows_then_their_busiest_users_then_some_rows_of_each(recipe):
    table = votes(*[("p", "ann")] * 5, *[("p", "bob")] * 3, ("p", "cy"), *[("q", "cy")] * 6)
    taken = recipe.busiest(table, prompts=1, users=2, rows=4, skip=0)
    assert taken.user_ids == ("ann", "bob")  # cy's six rows are of the other prompt
    assert np.bincount(taken.user).tolist() == [4, 3]
    assert recipe.busiest(table, prompts=1, users=2, rows=4, skip=1).user_ids == ("bob", "cy")
    assert recipe.busiest(table, prompts=2, users=1, rows=9, skip=0).user_ids == ("cy",)


def test_what_was_predicted_is_not_predicted_again(recipe, tmp_path):
    table = votes(("p", "ann"), ("p", "bob"), ("p", "ann"))
    made = predictions(1, 0, 1, user=(0, 1, 0))
    path = tmp_path / "0" / "model.json"
    first = recipe.kept(path, table, lambda: {"model": made})["model"]
    again = recipe.kept(path, table, lambda: pytest.fail("it was made again"))["model"]
    for each in (first, again):
        np.testing.assert_array_equal(each.chosen, made.chosen)
        np.testing.assert_allclose(each.best_other, made.best_other)
        assert each.user.tolist() == [0, 1, 0]


def test_a_models_row_by_hand(recipe):
    user = (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)
    family = {
        "pooled": [predictions(1, 0, 1, 0, 1, 0, 1, 0, 1, 0, user=user)],
        "individual": [predictions(1, 1, 1, 0, 1, 1, 1, 0, 1, 1, user=user)],
        "individual, another user's": [predictions(*[0] * 10, user=user)],
    }
    pooled, individual = recipe.summarise(family)
    assert (pooled["model"], individual["model"]) == ("pooled", "individual")
    assert "minus pooled" not in pooled
    assert "minus another user's" not in pooled
    assert pooled["accuracy"].estimate == pytest.approx(0.5)
    assert individual["users"] == pytest.approx(0.8)
    assert individual["users_sd"] == pytest.approx(0.3**0.5 / 2)
    assert individual["minus pooled"]["accuracy"].estimate == pytest.approx(0.3)
    assert individual["minus pooled"]["accuracy"].n_users == 5
    assert individual["minus another user's"]["accuracy"].estimate == pytest.approx(0.8)
    # Three of ten turn from 0.2 to 0.8.
    assert individual["minus pooled"]["log_prob"].estimate == pytest.approx(0.3 * np.log(4))


@pytest.mark.data
@pytest.mark.usefixtures("whole_runs")
def test_the_recipe_runs_to_its_end_and_goes_on_where_it_stopped(recipe, data_dir, tmp_path, monkeypatch, capsys):
    config = yaml.safe_load((RECIPE / "config.yaml").read_text())
    config["sets"] = {"jester": config["sets"]["jester"] | {"steps": 2, "take": {"prompts": 1, "users": 6, "rows": 40}}}
    config["seeds"] = 1
    config["language_model"] |= {"hidden": 32, "layers": 1, "vocabulary": 512}
    config["training"] |= {"num_train_epochs": 1}
    config["models"] = {name: config["models"][name] for name in ("vanilla", "individual")}
    config["ladder"] = {"rungs": ["pooled", "individual"], "covariance": "isotropic"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    monkeypatch.setattr(
        sys,
        "argv",
        ["run.py", "--path", str(data_dir), "--out", str(tmp_path), "--config", str(tmp_path / "config.yaml")],
    )
    recipe.main()
    rows = json.loads((tmp_path / "jester.json").read_text())["families"]
    assert {family: [row["model"] for row in each] for family, each in rows.items()} == {
        "fine-tuned": ["vanilla", "individual"],
        "frozen small model": ["pooled", "individual"],
    }
    accuracies = [row["accuracy"] for each in rows.values() for row in each]
    assert len({(each["n_decisions"], each["n_users"]) for each in accuracies}) == 1
    assert accuracies[0]["n_users"] == 6
    table = capsys.readouterr().out

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(recipe, "train_reward", never)
    monkeypatch.setattr(recipe, "fit_ladder", never)
    recipe.main()
    assert capsys.readouterr().out.splitlines()[-4:] == table.splitlines()[-4:]
