"""The whole scan: what it finds when it is there, and how seldom when it is not."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pluralign.comparisons import from_attributes, from_columns
from pluralign.errors import ConfigError, DataError
from pluralign.files import plain
from pluralign.populations import simulate
from pluralign.scans import Scan, scan


@pytest.fixture(scope="module", autouse=True)
def fast(whole_runs: None) -> None:
    """Every test of this module runs whole scans."""


def names(found: Scan, *severities: str) -> set[str]:
    return {each.name for each in found.findings if each.severity in (severities or ("error", "warning", "note"))}


def one(found: Scan, name: str):
    (finding,) = found.named(name)
    return finding


def accuracy(found: Scan, name: str):
    (shown,) = [each for each in found.baselines if each.name == name]
    return shown.accuracy


def test_coins_about_random_texts_show_nothing(rows):
    found = scan(rows())
    assert names(found, "error", "warning") == set()
    for name in ("length", "response"):
        assert accuracy(found, name).low < 0.5 < accuracy(found, name).high + 0.02
    assert found.n_rows_scanned == 600
    assert "no position is recorded" in found.note
    assert "no split column" in found.note


def test_the_scan_is_plain_json_and_repeats_itself(rows):
    table = rows(200)
    found = plain(scan(table, seed=3))
    assert found == plain(scan(table, seed=3))
    assert set(found) == {"findings", "baselines", "n_rows_scanned", "note"}
    expected = {"name", "severity", "message", "advice", "count", "rows", "accuracy", "users"}
    assert all(set(each) == expected for each in found["findings"])
    assert {"estimate", "low", "high"} <= set(found["baselines"][0]["accuracy"])


def test_what_is_printed_as_a_list_is_the_first_finding(columns_of, rows):
    columns = columns_of(rows(600))
    columns["chosen"] = [str([t]) if i % 3 == 0 else t for i, t in enumerate(columns["chosen"])]
    found = scan(from_columns(**columns))
    assert found.worst == "error"
    assert found.findings[0].name == "format_leak"
    assert found.findings[0].rows[:3] == (0, 3, 6)
    assert accuracy(found, "format").estimate > 0.6  # a third of the rows for sure, the rest by a coin: 0.67


def test_labels_overwritten_by_length_are_an_error(columns_of, rows):
    # A published loader: the label is the longer of the two, whatever people said.
    columns = columns_of(rows(1_200, n_prompts=200))
    longer = [max(pair, key=len) for pair in zip(columns["chosen"], columns["rejected"], strict=True)]
    shorter = [min(pair, key=len) for pair in zip(columns["chosen"], columns["rejected"], strict=True)]
    found = scan(from_columns(**(columns | {"chosen": longer, "rejected": shorter})))
    assert one(found, "length_shortcut").severity == "error"
    assert accuracy(found, "length").estimate > 0.95
    assert one(found, "length_rule").severity == "error"


def test_a_length_rule_that_turns_by_user_is_found_where_the_common_baseline_sees_nothing(columns_of, rows):
    # The published variant with two camps: one prefers long, one short.
    columns = columns_of(rows(1_200, n_prompts=200))
    first = [user in {f"user {i}" for i in range(6)} for user in columns["user"]]
    pairs = list(zip(columns["chosen"], columns["rejected"], first, strict=True))
    columns["chosen"] = [max(c, r, key=len) if long else min(c, r, key=len) for c, r, long in pairs]
    columns["rejected"] = [min(c, r, key=len) if long else max(c, r, key=len) for c, r, long in pairs]
    found = scan(from_columns(**columns))
    assert 0.4 < accuracy(found, "length").estimate < 0.6
    rule = one(found, "length_rule")
    assert (rule.severity, rule.count) == ("error", 12)
    assert "6 nearly always the longer response and 6 the shorter" in rule.message
    assert set(one(found, "length_divides_users").users) <= {f"user {i}" for i in range(12)}


def test_position_bias_and_the_users_who_have_it(rows):
    table = rows(1_200, n_users=10)
    rng = np.random.default_rng(1)
    lazy = np.isin(table.user, [table.user_ids.index(f"user {i}") for i in range(3)])
    first = rng.random(len(table)) < np.where(lazy, 0.95, 0.5)
    found = scan(replace(table, position=np.where(first, 1, -1).astype(np.int32)))
    assert one(found, "position_bias").severity == "warning"
    assert set(one(found, "position_bias_of_users").users) == {"user 0", "user 1", "user 2"}
    assert accuracy(found, "position").estimate == pytest.approx(first.mean())
    assert not found.named("position_fixed")


def test_a_position_that_is_a_copy_of_the_columns_is_an_error(rows):
    table = rows(60)
    found = scan(replace(table, position=np.ones(60, dtype=np.int32)))
    assert one(found, "position_constant").severity == "error"
    assert names(scan(replace(table, position=np.zeros(60, dtype=np.int32)))) == names(scan(table))


def test_one_order_for_all_is_said(sentences):
    rng = np.random.default_rng(0)
    texts = sentences(10, rng)
    pairs = rng.integers(0, 9, (300, 2))
    pairs = np.sort(pairs + np.array([0, 1]), axis=1)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    turned = rng.random(len(pairs)) < 0.4
    table = from_columns(
        prompt=["p"] * len(pairs),
        chosen=[texts[b if t else a] for (a, b), t in zip(pairs, turned, strict=True)],
        rejected=[texts[a if t else b] for (a, b), t in zip(pairs, turned, strict=True)],
        user=[f"u{i % 5}" for i in range(len(pairs))],
        position=np.where(turned, -1, 1),
    )
    assert one(scan(table), "position_fixed").severity == "warning"


def test_test_rows_that_training_rows_answer_are_errors(rows):
    table = rows(400, n_prompts=400)
    split = np.array(["train"] * 300 + ["test"] * 100)
    assert not {n for n in names(scan(table, split=split)) if "split" in n} - {"source_in_several_splits"}
    # The survey of the training split used again at the test.
    again = table.take(np.concatenate([np.arange(400), np.arange(40)]))
    found = scan(again, split=np.append(split, ["test"] * 40))
    leak = one(found, "row_in_several_splits")
    assert (leak.severity, leak.count, leak.rows) == ("error", 40, tuple(range(400, 420)))


def test_siblings_across_splits_and_waves_of_a_panel(rows):
    table = rows(400, n_prompts=40)
    split = np.array(["train", "validation"] * 200)
    straddling = one(scan(table, split=split), "source_in_several_splits")
    assert straddling.severity == "warning"
    assert straddling.count > 190
    assert one(scan(table, split=np.array(["before", "after"] * 200)), "source_in_several_splits").severity == "note"
    assert scan(replace(table, split=split)).named("source_in_several_splits") == [straddling]


def test_near_duplicates_across_splits_are_counted(columns_of, rows):
    columns = columns_of(rows(300, n_prompts=300))
    split = np.array(["train"] * 200 + ["test"] * 100)
    for i in range(30):
        columns["chosen"][200 + i] = columns["rejected"][i].replace(".", " indeed.")
    found = one(scan(from_columns(**columns), split=split), "near_duplicate_across_splits")
    assert (found.severity, found.count, found.rows[0]) == ("warning", 30, 200)
    assert "30.0%" in found.message
    assert not scan(rows(300, n_prompts=300), split=split).named("near_duplicate_across_splits")


def test_sources_finer_than_prompts_are_noted(rows):
    table = rows(100, n_prompts=20)
    finer = replace(table, source=np.arange(100, dtype=np.int32), source_ids=tuple(map(str, range(100))))
    note = one(scan(finer), "prompt_in_several_sources")
    assert (note.severity, note.count) == ("note", 20)
    assert not scan(table).named("prompt_in_several_sources")


def test_a_user_who_contradicts_himself_like_a_coin_is_named(rows):
    rng = np.random.default_rng(0)
    base = rows(60, n_users=1)
    chosen, rejected, user = [], [], []
    for u in range(8):
        for repeat in range(2):
            turned = rng.random(60) < (0.5 if u == 3 else 0.05)
            del repeat
            chosen.append(np.where(turned, base.rejected, base.chosen))
            rejected.append(np.where(turned, base.chosen, base.rejected))
            user.append(np.full(60, u))
    n = 8 * 2
    table = replace(
        base,
        chosen=np.concatenate(chosen).astype(np.int32),
        rejected=np.concatenate(rejected).astype(np.int32),
        user=np.concatenate(user).astype(np.int32),
        source=np.tile(base.source, n),
        user_ids=tuple(f"u{i}" for i in range(8)),
    )
    found = scan(table)
    assert one(found, "inconsistent_user").users == ("u3",)
    assert one(found, "inconsistent_user").severity == "warning"
    assert one(found, "self_disagreement").severity == "note"
    assert not found.named("contradiction")


def test_a_user_whose_labels_are_turned_is_named_and_may_be_of_another_taste(hidden):
    table = hidden(0, n_users=60, comparisons_per_user=60, n_prompts=60, signal=4.0)
    mine = table.user == 7
    turned = replace(
        table,
        chosen=np.where(mine, table.rejected, table.chosen),
        rejected=np.where(mine, table.chosen, table.rejected),
    )
    found = scan(turned)
    assert one(found, "reversed_user").users == ("user 7",)
    assert "taste" in one(found, "reversed_user").advice
    assert not scan(table).named("reversed_user")


def test_a_user_of_coins_is_at_chance(hidden):
    table = hidden(1, n_users=60, comparisons_per_user=60, n_prompts=60, signal=6.0)
    coin = (table.user == 4) & (np.random.default_rng(0).random(len(table)) < 0.5)
    mixed = replace(
        table,
        chosen=np.where(coin, table.rejected, table.chosen),
        rejected=np.where(coin, table.chosen, table.rejected),
    )
    assert one(scan(mixed), "user_at_chance").users == ("user 4",)


def test_odd_texts_and_labels_are_counted(columns_of, rows):
    columns = columns_of(rows(200))
    columns["chosen"][3] = "The caf\ufffd is open."
    columns["rejected"][4] = "Response B: the café is open."
    columns["chosen"][5] = "Write to anna.b@example.org about it."
    columns["rejected"][6] = "Long " * 2_000
    columns["chosen"][7] = ""
    columns["rejected"][8] = columns["chosen"][8]
    columns["user"] = [f"worker_{i % 10:03}" for i in range(200)]
    columns["chosen"][9] = "As worker_009 said, it is open."
    columns["chosen"][10] = "As worker_009 said, it is closed."  # another's id: no leak of one's own
    outcome = np.ones(200)
    outcome[20:30] = 0.5
    outcome[30] = 0.8
    found = scan(from_columns(**columns, outcome=outcome))
    rows_of = {each.name: each.rows for each in found.findings}
    assert rows_of["mojibake"] == (3,)
    assert rows_of["label_in_text"] == (4,)
    assert rows_of["email_address"] == (5,)
    assert rows_of["long_response"] == (6,)
    assert rows_of["empty_response"] == (7,)
    assert rows_of["identical_responses"] == (8,)
    assert rows_of["user_id_in_text"] == (9,)
    assert rows_of["ties"] == tuple(range(20, 30))
    assert rows_of["soft_labels"] == (30,)
    assert one(found, "user_id_in_text").users == ("worker_009",)
    assert names(found, "error") == set()


def test_weights_and_outcomes_that_say_nothing(rows):
    table = rows(100)
    weight = np.full(100, 1e-3)
    weight[[5, 6]] = 100.0
    weight[7] = 0
    found = scan(replace(table, weight=weight))
    assert one(found, "extreme_weights").rows == (5, 6)
    assert "100 decisions count as 2" in one(found, "extreme_weights").message
    assert one(found, "zero_weight").rows == (7,)
    ties = scan(replace(table, outcome=np.full(100, 0.5)))
    assert one(ties, "all_ties").severity == "error"
    assert ties.baselines == ()
    assert one(scan(replace(table, outcome=np.zeros(100))), "outcome_reversed").severity == "warning"


def test_covariates_that_name_their_user(rows):
    table = rows(200, n_users=12)
    people = pa.table(
        {
            "user": list(table.user_ids),
            "postcode": [f"AB{i}" for i in range(12)],
            "age": [float(i) for i in range(12)],  # a measurement may differ for all
            "country": ["x", "y"] * 6,
        }
    )
    assert "postcode" in one(scan(replace(table, users=people)), "covariate_names_user").message
    assert "country" not in one(scan(replace(table, users=people)), "covariate_names_user").message


def test_an_attribute_computed_from_the_choice_is_a_warning():
    rng = np.random.default_rng(0)
    attributes = rng.standard_normal((400, 3))
    attributes[:200, 1] = np.abs(attributes[:200, 1]) + 0.1  # those that were chosen
    attributes[200:, 1] = -np.abs(attributes[200:, 1])
    table = from_attributes(
        attributes=attributes,
        attribute_names=("price", "score", "time"),
        chosen=np.arange(200),
        rejected=np.arange(200, 400),
        user=[f"u{i % 10}" for i in range(200)],
    )
    found = one(scan(table), "single_attribute")
    assert (found.severity, found.accuracy.estimate) == ("warning", 1.0)
    assert "score alone" in found.message


def test_a_response_better_in_everything_is_counted():
    # Price and time: less is liked. Four of five pairs trade one for the other; one is dominated.
    a = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [1.0, 3.0], [3.0, 1.0]] * 40)
    b = np.array([[2.0, 1.0], [1.0, 2.0], [2.0, 2.0], [3.0, 2.9], [2.9, 3.0]] * 40)
    table = from_attributes(
        attributes=np.concatenate([a, b]),
        attribute_names=("price", "time"),
        chosen=np.arange(200),
        rejected=np.arange(200, 400),
        user=[f"u{i % 10}" for i in range(200)],
    )
    found = one(scan(table), "dominated")
    assert (found.count, found.severity) == (40, "note")
    assert "in 20% of 200 pairs" in found.message
    assert "worse one was chosen in 0.0%" in found.message


def test_few_users_and_busy_users(rows):
    user = ["busy"] * 90 + [f"u{i}" for i in range(10)]
    found = scan(rows(100, user=user))
    assert one(found, "few_decisions").count == 10
    assert one(found, "few_users_dominate").users == ("busy",)
    assert one(scan(rows(100, n_users=3)), "few_users").count == 3


def test_chats_are_scanned_by_what_they_say(columns_of, rows):
    from pluralign.comparisons import encode_chat

    columns = columns_of(rows(200))
    for name in ("prompt", "chosen", "rejected"):
        role = "user" if name == "prompt" else "assistant"
        columns[name] = [encode_chat([{"role": role, "content": text}]) for text in columns[name]]
    clean = scan(from_columns(**columns, format="chat"))
    assert names(clean, "error", "warning") == set()
    columns["rejected"] = [
        text.replace('"content":"', '"content":"[\'').replace('."', ".']\"") for text in columns["rejected"]
    ]
    assert one(scan(from_columns(**columns, format="chat")), "format_leak").severity == "error"


def test_choices_among_several():
    found = scan(simulate(n_users=10, comparisons_per_user=40, n_choices=4, kind="null").comparisons)
    assert accuracy(found, "length").n_decisions == 400
    assert all(each.chance == pytest.approx(0.25) for each in found.baselines)
    assert names(found, "error", "warning") == set()


def test_a_draw_of_the_decisions_stands_for_all(hidden):
    table = hidden(3)
    few, all_of_them = scan(table, max_decisions=300), scan(table)
    assert "baselines are of 300 decisions drawn from 1,600" in few.note
    assert accuracy(few, "length").n_decisions <= 300
    assert accuracy(all_of_them, "length").n_decisions > 300


def test_bad_settings_are_named(rows):
    table = rows(20)
    with pytest.raises(ConfigError, match=r"near is 0\.0; it must be above 0 and at most 1"):
        scan(table, near=0.0)
    with pytest.raises(ConfigError, match="min_decisions is 0; it must be at least 1"):
        scan(table, min_decisions=0)
    with pytest.raises(DataError, match="split has 3 names for 20 rows"):
        scan(table, split=np.array(["a", "b", "c"]))
    with pytest.raises(DataError, match="no comparisons to scan"):
        scan(table.take(np.zeros(20, dtype=np.bool_)))


@pytest.mark.parametrize("n_rows", [1, 2, 3, 7])
def test_a_handful_of_rows_is_scanned(rows, n_rows):
    assert scan(rows(n_rows, n_users=2, n_prompts=2)).n_rows_scanned == n_rows


@pytest.mark.parametrize("responses", [("Mars.", "The Moon."), ("!?", "...")])
def test_responses_that_share_no_word_have_no_baseline_of_words(responses):
    # The first two rows of docs/comparisons.md, and a pair without a word.
    both = {"chosen": list(responses), "rejected": list(responses[::-1])}
    found = scan(from_columns(prompt=["Name a planet."] * 2, user=["ann", "bob"], **both))
    assert found.n_rows_scanned == 2
    assert "response" not in {each.name for each in found.baselines}


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_naming_items_otherwise_changes_nothing(rows, seed):
    table = rows(80, seed=7)
    order = np.random.default_rng(seed).permutation(len(table.items))
    place = np.argsort(order).astype(np.int32)
    items = replace(table.items, prompt=table.items.prompt[order], response=table.items.response.take(pa.array(order)))
    renamed = replace(table, items=items, chosen=place[table.chosen], rejected=place[table.rejected])
    one_way, other = scan(table), scan(renamed)
    assert [(each.name, each.count, each.rows) for each in one_way.findings] == [
        (each.name, each.count, each.rows) for each in other.findings
    ]
