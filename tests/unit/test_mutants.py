"""The catalogue of faults still fits the code: each one applies, is a fault, and names tests that are there."""

import pytest

from tests.mutants.catalogue import ROOT, Area, Mutant, areas

FAULTS = [pytest.param(area, mutant, id=f"{area.name}: {mutant.name}") for area in areas() for mutant in area.mutant]


@pytest.mark.parametrize(("area", "mutant"), FAULTS)
def test_fault_applies_where_it_says(area: Area, mutant: Mutant) -> None:
    assert mutant.applied(ROOT) != (ROOT / mutant.file).read_text()
    tests = area.tests_of(mutant)
    assert tests
    assert all((ROOT / name.partition("::")[0]).exists() for name in tests)


def test_names_of_an_area_are_its_own() -> None:
    for area in areas():
        assert len({mutant.name for mutant in area.mutant}) == len(area.mutant)
