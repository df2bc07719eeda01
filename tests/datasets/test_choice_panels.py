"""Published log-likelihoods and estimates of multinomial logits, and choices worked by hand."""

import numpy as np
import pytest
import torch

from pluralign import datasets
from pluralign.errors import DataError
from pluralign.features import Design
from pluralign.inference.heads import fit_heads


def fit(comparisons):
    """Log-likelihood and coefficients of the multinomial logit."""
    design = Design.of(comparisons, torch.as_tensor(comparisons.items.attributes))
    found = fit_heads(design, ridge=torch.zeros(1, dtype=torch.float64), tolerance=1e-9)
    return float(found.log_prob), dict(zip(comparisons.items.attribute_names, found.theta[0].tolist(), strict=True))


# name, users, decisions, decisions per user (median, least, most), log-likelihood, coefficients. Published: swiss by
# Apollo (first two), train_nl by mlogit's vignettes, swissmetro by Biogeme (3 digits); electricity and bank_card are an
# independent fit.
PANELS = [
    ("swiss", 388, 3492, (9, 9, 9), -1665.6885,
     {"tt": -0.0597705763, "tc": -0.1318152925, "hw": -0.03745, "ch": -1.15207}),
    ("train_nl", 235, 2929, (13, 5, 19), -1724.150,
     {"price": 0.0673580, "time": 1.7205514, "change": 0.3263409, "comfort": 0.9457256}),
    ("electricity", 361, 4308, (12, 8, 12), -4958.649,
     {"pf": -0.62523, "cl": -0.10830, "loc": 1.44224, "wk": 0.99550, "tod": -5.46276, "seas": -5.84003}),
    ("swissmetro", 752, 6768, (9, 9, 9), -5331.252,
     {"asc_car": -0.155, "asc_train": -0.701, "cost": -1.08, "time": -1.28}),
    ("bank_card", 946, 14799, (16, 14, 17), -8063.801, {}),
]  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize(("name", "n_users", "n_decisions", "per_user", "log_prob", "published"), PANELS)
def test_published_multinomial_logit(data_dir, name, n_users, n_decisions, per_user, log_prob, published):
    panel = datasets.load(name, data_dir)
    count = np.bincount(panel.user[panel.first_row])
    assert (panel.n_users, panel.n_decisions) == (n_users, n_decisions)
    assert (np.median(count), count.min(), count.max()) == per_user
    found, coefficients = fit(panel)
    assert found == pytest.approx(log_prob, abs=1e-3)
    for attribute, value in published.items():
        digits = 2 if name == "swissmetro" else 5
        assert coefficients[attribute] == pytest.approx(value, abs=0.6 * 10**-digits)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "log_prob"), [("swiss", -2420.47), ("swissmetro", -6964.663), ("bank_card", -10257.89)]
)
def test_null_log_likelihood_counts_the_alternatives_on_offer(data_dir, name, log_prob):
    panel = datasets.load(name, data_dir)
    offered = np.bincount(panel.decision) + 1
    assert -np.log(offered).sum() == pytest.approx(log_prob, abs=5e-3)


@pytest.mark.data
def test_swiss_keeps_what_is_known_of_people(data_dir):
    people = datasets.load("swiss", data_dir).users
    assert people.num_rows == 388
    assert people["hh_inc_abs"][0].as_py() == 50000


SWISSMETRO = "ID,PURPOSE,SP,GA,CHOICE,TRAIN_TT,TRAIN_CO,TRAIN_AV,SM_TT,SM_CO,SM_AV,CAR_TT,CAR_CO,CAR_AV,"
SWISSMETRO += "AGE,MALE,INCOME,FIRST,TICKET,WHO,LUGGAGE,ORIGIN,DEST\n"


def write_swissmetro(folder, *rows):
    person = ",3,0,2,0,1,1,0,2,1\n"
    (folder / "swissmetro.csv").write_text(SWISSMETRO + "".join(row + person for row in rows))


def test_swissmetro_by_hand(tmp_path):
    write_swissmetro(
        tmp_path,
        "7,1,1,0,2,112,48,1,63,52,1,117,65,1",  # Swissmetro of three
        "7,1,1,1,1,100,40,1,60,50,1,110,60,0",  # a season ticket, no car
        "7,1,1,0,0,1,1,1,1,1,1,1,1,1",  # unknown choice: left out
        "8,2,1,0,2,1,1,1,1,1,1,1,1,1",  # leisure: left out
        "9,3,0,0,2,200,20,1,60,50,1,110,60,1",  # SP = 0: Swissmetro alone is left, which is no choice
    )
    panel = datasets.load("swissmetro", tmp_path)
    assert panel.user_ids == ("7",)
    assert panel.decision.tolist() == [0, 0, 1]
    vectors = panel.items.attributes
    assert vectors[panel.chosen].tolist() == [[0, 0, 0.52, 0.63], [0, 0, 0.52, 0.63], [0, 1, 0, 1]]
    assert vectors[panel.rejected].tolist() == [[0, 1, 0.48, 1.12], [1, 0, 0.65, 1.17], [0, 0, 0, 0.6]]


def test_equal_alternatives_are_one_item(tmp_path):
    (tmp_path / "train.csv").write_text(
        "choiceid,id,choice,price_A,price_B,time_A,time_B,change_A,change_B,comfort_A,comfort_B\n"
        "1,1,A,2400,4000,150,150,0,0,1,1\n2,1,B,4000,2400,150,150,0,0,1,1\n"
    )
    panel = datasets.load("train_nl", tmp_path)
    assert len(panel.items) == 2
    assert panel.chosen[0] == panel.chosen[1]  # the cheap one, whichever side it stands on
    np.testing.assert_allclose(panel.items.attributes[panel.chosen[0]], [-24 * 2.20371, -2.5, 0, -1])


def test_a_choice_that_is_not_on_offer_is_named(tmp_path):
    leisure, gone = "8,2,1,0,2,1,1,1,1,1,1,1,1,1", "7,1,1,0,3,112,48,1,63,52,1,117,65,0"
    write_swissmetro(tmp_path, leisure, "7,1,1,0,2,112,48,1,63,52,1,117,65,1", gone)
    with pytest.raises(DataError, match="swissmetro: the choice of row 3 is marked as not available"):
        datasets.load("swissmetro", tmp_path)


def test_an_unknown_alternative_is_named(tmp_path):
    (tmp_path / "train.csv").write_text(
        "choiceid,id,choice,price_A,price_B,time_A,time_B,change_A,change_B,comfort_A,comfort_B\n"
        "1,1,A,2400,4000,150,150,0,0,1,1\n2,1,C,2400,4000,150,150,0,0,1,1\n"
    )
    with pytest.raises(DataError, match=r"column choice: row 2 is 'C'; accepted: A, B"):
        datasets.load("train_nl", tmp_path)


def test_a_file_without_a_choice_that_counts(tmp_path):
    write_swissmetro(tmp_path, "8,2,1,0,2,1,1,1,1,1,1,1,1,1")
    with pytest.raises(DataError, match="holds no choice that is used"):
        datasets.load("swissmetro", tmp_path)


def test_a_missing_number_is_named(tmp_path):
    (tmp_path / "train.csv").write_text(
        "choiceid,id,choice,price_A,price_B,time_A,time_B,change_A,change_B,comfort_A,comfort_B\n"
        "1,1,A,2400,,150,150,0,0,1,1\n"
    )
    with pytest.raises(DataError, match="row 1 has no value in column price_B; a number is needed"):
        datasets.load("train_nl", tmp_path)
