"""What `load` passes on, and what it refuses to pass over."""

import pytest

from pluralign.comparisons import save
from pluralign.errors import ConfigError
from pluralign.studies.data import load

ROW = '{"prompt": "p", "chosen": "a", "rejected": "b", "user": "ann"}\n'


def test_a_path_is_for_named_sets(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(ROW)
    for data in (file, str(file), "hf:org/name"):
        with pytest.raises(ConfigError, match=r'path is "nowhere", and a table of rows has no use for it'):
            load(data, path="nowhere")
    with pytest.raises(ConfigError, match=r'path is "nowhere", and "simulated" has no use for it'):
        load("simulated", path="nowhere")


def test_columns_are_for_rows(tmp_path, population):
    save(population(n_users=3, comparisons_per_user=4), tmp_path / "saved")
    for data, what in (
        ("swiss", '"swiss"'),
        ("simulated", '"simulated"'),
        (tmp_path / "saved", "a folder that `save`"),
    ):
        with pytest.raises(ConfigError, match=rf"columns are given \(user\), and .*{what}.* has no use for them"):
            load(data, columns={"user": "worker"})


def test_a_folder_may_hold_what_datasets_says_about_it(tmp_path):
    (tmp_path / "train.jsonl").write_text(ROW)
    for name in ("dataset_info.json", "dataset_infos.json"):
        (tmp_path / name).write_text('{"default": {"splits": {}}}')
    assert len(load(tmp_path)) == 1
