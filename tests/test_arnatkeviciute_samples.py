"""AHBAprocessing's samples and probes: slabs, sides and parts, variance filter, a person's own annotation."""

import json

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import InputError
from ingest.reannotations import read_reannotation
from ingest.sources import SourceFile
from ingest.tables import read_ontology, read_samples
from tests.helpers import METADATA, needs_metadata
from transforms.errors import ChoiceError
from transforms.probes import (
    annotate_probes,
    detected_fraction,
    filter_probes,
    probe_variances,
    varying_probes,
)
from transforms.reannotation import Reannotation
from transforms.samples import DIVISIONS, divide_samples, drop_slabs, prepare_samples

DONORS = ["9861", "10021", "12876", "14380", "15496", "15697"]


# Slabs, sides and parts on the true metadata ----------------------------------------------------------------


@pytest.fixture(scope="module")
def true_ontology():
    return read_ontology(SourceFile(METADATA / "Ontology.csv")).frame


@pytest.fixture(scope="module")
def true_samples(true_ontology):
    folder = "normalized_microarray_donor{}"
    tables = [
        read_samples(SourceFile(METADATA / folder.format(donor) / "SampleAnnot.csv"), true_ontology).frame
        for donor in DONORS
    ]
    return pd.concat(
        [table.assign(donor=donor) for donor, table in zip(DONORS, tables, strict=True)], ignore_index=True
    )


@pytest.fixture(scope="module")
def kept(true_samples, true_ontology):
    prepared = prepare_samples(
        true_samples, true_ontology, donors=DONORS, corrected_mni=False, lr_mirror=None, check_sides=False
    )
    return drop_slabs(prepared, ["BS", "CB"])


@needs_metadata
def test_samples_left_without_brainstem_and_cerebellum(kept):
    assert kept.groupby("donor", sort=False).size().tolist() == [739, 622, 295, 401, 329, 362]
    assert len(kept) == 2748


@needs_metadata
def test_sides_and_parts_by_name(kept, true_ontology):
    divided = divide_samples(kept, true_ontology, division="listCortex")
    counts = divided.groupby(["hemisphere", "structure"]).size().to_dict()
    assert counts == {
        ("", "subcortex/brainstem"): 22,
        ("L", "cortex"): 1343,
        ("L", "subcortex/brainstem"): 688,
        ("R", "cortex"): 449,
        ("R", "subcortex/brainstem"): 246,
    }


@needs_metadata
def test_cortex_by_name_is_a_part_of_cortex_by_ontology(kept, true_ontology):
    """Which has 158 samples more: CA fields, subiculum .."""
    by_name, by_path = (
        (divide_samples(kept, true_ontology, division=division)["structure"] == "cortex").to_numpy()
        for division in DIVISIONS
    )
    assert not (by_name & ~by_path).any()
    assert (by_path & ~by_name).sum() == 158
    assert kept["structure_name"].str.contains("dentate gyrus")[by_name].sum() == 30


@needs_metadata
def test_no_name_has_two_sides_and_the_hippocampus_can_go(true_samples, true_ontology, kept):
    divided = divide_samples(true_samples, true_ontology, division="listCortex")
    assert (divided["hemisphere"] == "").sum() == 138
    without = divide_samples(kept, true_ontology, division="ontology", exclude_hippocampus=True)
    path = true_ontology.set_index("structure_id")["structure_id_path"].loc[kept["structure_id"]]
    below = path.str.contains("4249").to_numpy()
    assert below.sum() > 100
    assert set(without.loc[below, "structure"]) == {""}
    with_it = divide_samples(kept, true_ontology, division="ontology")
    pd.testing.assert_frame_equal(without[~below], with_it[~below])
    assert set(with_it.loc[below, "structure"]) == {"cortex"}


# Invented ---------------------------------------------------------------------------------------------------

ONTOLOGY = pd.DataFrame(
    [
        (1, "/4005/4008/1/"),
        (2, "/4005/4008/4249/2/"),
        (3, "/4005/4275/3/"),
        (4, "/4005/4392/4/"),
        (5, "/4005/4540/5/"),
        (6, "/4005/40081/6/"),
    ],
    columns=["structure_id", "structure_id_path"],
)


def samples(*rows):
    return pd.DataFrame(rows, columns=["structure_id", "structure_name", "slab_type"])


SAMPLES = samples(
    (1, "Cuneus, left, striate", "CX"),
    (1, "cuneus, left, striate", "CX"),
    (2, "dentate gyrus, right", "CX"),
    (2, "CA1 field, right", "CX"),
    (3, "putamen, left", "CX"),
    (4, "thalamus, Left", "CX"),
    (5, "pons, right", "BS"),
    (6, "vermis", "CB"),
)


