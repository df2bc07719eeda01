"""Latent users and query curves on the page: what is drawn is what the results hold, and nonsense is harmless."""

import json

import pytest

from pluralign.reports import write_report
from pluralign.reports.blocks import Chart, Grid, Text
from pluralign.reports.sections.latent import latent
from pluralign.reports.sections.unseen import few_shot


def named(section, name):
    (found,) = (block for block in section.blocks if getattr(block, "name", "") == name)
    return found


def texts(section):
    return [block.text for block in section.blocks if isinstance(block, Text)]


def test_a_study_without_the_rung_has_no_such_section(make_results):
    results = make_results(30)
    results["latent"] = None
    for seed in results["seeds"]:
        del seed["rungs"]["latent"]
    assert latent(results) is None


def test_bars_are_the_divergence_of_each_dimension(make_results):
    chart = named(latent(make_results(30)), "latent-kl")
    bars = chart.marks[1:]
    assert [(bar.start, bar.stop) for bar in bars] == [(0.0, 1.1), (0.0, 0.4), (0.0, 0.002)]
    assert [bar.label for bar in bars] == ["active", None, "not active"]
    assert [row["active"] for row in chart.records] == [True, True, False]
    assert "z1 1.10; z2 0.40; z3 0.00 nats" in chart.alt


def test_what_z_was_made_from_is_shown_for_every_fit(make_results):
    section = latent(make_results(30))
    chart = named(section, "latent-contexts")
    assert chart.y.names[0] == "the user's own comparisons"
    assert [mark.label for mark in chart.marks] == ["all rows", "split 0", "split 1"]
    assert chart.marks[0].value == [-0.6, -0.601, -0.71, -0.67, -0.668]
    table = named(section, "latent-contexts-table")
    assert table.rows[2][:3] == ("another user's comparisons", "55.0 %", "\u22120.710")
    assert named(section, "latent-fits").rows[0] == (
        "all rows", "not collapsed", "2 of 3", "1.50", "+0.110 [+0.080, +0.140]", "75",
    )  # fmt: skip
    assert texts(section)[0] == "No fit has collapsed. All rows: not collapsed (2 of 3 units active)."


def test_a_collapse_is_said_first(make_results):
    results = make_results(30)
    results["seeds"][0]["rungs"]["latent"]["settings"] = results["latent"]["diagnosis"] | {"collapsed": True}
    assert texts(latent(results))[0].startswith("Some fits have collapsed: split 0.")
    gone = {"collapsed": True, "fell_back": True, "words": "collapsed: every user stays at the prior"}
    results["latent"] = {"diagnosis": results["latent"]["diagnosis"] | gone, "map": None}
    del results["seeds"][0]["rungs"]["latent"], results["seeds"][1]["rungs"]["latent"]
    section = latent(results)
    assert texts(section)[0].startswith(
        "Every fit has collapsed: z carries nothing that predicts. All rows: collapsed:"
    )
    assert named(section, "latent-fits").rows[0][1] == "collapsed, pooled model returned"
    assert texts(section)[-1] == "Left out: every user lies at the prior, so that there is no map of z."


def test_users_are_mapped_by_cluster(make_results):
    results = make_results(30)
    chart = named(latent(results), "latent-map")
    (dots,) = chart.marks
    assert dots.xy.tolist() == results["latent"]["map"]["two"]
    assert "30 users by t-SNE of z" in chart.caption
    assert dots.tips[0].endswith(f"cluster {results['latent']['map']['cluster'][0]}")
    results["latent"]["map"] |= {"cluster": None, "method": "z"}
    chart = named(latent(results), "latent-map")
    assert chart.marks[0].labels == ("all users (30 users)",)
    assert "the two dimensions of z" in chart.caption


@pytest.mark.parametrize("part", ["kl", "variance", "accuracy", "log_prob", "own_over_shuffled", "steps", "words"])
def test_any_part_may_be_null_or_nonsense(make_results, part):
    for value in (None, "text", [None], {"own": "x"}):
        results = make_results(30)
        results["latent"]["diagnosis"][part] = value
        latent(results)
        results["latent"]["map"] = value
        latent(results)


def test_query_curves_are_drawn_with_intervals_and_gains(make_results):
    section = few_shot(make_results(30))
    chart, table = named(section, "query-curve-1"), named(section, "query-curve-1-table")
    assert isinstance(chart, Chart)
    assert isinstance(table, Grid)
    best, uncertain, chance = chart.marks
    assert best.label.startswith("information gain:")
    assert best.y == pytest.approx([0.57 + 0.025 * n for n in range(5)])
    assert best.low[0] == pytest.approx(0.54)
    assert uncertain.low is None
    assert chance.dashed
    assert table.header == ("Method", "1 asked", "2 asked", "4 asked")
    assert table.rows[0] == ("information_gain", "+1.5 [\u22120.5, +3.5]", "+3.0 [+1.0, +5.0]", "+6.0 [+4.0, +8.0]")
    assert len(chart.records) == 15


def test_curves_that_were_asked_for_and_are_not_there_are_said_to_be_missing(make_results):
    results = make_results(30) | {"query_curves": []}
    assert not [text for text in texts(few_shot(results)) if "query-efficiency" in text]
    results["settings"]["query_rungs"] = ["basis"]
    assert any("query-efficiency curves" in text for text in texts(few_shot(results)))


def test_figures_and_tables_are_written(make_results, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(make_results(12)))
    write_report(tmp_path)
    names = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert {"latent-kl", "latent-contexts", "latent-map", "query-curve-1"} <= names
    assert {"latent-fits", "latent-map", "query-curve-1"} <= {path.stem for path in (tmp_path / "tables").iterdir()}
