"""Published Bradley-Terry worths, log-likelihoods, and judgements worked by hand."""

import numpy as np
import pytest
import torch

from pluralign import datasets
from pluralign.errors import DataError
from pluralign.features import Design
from pluralign.inference.heads import fit_heads


def fit(comparisons):
    """Log-likelihood and worths of Bradley and Terry's model; the ridge only pins the level."""
    design = Design.of(comparisons, torch.as_tensor(comparisons.items.attributes))
    found = fit_heads(design, ridge=torch.full((1,), 1e-6, dtype=torch.float64), tolerance=1e-10)
    return float(found.log_prob), torch.softmax(found.theta[0], 0).tolist()


@pytest.mark.data
def test_published_worths_of_german_parties(data_dir):
    parties = datasets.load("german_parties", data_dir)
    log_prob, worth = fit(parties)
    assert log_prob == pytest.approx(-1716.807, abs=1e-3)
    found = dict(zip(parties.items.attribute_names, worth, strict=True))
    published = [0.0768, 0.0604, 0.3658, 0.2520, 0.1332, 0.1118]
    names = ["none", "Linke", "Gruene", "SPD", "CDU/CSU", "FDP"]
    assert [found[name] for name in names] == pytest.approx(published, abs=5e-5)


# name, options, users, comparisons, per user (least, most), log-likelihood
EXPERIMENTS = [
    ("german_parties", {}, 192, 2880, (15, 15), -1716.807),
    ("topmodel", {}, 192, 2880, (15, 15), -1912.055),
    ("first_names", {}, 192, 2880, (15, 15), -1888.883),
    ("cems_choice", {}, 301, 3967, (5, 15), -2435.175),
    ("sound_quality", {"worths": "mode"}, 40, 21924, (84, 560), -11840.85),
    ("sound_quality", {"worths": "programme"}, 40, 21924, (84, 560), -11496.22),
]


@pytest.mark.data
@pytest.mark.parametrize(("name", "options", "n_users", "n_rows", "per_user", "log_prob"), EXPERIMENTS)
def test_counts_and_log_likelihoods(data_dir, name, options, n_users, n_rows, per_user, log_prob):
    experiment = datasets.load(name, data_dir, **options)
    count = np.bincount(experiment.user)
    assert (experiment.n_users, len(experiment)) == (n_users, n_rows)
    assert (count.min(), count.max()) == per_user
    assert fit(experiment)[0] == pytest.approx(log_prob, abs=6e-3)


@pytest.mark.data
def test_london_against_paris_with_ties(data_dir):
    # Dittrich et al.: 186 for London, 26 ties, 91 for Paris.
    cems = datasets.load("cems_choice", data_dir, ties="keep")
    assert (cems.outcome == 0.5).sum() == 487
    names = cems.items.attribute_names
    london, paris = names.index("London"), names.index("Paris")
    pair = np.isin(cems.chosen, (london, paris)) & np.isin(cems.rejected, (london, paris))
    strict = pair & (cems.outcome == 1)
    assert [(strict & (cems.chosen == london)).sum(), (pair & (cems.outcome == 0.5)).sum(),
            (strict & (cems.chosen == paris)).sum()] == [186, 26, 91]  # fmt: skip


@pytest.mark.data
def test_sound_quality_before_and_after(data_dir):
    split = datasets.load("sound_quality", data_dir).split
    assert (split == "after").sum() == 8736


def test_judgements_by_hand(tmp_path):
    (tmp_path / "topmodel_2007.csv").write_text(
        "user,a,b,choice\np1,Anni,Barbara,b\np2,Barbara,Anni,b\np1,Anni,Hana,a\n"
    )
    (tmp_path / "topmodel_2007.people.csv").write_text("user,age\np2,30\np3,99\np1,20\n")
    shows = datasets.load("topmodel", tmp_path)
    label = shows.items.response.to_pylist()
    rows = list(zip(shows.chosen, shows.rejected, strict=True))
    assert [(label[c], label[r]) for c, r in rows] == [("Barbara", "Anni"), ("Anni", "Barbara"), ("Anni", "Hana")]
    assert shows.source[0] == shows.source[1] != shows.source[2]
    assert shows.users.to_pylist() == [{"age": 20}, {"age": 30}]
    assert shows.items.attributes.tolist() == np.eye(3).tolist()


def test_an_unknown_answer_is_named(tmp_path):
    (tmp_path / "topmodel_2007.csv").write_text("user,a,b,choice\np1,Anni,Barbara,b\np2,Barbara,Anni,both\n")
    with pytest.raises(
        DataError, match=r"topmodel_2007.csv.gz, column choice: row 2 is 'both'; accepted: 'a', 'b', 'tie'"
    ):
        datasets.load("topmodel", tmp_path)
