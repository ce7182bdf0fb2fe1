"""Ours beside the real abagen: same files, same choices, same regions, genes, probes, counts and values.

abagen runs in an environment of its own (tests/peer.py). Where that cannot be made, its numbers come from
``tests/data/abagen_recorded.npz``, which ``python tests/data/record_parity.py`` writes.
"""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lake
from ingest.reference import reference_file
from ingest.simulate import simulate
from tests import peer
from tests.helpers import store_beside
from tests.peer import Outcome, assert_same

LOGGER = logging.getLogger(__name__)
RECORDED = Path(__file__).parent / "data" / "abagen_recorded.npz"
N_RECORDED_GENES = 30  # of each case: their values; of all genes: names and probes
N_PROBES, SEED = 3000, 0
# The recorded numbers belong to data simulated elsewhere, where the last of a value's 11 decimals may differ.
LIVE, FROM_RECORD = {"rtol": 1e-8, "atol": 0.0}, {"rtol": 1e-8, "atol": 1e-8}

VOLUME = reference_file("atlas-desikankilliany.nii.gz")
INFO = reference_file("atlas-desikankilliany.csv")
SURFACE = [reference_file(f"atlas-desikankilliany-{side}.label.gii.gz") for side in ("lh", "rh")]


def case(name: str, image: Path | list[Path], info: Path | None, **choices: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "expression",
        "atlas": {"image": image},
        "atlas_info": info,
        "kwargs": choices,
    }


CASES = [
    case("volume_with_info", VOLUME, INFO),
    case("volume_without_info", VOLUME, None),
    case("surface", SURFACE, None),
    case("volume_two_donors", VOLUME, INFO, donors=["9861", "10021"]),
    case("surface_two_donors", SURFACE, None, donors=["9861", "10021"]),
]
CASES_BY_NAME = {one["name"]: one for one in CASES}


def read_recorded() -> dict[str, Outcome]:
    """Read the outcomes of record_parity.py; their arrays are named ``<case>/<array>``."""
    with np.load(RECORDED) as file:
        arrays = dict(file)
    return {
        name: peer.outcome_of_arrays(
            {
                key.removeprefix(f"{name}/"): found
                for key, found in arrays.items()
                if key.startswith(f"{name}/")
            }
        )
        for name in CASES_BY_NAME
    }


