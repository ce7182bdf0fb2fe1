"""Published files become a store: lossless, joined by id, the same bytes whichever way they come."""

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import lake
from ingest.errors import InputError
from ingest.simulate import simulate
from ingest.sources import MICROARRAY_FILES
from lake.errors import RequestError
from lake.ingestion import ingest_directory
from lake.verification import verify
from tests.helpers import (
    DONORS,
    donor_folder,
    lines_changed,
    octants,
    read_rows,
    rewrite,
    tree,
    zip_donor,
)
from tests.ingesting import expression_of, published_values, statuses, values_of
from transforms.errors import ChoiceError

# ---------------------------------------------------------------- lossless


@pytest.mark.parametrize("donor", DONORS)
def test_expression_and_calls_are_the_files_to_the_last_bit(
    donor: str, published: Path, small_lake: lake.Lake
) -> None:
    folder = donor_folder(published, donor)
    assert expression_of(small_lake, donor) == published_values(folder, "MicroarrayExpression.csv")
    assert values_of(small_lake, donor, "detected") == published_values(folder, "PACall.csv")


def test_probes_are_the_files(published: Path, small_lake: lake.Lake) -> None:
    rows = read_rows(donor_folder(published, "9861") / "Probes.csv")
    found = small_lake.probes.sort_values("published_row")
    for name in ("probe_name", "gene_symbol", "gene_name", "chromosome"):
        assert found[name].tolist() == [row[name] for row in rows]
    for name in ("probe_id", "gene_id", "entrez_id"):
        assert found[name].tolist() == [int(row[name] or -1) for row in rows]


def test_samples_are_the_files(published: Path, small_lake: lake.Lake) -> None:
    for donor, found in small_lake.samples.groupby("donor", sort=False):
        rows = read_rows(donor_folder(published, donor) / "SampleAnnot.csv")
        for name in rows[0]:
            expected = [type(found[name].iloc[0])(row[name]) for row in rows]
            assert found[name].tolist() == expected


def test_ontology_is_the_files(published: Path, small_lake: lake.Lake) -> None:
    rows = read_rows(donor_folder(published, "9861") / "Ontology.csv")
    for name in ("acronym", "name", "structure_id_path", "color_hex_triplet"):
        assert small_lake.ontology[name].tolist() == [row[name] for row in rows]
    assert small_lake.ontology["structure_id"].tolist() == [int(row["id"]) for row in rows]
    assert small_lake.ontology["hemisphere"].tolist() == [row["hemisphere"] or "B" for row in rows]


def test_a_genes_probes_are_neighbours(small_lake: lake.Lake) -> None:
    probes = small_lake.probes
    gene = probes["reannotated_gene_symbol"].where(
        probes["reannotated_gene_symbol"] != "", probes["gene_symbol"]
    )
    assert gene.tolist() == sorted(gene)
    for _, ids in probes["probe_id"].groupby(gene):
        assert ids.is_monotonic_increasing


def test_the_manifest_knows_the_source_files(published: Path, small_lake: lake.Lake) -> None:
    for donor, entry in small_lake.manifest.donors.items():
        assert sorted(entry.sources) == sorted(MICROARRAY_FILES)
        for name, source in entry.sources.items():
            data = (donor_folder(published, donor) / name).read_bytes()
            assert source == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert small_lake.simulated
    assert "Allen Institute" in small_lake.manifest.licence
    assert "Hawrylycz" in small_lake.manifest.citation


def test_data_that_is_not_marked_is_not_called_simulated(published_copy: Path, tmp_path: Path) -> None:
    for donor in DONORS:
        rewrite(
            donor_folder(published_copy, donor) / "Probes.csv",
            lambda data: data.replace(b"simulated gene", b"gene"),
        )
    ingest_directory(published_copy, tmp_path / "store.zarr", donors=["12876"])
    assert not lake.open(tmp_path / "store.zarr").simulated


# ---------------------------------------------------------------- joins


