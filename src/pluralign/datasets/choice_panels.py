"""Choice panels: the same people choose again and again among alternatives that are vectors of attributes.

Every alternative is a numeric item (equal vectors are one item), every choice a decision, and there is no prompt. Each
table is scaled as in the publication whose estimates it is held against, so that coefficients compare digit by digit:

- `swiss`: Axhausen et al. (2008), Hess and Palma (2019); raw minutes and francs as in Apollo's examples.
- `train_nl`: Ben-Akiva, Bolduc and Bradley (1993); as in mlogit's vignettes up to 1.1-3.
- `electricity`: Revelt and Train; Huber and Train (2000); as in mlogit.
- `swissmetro`: Bierlaire, Axhausen and Abay (2001); Biogeme's subset, scaling and availability.
- `bank_card`: Allenby and Ginter (1995); as in bayesm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pluralign.comparisons import Comparisons, from_attributes
from pluralign.datasets.local_files import TEXT, read_csv, with_users
from pluralign.errors import DataError
from pluralign.types import BoolArray, FloatArray

ROW = "row of the file"  # column that keeps the numbers of rows when some are left out


def swiss(path: Path) -> Comparisons:
    """Load 388 people's nine choices between two train routes.

    Attributes: tt travel time (minutes), tc cost (CHF), hw headway (minutes), ch interchanges.
    """
    names = ("tt", "tc", "hw", "ch")
    person = ("hh_inc_abs", "car_availability", "commute", "shopping", "business", "leisure")
    table = _read(path, "swiss_route_choice.csv.gz", user="ID", numbers=[f"{n}{i}" for i in (1, 2) for n in names])
    attributes = np.stack([_matrix(table, [f"{n}{i}" for n in names]) for i in (1, 2)], axis=1)
    chosen = _alternative(table, "choice", ("1", "2"), path)
    return _panel(table, "ID", attributes, chosen, names, person, name="swiss")


def train_nl(path: Path) -> Comparisons:
    """Load 235 people's choices between two train trips.

    Attributes: price (cents of guilders / 100 * 2.20371, the vignette's unit), time (hours), change, comfort (0 is the
    best class); all with their sign reversed, as published, so that more is better.
    """
    names = ("price", "time", "change", "comfort")
    table = _read(path, "train.csv.gz", user="id", numbers=[f"{n}_{i}" for i in "AB" for n in names])
    scale = -np.array([2.20371 / 100, 1 / 60, 1.0, 1.0])
    attributes = np.stack([_matrix(table, [f"{n}_{i}" for n in names]) * scale for i in "AB"], axis=1)
    return _panel(table, "id", attributes, _alternative(table, "choice", ("A", "B"), path), names, name="train_nl")


def electricity(path: Path) -> Comparisons:
    """Load 361 people's up to twelve choices among four electricity suppliers.

    Attributes: pf price (cents per kWh), cl contract length (years), loc local, wk well-known, tod time-of-day rates,
    seas seasonal rates.
    """
    names = ("pf", "cl", "loc", "wk", "tod", "seas")
    table = _read(path, "electricity.csv.gz", user="id", numbers=[f"{n}{i}" for i in range(1, 5) for n in names])
    attributes = np.stack([_matrix(table, [f"{n}{i}" for n in names]) for i in range(1, 5)], axis=1)
    return _panel(table, "id", attributes, _alternative(table, "choice", "1234", path), names, name="electricity")


def swissmetro(path: Path) -> Comparisons:
    """Load 752 people's nine choices among train, Swissmetro and car.

    The standard subset: trips to work or on business (PURPOSE 1 or 3) whose choice is known. A season ticket (GA) makes
    train and Swissmetro free; train and car are available where SP is not 0 and the data say so; times (minutes) and
    costs (CHF) are divided by 100. Attributes: asc_car, asc_train, cost, time.
    """
    person = ("AGE", "MALE", "INCOME", "GA", "PURPOSE", "FIRST", "TICKET", "WHO", "LUGGAGE", "ORIGIN", "DEST")
    modes = ("TRAIN", "SM", "CAR")
    numbers = [f"{mode}_{what}" for mode in modes for what in ("TT", "CO", "AV")]
    table = _read(path, "swissmetro.csv.gz", user="ID", numbers=[*numbers, "GA", "SP", "PURPOSE"])
    code = np.array(table["CHOICE"].to_pylist())
    purpose = _matrix(table, ["PURPOSE"])[:, 0]
    table = table.filter(pa.array(np.isin(purpose, (1, 3)) & (code != "0")))

    time, cost = (_matrix(table, [f"{mode}_{what}" for mode in modes]) / 100 for what in ("TT", "CO"))
    cost *= np.where(_matrix(table, ["GA"]) == 1, [0, 0, 1], 1)
    available = _matrix(table, [f"{mode}_AV" for mode in modes]) * np.where(_matrix(table, ["SP"]) != 0, 1, [0, 1, 0])
    constant = np.broadcast_to([[0, 1], [0, 0], [1, 0]], (len(table), 3, 2))  # train, Swissmetro, car
    attributes = np.concatenate([constant, cost[..., None], time[..., None]], axis=2)
    names = ("asc_car", "asc_train", "cost", "time")
    chosen = _alternative(table, "CHOICE", "123", path)
    return _panel(table, "ID", attributes, chosen, names, person, available=available != 0, name="swissmetro")


def bank_card(path: Path) -> Comparisons:
    """Load 946 people's choices between two credit cards.

    The file holds the difference of the two profiles' attributes, so one item is that difference and the other is zero.
    """
    header = read_csv(path, "choices.csv.gz", {"id": TEXT, "choice": TEXT}).column_names
    names = [name for name in header if name not in ("id", "choice")]
    table = _read(path, "choices.csv.gz", user="id", numbers=names)
    difference = _matrix(table, names)
    attributes = np.stack([np.zeros_like(difference), difference], axis=1)
    loaded = _panel(table, "id", attributes, _alternative(table, "choice", "01", path), names, name="bank_card")
    return with_users(loaded, read_csv(path, "people.csv", {"id": TEXT}), "id")


def _read(path: Path, name: str, user: str, numbers: Sequence[str]) -> pa.Table:
    choice = "CHOICE" if name.startswith("swissmetro") else "choice"
    types = {user: TEXT, choice: TEXT, **dict.fromkeys(numbers, pa.float64())}
    table = read_csv(path, name, types)
    for column in numbers:
        if table[column].null_count:
            row = table[column].to_pylist().index(None)
            raise DataError(f"{path / name}: row {row + 1} has no value in column {column}; a number is needed")
    return table.append_column(ROW, pa.array(np.arange(1, len(table) + 1)))


def _matrix(table: pa.Table, columns: Sequence[str]) -> FloatArray:
    return np.stack([table[column].to_numpy() for column in columns], axis=1)


def _alternative(table: pa.Table, column: str, codes: Sequence[str], path: Path) -> np.ndarray:
    """Number of the alternative chosen in every row."""
    values = table[column].to_pylist()
    if not values:
        raise DataError(f"{path} holds no choice that is used", hint="fetch the file again")
    unknown = next((i for i, value in enumerate(values) if value not in codes), None)
    if unknown is not None:
        raise DataError(
            f"{path}, column {column}: row {table[ROW][unknown]} is {values[unknown]!r}; accepted: {', '.join(codes)}"
        )
    return np.array([codes.index(value) for value in values])


def _panel(
    table: pa.Table,
    user: str,
    attributes: FloatArray,
    chosen: np.ndarray,
    names: Sequence[str],
    person: Sequence[str] = (),
    *,
    available: BoolArray | None = None,
    name: str,
) -> Comparisons:
    """Build the table from the attributes (decisions, alternatives, attributes) and the number of the chosen one."""
    decisions, alternatives, dim = attributes.shape
    available = np.ones((decisions, alternatives), dtype=np.bool_) if available is None else available
    if not (offered := available[np.arange(decisions), chosen]).all():
        raise DataError(f"{name}: the choice of row {table[ROW][int(np.argmin(offered))]} is marked as not available")
    vectors, index = np.unique(attributes.reshape(-1, dim), axis=0, return_inverse=True)
    item = index.reshape(decisions, alternatives)
    others = available.copy()
    others[np.arange(decisions), chosen] = False
    decision, other = np.nonzero(others)
    used, index = np.unique(
        np.concatenate([item[decision, chosen[decision]], item[decision, other]]), return_inverse=True
    )
    people = table[user].to_pylist()
    loaded = from_attributes(
        attributes=vectors[used],
        attribute_names=names,
        chosen=index[: len(decision)],
        rejected=index[len(decision) :],
        user=[people[i] for i in decision],
        choice=decision if alternatives > 2 else None,
        name=name,
    )
    known = [column for column in person if column in table.column_names]
    return with_users(loaded, table.select([user, *known]), user) if known else loaded
