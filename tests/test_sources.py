"""Published files are found in every layout people have, and trouble with them is told."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.errors import InputError
from ingest.sources import MICROARRAY_FILES, SourceFile, donor_order, find_donors
from tests.helpers import DONORS, donor_folder, rewrite, tree, zip_donor


def as_fetched(published: Path, target: Path) -> Path:
    return Path(shutil.copytree(published, target))


def as_abagen(published: Path, target: Path) -> Path:
    shutil.copytree(published, target / "microarray")
    return target


def inside_microarray(published: Path, target: Path) -> Path:
    return as_abagen(published, target) / "microarray"


def zips(published: Path, target: Path) -> Path:
    target.mkdir()
    for donor in DONORS:
        zip_donor(donor_folder(published, donor), target / f"normalized_microarray_donor{donor}.zip")
    return target


def abagen_zips(published: Path, target: Path) -> Path:
    """The zip inside the donor's folder, nothing extracted yet."""
    for donor in DONORS:
        folder = donor_folder(target / "microarray", donor)
        folder.mkdir(parents=True)
        zip_donor(donor_folder(published, donor), folder / f"normalized_microarray_donor{donor}.zip")
    return target


def extracted_beside_zips(published: Path, target: Path) -> Path:
    """As ``ahba fetch --keep-archives`` leaves it."""
    as_fetched(published, target)
    for donor in DONORS:
        folder = donor_folder(target, donor)
        zip_donor(folder, folder / f"normalized_microarray_donor{donor}.zip")
    return target


LAYOUTS = (as_fetched, as_abagen, inside_microarray, zips, abagen_zips, extracted_beside_zips)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_files(
    layout: Callable[[Path, Path], Path], published: Path, tmp_path: Path
) -> None:
    found = find_donors(layout(published, tmp_path / "data"))
    assert list(found) == list(DONORS)  # ascending number
    for donor, files in found.items():
        assert tuple(files.files) == MICROARRAY_FILES
        for name in MICROARRAY_FILES:
            original = SourceFile(donor_folder(published, donor) / name)
            assert files[name].name == name
            assert files[name].size == original.size
            assert files[name].sha256() == original.sha256()
        assert files.size == sum(
            (donor_folder(published, donor) / n).stat().st_size for n in MICROARRAY_FILES
        )


def test_a_single_donors_folder_will_do(published: Path) -> None:
    assert list(find_donors(donor_folder(published, "10021"))) == ["10021"]


