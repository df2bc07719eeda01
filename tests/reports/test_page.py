"""The page from results: every number beside its interval and its control, absent parts said, texts inert."""

import csv
import html.parser
import json
import re

import pytest

from pluralign.errors import DataError
from pluralign.reports import write_report
from pluralign.reports.page import build_sections, embed, render, write_tables

PARTS = (
    "heterogeneity", "likes", "scan", "users", "clusters", "unseen_users", "query_curves", "latent", "seeds",
)  # fmt: skip


class Reader(html.parser.HTMLParser):
    """Collects elements, texts, and what an author could not have written by accident."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] not in ("style", "script", "title"):
            self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def page_of(results) -> str:
    return render(results, build_sections(results))


def table(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_verdict_stands_first_with_interval_and_control(make_results):
    text = re.sub(r"\s+", " ", read(page_of(make_results(30))).text)
    assert text.index("1 Verdict") < text.index("Personalise") < text.index("2 The ladder of models")
    for said in (
        "Accuracy of cluster0.675 [0.653, 0.697]one reward for all 0.572 [0.550, 0.594]; another user's 0.553",
        "Gain in accuracy+10.3 points [+7.9, +12.7]with another user's model \u22121.9 [\u22124.3, +0.5]",
        "What one reward costs the minority19.0 points",
        "they want different things",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("answer", "said", "meant"),
    [
        ("do not personalise", "Do not personalise", "One reward for everybody: no model of users' own tastes"),
        ("cannot tell yet", "Cannot tell yet", "Too few data to say"),
    ],
)
def test_an_answer_that_is_no_yes_is_plain(make_results, answer, said, meant):
    text = read(page_of(make_results(30, answer=answer))).text
    assert said in text[: text.index("The ladder of models", text.index(said))]
    assert meant in text


def test_a_part_that_is_absent_is_said_to_be(make_results):
    results = {key: value for key, value in make_results(30).items() if key not in PARTS}
    left_out = [b.text for s in build_sections(results) for b in s.blocks if getattr(b, "kind", "") == "missing"]
    assert len(left_out) == 12
    assert all(text.startswith("Left out: ") and text.endswith(".") for text in left_out)
    assert "The ladder of models" in page_of(results)


def test_every_part_may_be_null(make_results):
    results = make_results(30)
    for part in (*PARTS, "settings", "versions", "encoder", "python"):
        build_sections(results | {part: None})
    for part in results["heterogeneity"]:
        build_sections(results | {"heterogeneity": results["heterogeneity"] | {part: None}})
    nothing = {"verdict": {}, "ladder": {}, "data": {}}
    assert "No answer" in page_of(nothing)


def test_the_results_say_why_a_part_is_absent(make_results):
    results = make_results(30)
    results["heterogeneity"]["covariates"] = []
    assert "Left out: the users have no covariates." in page_of(results)


def test_models_stand_in_their_order_whatever_the_results(make_results):
    results = make_results(30)
    results["ladder"]["rows"].reverse()
    (ladder,) = (b for s in build_sections(results) for b in s.blocks if getattr(b, "name", "") == "ladder")
    assert ladder.y.names[:4] == ("reliability", "cluster", "control: another user's", "control: random clusters")


def test_nothing_is_left_out_of_whole_results(make_results):
    blocks = [block for section in build_sections(make_results(30)) for block in section.blocks]
    assert not [block for block in blocks if getattr(block, "kind", "") == "missing"]


def test_pooled_leaves_nobody_to_gain(make_results):
    results = make_results(30)
    results["verdict"] |= {"candidate": "pooled", "rung": "pooled", "answer": "do not personalise"}
    results["users"] = []
    assert "nobody gains or loses" in page_of(results)


def test_texts_of_users_are_texts(hostile_results):
    page = page_of(hostile_results)
    reader = read(page)
    scripts = [attributes for tag, attributes in reader.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert not [a for _, attributes in reader.elements for a in attributes if a.startswith("on") or a == "style"]
    assert {tag for tag, _ in reader.elements} & {"img", "iframe", "object", "base", "form"} == set()
    for text in ("<script>window.hurt = 1</script>", "<img src=x onerror='window.hurt = 3'>", "{{ 7 * 7 }}"):
        assert text in reader.text
    page.encode("utf-8")
    assert not set(page) & {"\x00", "\u202e"}


def test_a_hundred_kilobytes_are_cut(hostile_results):
    page = page_of(hostile_results)
    assert "more characters)" in page
    assert "long " * 400 not in page


def test_embedded_json_ends_no_script():
    texts = ["</script><script>", "<!--", "a & b", "\u2028\u2029", "\\u003c"]
    embedded = embed(texts)
    assert not set(embedded) & set("<>&\u2028\u2029")
    assert json.loads(embedded) == texts


def test_the_policy_lets_nothing_in(make_results):
    page = page_of(make_results(12))
    (policy,) = (a["content"] for tag, a in read(page).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", page)


def test_links_lead_to_anchors_that_are_there_once(make_results):
    reader = read(page_of(make_results(12)))
    anchors = [a["id"] for _, a in reader.elements if "id" in a]
    links = [a["href"][1:] for tag, a in reader.elements if tag == "a"]
    assert len(links) > 20
    assert set(links) <= set(anchors)
    assert len(anchors) == len(set(anchors))


def test_numbers_as_csv(tmp_path, make_results):
    results = make_results(30)
    write_tables(tmp_path, [block for section in build_sections(results) for block in section.blocks])
    ladder = {row["model"]: row for row in table(tmp_path, "ladder-table")}
    assert float(ladder["cluster"]["gain_accuracy"]) == results["ladder"]["rows"][2]["gains"]["accuracy"]["estimate"]
    assert ladder["pooled"]["gain_accuracy"] == ""
    users = table(tmp_path, "user-gains")
    assert len(users) == 30
    assert [float(u["gain_log_prob"]) for u in users] == sorted(u["gain_log_prob"] for u in results["users"])
    assert len(table(tmp_path, "projection-3d")) == 30
    assert {row["part"] for row in table(tmp_path, "components")} == {
        "taste", "reliability", "chance", "disagreement", "self_disagreement",
    }  # fmt: skip


def test_no_cell_is_a_formula(tmp_path, hostile_results):
    written = write_tables(tmp_path, [b for s in build_sections(hostile_results) for b in s.blocks])
    assert len(written) > 20
    cells = [cell for path in written for line in table(path.parent, path.stem) for cell in line.values()]
    assert any(cell.startswith("'=HYPERLINK") for cell in cells)
    assert not [cell for cell in cells if re.match(r"[=+@]|-(?![\d.])", cell)]


def test_five_thousand_users_are_small(make_results, whole_runs):
    results = make_results(5000)
    page = page_of(results)
    assert len(page.encode()) < 8e6
    assert "user 4999" in page


def test_a_report_beside_its_results(tmp_path, make_results):
    results = {key: value for key, value in make_results(30).items() if key not in (*PARTS[1:], "heterogeneity")}
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = write_report(tmp_path)
    assert page == tmp_path / "report.html"
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["ladder.png", "ladder.svg"]
    assert "ladder-table.csv" in {p.name for p in (tmp_path / "tables").iterdir()}
    again = page.read_bytes()
    assert write_report(tmp_path).read_bytes() == again


def test_a_folder_that_no_study_wrote(tmp_path):
    with pytest.raises(DataError, match=r"has no results\.json"):
        write_report(tmp_path)
