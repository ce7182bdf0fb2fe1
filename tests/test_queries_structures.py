"""Names of structures: which rows of the ontology they stand for, in the published one with its oddities."""

import pandas as pd
import pytest

from ingest.sources import SourceFile
from ingest.tables import read_ontology
from lake.errors import RequestError
from lake.structures import described, find_structures, sideless, with_descendants
from tests.helpers import METADATA, needs_metadata


@pytest.fixture(scope="module")
def published_ontology() -> pd.DataFrame:
    return read_ontology(SourceFile(METADATA / "Ontology.csv")).frame


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("CA1 field, left", "CA1 field"),
        ("pyramidal tract, Right", "pyramidal tract"),
        ("pontine raphe nucleus,right", "pontine raphe nucleus"),
        ("nucleus of the diagonal band, right ", "nucleus of the diagonal band"),
        (
            "middle temporal gyrus, left, inferior bank of gyrus",
            "middle temporal gyrus, inferior bank of gyrus",
        ),
        ("leftover, rightful nucleus", "leftover, rightful nucleus"),
    ],
)
def test_a_name_without_its_side(name: str, plain: str) -> None:
    assert sideless(name) == plain


@needs_metadata
def test_every_acronym_is_one_structure(published_ontology: pd.DataFrame) -> None:
    for acronym, rows in list(published_ontology.groupby("acronym"))[::5]:
        found = find_structures(published_ontology, str(acronym))
        assert found.index.tolist() == rows.index.tolist()
        assert described(found).startswith(f"{acronym} (")


@needs_metadata
@pytest.mark.parametrize(
    ("name", "acronym", "n_rows"),
    [
        ("ca1 FIELD", "CA1", 3),
        ("CA1 field, left", "CA1", 1),
        (4254, "CA1", 1),
        ("pontine raphe nucleus", "RPn", 3),
        ("PONTINE RAPHE NUCLEUS,RIGHT", "RPn", 1),
        ("pyramidal tract, left", "py", 1),
        ("pons", "Pons", 1),
        ("mtg", "mtg", 3),
        ("hif", "HiF", 1),
    ],
)
def test_a_name_in_any_letters(
    name: str | int, acronym: str, n_rows: int, published_ontology: pd.DataFrame
) -> None:
    found = find_structures(published_ontology, name)
    assert found["acronym"].unique().tolist() == [acronym]
    assert len(found) == n_rows


@needs_metadata
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Mtg", r"'MTG' \(middle temporal gyrus\), 'MTg' \(midbrain tegmentum\), 'mtg' \(mammillo"),
        ("Cc", r"'cc' \(corpus callosum\), 'CC' \(central canal\)"),
        ("III", r"'Ve-III' \(III\), 'Cb-III' \(III\): write one of these"),
    ],
)
def test_a_name_of_several_structures(name: str, says: str, published_ontology: pd.DataFrame) -> None:
    with pytest.raises(RequestError, match=f"{name!r} may be .*{says}"):
        find_structures(published_ontology, name)


@needs_metadata
def test_descendants_are_those_of_the_parents_column(published_ontology: pd.DataFrame) -> None:
    children = published_ontology.groupby("parent_structure_id")["structure_id"].agg(list)
    waiting, below = [4249], set()
    while waiting:
        below.add(structure := waiting.pop())
        waiting += children.get(structure, [])
    found = with_descendants(published_ontology, find_structures(published_ontology, "HiF"))
    assert set(found) == below


@needs_metadata
def test_a_structure_is_described_without_a_side_it_is_not_of(published_ontology: pd.DataFrame) -> None:
    assert (
        described(find_structures(published_ontology, "RPC")) == "RPC (parvocellular part of the red nucleus)"
    )
    assert described(find_structures(published_ontology, "CA1 field, left")) == "CA1 (CA1 field, left)"
