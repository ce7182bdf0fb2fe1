"""Every way an atlas can be wrong, as a person meets it: one sentence, exit code 2, nothing written."""

import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.helpers import called, octants_image, tree
from tests.native_surfaces import write_labels

VERTICES = 10_242
INFO = "id,hemisphere,structure\n" + "".join(
    f"{region},{'LR'[(region - 1) % 2]},cortex\n" for region in range(1, 9)
)


def changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], list[object]]:
    """An image whose values are changed."""

    def write(folder: Path) -> list[object]:
        image = octants_image()
        values = change(np.asarray(image.dataobj))
        nibabel.save(nibabel.Nifti1Image(values, image.affine), folder / "wrong.nii.gz")
        return [folder / "wrong.nii.gz"]

    return write


def with_info(text: str) -> Callable[[Path], list[object]]:
    def write(folder: Path) -> list[object]:
        nibabel.save(octants_image(), folder / "wrong.nii.gz")
        (folder / "info.csv").write_text(text)
        return [folder / "wrong.nii.gz", "--atlas-info", folder / "info.csv"]

    return write


def mirrored(folder: Path) -> list[object]:
    """An image whose first axis is stored the other way round, without its affine saying so."""
    image = octants_image()
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), folder / "wrong.nii.gz")
    (folder / "info.csv").write_text(INFO)
    return [folder / "wrong.nii.gz", "--atlas-info", folder / "info.csv"]


def surfaces(left: int, right: int, *, swapped: bool = False) -> Callable[[Path], list[object]]:
    """Label files of so many vertices."""

    def write(folder: Path) -> list[object]:
        paths = [folder / f"{side}.x.label.gii" for side in ("lh", "rh")]
        for path, size, first in zip(paths, (left, right), (1, 3), strict=True):
            write_labels(path, first + np.arange(size) % 2, path.name[:2])
        return [",".join(map(str, reversed(paths) if swapped else paths))]

    return write


def half(folder: Path) -> list[object]:
    surfaces(VERTICES, VERTICES)(folder)
    return [folder / "lh.x.label.gii"]


def text(folder: Path) -> list[object]:
    (folder / "wrong.nii.gz").write_text("not an image")
    return [folder / "wrong.nii.gz"]


def rotated(folder: Path) -> list[object]:
    image = octants_image()
    affine = image.affine.copy()
    affine[:3, :3] = nibabel.eulerangles.euler2mat(0.2, 0, 0) @ affine[:3, :3]
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), folder / "wrong.nii.gz")
    return [folder / "wrong.nii.gz"]


WRONG: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "not integer": (changed(lambda values: values + np.float32(0.3)), "region ids are whole numbers"),
    "negative": (changed(lambda values: values - 5), "holds -4"),
    "4-D, unnamed": (
        changed(lambda values: np.stack([values] * 3, axis=-1)),
        "has 3 volumes: if they are prob",
    ),
    "empty": (changed(np.zeros_like), "is empty: every node is 0"),
    "rotated": (rotated, "is rotated against the axes of space, .* use matching='nearest'"),
    "no image": (text, "cannot be read as an image"),
    "hemispheres swapped in the info": (
        with_info(INFO.replace(",L", ",x").replace(",R", ",L").replace(",x", ",R")),
        r"has its hemispheres swapped: 8 of 8 regions .* lie on the other side of x = 0",
    ),
    "hemispheres swapped in the image": (mirrored, "has its hemispheres swapped: 8 of 8 regions"),
    "hemispheres swapped on the surface": (
        surfaces(VERTICES, VERTICES, swapped=True),
        "says right and lh.x.label.gii says left: give them as LEFT,RIGHT",
    ),
    "info without a region": (with_info(INFO.replace("8,R,cortex\n", "")), "has no row for region 8"),
    "info with a region twice": (with_info(INFO + "8,R,cortex\n"), "repeats region 8: keep one row each"),
    "info of an unknown side": (with_info(INFO.replace("8,R", "8,up")), "unknown hemisphere: 'up'"),
    "info of an unknown structure": (
        with_info(INFO.replace("8,R,cortex", "8,R,skull")),
        "unknown structure: 'skull'",
    ),
    "labels of another mesh": (
        surfaces(VERTICES, VERTICES - 1),
        "labels 10,241 vertices, its mesh has 10,242",
    ),
    "one hemisphere": (half, "is half of a surface atlas: give both hemispheres as LEFT,RIGHT"),
}


IN_THE_RUN = {"rotated"}  # what depends on a pipeline's choices is a unit that fails


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_atlas_is_one_sentence(wrong: str, store_path: Path, tmp_path: Path) -> None:
    write, sentence = WRONG[wrong]
    (tmp_path / "atlas").mkdir()
    atlas = write(tmp_path / "atlas")
    done = called("run", "--store", store_path, "--out", tmp_path / "tables", "--quiet", "--atlas", *atlas)
    assert done.returncode == (1 if wrong in IN_THE_RUN else 2), done.stdout
    assert re.search(sentence, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert "This should not happen" not in done.stderr
    assert not list((tmp_path / "tables").rglob("*.parquet"))


def shifted(by: float) -> nibabel.Nifti1Image:
    image = octants_image()
    affine = image.affine.copy()
    affine[2, 3] += by
    return nibabel.Nifti1Image(np.asarray(image.dataobj), affine)


@pytest.mark.filterwarnings("always:Only .* samples lie in a region")
def test_an_atlas_in_another_space_is_warned_of_with_numbers(store_path: Path, tmp_path: Path) -> None:
    """Nobody can know; the person is told how many samples are inside, how many should be, and the box.

    Though abagen's matching, the default, gives nearly all of them a region: what is below goes to the top.
    """
    nibabel.save(shifted(110), tmp_path / "moved.nii.gz")
    done = called(
        "run", "--store", store_path, "--out", tmp_path / "t", "--quiet", "--atlas", tmp_path / "moved.nii.gz"
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Warning: ")]
    told = re.fullmatch(
        r"Warning: Only (\d+) of (\d+) samples lie in a region of atlas 'moved'; about (\d+) should in "
        r"[\d.]+ ml of brain. Is it in mni152 space\? Its labels reach over (.*) mm\.",
        line,
    )
    assert told is not None, line
    inside, matched, expected = (int(number) for number in told.groups()[:3])
    assert inside < matched / 4 <= expected / 4
    assert "z 38 to 218" in told[4]
    table = pq.ParquetFile(next((tmp_path / "t" / "counts").rglob("*.parquet"))).read().to_pandas()
    assert table["n_samples"].sum() > matched / 2


def test_an_atlas_in_its_place_is_not_warned_of(store_path: Path, tmp_path: Path) -> None:
    nibabel.save(shifted(0), tmp_path / "right.nii.gz")
    done = called(
        "run", "--store", store_path, "--out", tmp_path / "t", "--quiet", "--atlas", tmp_path / "right.nii.gz"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert any(name.startswith("expression/") for name in tree(tmp_path / "t"))