@pytest.mark.parametrize(
    ("choices", "sides", "parts"),
    [
        ({"division": "listCortex"}, "LLRRL-R-", "SCCSSSSS"),
        ({"division": "ontology"}, "LLRRL-R-", "CCCCSS--"),
        ({"division": "ontology", "exclude_hippocampus": True}, "LLRRL-R-", "CC--SS--"),
        ({"division": "listCortex", "exclude_hippocampus": True}, "LLRRL-R-", "SC--SSSS"),
    ],
)
def test_sides_and_parts(choices, sides, parts):
    divided = divide_samples(SAMPLES, ONTOLOGY, **choices)
    assert "".join(side or "-" for side in divided["hemisphere"]) == sides
    short = {"cortex": "C", "subcortex/brainstem": "S", "": "-"}
    assert "".join(short[part] for part in divided["structure"]) == parts


def test_slabs_go_by_what_their_type_contains():
    assert drop_slabs(SAMPLES, [])["slab_type"].tolist() == SAMPLES["slab_type"].tolist()
    assert drop_slabs(SAMPLES, ["BS"])["slab_type"].tolist() == ["CX"] * 6 + ["CB"]
    assert drop_slabs(SAMPLES.assign(slab_type="1BS2"), ["CB"]).equals(SAMPLES.assign(slab_type="1BS2"))
    with pytest.raises(ChoiceError, match="exclude_slabs=CX, BS, CB leaves no sample"):
        drop_slabs(SAMPLES, ["CX", "BS", "CB"])


# Probes -----------------------------------------------------------------------------------------------------

PROBES = pd.DataFrame(
    {
        "probe_id": [30, 10, 20, 40],
        "probe_name": ["A_24_P1", "CUST_7", "A_23_P2", "a_1"],
        "gene_symbol": ["X", "Y", "X", "Z"],
        "entrez_id": [1, 2, 1, -1],
        "reannotated_gene_symbol": ["X", "Y", "", "W"],
        "reannotated_entrez_id": [1, 2, -1, 5],
        "published_row": [3, 2, 1, 0],
    }
)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"reannotated": True}, [10, 30, 40]),
        ({"reannotated": False}, [20, 10, 30]),
        ({"reannotated": True, "probe_order": "probe_name"}, [30, 10, 40]),  # byte order: A < C < a
        ({"reannotated": False, "probe_order": "probe_name"}, [20, 30, 10]),
        ({"reannotated": True, "agilent_only": True}, [30, 40]),
    ],
)
def test_probes_and_their_order(choices, expected):
    table = annotate_probes(PROBES, **choices)
    assert table["probe_id"].tolist() == expected
    assert PROBES["probe_id"].to_numpy()[table["row"]].tolist() == expected


def own_table(*rows):
    return pd.DataFrame(rows, columns=["probe_name", "gene_symbol", "entrez_id"])


def test_a_table_of_ones_own():
    table = own_table(("a_1", "NEW", 9), ("elsewhere", "OLD", 3), ("A_23_P2", "NEW", 9))
    annotated = annotate_probes(PROBES, reannotated=Reannotation.from_table(table, name="mine"))
    assert annotated["probe_id"].tolist() == [20, 40]
    assert annotated["gene_symbol"].tolist() == ["NEW", "NEW"]
    assert annotated["entrez_id"].tolist() == [9, 9]


def test_equal_tables_are_the_same_choice_whatever_their_order_and_name():
    rows = (("a", "A", 1), ("b", "B", 2))
    one = Reannotation.from_table(own_table(*rows), name="one")
    other = Reannotation.from_table(own_table(*rows[::-1]).assign(more=0), name="other")
    assert one == other
    assert hash(one) == hash(other)
    assert one != Reannotation.from_table(own_table(rows[0]), name="one")
    assert json.dumps(one.sha256)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "A", 1), ("a", "A", 1)], r"names probes more than once: row 0 \(a, A, 1\); row 1"),
        ([("a", "A", 1), ("", "B", 2)], r"without a probe_name: row 1 \(, B, 2\)"),
        ([("a", None, 1)], "without a gene_symbol: row 0"),
        ([("a", "A", "x1")], r"no whole number from 0 on: row 0 \(a, A, x1\)"),
        ([("a", "A", -1)], "no whole number from 0 on"),
        ([("a", "A", 1.5)], "no whole number from 0 on"),
        ([("a", "A", 1), ("b", "A", 2)], "a gene_symbol more than one entrez_id: row 0"),
        ([("a", "A", 1), ("b", "B", 1)], "an entrez_id more than one gene_symbol: row 0"),
        ([("a", "A", 1)] * 9, "and 4 more"),
        ([], "has no row"),
    ],
)
def test_wrong_rows_are_named(rows, message):
    with pytest.raises(ChoiceError, match=f"Re-annotation mine .*{message}"):
        Reannotation.from_table(own_table(*rows), name="mine")


