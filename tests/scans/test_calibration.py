"""How seldom clean populations are blamed."""

import pytest

from pluralign.populations import simulate
from pluralign.scans import Scan, scan


@pytest.fixture(scope="module", autouse=True)
def fast(whole_runs: None) -> None:
    """Every test of this module runs many whole scans."""


def blamed(found: Scan) -> set[str]:
    """Names of the errors and warnings."""
    return {each.name for each in found.findings if each.severity != "note"}


def alarms_in(hidden, kind: str, n: int) -> list[set[str]]:
    return [blamed(scan(hidden(seed, kind=kind, position=True))) for seed in range(n)]


@pytest.mark.parametrize("kind", ["null", "clusters"])
def test_clean_populations_are_seldom_blamed(hidden, kind):
    # Choices by a taste that no text shows, positions drawn. The families that may warn (stored signs, beginnings and
    # ends, position of all and of users, contradictions) are each at 5 %: 2.5 names expected of ten scans at most.
    alarms = alarms_in(hidden, kind, 10)
    assert sum(map(len, alarms)) <= 3, alarms
    assert not any("format_leak" in each for each in alarms)


@pytest.mark.study
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["null", "clusters", "reliability"])
def test_each_family_keeps_its_level(hidden, kind):
    n = 200
    alarms = alarms_in(hidden, kind, n)
    for name in set().union(*alarms):
        often = sum(name in each for each in alarms)
        assert often <= 0.05 * n + 2 * (n * 0.05 * 0.95) ** 0.5, (name, often)


def test_populations_with_tastes_in_style_and_numbers_are_not_blamed():
    for table in (
        simulate(n_users=60, seed=1),
        simulate(kind="individual", n_users=60, seed=2),
        simulate(kind="reliability", n_users=60, seed=3),
        simulate(features="numeric", dim=4, n_users=60, seed=4),
    ):
        found = scan(table.comparisons)
        assert blamed(found) == set(), found.findings[0].message