def shuffled(seed: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: random.Random(seed).sample(lines, len(lines))


def test_the_order_of_rows_does_not_matter(published_copy: Path, store_path: Path, tmp_path: Path) -> None:
    """Rows of both matrices in orders of their own, for each donor: the same arrays, byte for byte."""
    for seed, donor in enumerate(DONORS):
        lines_changed(donor_folder(published_copy, donor) / "MicroarrayExpression.csv", shuffled(seed))
        lines_changed(donor_folder(published_copy, donor) / "PACall.csv", shuffled(seed + 10))
    ingest_directory(published_copy, tmp_path / "store.zarr")
    before, after = tree(store_path), tree(tmp_path / "store.zarr")
    assert before.pop("zarr.json") != after.pop("zarr.json")  # the files' hashes
    assert after == before


def test_probes_csv_in_another_order_is_another_table(published_copy: Path, tmp_path: Path) -> None:
    lines_changed(
        donor_folder(published_copy, "12876") / "Probes.csv", lambda lines: [lines[0], *reversed(lines[1:])]
    )
    with pytest.raises(InputError, match=r"Probes.csv: column 'published_row'.*donors of one store share"):
        ingest_directory(published_copy, tmp_path / "store.zarr")


def test_a_well_of_another_donor_is_refused(published_copy: Path, tmp_path: Path) -> None:
    shutil.copytree(donor_folder(published_copy, "12876"), donor_folder(published_copy, "99999"))
    store = tmp_path / "store.zarr"
    with pytest.raises(InputError, match=r"well \d+ is donor 12876's in the store \(36 such wells\)"):
        ingest_directory(published_copy, store)
    assert lake.open(store).donors == list(DONORS)
    assert verify(lake.open(store)) == []


# ---------------------------------------------------------------- the same bytes


def test_the_same_input_gives_the_same_bytes(published: Path, store_path: Path, tmp_path: Path) -> None:
    ingest_directory(published, tmp_path / "store.zarr")
    assert tree(tmp_path / "store.zarr") == tree(store_path)


@pytest.mark.parametrize("steps", [["9861", "10021", "12876"], ["12876", "9861", "10021"]])
def test_donor_by_donor_gives_the_same_bytes(
    steps: list[str], published: Path, store_path: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store.zarr"
    for donor in steps:
        ingest_directory(published, store, donors=[donor])
    assert lake.open(store).snapshot == lake.open(store_path).snapshot
    assert tree(store) == tree(store_path)


def test_zips_give_the_same_bytes(published: Path, store_path: Path, tmp_path: Path) -> None:
    for donor in DONORS:
        zip_donor(donor_folder(published, donor), tmp_path / f"normalized_microarray_donor{donor}.zip")
    ingest_directory(tmp_path, tmp_path / "store.zarr")
    assert tree(tmp_path / "store.zarr") == tree(store_path)


def test_a_damaged_zip_leaves_the_store_as_it_was(published: Path, store_copy: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "more", probes=400, donors=["15496"], samples_scale=0.1)
    archive = tmp_path / "normalized_microarray_donor15496.zip"
    zip_donor(donor_folder(tmp_path / "more", "15496"), archive)
    middle = archive.stat().st_size // 3
    rewrite(archive, lambda data: data[:middle] + bytes(64) + data[middle + 64 :])
    before = tree(store_copy)
    with pytest.raises(InputError, match=r"donor15496.zip!MicroarrayExpression.csv: the zip is damaged"):
        ingest_directory(tmp_path, store_copy)
    assert tree(store_copy) == before


# ---------------------------------------------------------------- which donors


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["10021"], ["10021"]),
        (["H0351.2002"], ["10021"]),
        ("H0351.1009", ["12876"]),
        (["12876", "9861", "H0351.2001"], ["9861", "12876"]),
    ],
)
def test_donors_by_number_and_by_uid(
    asked: str | list[str], expected: list[str], published: Path, tmp_path: Path
) -> None:
    done = ingest_directory(published, tmp_path / "store.zarr", donors=asked)
    assert [one.donor for one in done] == expected
    assert lake.open(tmp_path / "store.zarr").donors == expected


def test_unknown_donors_are_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Donor 15496 is not in the source; it has 9861, 10021, 12876"):
        ingest_directory(published, tmp_path / "store.zarr", donors=["15496"])
    assert not (tmp_path / "store.zarr").exists()


