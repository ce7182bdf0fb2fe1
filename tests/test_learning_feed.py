"""The feed: every sample once, in an order of its own, wherever the rows lie."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lake
from lake.errors import DamageError, RequestError
from lake.learning.aside import HOST, folder_aside
from lake.learning.order import epoch_batches, epoch_order, laid_order, shuffled
from tests.learning import published_values, rows_of, same_batches
from transforms.errors import ChoiceError

QUICK = settings(deadline=None, max_examples=60)


# ---------------------------------------------------------------- the order


@QUICK
@given(
    n=st.integers(1, 200),
    block=st.integers(1, 50),
    batch=st.integers(1, 70),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_ranks_share_every_row_once_in_equally_many_batches(
    n: int, block: int, batch: int, seed: int, data: st.DataObject
) -> None:
    places = np.array(sorted(data.draw(st.sets(st.integers(0, 300), min_size=n, max_size=n))))
    world = data.draw(st.integers(1, n))
    order = epoch_order(places, block, seeds=(seed, 3))
    shares = [epoch_batches(order, batch, rank=rank, world_size=world) for rank in range(world)]
    assert Counter(np.concatenate([np.concatenate(share) for share in shares]).tolist()) == Counter(
        places.tolist()
    )
    sizes = [sum(map(len, share)) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert all(0 < len(one) <= batch for share in shares for one in share)
    if batch > 1:
        assert len({len(share) for share in shares}) == 1
    if world == 1:
        assert all(len(one) == batch for one in shares[0][:-1])


@QUICK
@given(n=st.integers(2, 300), block=st.integers(1, 40), seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_blocks_stay_together_and_short_ones_come_last(n: int, block: int, seed: int, epoch: int) -> None:
    order = epoch_order(np.arange(n), block, seeds=(seed, epoch))
    blocks = order // block
    starts = np.flatnonzero(np.r_[True, np.diff(blocks) != 0])
    assert len(starts) == len(np.unique(blocks))
    assert (np.diff(order)[np.diff(blocks) == 0] == 1).all()
    assert blocks[-1] == n // block or n % block == 0


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    """The numbers themselves: another NumPy, or another machine, gives the same."""
    assert shuffled(8, 0).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    places = np.arange(1000)
    orders = {
        (seed, epoch): tuple(epoch_order(places, 10, seeds=(seed, epoch)).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(orders.values())) == 9
    assert sorted(laid_order(1000).tolist()) == places.tolist()
    assert laid_order(1000).tolist() != places.tolist()


# ---------------------------------------------------------------- batches


def test_batches_hold_what_the_store_holds(feed_on_disk: lake.Feed, small_lake: lake.Lake) -> None:
    expected = published_values(small_lake).astype(np.float32)
    batches = list(feed_on_disk.epoch(0))
    assert [len(batch.rows) for batch in batches] == [64, 64, 64, 28]
    assert sorted(rows_of(batches)) == list(range(220))
    samples = small_lake.samples
    for batch in batches:
        assert batch.expression.dtype == np.float32
        np.testing.assert_array_equal(batch.expression, expected[batch.rows])
        np.testing.assert_array_equal(batch.labels["donor"], samples["donor"].to_numpy(object)[batch.rows])
        corrected = samples[["corrected_mni_x", "corrected_mni_y", "corrected_mni_z"]].to_numpy()
        np.testing.assert_array_equal(batch.labels["coordinates"], corrected[batch.rows])
    assert feed_on_disk.names.tolist() == small_lake.probes["probe_id"].astype(str).tolist()


def test_epochs_differ_and_repeat(feed_on_disk: lake.Feed) -> None:
    first, second = rows_of(feed_on_disk.epoch(0)), rows_of(feed_on_disk.epoch(1))
    assert first != second
    assert sorted(first) == sorted(second)
    assert rows_of(feed_on_disk.epoch(0)) == first


@pytest.mark.parametrize("sizes", [(64, 32), (50, 32), (1, 8), (7, 13), (300, 32), (220, 500)])
def test_where_the_rows_lie_makes_no_difference(small_lake: lake.Lake, sizes: tuple[int, int]) -> None:
    batch, block = sizes
    choices: dict[str, Any] = {"batch_size": batch, "block_size": block, "dtype": "float64", "seed": 5}
    on_disk = lake.feed(small_lake.everything(), memory=0, **choices)
    in_memory = lake.feed(small_lake.everything(), **choices)
    assert type(on_disk.reader.matrix) is not type(in_memory.reader.matrix)
    for one, other in ((on_disk, in_memory), (on_disk.shard(1, 3), in_memory.shard(1, 3))):
        assert same_batches(one.epoch(2), other.epoch(2))
    held = [feed.split_by_donor("10021")[1] for feed in (on_disk, in_memory)]
    assert same_batches(held[0].epoch(1), held[1].epoch(1))


def test_without_a_seed_rows_come_as_they_lie(small_lake: lake.Lake) -> None:
    feed = lake.feed(small_lake.gene("GFAP"), seed=None)
    assert rows_of(feed.epoch(0)) == rows_of(feed.epoch(7)) == laid_order(220).tolist()


def test_one_value_a_gene_is_the_pipelines_choice(small_lake: lake.Lake) -> None:
    pipeline = lake.Pipeline(probe_selection="max_intensity", donors=("9861", "10021"))
    feed = lake.feed(small_lake, pipeline=pipeline, dtype="float64")
    chosen = small_lake.everything().of_donors(["9861", "10021"]).per_gene(pipeline)
    assert feed.shape == chosen.shape[::-1]
    assert feed.names.tolist() == chosen.probes["gene_symbol"].tolist()
    for batch in feed.epoch(0):
        np.testing.assert_array_equal(batch.expression, chosen.read().T[batch.rows])
    assert feed.observations.provenance["parameters"]["probe_selection"] == "max_intensity"


def test_shards_are_disjoint_and_together_everything(feed_on_disk: lake.Feed) -> None:
    shards = [feed_on_disk.shard(rank, 3) for rank in range(3)]
    rows = [rows_of(shard.epoch(4)) for shard in shards]
    assert Counter(row for share in rows for row in share) == Counter(range(220))
    assert [shard.n_batches for shard in shards] == [2, 2, 2]
    with pytest.raises(RequestError, match="count from 0"):
        feed_on_disk.shard(3, 3)
    with pytest.raises(RequestError, match="too few for 221"):
        feed_on_disk.shard(0, 221)


def test_bytes_of_the_copy_are_always_the_same(small_lake: lake.Lake, tmp_path: Path) -> None:
    def copy(folder: Path) -> dict[str, bytes]:
        lake.feed(small_lake.gene("GFAP"), memory=0, cache=folder)
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    first, second = copy(tmp_path / "a"), copy(tmp_path / "b")
    assert first == second
    assert len({name.split("/")[0] for name in first}) == 1
    assert not any("scratch" in name or ".wip" in name for name in first)


def test_a_kept_copy_is_found_again_and_told_apart(small_lake: lake.Lake, tmp_path: Path) -> None:
    def feed(question: lake.Selection, **choices: Any) -> lake.Feed:
        return lake.feed(question, memory=0, cache=tmp_path, **choices)

    feed(small_lake.gene("GFAP"))
    (copy,) = tmp_path.iterdir()
    written = (copy / "expression" / "zarr.json").stat().st_mtime_ns
    feed(small_lake.gene("GFAP"), labels=["well_id"], batch_size=5, seed=9)
    assert (copy / "expression" / "zarr.json").stat().st_mtime_ns == written
    for n, (question, choices) in enumerate(
        [
            (small_lake.gene("MBP"), {}),
            (small_lake.gene("GFAP", donors="9861"), {}),
            (small_lake.gene("GFAP").per_gene(), {}),
            (small_lake.gene("GFAP"), {"dtype": "float64"}),
            (small_lake.gene("GFAP"), {"block_size": 8}),
        ],
        start=2,
    ):
        feed(question, **choices)
        assert len(list(tmp_path.iterdir())) == n


def test_a_copy_that_fails_leaves_nothing(
    small_lake: lake.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object, **_choices: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("lake.learning.copying._write_rows", fails)
    with pytest.raises(OSError, match="No space"):
        lake.feed(small_lake.gene("GFAP"), memory=0, cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_copy_of_a_process_that_was_faster_stays(tmp_path: Path) -> None:
    with folder_aside(tmp_path / "copy") as aside:
        (aside / "mine").touch()
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / "theirs").touch()
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_what_killed_processes_left_is_cleared(small_lake: lake.Lake, tmp_path: Path) -> None:
    lake.feed(small_lake.gene("GFAP"), memory=0, cache=tmp_path)
    (copy,) = tmp_path.iterdir()
    left = tmp_path / f".{copy.name}.{HOST}.99999999.wip"
    elsewhere = tmp_path / f".{copy.name}.another-host.99999999.wip"  # whose processes are not known here
    left.mkdir()
    elsewhere.mkdir()
    copy.rename(tmp_path / "elsewhere")
    lake.feed(small_lake.gene("GFAP"), memory=0, cache=tmp_path)
    assert not left.exists()
    assert elsewhere.exists()


def test_a_copy_without_a_home_goes_with_the_feed(small_lake: lake.Lake) -> None:
    feed = lake.feed(small_lake.gene("GFAP"), memory=0)
    home = feed.reader.matrix.path.parent
    train = feed.split_by_donor("9861")[0]
    del feed
    assert home.exists()
    assert rows_of(train.epoch())
    del train
    assert not home.exists()


@pytest.mark.parametrize("harm", ["changed", "cut", "gone"])
def test_damage_is_an_error(harm: str, small_lake: lake.Lake, tmp_path: Path) -> None:
    feed = lake.feed(small_lake.everything(), memory=0, cache=tmp_path)
    chunk = next(tmp_path.glob("*/expression/c/3/0"))
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    changes = {"changed": lambda: chunk.write_bytes(content), "cut": lambda: chunk.write_bytes(content[:50])}
    changes.get(harm, chunk.unlink)()
    with pytest.raises(DamageError, match="expression"):
        list(feed.epoch(0))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"block_size": 1.5}, "block_size=1.5"),
        ({"dtype": "int8"}, "float32, float64"),
        ({"seed": -1}, "seed=-1"),
        ({"labels": ["age"]}, "no label 'age' of samples; choose of coordinates, donor"),
        ({"atlas": "dk"}, "regions= labels samples"),
        ({"pipeline": "abc"}, "names tables"),
    ],
)
def test_wrong_choices_are_refused(choices: dict[str, Any], message: str, small_lake: lake.Lake) -> None:
    with pytest.raises(RequestError, match=message):
        lake.feed(small_lake.gene("GFAP"), **choices)


# ---------------------------------------------------------------- what it takes


def run_python(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_other_library_is_imported(store_path: Path) -> None:
    code = """
