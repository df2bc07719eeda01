"""`pluralign report DIR`."""

import json

from typer.testing import CliRunner

from pluralign.cli.app import app
from pluralign.errors import DataError


def test_the_command_says_where_the_report_is(tmp_path, make_results):
    results = {key: value for key, value in make_results(20).items() if key in ("verdict", "ladder", "data")}
    (tmp_path / "results.json").write_text(json.dumps(results))
    ran = CliRunner().invoke(app, ["report", str(tmp_path), "--json"])
    assert ran.exit_code == 0
    said = json.loads(ran.stdout)
    assert said["report"] == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 20_000


def test_a_folder_without_results_is_an_error_with_a_hint(tmp_path):
    ran = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(ran.exception, DataError)
    assert "pluralign study --out" in (ran.exception.hint or "")


def test_the_help_names_what_is_written():
    said = CliRunner().invoke(app, ["report", "--help"]).stdout
    assert "report.html" in said