def our_outcome(store: lake.Lake, asked: dict[str, Any]) -> Outcome:
    """Run a case with our code."""
    image, info = asked["atlas"]["image"], asked["atlas_info"]
    spec = ",".join(map(str, image)) if isinstance(image, list) else str(image)
    atlas = lake.load_atlas(spec, info)
    tables = lake.tables_for(store, atlas, lake.Pipeline.from_choices(asked["kwargs"]))
    probe_ids = pd.Series(
        tables.genes["probe_id"].to_numpy(), index=tables.genes["gene_symbol"].to_numpy(object)
    )
    return Outcome(
        expression=tables.expression,
        genes=tuple(tables.expression.columns),
        counts=tables.counts,
        chosen=dict.fromkeys(tables.counts.columns, probe_ids),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six simulated donors: few probes, all 3,702 samples at their true places."""
    directory = tmp_path_factory.mktemp("parity") / "published"
    simulate(directory, probes=N_PROBES, seed=SEED)
    return directory


@pytest.fixture(scope="module")
def store(source: Path) -> lake.Lake:
    return lake.open(store_beside(source))


@pytest.fixture(scope="module")
def live(source: Path) -> dict[str, Outcome] | None:
    """What abagen gives now, None where it cannot be run."""
    if peer.peer_python() is None:
        return None
    return peer.run_peer(CASES, source, source.with_name("peer"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES_BY_NAME)
def test_tables_are_abagens(
    name: str,
    store: lake.Lake,
    live: dict[str, Outcome] | None,
    record_property: Callable[[str, object], None],
) -> None:
    ours = our_outcome(store, CASES_BY_NAME[name])
    theirs, tolerance = (read_recorded(), FROM_RECORD) if live is None else (live, LIVE)
    largest = assert_same(ours, theirs[name], **tolerance)
    record_property("largest_relative_difference", largest)
    LOGGER.info("%s: largest relative difference %.1e", name, largest)


@pytest.mark.slow
def test_expression_is_the_same_table_in_one_call(store: lake.Lake) -> None:
    table = lake.expression(store, VOLUME, atlas_info=INFO)
    pd.testing.assert_frame_equal(table, our_outcome(store, CASES_BY_NAME["volume_with_info"]).expression)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES_BY_NAME)
def test_recorded_numbers_are_still_abagens(name: str, live: dict[str, Outcome] | None) -> None:
    """Fails when the simulator has changed: then ``python tests/data/record_parity.py`` records anew."""
    if live is None:
        pytest.skip("abagen cannot be run here, so its recorded numbers cannot be checked.")
    assert_same(live[name], read_recorded()[name], **FROM_RECORD)


# The comparison itself: each difference that it must see.


def small_outcome() -> Outcome:
    regions, genes = pd.Index([1, 2, 3], name="region"), ["A1BG", "GFAP", "SST"]
    values = np.array([[0.1, 0.2, 0.3], [np.nan] * 3, [0.4, 0.5, 0.6]])
    return Outcome(
        expression=pd.DataFrame(values, index=regions, columns=genes),
        genes=tuple(genes),
        counts=pd.DataFrame({"9861": [2, 0, 1], "10021": [1, 0, 0]}, index=regions),
        chosen=dict.fromkeys(("9861", "10021"), pd.Series([11, 22, 33], index=genes)),
    )


def scaled(outcome: Outcome, factor: float) -> Outcome:
    values = outcome.expression.copy()
    values.loc[3, "SST"] *= factor
    return dataclasses.replace(outcome, expression=values)


DIFFERENCES: dict[str, tuple[Callable[[Outcome], Outcome], str]] = {
    "value": (lambda found: scaled(found, 1 + 2e-8), "expression"),
    "region": (
        lambda found: dataclasses.replace(found, expression=found.expression.loc[[1, 2]]),
        "regions differ",
    ),
    "gene": (
        lambda found: dataclasses.replace(found, genes=found.genes[:2]),
        "genes differ: 2 ours, 3 abagen's",
    ),
    "order": (lambda found: dataclasses.replace(found, genes=found.genes[::-1]), "another order"),
    "count": (lambda found: dataclasses.replace(found, counts=found.counts + 1), "counts"),
    "donor": (lambda found: dataclasses.replace(found, counts=found.counts[["9861"]]), "donors differ"),
    "probe": (
        lambda found: dataclasses.replace(
            found, chosen={d: s.replace(22, 21) for d, s in found.chosen.items()}
        ),
        "GFAP: 21 for 22",
    ),
    "error": (lambda found: Outcome(error="Traceback: no such atlas"), "no such atlas"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_comparison_sees_a_difference_of(name: str) -> None:
    change, message = DIFFERENCES[name]
    with pytest.raises(AssertionError, match=message):
        assert_same(change(small_outcome()), small_outcome())


def test_comparison_returns_the_largest_relative_difference() -> None:
    assert assert_same(small_outcome(), small_outcome()) == 0.0
    assert assert_same(scaled(small_outcome(), 1 + 5e-9), small_outcome()) == pytest.approx(5e-9, rel=1e-6)


def test_an_outcome_survives_its_arrays() -> None:
    part = peer.outcome_of_arrays(peer.arrays_of_outcome(small_outcome(), n_genes=2))
    assert list(part.expression.columns) == ["A1BG", "SST"]
    assert list(part.chosen) == ["9861"]
    assert assert_same(small_outcome(), part) == 0.0


# The environment that abagen runs in.


def test_an_environment_that_cannot_be_made_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(peer, "PEER", tmp_path)
    monkeypatch.setattr(peer, "_old_pythons", lambda: iter(()))
    monkeypatch.delenv("AHBA_PEER_PYTHON", raising=False)
    assert peer.peer_python.__wrapped__() is None
    assert "no Python 3.8 to 3.11 was found" in caplog.text
    assert not (tmp_path / "complete").exists()


def test_an_environment_named_by_hand_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AHBA_PEER_PYTHON", "no/such/python")
    with pytest.raises(FileNotFoundError, match="AHBA_PEER_PYTHON=no/such/python"):
        peer.find_peer_python()


@pytest.mark.slow
def test_without_packages_there_is_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    if next(peer._old_pythons(), None) is None:
        pytest.skip("no Python that abagen 0.1.3 runs on.")
    with pytest.raises(peer.PeerError, match=r"No matching distribution|from versions: none"):
        peer.make_environment(tmp_path)
    assert not (tmp_path / "complete").exists()
