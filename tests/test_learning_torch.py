"""The feed in PyTorch: the same batches with any number of workers, however they were started."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

import lake
from lake.errors import RequestError
from tests.learning import rows_of, same_batches

torch = pytest.importorskip("torch", reason="PyTorch is an extra; `make test` installs it")

TIMEOUT = 120  # s: a worker that hangs is an error


@pytest.fixture(scope="module", params=["in memory", "on disk"])
def feed(request: pytest.FixtureRequest, small_lake: lake.Lake) -> lake.Feed:
    memory = 0 if request.param == "on disk" else 1 << 30
    return lake.feed(small_lake.everything(), batch_size=16, block_size=8, memory=memory)


def epochs(feed: lake.Feed, workers: int, method: str) -> list[list[tuple[object, ...]]]:
    """Two epochs, by the same workers; the feed was read here before, as it is where models are tried out."""
    next(feed.epoch(0))
    options = {"multiprocessing_context": method, "persistent_workers": True, "timeout": TIMEOUT}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        loader = feed.loader(num_workers=workers, **(options if workers else {}))
        return [list(loader), list(loader)]


def test_without_workers_it_is_the_feed_itself(feed: lake.Feed) -> None:
    for number, batches in enumerate(epochs(feed, 0, "")):
        assert same_batches(batches, feed.epoch(number))
        assert sorted(rows_of(batches)) == list(range(220))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_make_no_difference(workers: int, method: str, feed: lake.Feed) -> None:
    scaled = feed.scaled(feed.fit_scaling())
    for number, batches in enumerate(epochs(scaled, workers, method)):
        assert same_batches(batches, scaled.epoch(number))


def test_ranks_share_every_row(feed: lake.Feed) -> None:
    shares = [rows_of(feed.shard(rank, 3).loader()) for rank in range(3)]
    assert sorted(row for share in shares for row in share) == list(range(220))
    loaders = [feed.shard(rank, 3).loader() for rank in range(3)]
    assert len({len(loader) for loader in loaders}) == 1


def test_labels_are_tensors(feed: lake.Feed) -> None:
    batch = next(iter(feed.loader()))
    donors = feed.rows["donor"].to_numpy(object)
    assert batch.expression.dtype == batch.labels["coordinates"].dtype == torch.float32
    assert [feed.classes["donor"][code] for code in batch.labels["donor"]] == donors[batch.rows].tolist()
    train, test = feed.split_by_donor("9861")
    assert train.classes == test.classes == feed.classes


def test_epochs_follow_or_are_chosen(feed: lake.Feed) -> None:
    loader = feed.loader()
    first, second = rows_of(loader), rows_of(loader)
    assert first != second
    loader.batch_sampler.set_epoch(1)
    assert rows_of(loader) == second
    assert rows_of(loader) == rows_of(feed.epoch(2))


def test_a_split_counts_its_own_rows(feed: lake.Feed, small_lake: lake.Lake) -> None:
    _, test = feed.split_by_donor("10021")
    dataset = test.loader().dataset
    assert len(dataset) == small_lake.sample_counts["10021"]
    values = small_lake.microarray()["expression"].to_numpy().T[test.index].astype(np.float32)
    np.testing.assert_array_equal(dataset[5].expression.numpy(), values[5])
    several = dataset.__getitems__([7, 3, 3])
    np.testing.assert_array_equal(several.expression.numpy(), values[[7, 3, 3]])
    assert several.rows.tolist() == test.index[[7, 3, 3]].tolist()


def test_one_read_a_batch(small_lake: lake.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = lake.feed(small_lake.everything(), memory=0, batch_size=32, block_size=16)
    matrix, reads = feed.reader.matrix, []
    counted = type(matrix).read
    monkeypatch.setattr(type(matrix), "read", lambda self, places: reads.append(1) or counted(self, places))
    assert len(list(feed.loader())) == len(reads) == 7


def test_no_open_file_goes_to_a_worker(small_lake: lake.Lake) -> None:
    feed = lake.feed(small_lake.everything(), memory=0)
    next(feed.epoch())
    sent = pickle.dumps(feed.loader().dataset)
    again = pickle.loads(sent)  # noqa: S301 - our own
    assert len(sent) < 50_000
    assert torch.equal(again[3].expression, feed.loader().dataset[3].expression)
    del again
    assert Path(feed.reader.matrix.path).exists()


def test_absence_is_said(feed: lake.Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lake.learning.optional.find_spec", lambda _name: None)
    with pytest.raises(RequestError, match=r"pip install 'ahba-lake\[torch\]'"):
        feed.loader()
    with pytest.raises(RequestError, match=r"pip install 'ahba-lake\[anndata\]'"):
        lake.to_anndata(feed.observations)
