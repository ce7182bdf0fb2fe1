"""A small simulated data set and a store made of it, shared by all tests."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lake
from ingest.simulate import simulate
from lake.ingestion import ingest_directory
from tests.helpers import DONORS, octants, octants_image
from tests.http_server import Server, serve
from transforms.atlas import Atlas


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three donors in the published format: 400 probes; 95, 89 and 36 samples. Not to be changed."""
    directory = tmp_path_factory.mktemp("published")
    simulate(directory, probes=400, donors=DONORS, samples_scale=0.1)
    return directory


@pytest.fixture(scope="session")
def store_path(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the `published` donors. Not to be changed."""
    path = tmp_path_factory.mktemp("stores") / "small.zarr"
    ingest_directory(published, path)
    return path


@pytest.fixture(scope="session")
def small_lake(store_path: Path) -> lake.Lake:
    return lake.open(store_path)


@pytest.fixture(scope="session")
def atlas() -> Atlas:
    """Eight regions, quickly loaded."""
    return octants()


@pytest.fixture(scope="session")
def atlas_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same regions as a file named octants.nii.gz."""
    path = tmp_path_factory.mktemp("atlases") / "octants.nii.gz"
    octants_image().to_filename(path)
    return path


@pytest.fixture
def published_copy(published: Path, tmp_path: Path) -> Path:
    """The `published` donors, to be changed."""
    return Path(shutil.copytree(published, tmp_path / "published"))


@pytest.fixture
def store_copy(store_path: Path, tmp_path: Path) -> Path:
    """The store, to be changed."""
    return Path(shutil.copytree(store_path, tmp_path / "copy.zarr"))


@pytest.fixture
def only_donors(published: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a directory of some of the `published` donors, to be changed."""

    def make(*donors: str, name: str = "some") -> Path:
        for donor in donors:
            folder = f"normalized_microarray_donor{donor}"
            shutil.copytree(published / folder, tmp_path / name / folder)
        return tmp_path / name

    return make


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def server(running_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server on this machine that has nothing yet, asked without a proxy."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running_server.clear()
    return running_server