import sys
import lake
feed = lake.feed(lake.open(sys.argv[1]).gene("GFAP"), memory=0)
next(feed.epoch(0))
lake.to_sklearn, lake.to_anndata, lake.to_huggingface
print(sorted({"torch", "anndata", "datasets", "sklearn"} & set(sys.modules)))
"""
    assert run_python(code, store_path).strip() == "[]"


MEMORY = """
import sys, re, pathlib
import numpy as np
from lake.learning.copying import on_disk
from lake.learning.aside import folder_aside
from lake.learning.order import epoch_batches, epoch_order, laid_order
from lake.learning.observations import features_at_once

rows, features = int(sys.argv[1]), 8000
def blocks():
    size = features_at_once(rows)
    for start in range(0, features, size):
        yield start, np.full((min(size, features - start), rows), float(start))

matrix = on_disk(blocks, laid_order(rows), features, "float32", path=pathlib.Path(sys.argv[2]), block_size=32)
read = 0
for batch in epoch_batches(epoch_order(np.arange(rows), 32, seeds=(0, 0)), 64):
    read += matrix.read(batch).nbytes
assert read == rows * features * 4
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak"
)
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Rows of 32 MB and of 260 MB are copied and fed in as much memory."""
    small, large = (float(run_python(MEMORY, rows, tmp_path / str(rows))) for rows in (1000, 8000))
    assert large - small < 60, (small, large)


def test_samples_without_corrected_coordinates(small_lake: lake.Lake) -> None:
    found = small_lake.gene("GFAP")
    samples = found.samples.assign(corrected_mni_x=np.nan)
    found.__dict__["samples"] = samples
    with pytest.raises(ChoiceError, match="corrected_mni=False"):
        lake.observations(found)
    assert lake.observations(found, corrected_mni=False).coordinates[0, 0] == samples["mni_x"].iloc[0]
