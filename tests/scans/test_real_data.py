"""What the scan finds in public sets, held against what is known of them."""

import numpy as np
import pytest

from pluralign import datasets
from pluralign.scans import Scan, scan

pytestmark = [pytest.mark.data, pytest.mark.usefixtures("whole_runs")]


def scan_set(name: str, data_dir) -> Scan:
    return scan(datasets.load(name, data_dir))


def only(found: Scan, name: str):
    (finding,) = found.named(name)
    return finding


def test_cobbler_has_position_bias_in_every_user_and_one_order_for_all(data_dir):
    found = scan_set("cobbler", data_dir)
    assert only(found, "position_bias").severity == "warning"
    assert set(only(found, "position_bias_of_users").users) == {f"u{i}" for i in range(1, 7)}
    # Every ranking correlates 0.55 to 0.70 with the order of presentation: the first wins far more than half.
    assert 0.65 < only(found, "position_bias").accuracy.estimate < 0.85
    assert only(found, "position_fixed").count > 5_000


def test_news_has_an_evaluator_whose_taste_in_length_is_the_other_way(data_dir):
    # Slopes on log length in the publishers' rows: e3 -0.5 and e1 0.0, the other four 1.1 to 2.6.
    found = scan_set("news", data_dir)
    assert set(only(found, "length_divides_users").users) == {"e1", "e3"}
    assert only(found, "length_divides_users").users[0] == "e3"
    assert only(found, "length_rule").users == ("e5",)
    assert only(found, "length_rule").severity == "note"


def test_people_contradict_themselves_about_sound_as_often_as_published(data_dir):
    # 31.4 % over all pairs of a person's repeats; here each answer beside the one before it.
    found = only(scan_set("sound_quality", data_dir), "self_disagreement")
    assert "31.2%" in found.message
    assert found.count / 17_528 == pytest.approx(0.314, abs=0.005)


def test_a_list_literal_planted_in_real_replies_is_an_error(data_dir):
    from dataclasses import replace

    import pyarrow as pa

    table = datasets.load("tulu", data_dir)
    assert scan(table).worst != "error"
    marked = np.zeros(len(table.items), dtype=np.bool_)
    rng = np.random.default_rng(0)
    leaking = rng.random(len(table)) < 0.3
    marked[table.rejected[leaking]] = True
    marked[table.chosen] = False
    texts = [str([t]) if m else t for t, m in zip(table.items.response.to_pylist(), marked, strict=True)]
    items = replace(table.items, response=pa.array(texts, type=pa.large_string()))
    leaks = scan(replace(table, items=items)).named("format_leak")
    found = leaks[0]  # printing escapes line breaks as well, which is a second
    assert found.message.startswith("A printed list tells chosen from rejected by format alone")
    rows = np.flatnonzero(marked[table.rejected])
    assert found.severity == "error"
    assert found.count == len(rows)
    assert list(found.rows) == rows[:20].tolist()


def test_no_public_set_is_told_apart_by_how_it_is_stored(data_dir):
    for name in ("pandalm", "lfqa", "dices"):
        assert scan_set(name, data_dir).worst != "error"
