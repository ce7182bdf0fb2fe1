"""What is published and asked for: the plan of a fetch."""

from pathlib import Path
from typing import Any

import pytest

from ingest.errors import InputError, RefusedError
from ingest.fetch import fetch
from ingest.published import ALLEN_SERVER, PUBLISHED_FILES, plan


def test_plan_lists_every_published_file_and_touches_nothing(tmp_path: Path) -> None:
    downloads = plan(tmp_path / "new", what=("microarray", "rnaseq", "mri"))
    assert [download.what for download in downloads] == ["microarray"] * 6 + ["rnaseq"] * 2 + ["mri"] * 12
    assert (
        len({download.url for download in downloads}) == len({download.file for download in downloads}) == 20
    )
    assert not (tmp_path / "new").exists()


def test_plan_says_where_from_where_to_and_how_much(tmp_path: Path) -> None:
    (download,) = plan(tmp_path, donors=["9861"])
    assert download.url == "https://human.brain-map.org/api/v2/well_known_file_download/178238387"
    assert download.name == "normalized_microarray_donor9861.zip"
    assert download.target == tmp_path / "normalized_microarray_donor9861"
    assert (download.uid, download.size) == ("H0351.2001", 425_988_059)


def test_exact_and_rounded_sizes_agree() -> None:
    sizes = [(file.size, file.mebibytes) for file in PUBLISHED_FILES if file.size and file.mebibytes]
    assert len(sizes) == 2
    assert all(round(size / 2**20, 1) in (mib, round(mib + 0.1, 1)) for size, mib in sizes)
    total = sum(file.mebibytes or 0 for file in PUBLISHED_FILES if file.what == "microarray")
    assert total / 1024 == pytest.approx(1.57, abs=0.01)


@pytest.mark.parametrize(
    ("base_url", "check_sizes", "size"),
    [
        (ALLEN_SERVER, None, 425_988_059),
        (f"{ALLEN_SERVER}/", None, 425_988_059),
        (ALLEN_SERVER, False, None),
        ("https://mirror.example/ahba", None, None),
        ("https://mirror.example/ahba", True, 425_988_059),
    ],
)
def test_exact_sizes_hold_for_the_original_server_only(
    base_url: str, check_sizes: bool | None, size: int | None, tmp_path: Path
) -> None:
    (download,) = plan(tmp_path, donors=["9861"], base_url=base_url, check_sizes=check_sizes)
    assert download.size == size
    assert download.approximate_size == round(406.2 * 2**20)
    assert download.url.startswith(f"{base_url.rstrip('/')}/api/")


def test_donors_go_by_number_or_name_and_come_once(tmp_path: Path) -> None:
    downloads = plan(tmp_path, donors=["H0351.1016", "9861", "15697"])
    assert [download.donor for download in downloads] == ["9861", "15697"]
    assert [download.donor for download in plan(tmp_path, donors="H0351.1009")] == ["12876"]


def test_all_donors_of_rnaseq_are_two(tmp_path: Path) -> None:
    assert [download.donor for download in plan(tmp_path, what=["rnaseq"])] == ["9861", "10021"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"donors": ["9861", "12876"], "what": ["microarray", "rnaseq"]},
            "No rnaseq .* 12876, only for 9861, 10021",
        ),
        ({"donors": ["9681"]}, "Unknown donors 9681: choose from 9861, H0351.2001"),
        ({"donors": []}, "No donors named: choose from"),
        ({"what": ["mircoarray"]}, "choose from microarray, rnaseq, mri"),
        ({"what": []}, "choose from microarray"),
        ({"base_url": "human.brain-map.org"}, "is not a server: give one like 'https://human"),
        ({"base_url": "ftp://human.brain-map.org"}, "is not a server"),
        ({"base_url": "https://mirror.example/?x=1"}, "is not a server"),
        ({"retries": -1}, "must be 0 or more"),
        ({"timeout": 0}, "timeout more than 0"),
    ],
)
def test_impossible_wishes_are_refused(choices: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        fetch(tmp_path / "new", **choices)
    assert not (tmp_path / "new").exists()


def test_a_password_in_the_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="netrc") as caught:
        plan(tmp_path, base_url="https://me:secret@mirror.example")
    assert "secret" not in str(caught.value)


def test_a_size_is_compared_only_where_the_exact_one_is_known(tmp_path: Path) -> None:
    sized, other = plan(tmp_path, donors=["9861", "12876"])
    sized.check_size(425_988_059)
    other.check_size(1)
    with pytest.raises(RefusedError, match=r"has 1 bytes, the published one 425,988,059: .*--no-size-check"):
        sized.check_size(1)