@pytest.mark.parametrize("damage", ["PACall.csv", "all", "a half zip"])
def test_donors_that_were_not_asked_for_may_be_incomplete(
    damage: str, published_copy: Path, tmp_path: Path
) -> None:
    folder = donor_folder(published_copy, "10021")
    (folder / "PACall.csv").unlink()
    if damage == "all":
        shutil.rmtree(folder)
        folder.mkdir()
    if damage == "a half zip":
        (folder / "normalized_microarray_donor10021.zip").write_bytes(b"PK and no more")
    for donors in ("all", ["10021"], ["9861", "H0351.2002"]):
        with pytest.raises(InputError, match="donor10021"):
            ingest_directory(published_copy, tmp_path / "store.zarr", donors=donors)
    done = ingest_directory(published_copy, tmp_path / "store.zarr", donors=["H0351.2001"])
    assert statuses(done) == {"9861": "ingested"}
    assert lake.open(tmp_path / "store.zarr").donors == ["9861"]


def other_donor(folder: Path, first_well: int) -> None:
    """Make another donor of a copied one: wells and names of its own."""

    def change(lines: list[bytes]) -> list[bytes]:
        rows = [line.split(b",", 3) for line in lines[1:]]
        return [
            lines[0],
            *(b",".join([r[0], r[1], b"%d" % (first_well + i), r[3]]) for i, r in enumerate(rows)),
        ]

    lines_changed(folder / "SampleAnnot.csv", change)


def test_any_donors_any_probes_any_samples(tmp_path: Path) -> None:
    """Seven donors whose names are nobody's, 11 probes, between 1 and 12 samples."""
    simulate(tmp_path / "one", probes=11, donors=["12876"], samples_scale=12 / 363)
    source = tmp_path / "source"
    names = ["1", "2", "30", "pilot", "b_2", "99999999", "x"]
    for number, name in enumerate(names):
        folder = donor_folder(source, name)
        shutil.copytree(donor_folder(tmp_path / "one", "12876"), folder)
        other_donor(folder, 700_000_000 + 100 * number)
        keep = 1 if name == "30" else 12 - number
        lines_changed(folder / "SampleAnnot.csv", lambda lines, n=keep: lines[: n + 1])
        for matrix in ("MicroarrayExpression.csv", "PACall.csv"):
            lines_changed(
                folder / matrix,
                lambda lines, n=keep: [
                    b",".join(t.rstrip(b"\n").split(b",")[: n + 1]) + b"\n" for t in lines
                ],
            )
    done = ingest_directory(source, tmp_path / "store.zarr")
    store = lake.open(tmp_path / "store.zarr")
    assert store.donors == [one.donor for one in done] == ["1", "2", "30", "99999999", "b_2", "pilot", "x"]
    assert [one.n_uncorrected for one in done] == [one.n_samples for one in done]
    for name in names:
        folder = donor_folder(source, name)
        assert expression_of(store, name) == published_values(folder, "MicroarrayExpression.csv")
    assert verify(store) == []


# ---------------------------------------------------------------- corrected coordinates


def test_wells_without_corrected_coordinates_are_kept_and_counted(
    published_copy: Path, tmp_path: Path
) -> None:
    other_donor(donor_folder(published_copy, "12876"), 700_000_000)
    store = tmp_path / "store.zarr"
    done = ingest_directory(published_copy, store)
    assert {one.donor: one.n_uncorrected for one in done} == {"9861": 0, "10021": 0, "12876": 36}
    opened = lake.open(store)
    missing = opened.samples["corrected_mni_x"].isna()
    pd.testing.assert_series_equal(missing, opened.samples["donor"] == "12876", check_names=False)
    with pytest.raises(ChoiceError, match="corrected"):
        lake.expression(opened, octants())
    table = lake.expression(opened, octants(), corrected_mni=False)
    assert table.notna().any(axis=None)
    assert lake.expression(opened, octants(), donors=["9861", "10021"]).notna().any(axis=None)


def test_progress_counts_the_bytes_of_both_matrices(published: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    ingest_directory(
        published, tmp_path / "store.zarr", donors=["12876"], progress=lambda *c: calls.append(c)
    )
    folder = donor_folder(published, "12876")
    size = sum((folder / name).stat().st_size for name in ("MicroarrayExpression.csv", "PACall.csv"))
    assert {(donor, total) for donor, _, total in calls} == {("12876", size)}
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert calls[-1][1] == size