def test_a_table_of_something_else_is_told():
    with pytest.raises(ChoiceError, match="lacks column probe_name, entrez_id"):
        Reannotation.from_table(pd.DataFrame({"gene_symbol": ["A"]}), name="mine")
    other = Reannotation.from_table(own_table(("ENSG1", "A", 1)), name="mine")
    with pytest.raises(ChoiceError, match=r"names none of the probes .*ENSG1.*A_24_P1"):
        annotate_probes(PROBES, reannotated=other)


def test_a_csv_of_ones_own(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('entrez_id,note,probe_name,gene_symbol\n5,"a, b",p1,A\n,x,p2,\n7,x,p3,B\n')
    table = read_reannotation(path)
    assert table.to_dict("list") == {
        "probe_name": ["p1", "p3"],
        "gene_symbol": ["A", "B"],
        "entrez_id": [5, 7],
    }
    assert table["entrez_id"].dtype == np.int64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("probe_name,gene_symbol\nx,y\n", "line 1: the header lacks entrez_id"),
        (
            "probe_name,gene_symbol,entrez_id\na,A,1\nb,B,x\n",
            "line 3, column 'entrez_id': 'x' is not a whole",
        ),
        ("probe_name,gene_symbol,entrez_id\na,,1\n", "line 2, column 'gene_symbol': '' is empty"),
        (
            "probe_name,gene_symbol,entrez_id\na,A,1\na,A,1\n",
            "line 3, column 'probe_name': 'a' is there a sec",
        ),
        ("probe_name,gene_symbol,entrez_id\na,A\n", "line 2: 2 fields, expected 3"),
        ("probe_name,gene_symbol,entrez_id\n", "no row gives a probe a gene"),
        ("", "the file is empty"),
    ],
)
def test_wrong_csvs_are_told_by_line(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_reannotation(path)


def test_a_missing_csv_is_told(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: there is no such file"):
        read_reannotation(tmp_path / "none.csv")


# Variance and intensity filters -----------------------------------------------------------------------------


def dropped_by_variance(blocks, percent, scale):
    """S2 (b): dropped only if among the least variable of every donor."""
    low = []
    for x in blocks:
        values = (2.0**x if scale == "normal" else x).var(axis=1, ddof=1)
        n_low = int(np.floor(len(x) * percent / 100 + 0.5))  # MATLAB's round
        low.append(set(sorted(range(len(x)), key=lambda p: (values[p], p))[:n_low]))
    return set.intersection(*low)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0, 100), st.sampled_from(["normal", "log2"]))
def test_variance_filter_drops_what_is_low_in_every_donor(seed, percent, scale):
    random = np.random.default_rng(seed)
    n, sizes = 40, {"a": 7, "b": 5, "c": 9}
    spread = random.integers(0, 4, (n, 1)) / 2  # constant probes tie
    blocks = [random.normal(6, 1, (n, size)) * spread + 5 for size in sizes.values()]
    table = pd.DataFrame({"donor": np.repeat(list(sizes), list(sizes.values())), "column": np.arange(21)})
    rows = random.permutation(n)  # place of each probe in the store
    stored = np.hstack(blocks)[np.argsort(rows)]
    lazy = xr.DataArray(da.from_array(stored, chunks=(16, 6)), dims=("probe", "sample"))
    variances = probe_variances(lazy, table, rows, scale=scale)
    assert isinstance(variances.data, da.Array)
    kept = varying_probes(variances, percent)
    assert set(np.flatnonzero(~kept)) == dropped_by_variance(blocks, percent, scale)


def test_filters_join():
    annotated = pd.DataFrame({"probe_id": [1, 2, 3, 4]})
    fraction = xr.DataArray([0.5, 0.4999, 1.0, 0.9], dims="probe")
    varying = np.array([True, True, False, True])
    assert filter_probes(annotated, fraction, 0.5)["probe_id"].tolist() == [1, 3, 4]
    assert filter_probes(annotated, fraction, 0.5, varying)["probe_id"].tolist() == [1, 4]
    with pytest.raises(ChoiceError, match="variance_filter leaves no probe"):
        filter_probes(annotated, fraction, 0.95, varying)


def test_intensity_filter_pools_the_samples_of_all_donors():
    """S2 (a): sum of the calls over number of samples, not a mean of donors' proportions."""
    calls = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]], dtype=bool)
    table = pd.DataFrame({"donor": ["a", "a", "b", "b", "b"], "column": np.arange(5)})
    lazy = xr.DataArray(da.from_array(calls, chunks=(1, 2)), dims=("probe", "sample"))
    assert detected_fraction(lazy, table, np.array([0, 1])).compute().to_numpy().tolist() == [0.4, 0.6]
