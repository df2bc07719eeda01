"""`pluralign ask` and `pluralign interview`: what they propose, print and write, and what they say of bad input."""

import io
import json

import pytest

from pluralign.comparisons import load, read
from pluralign.rewards import LinearReward


@pytest.fixture(scope="module")
def models(numbers, texts, tmp_path_factory):
    """Clusters on texts, pooled on texts, clusters on numbers."""
    import torch

    from pluralign.studies.fitting import fit

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    settings = {"clusters": 2, "soft": True, "starts": 2, "ridge": 1.0}
    fit(read(texts), users="cluster", encoder="style", **settings).reward.save(folder / "texts")
    fit(read(texts), users="pooled", encoder="style", ridge=1.0).reward.save(folder / "pooled")
    fit(load(numbers), users="cluster", **settings).reward.save(folder / "numbers")
    return folder


@pytest.fixture(scope="module")
def pool(texts, tmp_path_factory):
    """The same pairs without anybody who chose."""
    file = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    rows = (json.loads(line) for line in texts.read_text().splitlines())
    lines = ({"prompt": row["prompt"], "first": row["chosen"], "second": row["rejected"]} for row in rows)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def says(monkeypatch):
    def set_input(*lines: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))

    return set_input


def fails(run, *arguments):
    done = run(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err
    return done.err


def test_ask_proposes_pairs_of_the_pool(run, models, pool):
    done = run("ask", models / "texts", pool, "--user", "ada", "-n", 3, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert (found["user"], found["known"], found["n_answers"], found["users"]) == ("ada", False, 0, "cluster")
    rows = [json.loads(line) for line in pool.read_text().splitlines()]
    for question in found["questions"]:
        row = rows[question["row"]]
        assert {name: question[name] for name in ("prompt", "first", "second")} == row
        assert 0 < question["probability"] < 1
    scores = [question["score"] for question in found["questions"]]
    assert scores == sorted(scores, reverse=True)
    assert len({question["row"] for question in found["questions"]}) == 3
    assert sum(region["probability"] for region in found["regions"]) == pytest.approx(1)
    assert len(found["resembles"]) == 3
    assert 0 < found["value"]["gain"] < found["value"]["perfect"]
    assert found["value"]["enough"] is False
    assert run("ask", models / "texts", pool, "--user", "ada", "-n", 3, "--json").out == done.out


def test_answers_so_far_are_taken_and_not_asked_again(run, models, pool, tmp_path):
    asked = json.loads(run("ask", models / "texts", pool, "-n", 1, "--json").out)["questions"][0]
    file = tmp_path / "answers.jsonl"
    answers = [("ada", asked["first"], asked["second"]), ("bob", asked["second"], asked["first"])]
    lines = ({"prompt": asked["prompt"], "chosen": c, "rejected": r, "user": u} for u, c, r in answers)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {
        user: json.loads(run("ask", models / "texts", pool, "--answers", file, "--user", user, "--json").out)
        for user in ("ada", "bob")
    }
    for one in found.values():
        assert one["n_answers"] == 1
        assert asked["row"] not in [question["row"] for question in one["questions"]]
    # They said the opposite of one another.
    assert found["ada"]["regions"][0]["name"] != found["bob"]["regions"][0]["name"]


def test_ask_prints_both_responses_and_what_is_left_to_gain(run, models, pool):
    done = run("ask", models / "texts", pool, "--user", "user 1", "-n", 1)
    assert "user 1, 0 answers given" in done.out
    assert "information_gain" in done.out
    assert "one answer is expected to gain" in done.out
    assert "new to the model" in run("ask", models / "texts", pool, "--user", "ada").out
    # The user's own rows, chosen by others, are a pool as well.
    assert run("ask", models / "numbers", "simulated", "--option", "features=numeric", "--option", "dim=3").code == 0


def test_an_interview_through_a_pipe(run, says, models, pool, tmp_path):
    says("1", "what?", "s", "2", "1")  # and then the input ends
    arguments = ("interview", models / "texts", pool, "--user", "ada", "--out", tmp_path / "ada", "--epsilon", 0)
    done = run(*arguments)
    assert done.code == 0, done.err
    assert "answer 1, 2, s or q" in done.out
    assert done.out.count("where: cluster") == 3
    assert "stopped; 3 answers, 1 skipped" in done.out
    answers = read(tmp_path / "ada" / "answers.jsonl")
    assert answers.user_ids == ("ada",)
    assert len(answers) == 3
    # Each answer is a pair of the pool, what was shown first being known.
    pairs = [json.loads(line) for line in pool.read_text().splitlines()]
    known = {frozenset((row["first"], row["second"])) for row in pairs}
    lines = [json.loads(line) for line in (tmp_path / "ada" / "answers.jsonl").read_text().splitlines()]
    assert all(frozenset((line["chosen"], line["rejected"])) in known for line in lines)
    # They answered 1, 2 and 1: first, second, first.
    assert [line["position"] for line in lines] == [1, -1, 1]
    placed = LinearReward.load(tmp_path / "ada")
    assert placed.user_ids == ("ada",)
    adapted = tmp_path / "adapted"
    assert run("adapt", models / "texts", tmp_path / "ada" / "answers.jsonl", "--out", adapted).code == 0
    known = LinearReward.load(models / "texts")
    both = LinearReward.load(adapted)
    assert both.user_ids == (*known.user_ids, "ada")
    assert both.users.membership.tolist() == known.users.membership.tolist() + placed.users.membership.tolist()
    says("1")
    assert "answers.jsonl exists" in fails(run, *arguments)


def test_an_interview_stops_by_the_rule(run, says, models, pool):
    says(*["1"] * 40)
    done = run("interview", models / "texts", pool, "--epsilon", 0.05, "--json")
    found = json.loads(done.out)
    assert found["reason"] == "enough"
    assert found["value"]["gain"] < 0.05
    assert 0 < found["n_answered_now"] < 20
    assert "Which is better?" in done.err
    says("q")
    assert json.loads(run("interview", models / "texts", pool, "--json").out)["reason"] == "quit"
    says("1", "1")
    limited = json.loads(run("interview", models / "texts", pool, "-n", 1, "--epsilon", 0, "--json").out)
    assert (limited["reason"], limited["n_answered_now"]) == ("limit", 1)


def test_numbers_are_shown_by_name_and_kept_as_a_table(run, says, models, numbers, tmp_path):
    says("2", "q")
    done = run("interview", models / "numbers", numbers, "--user", "ada", "--out", tmp_path / "ada", "--epsilon", 0)
    assert done.code == 0, done.err
    assert "x0 = " in done.out
    assert load(tmp_path / "ada" / "answers").n_decisions == 1


def test_control_characters_do_not_reach_the_terminal(run, says, models, tmp_path):
    file = tmp_path / "pool.jsonl"
    rows = [
        {"prompt": "Say \x1b[2Jsomething", "first": "red \x1b[31mtext\x07", "second": f"turned \u202eround {i}"}
        for i in range(2)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    says("\x1b[2J1", "1", "q")
    for done in (
        run("ask", models / "texts", file, "--user", "a\x1b[1mda"),
        run("interview", models / "texts", file, "--epsilon", 0),
    ):
        assert done.code == 0, done.err
        assert "\x1b" not in done.out
        assert "\x07" not in done.out
        assert "\u202e" not in done.out
        assert "\\x1b[31mtext\\x07" in done.out
        assert "\\u202eround" in done.out


def test_where_there_is_nothing_to_ask(run, models, pool, tmp_path):
    for command in ("ask", "interview"):
        error = fails(run, command, models / "pooled", pool)
        assert "error: there is nothing to ask: a pooled model is the same for everybody" in error
        assert "hint: fit a rung that tells users apart" in error
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "empty.jsonl" in fails(run, "ask", models / "texts", empty)
    assert "holds no reward model" in fails(run, "ask", tmp_path, pool)
    assert 'unknown method "bald"; known: information_gain' in fails(
        run, "ask", models / "texts", pool, "--method", "bald"
    )
    assert "vpl_released needs a Gaussian posterior" in fails(
        run, "ask", models / "texts", pool, "--method", "vpl_released"
    )


def test_answers_of_somebody_else_are_refused(run, models, pool, texts):
    error = fails(run, "ask", models / "texts", pool, "--user", "ada", "--answers", texts)
    assert 'the answers have no row of user "ada"; they are of "user 0"' in error
