"""Drawings: what is where, and that no text in them is markup."""

import base64
import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from pluralign.reports import axes, paper, svg
from pluralign.reports.blocks import Chart, Cloud, Dots, Heatmap, Line, Rule, Spans, Stretch
from pluralign.reports.page import build_sections

SVG = "{http://www.w3.org/2000/svg}"


def parse(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def spans(**given) -> Chart:
    mark = {"at": [0, 1], "value": [0.0, 10.0], "low": [-5.0, math.nan], "high": [5.0, math.nan], "tips": ["a", "b"]}
    return Chart(
        name="gains",
        caption="",
        alt="two gains",
        x=axes.numbers([-5, 10], "points"),
        y=axes.categories(["first", "second"]),
        marks=(Rule(at=0), Spans(**(mark | given), colour=0)),
        records=[],
    )


@pytest.mark.parametrize("narrow", [False, True])
def test_an_estimate_stands_amid_its_interval(narrow):
    first, second = parse(svg.draw(spans(), narrow=narrow)).iter(f"{SVG}g")
    low, high = (float(x) for x in re.match(r"M([\d.]+) [\d.]+H([\d.]+)", first[0].get("d")).groups())
    center = float(re.match(r"M([\d.]+)", first[1].get("d")).group(1)) + 5
    assert center == pytest.approx((low + high) / 2, abs=0.2)
    assert second[0].get("d") == ""  # no interval, no whisker


def test_a_drawing_says_what_it_shows_and_what_its_marks_are():
    root = parse(svg.draw(spans(), narrow=False))
    assert root.get("aria-label") == "two gains"
    assert [mark.get("data-tip") for mark in root.iter(f"{SVG}g")] == ["a", "b"]


def test_texts_in_drawings_are_texts(hostile_results):
    found = 0
    for section in build_sections(hostile_results):
        for block in section.blocks:
            if isinstance(block, Chart):
                for narrow in (False, True):
                    names = {each.tag for each in parse(svg.draw(block, narrow=narrow)).iter()}
                    assert names <= {f"{SVG}{name}" for name in ("svg", "g", "path", "rect", "text")}
                    found += 1
    assert found > 20


def test_every_mark_is_drawn():
    line = Line(x=[0, 1, 2], y=[0, 1, 0], low=[-1, 0, -1], high=[1, 2, 1], tips=["p", "q", "r"], colour=1, label="line")
    stretch = Stretch(at=0, start=0.5, stop=1.5, colour=2, text="half", label="bar")
    dots = Dots(
        xy=np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.5]]),
        group=np.array([0, 1, 1]),
        tips=["", "", ""],
        labels=("x", "y"),
    )
    chart = Chart(
        name="all", caption="", alt="", x=axes.numbers([0, 2], "x"), y=axes.numbers([-1, 2], "y"),
        marks=(line, stretch, dots), records=[],
    )  # fmt: skip
    root = parse(svg.draw(chart, narrow=False))
    assert [g.get("data-tip") for g in root.iter(f"{SVG}g")] == ["p", "q", "r", ""]
    pens = [p.get("d") for p in root.iter(f"{SVG}path") if "pen" in p.get("class")]
    squares = [p.get("d") for p in root.iter(f"{SVG}path") if "dot" in p.get("class")]
    assert [d.count("M") for d in pens] == [1]
    assert [d.count("M") for d in squares] == [2]
    assert [label for _, label in svg.legend(chart)] == ["line", "bar", "x", "y"]


def test_a_quarter_turn_by_hand():
    turned = svg.project(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), yaw=math.pi / 2, pitch=0.0)
    np.testing.assert_allclose(turned, [[0, 0, -1], [0, -1, 0]], atol=1e-12)  # x goes to the back; y is up, which is -


def test_turning_keeps_distances():
    xyz = np.random.default_rng(0).normal(size=(20, 3))
    turned = svg.project(xyz, 0.7, -0.4)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(xyz, axis=1))


def test_points_fill_the_cube_in_one_scale():
    cube = svg.unit_cube(np.array([[0.0, 0.0, 0.0], [10.0, 5.0, 0.0]]))
    np.testing.assert_allclose(cube, [[-1, -0.5, 0], [1, 0.5, 0]])
    assert svg.unit_cube(np.ones((3, 3))).tolist() == [[0, 0, 0]] * 3


def test_a_picture_has_a_pixel_for_every_value():
    address = svg.picture(np.array([[-1.0, 0.0, 1.0], [0.5, np.nan, 2.0]]))
    kind, _, body = address.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(body)))
    assert kind == "data:image/png;base64"
    assert image.size == (3, 2)
    pixels = np.array(image)
    assert pixels[0].tolist() == [list(stop) for stop in (svg.STOPS[0], svg.STOPS[2], svg.STOPS[4])]
    assert pixels[1, 1].tolist() == list(svg.STOPS[2])  # no value is white
    assert pixels[1, 2].tolist() == list(svg.STOPS[4])  # beyond 1 is 1


def test_page_and_paper_have_the_same_colours():
    style = (svg.__file__ or "").replace("svg.py", "page.css")
    with open(style, encoding="utf-8") as stream:
        light = dict(re.findall(r"--(c\d): (#[0-9a-f]{6})", stream.read().split("}")[0]))
    assert [light[f"c{k}"].upper() for k in range(svg.COLOURS)] == [colour.upper() for colour in paper.PALETTE]


def test_figures_for_papers(tmp_path, hostile_results):
    wanted = {"ladder", "components", "choice-basis", "projection-2d", "projection-3d", "similarity", "likes-1-columns"}
    figures = [
        block
        for section in build_sections(hostile_results)
        for block in section.blocks
        if isinstance(block, Chart | Cloud | Heatmap) and block.name in wanted
    ]
    written = paper.draw_figures(tmp_path, figures)
    assert sorted(path.name for path in written) == sorted(f"{name}.{end}" for name in wanted for end in ("png", "svg"))
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert len(image.convert("L").getcolors(1 << 16)) > 5  # something is drawn
        else:
            assert not list(ElementTree.parse(path).iter(f"{SVG}script"))