def test_the_donors_folder_may_be_where_one_stands(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(donor_folder(published, "10021"))
    assert list(find_donors(Path())) == ["10021"]


def test_a_donors_folder_may_keep_its_zip(published: Path, tmp_path: Path) -> None:
    directory = extracted_beside_zips(published, tmp_path / "data")
    found = find_donors(donor_folder(directory, "10021"))["10021"]
    assert found["Probes.csv"].member is None


def test_other_files_and_folders_are_passed_over(published_copy: Path) -> None:
    (published_copy / "rnaseq_donor9861").mkdir()
    (published_copy / "notes.txt").write_text("mine")
    (published_copy / "rnaseq_donor9861.zip").write_bytes(b"no zip")
    (published_copy / "normalized_microarray_donor15496.zip.part").write_bytes(b"half")
    assert list(find_donors(published_copy)) == list(DONORS)


def test_donors_may_have_any_name(published: Path, tmp_path: Path) -> None:
    for name in ("pilot", "7", "1000000", "donorA"):
        shutil.copytree(donor_folder(published, "12876"), donor_folder(tmp_path, name))
    assert list(find_donors(tmp_path)) == ["7", "1000000", "donorA", "pilot"]


def test_donor_order_is_numeric_then_by_name() -> None:
    assert sorted(["b", "10021", "9861", "a"], key=donor_order) == ["9861", "10021", "a", "b"]


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such directory; `ahba fetch"):
        find_donors(tmp_path / "none")


def test_no_donor(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder normalized_microarray_donor<ID> .*`ahba simulate"):
        find_donors(tmp_path)


@pytest.mark.parametrize("name", MICROARRAY_FILES)
def test_a_missing_file_is_named(name: str, published_copy: Path) -> None:
    (donor_folder(published_copy, "10021") / name).unlink()
    with pytest.raises(InputError, match=rf"donor10021: {name} missing; fetch or extract this donor again"):
        find_donors(published_copy)


def test_all_missing_files_are_named_together(published_copy: Path) -> None:
    for name in ("Probes.csv", "PACall.csv"):
        (donor_folder(published_copy, "10021") / name).unlink()
    with pytest.raises(InputError, match=r"PACall.csv, Probes.csv missing"):
        find_donors(published_copy)


def test_donors_that_do_not_matter_may_be_incomplete(published_copy: Path) -> None:
    (donor_folder(published_copy, "10021") / "PACall.csv").unlink()
    (published_copy / "normalized_microarray_donor15496.zip").write_bytes(b"half")
    assert list(find_donors(published_copy, only={"9861"})) == ["9861", "12876"]
    for donor in ("10021", "15496"):
        with pytest.raises(InputError, match=f"donor{donor}"):
            find_donors(published_copy, only={"9861", donor})


def test_the_same_donor_twice_is_refused(published_copy: Path) -> None:
    zip_donor(donor_folder(published_copy, "9861"), published_copy / "normalized_microarray_donor9861.zip")
    with pytest.raises(InputError, match=r"Donor 9861 is there twice: .* and .*; keep one of them"):
        find_donors(published_copy)


def test_the_same_donor_on_both_levels_is_refused(published_copy: Path) -> None:
    shutil.copytree(donor_folder(published_copy, "9861"), donor_folder(published_copy / "microarray", "9861"))
    with pytest.raises(InputError, match="Donor 9861 is there twice"):
        find_donors(published_copy)


# ---------------------------------------------------------------- zips


@pytest.fixture
def archive(published: Path, tmp_path: Path) -> Path:
    path = tmp_path / "zips" / "normalized_microarray_donor9861.zip"
    path.parent.mkdir()
    zip_donor(donor_folder(published, "9861"), path)
    return path


def test_a_zip_without_a_file_names_it(archive: Path, published: Path) -> None:
    with zipfile.ZipFile(archive, "w") as target:
        target.write(donor_folder(published, "9861") / "Probes.csv", "Probes.csv")
    with pytest.raises(
        InputError, match=r"MicroarrayExpression.csv, .* missing in the zip; download it again"
    ):
        find_donors(archive.parent)


@pytest.mark.parametrize("content", [b"", b"<html>sorry</html>", b"PK\x03\x04 and no more"])
def test_what_is_no_zip_is_told(content: bytes, archive: Path) -> None:
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"not a whole zip .*; download it again"):
        find_donors(archive.parent)


def test_a_cut_off_zip_is_told(archive: Path) -> None:
    rewrite(archive, lambda data: data[: len(data) // 2])
    with pytest.raises(InputError, match="not a whole zip"):
        find_donors(archive.parent)


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7])
def test_damage_inside_a_zip_is_told_when_it_is_read(part: float, archive: Path) -> None:
    """Whatever the decompressor makes of it: a bad stream, a bad checksum, an early end."""
    place = int(archive.stat().st_size * part)
    rewrite(
        archive,
        lambda data: data[:place] + bytes(b ^ 0xFF for b in data[place : place + 64]) + data[place + 64 :],
    )
    files = find_donors(archive.parent)["9861"]
    with pytest.raises(InputError, match=r"the zip is damaged .* download it again"):
        [files[name].sha256() for name in MICROARRAY_FILES]


def test_a_zip_with_a_password_is_told(archive: Path) -> None:
    rewrite(
        archive,
        lambda data: data.replace(
            b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"
        ),
    )
    files = find_donors(archive.parent)["9861"]
    with pytest.raises(InputError, match=r"the zip is damaged .*(encrypted|password)"):
        files["Probes.csv"].sha256()


def test_nothing_is_written_into_the_source(archive: Path) -> None:
    before = tree(archive.parent)
    files = find_donors(archive.parent)["9861"]
    assert files.size > 0
    assert [files[name].sha256() for name in MICROARRAY_FILES]
    assert tree(archive.parent) == before
    assert os.listdir(archive.parent) == [archive.name]  # noqa: PTH208


def test_a_file_prints_as_its_path(archive: Path) -> None:
    assert str(find_donors(archive.parent)["9861"]["Probes.csv"]) == f"{archive}!Probes.csv"


def test_what_goes_wrong_beside_the_zip_is_not_called_damage(archive: Path) -> None:
    def fails_while_it_is_open() -> None:
        with SourceFile(archive, "Probes.csv").open() as stream:
            assert stream.read(1)
            raise RuntimeError("the store is full")

    with pytest.raises(RuntimeError, match="the store is full"):
        fails_while_it_is_open()
