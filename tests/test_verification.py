"""Damage anywhere in a store is found by ``ahba verify``, and never read as if it were data."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import lake
from lake.errors import RequestError, StoreError
from lake.layout import MATRICES
from lake.verification import Damage, verify
from tests.helpers import called, damaged, rewrite, store_beside, tree

Break = Callable[[Path], None]


def flip(place: float) -> Break:
    """Change one bit, `place` being a part of the file."""

    def change(data: bytes) -> bytes:
        position = min(int(place * len(data)), len(data) - 1)
        return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]

    return lambda path: rewrite(path, change)


def cut(path: Path) -> None:
    rewrite(path, lambda data: data[: len(data) // 2])


def cut_last_byte(path: Path) -> None:
    rewrite(path, lambda data: data[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    rewrite(path, lambda data: bytes(len(data)))


def delete(path: Path) -> None:
    path.unlink()


SHARD = "microarray/10021/expression/c/0/0"
CALLS = "microarray/10021/detected/c/0/0"
COLUMN = "microarray/10021/well_id/c/0"
TEXT = "microarray/10021/structure_name/c/0"
PROBE = "probes/probe_id/c/0"
ONTOLOGY = "ontology/name/c/0"
DONOR = "donors/uid/c/0"
METADATA = (
    "microarray/10021/expression/zarr.json",
    "microarray/10021/well_id/zarr.json",
    "microarray/10021/zarr.json",
    "microarray/zarr.json",
    "probes/gene_symbol/zarr.json",
    "probes/zarr.json",
    "ontology/name/zarr.json",
    "donors/uid/zarr.json",
)
DATA = (SHARD, CALLS, COLUMN, TEXT, PROBE, ONTOLOGY, DONOR)
BREAKS: dict[str, Break] = {
    "first bit": flip(0),
    "an early bit": flip(0.1),
    "a middle bit": flip(0.5),
    "a late bit": flip(0.9),
    "last bit": flip(1),
    "cut": cut,
    "cut by a byte": cut_last_byte,
    "empty": empty,
    "zeros": zeros,
    "deleted": delete,
}


@pytest.fixture(scope="module")
def one_donor(published: Path) -> Path:
    """A store to be damaged for a while; one donor, since all of it is read again for every damage."""
    return store_beside(published, "damaged.zarr", donors=["10021"])


def read_everything(path: Path) -> None:
    """What a user reads: all tables and all of both matrices."""
    store = lake.open(path)
    assert len(store.probes)
    assert len(store.ontology)
    assert len(store.donor_table)
    assert len(store.samples)
    store.microarray().compute()


def part_of(file: str) -> str:
    """The array that a file belongs to."""
    return file.split("/c/", maxsplit=1)[0].removesuffix("/zarr.json")


def test_a_whole_store_is_whole(small_lake: lake.Lake) -> None:
    assert verify(small_lake) == []


def test_every_kind_of_file_is_tried(store_path: Path) -> None:
    """The files below stand for all: a shard, the parts of a table, and metadata."""
    files = set(tree(store_path))
    assert {*DATA, *METADATA, "zarr.json"} <= files
    kinds = {"zarr.json" if name.endswith("zarr.json") else name.split("/c/")[1] for name in files}
    assert kinds == {"zarr.json", "0", "0/0"}


@pytest.mark.parametrize("damage", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("file", DATA)
def test_damaged_data_is_named_and_never_read(file: str, damage: Break, one_donor: Path) -> None:
    with damaged(one_donor / file, damage):
        found = verify(lake.open(one_donor))
        with pytest.raises(StoreError, match=part_of(file)):
            read_everything(one_donor)
    assert found
    assert all(one.where.startswith(part_of(file)) for one in found), found
    assert all(one.what for one in found)


@pytest.mark.parametrize("damage", [flip(0.5), flip(0.97), cut, empty, delete])
@pytest.mark.parametrize("file", METADATA)
def test_damaged_metadata_is_named(file: str, damage: Break, one_donor: Path) -> None:
    with damaged(one_donor / file, damage):
        found = verify(lake.open(one_donor))
    assert found
    group = "microarray/10021" if "10021" in file else file.split("/", maxsplit=1)[0]
    assert any(group in one.where for one in found), found


@pytest.mark.parametrize("damage", BREAKS.values(), ids=BREAKS)
def test_a_damaged_manifest_is_refused(damage: Break, store_copy: Path) -> None:
    damage(store_copy / "zarr.json")
    with pytest.raises(StoreError) as caught:
        lake.open(store_copy)
    assert str(store_copy) in str(caught.value)


def test_no_changed_bit_of_the_manifest_goes_unseen(store_copy: Path) -> None:
    """Random bits of the values that it holds: hashes, counts, names, the licence."""
    dice, original = random.Random(0), (store_copy / "zarr.json").read_bytes()
    start, end = original.index(b'"n_probes"'), original.index(b'"snapshot"')
    for _ in range(80):
        place = dice.randrange(start, end)
        if original[place : place + 1].isspace():
            continue
        changed = bytes([original[place] ^ (1 << dice.randrange(8))])
        (store_copy / "zarr.json").write_bytes(original[:place] + changed + original[place + 1 :])
        with pytest.raises(StoreError):
            lake.open(store_copy)


@pytest.mark.parametrize("name", [variable.name for variable in MATRICES])
def test_no_changed_bit_of_a_matrix_changes_what_is_read(name: str, one_donor: Path, tmp_path: Path) -> None:
    """It is an error, but for the few bits of gzip's header that mean nothing, such as its date."""
    store = Path(shutil.copytree(one_donor, tmp_path / "copy.zarr"))
    dice, shard = random.Random(1), store / "microarray" / "10021" / name / "c" / "0" / "0"
    original, refused = shard.read_bytes(), 0
    values = lake.open(store).microarray()[name].to_numpy()
    for _ in range(40):
        place = dice.randrange(len(original))
        shard.write_bytes(
            original[:place] + bytes([original[place] ^ (1 << dice.randrange(8))]) + original[place + 1 :]
        )
        try:
            found = lake.open(store).microarray()[name].to_numpy()
        except StoreError:
            refused += 1
        else:
            assert (found == values).all()
    assert refused > 30


