"""Settings by name, from a mapping or a YAML file."""

import pytest

from pluralign.errors import ConfigError
from pluralign.studies.settings import StudySettings, read_yaml


def test_a_mapping_of_everything_gives_the_same_settings():
    settings = StudySettings(seeds=2, clusters=(1, 2), ridge=0.5, rungs=("pooled", "basis"))
    assert StudySettings.of(settings.to_dict()) == settings


def test_lists_become_tuples():
    assert StudySettings.of({"clusters": [1, 2], "rungs": ["pooled"]}).clusters == (1, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed_count": 3}, r'unknown setting "seed_count"; known: clusters, contexts'),
        ({"rungs": ["pooled", "latnet"]}, r'unknown rung "latnet"; known: pooled, reliability'),
        ({"rungs": "pooled"}, r"rungs is 'pooled'; it must be a list of rungs"),
        ({"split": "user"}, r'unknown split "user"; known: source, item, last'),
        ({"covariance": "whole"}, r'unknown covariance "whole"; known: auto, isotropic'),
        ({"test": 0.0}, r"test is 0\.0; it must lie between 0 and 1"),
        ({"level": 95}, r"level is 95\.0; it must lie between 0 and 1"),
        ({"unseen": 1.0}, r"unseen is 1\.0; it must be at least 0 and below 1"),
        ({"seeds": 0}, r"seeds is 0; it must be at least 1"),
        ({"seeds": "three"}, r"seeds is 'three'; it must be a whole number"),
        ({"seeds": True}, r"seeds is True; it must be a whole number"),
        ({"folds": 1}, r"folds is 1; it must be at least 2"),
        ({"clusters": 3}, r"clusters is 3; it must be a list of whole numbers of at least 1"),
        ({"clusters": [0, 1]}, r"clusters is \(0, 1\); it must be a list of whole numbers of at least 1"),
        ({"ranks": []}, r"ranks is \(\); it must be a list of whole numbers of at least 0"),
        ({"ridge": "1e-3"}, r"ridge is '1e-3'; it must be a number, or nothing"),
        ({"questions": 0}, r"questions is 0; it must be at least 1"),
        ({"seed": -1}, r"seed is -1; it must be from 0 to 2147483647"),
        ({"query_rungs": "basis"}, r"query_rungs is 'basis'; it must be a list of rungs"),
        (
            {"query_rungs": ["latent"]},
            r'query_rungs names "latent"; it must be of the rungs fitted',
        ),
        (
            {"query_rungs": ["pooled"]},
            r'query_rungs names "pooled"; it must be of the rungs fitted that',
        ),
        ({"ridge": -1.0}, r"ridge is -1\.0; it must be at least 0"),
        ({"ridge": float("nan")}, r"ridge is nan; it must be at least 0"),
        ({"ridge": float("inf")}, r"ridge is inf; it must be at least 0 and finite"),
    ],
)
def test_what_is_not_accepted_is_said(given, message):
    with pytest.raises(ConfigError, match=message):
        StudySettings.of(given)


def test_yaml_is_read_as_a_mapping(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("seeds: 2\nclusters: [1, 2]\nridge: null\n")
    assert StudySettings.of(read_yaml(file)) == StudySettings(seeds=2, clusters=(1, 2))


def test_a_folder_and_bytes_are_no_settings_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: it is a folder"):
        read_yaml(tmp_path)
    (tmp_path / "settings.yaml").write_bytes(b"seeds: \xff")
    with pytest.raises(ConfigError, match=r"settings\.yaml cannot be read: 'utf-8' codec"):
        read_yaml(tmp_path / "settings.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "there is no settings file"), ("- 1\n", "holds list, not a mapping"), ("a: [1", "is not YAML")],
)
def test_what_is_no_settings_file_is_said(tmp_path, text, message):
    file = tmp_path / "settings.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(file)
