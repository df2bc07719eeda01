"""`results.json` to `report.html`, `figures/` and `tables/`.

The page holds all that it shows: style, script, drawings (`svg`) and data. Its content policy forbids every request to
a network, every script but the one it came with, and style attributes; texts of users are escaped by the template and
stand in isolation, so that right-to-left text does not turn its surroundings.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pluralign.files import replacing
from pluralign.reports.blocks import Block, Chart, Cloud, Dots, Duels, Findings, Grid, Heatmap, Section
from pluralign.reports.reading import clean, read_results
from pluralign.reports.sections import latent, likes, models, record, similarity, taste, unseen, verdict
from pluralign.reports.svg import draw, draw_cloud, group_legend, legend, picture, unit_cube

SECTIONS: tuple[Callable[[dict[str, Any]], Section | None], ...] = (
    verdict.verdict,
    models.ladder,
    taste.taste,
    similarity.similarity,
    similarity.projection,
    models.choices,
    models.gains,
    unseen.few_shot,
    latent.latent,
    likes.likes,
    record.scan,
    record.settings,
    record.glossary,
)
_HERE = Path(__file__).parent
# What would end a script element, or a line of one, wherever it stands in a text.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def write_report(folder: Path) -> Path:
    """Write the report of a study beside its results: `report.html`, `figures/*.png` and `.svg`, `tables/*.csv`.

    Args:
        folder: What `pluralign study --out` wrote; only its `results.json` is read, and any part of it may be absent
            but verdict, ladder and data.

    Returns:
        The page.

    Raises:
        DataError: The folder has no results, or they are not a study's.
    """
    from pluralign.reports.paper import draw_figures

    results = read_results(folder)
    sections = build_sections(results)
    blocks = [block for section in sections for block in section.blocks]
    draw_figures(folder / "figures", [block for block in blocks if isinstance(block, Chart | Cloud | Heatmap)])
    write_tables(folder / "tables", blocks)
    path = folder / "report.html"
    with replacing(path) as part:
        part.write_text(render(results, sections), encoding="utf-8")
    return path


def build_sections(results: dict[str, Any]) -> list[Section]:
    """Every section, in the order of the page; those about what a study does only when asked are there if it was."""
    return [section for make in SECTIONS if (section := make(results)) is not None]


def render(results: dict[str, Any], sections: Sequence[Section]) -> str:
    """The page as one text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        draw=draw, draw_cloud=draw_cloud, legend=legend, group_legend=group_legend, picture=picture
    )
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_fingerprint(style)}'; script-src '{_fingerprint(script)}'"
    )
    return environment.get_template("page.html").render(
        name=clean(results["data"].get("name"), 200) or "study",
        data=results["data"],
        version=clean(results.get("pluralign")),
        sections=[(number, section, _blocks(section)) for number, section in enumerate(sections, start=1)],
        policy=policy,
        style=style,
        script=script,
        payload=embed(_payload(block for section in sections for block in section.blocks)),
    )


def embed(value: object) -> str:
    """JSON that stands in a script element: no character in it ends the element, whatever the texts are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def write_tables(folder: Path, blocks: Sequence[Block]) -> list[Path]:
    """Write the numbers of every block that has any as `NAME.csv`, and return the paths."""
    written = []
    for block in blocks:
        if isinstance(block, Chart | Cloud | Heatmap | Grid | Duels | Findings) and block.records:
            path = folder / f"{block.name}.csv"
            header = list(dict.fromkeys(key for line in block.records for key in line))
            with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(header)
                writer.writerows([_cell(line.get(key)) for key in header] for line in block.records)
            written.append(path)
    return written


def _cell(value: object) -> object:
    """A text that a spreadsheet would run as a formula gets an apostrophe before it; numbers are as they are."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _blocks(section: Section) -> list[tuple[str, Block]]:
    """Blocks with the name of the macro that shows them."""
    return [(type(block).__name__.lower(), block) for block in section.blocks]


def _payload(blocks: Iterator[Block]) -> dict[str, Any]:
    """What the script needs to say what a point is, and to turn a cloud."""
    found: dict[str, Any] = {"dots": {}, "clouds": {}, "heatmaps": {}}
    for block in blocks:
        match block:
            case Chart():
                for mark in block.marks:
                    if isinstance(mark, Dots):
                        x, y = mark.xy.T.round(4).tolist()
                        found["dots"][block.name] = {"x": x, "y": y, "tips": list(mark.tips)}
            case Cloud():
                found["clouds"][block.name] = {
                    "xyz": unit_cube(block.xyz).round(3).tolist(),
                    "group": block.group.tolist(),
                    "tips": list(block.tips),
                }
            case Heatmap():
                hundredths = (100 * block.values).round()
                found["heatmaps"][block.name] = {
                    "names": list(block.names),
                    "values": [[None if v != v else int(v) for v in row] for row in hundredths.tolist()],
                }
    return found


def _fingerprint(text: str) -> str:
    """How a content policy names a script or a style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
