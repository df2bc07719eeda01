"""Names, options, places of files, and what is said where they are wrong."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pluralign import datasets
from pluralign.errors import ConfigError, DataError

LOCAL = [name for name in datasets.names() if datasets.describe(name).hub is None]


def test_every_set_tells_what_it_is():
    for name in datasets.names():
        line = str(datasets.describe(name))
        assert line.startswith(f"{name}: ")
        assert "Licence: " in line
        assert "\n" not in line
    assert datasets.describe("jester").options == {
        "identical": "keep", "pairs_per_user": 50, "min_gap": 1.0, "ties": "drop", "seed": 0
    }  # fmt: skip


def test_every_set_is_in_the_table_of_the_docs():
    table = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert set(told) == set(datasets.names())


@pytest.mark.data
@pytest.mark.parametrize("name", LOCAL)
def test_every_local_set_loads_from_its_folder_and_from_the_one_above(data_dir, name):
    loaded = datasets.load(name, data_dir / datasets.describe(name).folder)
    assert len(loaded) == len(datasets.load(name, str(data_dir))) > 0
    assert loaded.users is None or loaded.users.num_rows == loaded.n_users
    assert loaded.source.max() < len(loaded.source_ids)
    assert {len(loaded.rejected), len(loaded.user), len(loaded.source)} == {len(loaded)}
    assert set(loaded.chosen) | set(loaded.rejected) <= set(range(len(loaded.items)))


def test_an_unknown_set_is_told_its_neighbour():
    with pytest.raises(ConfigError, match='unknown data set "jestr"; known: jester, ukpconvarg') as caught:
        datasets.load("jestr")
    assert caught.value.hint == "did you mean jester?"


@pytest.mark.parametrize("name", LOCAL)
def test_without_a_path_the_way_to_the_files_is_told(name):
    with pytest.raises(DataError, match=f"{name} is read from local files") as caught:
        datasets.load(name)
    assert "--path" in caught.value.hint


def test_a_folder_without_the_files(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        datasets.load("jester", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither .* nor a folder jester5k in it has ratings_wide.csv.gz") as caught:
        datasets.load("jester", tmp_path)
    assert "recommenderlab" in caught.value.hint


def test_an_unknown_option_is_told_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match='jester has no option "pairs"; it has identical, pairs_per_user, min_gap'):
        datasets.load("jester", tmp_path, pairs=3)
    with pytest.raises(ConfigError, match="identical is 'merge'; accepted: keep, drop"):
        datasets.load("jester", tmp_path, identical="merge")


def write_jester(folder):
    (folder / "jokes.csv").write_text("item,text\njoke1,One\njoke2,One\njoke3,Three\n")
    (folder / "ratings_wide.csv").write_text("user,joke1,joke2,joke3\nj1,1.5,-2,6\n")


def test_options_may_be_texts(tmp_path):
    write_jester(tmp_path)
    assert len(datasets.load("jester", tmp_path, pairs_per_user="none", min_gap="3.6")) == 2
    assert len(datasets.load("jester", tmp_path, pairs_per_user="1")) == 1
    with pytest.raises(ConfigError, match="pairs_per_user is 'many'; a number is needed"):
        datasets.load("jester", tmp_path, pairs_per_user="many")
    with pytest.raises(ConfigError, match=r"pairs_per_user is 2.5; a whole number is needed"):
        datasets.load("jester", tmp_path, pairs_per_user=2.5)
    with pytest.raises(ConfigError, match="seed is 'none'; a number is needed"):
        datasets.load("jester", tmp_path, seed="none")
    with pytest.raises(ConfigError, match="unseen is 'maybe'; accepted: true, false"):
        datasets.load("tldr", tmp_path, unseen="maybe")


def test_options_that_leave_nothing_are_told(tmp_path):
    write_jester(tmp_path)
    with pytest.raises(DataError, match="jester: no comparison is left"):
        datasets.load("jester", tmp_path, min_gap=20)


def test_a_text_compared_with_itself_is_dropped_on_request(tmp_path):
    write_jester(tmp_path)
    assert len(datasets.load("jester", tmp_path)) == 3
    distinct = datasets.load("jester", tmp_path, identical="drop")
    assert len(distinct) == 2
    assert (distinct.chosen != distinct.rejected).all()


def test_a_file_that_is_not_what_its_ending_says(tmp_path):
    write_jester(tmp_path)
    (tmp_path / "ratings_wide.csv").rename(tmp_path / "ratings_wide.csv.gz")
    with pytest.raises(DataError, match=r"ratings_wide.csv.gz cannot be read as gzipped CSV"):
        datasets.load("jester", tmp_path)
    (tmp_path / "pairs.jsonl.gz").write_text("{}\n")
    with pytest.raises(DataError, match=r"pairs.jsonl.gz cannot be read as gzipped JSON lines"):
        datasets.load("pandalm", tmp_path)
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "Hi"}\n' * 999)[:-20])
    with pytest.raises(DataError, match=r"pairs.jsonl.gz"):
        datasets.load("pandalm", tmp_path)


def test_a_missing_column_and_a_missing_key_are_named(tmp_path):
    write_jester(tmp_path)
    (tmp_path / "jokes.csv").write_text("item,joke\njoke1,One\n")
    with pytest.raises(DataError, match=r"jokes.csv has no column text; it has item, joke"):
        datasets.load("jester", tmp_path)
    (tmp_path / "pairs.jsonl").write_text('\n{"prompt": "Hi", "response_1": "A"}\n')
    with pytest.raises(DataError, match=r"pairs.jsonl, line 2: there is no response_2, annotator1"):
        datasets.load("pandalm", tmp_path)


def test_importing_the_loaders_leaves_the_hub_client_and_torch_alone():
    code = (
        "import sys, pluralign.datasets; print([m for m in ('torch', 'datasets', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