def test_a_shard_that_goes_after_opening_is_an_error(store_copy: Path) -> None:
    data = lake.open(store_copy).microarray()
    for variable in MATRICES:
        (store_copy / "microarray" / "10021" / variable.name / "c" / "0" / "0").unlink()
        with pytest.raises(StoreError, match=f"microarray/10021/{variable.name}/c/0/0.* is missing"):
            data[variable.name].isel(probe=[3, 5]).compute()


def test_a_missing_donor_is_named(store_copy: Path) -> None:
    shutil.rmtree(store_copy / "microarray" / "10021")
    found = verify(lake.open(store_copy))
    assert Damage("microarray/10021/expression", "is missing") in found
    with pytest.raises(StoreError, match="microarray/10021"):
        read_everything(store_copy)


def test_swapped_donors_are_seen(store_copy: Path) -> None:
    """Every checksum is right, the data are another donor's."""
    groups = store_copy / "microarray"
    (groups / "9861").rename(groups / "aside")
    (groups / "10021").rename(groups / "9861")
    (groups / "aside").rename(groups / "10021")
    found = verify(lake.open(store_copy))
    assert {one.where.split("/")[1] for one in found} == {"9861", "10021"}


def test_several_damages_are_all_named(store_copy: Path) -> None:
    for file in (SHARD, TEXT, PROBE):
        delete(store_copy / file)
    found = {one.where for one in verify(lake.open(store_copy))}
    assert found == {SHARD, part_of(TEXT), part_of(PROBE)}


def test_progress_is_told_by_matrix(small_lake: lake.Lake) -> None:
    calls: list[tuple[str, int, int]] = []
    verify(small_lake, progress=lambda *call: calls.append(call))
    assert calls == [(donor, done, 2) for donor in small_lake.donors for done in (1, 2)]


def test_the_command_says_whole_with_code_0(store_path: Path) -> None:
    done = called("verify", "--store", store_path)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    assert done.stdout == f"{store_path} is whole.\n"


def test_the_command_names_damage_with_code_1(store_copy: Path) -> None:
    cut(store_copy / SHARD)
    delete(store_copy / PROBE)
    done = called("verify", "--store", store_copy)
    assert done.returncode == 1
    assert SHARD in done.stdout
    assert "probes/probe_id" in done.stdout
    assert "a chunk is missing" in done.stdout
    assert "2 damages" in done.stdout


def test_the_command_says_that_there_is_no_store(tmp_path: Path) -> None:
    done = called("verify", "--store", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"Error: {tmp_path}: no donor is in this store yet; `ahba ingest DIR --store"
    )


def test_a_store_elsewhere_is_not_verified(store_path: Path) -> None:
    with pytest.raises(RequestError, match="not on a disk of this machine: copy it to one"):
        verify(lake.open(f"file://{store_path}"))
