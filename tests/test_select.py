"""Probe selection against the recorded choices of abagen, and against a plain transcription gene by gene."""

import importlib.util
import itertools
import json
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from transforms.errors import ChoiceError
from transforms.probes import gene_expression
from transforms.rank_correlation import spearman
from transforms.scoring import split_into_blocks
from transforms.select import choose_probes, probe_scores, select_probes
from transforms.selections import ABAGEN_SELECTIONS, DONOR_PROBES, SELECTIONS
from transforms.stability import StructureMeans, diff_stability

DATA = Path(__file__).parent / "data"
RECORDED = json.loads((DATA / "abagen_selection.json").read_text())
SCORING = sorted(name for name, method in ABAGEN_SELECTIONS.items() if method.score)


def load_recorder():
    spec = importlib.util.spec_from_file_location(
        "record_abagen_selection", DATA / "record_abagen_selection.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORDER = load_recorder()


class Invented:
    """The recorder's data as the transforms see them: a lazy array in some store order, and tables."""

    def __init__(self, *, donors=RECORDER.DONORS, store_order=None, chunks=(64, 40)):
        self.by_id, self.expression_of, annotation, rnaseq = RECORDER.invent()
        order = self.by_id["gene_symbol"].argsort(kind="stable") if store_order is None else store_order
        self.by_id["row"] = np.argsort(np.asarray(order))
        values = np.hstack([self.expression_of[donor] for donor in donors])[np.asarray(order)]
        self.expression = xr.DataArray(da.from_array(values, chunks=chunks), dims=("probe", "sample"))
        self.samples = self.sample_table(donors, annotation)
        self.rnaseq = {donor: table.T.groupby(level=0).mean().T for donor, table in rnaseq.items()}

    def sample_table(self, donors, annotation):
        tables, first_column = [], 0
        for donor in donors:
            table = annotation[donor].reset_index()
            table["column"] = first_column + table.pop("sample_id") - 1
            tables.append(table.assign(donor=donor))
            first_column += self.expression_of[donor].shape[1]
        return pd.concat(tables, ignore_index=True)

    def probes(self, order="reannotated"):
        return RECORDER.orders(self.by_id)[order].reset_index()

    def select(self, method, mode="aggregate", order="reannotated", **options):
        return select_probes(
            self.expression,
            self.probes(order),
            self.samples,
            probe_selection=method,
            donor_probes=mode,
            rnaseq=self.rnaseq,
            **options,
        )

    def scores(self, method, mode="aggregate", **options):
        return probe_scores(
            self.expression,
            self.probes(),
            self.samples,
            probe_selection=method,
            donor_probes=mode,
            rnaseq=self.rnaseq,
            **options,
        )


INVENTED = Invented()


# The choices ----------------------------------------------------------------------------------------


def codes(invented, selection, table):
    """Our choices, written as the recorder writes abagen's."""
    id_of_row = invented.by_id.reset_index().set_index("row")["probe_id"]
    chosen = {
        donor: dict(zip(selection.genes["gene_symbol"], id_of_row[rows], strict=True))
        for donor, rows in selection.rows.items()
    }
    ids = {symbol: sorted(own["probe_id"]) for symbol, own in table.groupby("gene_symbol")}
    return {
        donor: "".join(str(ids[gene].index(own[gene])) if gene in own else "-" for gene in sorted(ids))
        for donor, own in chosen.items()
    }


@pytest.mark.parametrize("key", [key for key in RECORDED if "/average/" not in key])
def test_choices_are_those_of_abagen(key):
    order, method, mode = key.split("/")
    selection = INVENTED.select(method, mode, order)
    assert codes(INVENTED, selection, INVENTED.probes(order)) == RECORDED[key]


@pytest.mark.parametrize("key", [key for key in RECORDED if "/average/" in key])
def test_averages_are_those_of_abagen(key):
    order, method, mode = key.split("/")
    selection = INVENTED.select(method, mode, order)
    for donor, (n_genes, sum_of_squares) in RECORDED[key].items():
        columns = INVENTED.samples.query("donor == @donor")["column"].to_numpy()
        values = gene_expression(INVENTED.expression, selection, donor, columns).to_numpy()
        assert len(values) == n_genes
        assert np.sum(values**2) == pytest.approx(sum_of_squares, rel=1e-10)


def test_every_method_and_mode_is_recorded():
    recorded = {tuple(key.split("/")[1:]) for key in RECORDED}
    assert recorded == set(itertools.product(set(ABAGEN_SELECTIONS) - {"mean"}, DONOR_PROBES))
    assert SELECTIONS["mean"] is SELECTIONS["average"]


# The scores, from the reference page ----------------------------------------------------------------


def per_gene(score_gene):
    """A scorer of one gene's block (two or more probes), applied gene by gene; a lone probe gets NaN."""

    def score(values, symbols, samples, rnaseq):
        scores = np.full(len(values), np.nan)
        for symbol in set(symbols):
            rows = np.flatnonzero(symbols == symbol)
            if len(rows) > 1:
                scores[rows] = score_gene(values[rows])
        return scores

    return score


def first_component(block):
    _, _, right = np.linalg.svd(block - block.mean(axis=0), full_matrices=False)
    vector = right[0]
    if vector[np.argmax(np.abs(vector))] < 0:
        vector = -vector
    return (block - block.mean(axis=0)) @ vector


def agreement(of_two):
    def score_gene(block):
        if len(block) == 2:
            return [of_two(row) for row in block]
        with np.errstate(invalid="ignore"):
            return [np.mean([(np.corrcoef(one, other)[0, 1] + 1) / 2 for other in block]) for one in block]

    return score_gene


def profiles(values, samples, donor):
    own = (samples["donor"] == donor).to_numpy()
    table = pd.DataFrame(values[:, own].T)
    return table.groupby(samples.loc[own, "structure_id"].to_numpy()).mean()


def spearman_of(one, other):
    shared = one.index.intersection(other.index)
    return one.loc[shared].rank().corrwith(other.loc[shared].rank())


def differential_stability(values, symbols, samples, rnaseq):
    means = [profiles(values, samples, donor) for donor in samples["donor"].unique()]
    pairs = [spearman_of(one, other).to_numpy() for one, other in itertools.combinations(means, 2)]
    return np.mean(pairs, axis=0)


def rnaseq_agreement(values, symbols, samples, rnaseq):
    found = pd.DataFrame(index=range(len(values)))
    for donor, table in rnaseq.items():
        means = profiles(values, samples, donor)
        varying = table[table.std(axis=1) > 1e-8]
        for probe, symbol in enumerate(symbols):
            if symbol in varying.index:
                found.loc[probe, donor] = spearman_of(
                    means[[probe]], varying.loc[[symbol]].T.set_axis([probe], axis=1)
                )[probe]
    return found.mean(axis=1).to_numpy()


TRANSCRIBED = {
    "max_intensity": lambda values, *_: pd.DataFrame(values).mean(axis=1).to_numpy(),
    "max_variance": lambda values, *_: pd.DataFrame(values).std(axis=1).to_numpy(),
    "pc_loading": per_gene(first_component),
    "corr_intensity": per_gene(agreement(np.mean)),
    "corr_variance": per_gene(agreement(np.std)),
    "diff_stability": differential_stability,
    "rnaseq": rnaseq_agreement,
}
LONE_PROBE = {"pc_loading": 0.0, "corr_intensity": 1.0, "corr_variance": 1.0}


@pytest.mark.filterwarnings("ignore:.*divide")
@pytest.mark.parametrize("mode", ["aggregate", "independent"])
@pytest.mark.parametrize("method", SCORING)
def test_scores_are_those_of_the_reference_page(method, mode):
    scores = INVENTED.scores(method, mode).compute()
    probes, samples = INVENTED.probes(), INVENTED.samples
    values = INVENTED.expression.to_numpy()[probes["row"]][:, samples["column"]]
    symbols = probes["gene_symbol"].to_numpy(dtype=object)
    lone = probes.groupby("gene_symbol")["probe_id"].transform("size").to_numpy() == 1
    for pool in scores["pool"].to_numpy():
        own = np.full(len(samples), True) if pool == "all" else (samples["donor"] == pool).to_numpy()
        expected = TRANSCRIBED[method](values[:, own], symbols, samples[own], INVENTED.rnaseq)
        if method in LONE_PROBE:
            expected[lone] = LONE_PROBE[method]
        np.testing.assert_allclose(scores.sel(pool=pool), expected, rtol=1e-10, atol=1e-10)


def test_which_methods_pool_donors():
    pooled = {name for name in SCORING if INVENTED.scores(name, "independent").sizes["pool"] == 1}
    assert pooled == {"diff_stability", "rnaseq"}


# Laziness and independence --------------------------------------------------------------------------


def forbid_compute(*args, **kwargs):
    raise AssertionError("something was computed while a graph was being built")


@pytest.mark.parametrize("method", SCORING)
def test_building_scores_computes_nothing(method):
    with dask.config.set(scheduler=forbid_compute):
        scores = INVENTED.scores(method, "independent", probes_per_block=50)
        assert isinstance(scores.data, da.Array)


@pytest.mark.parametrize("mode", DONOR_PROBES)
def test_averaging_reads_nothing(mode):
    with dask.config.set(scheduler=forbid_compute):
        selection = INVENTED.select("average", mode)
    assert selection.genes["score"].isna().all()
    assert selection.starts[-1] == len(INVENTED.by_id)


def test_only_the_chunks_of_the_probes_and_samples_are_read():
    read = []

    def load(block_info=None):
        read.append(block_info[None]["chunk-location"])
        return np.arange(100.0).reshape(10, 10)

    blocks = da.map_blocks(load, chunks=((10,) * 9, (10,) * 3), dtype=float, meta=np.empty((0, 0)))
    expression = xr.DataArray(blocks, dims=("probe", "sample"))
    probes = pd.DataFrame({"probe_id": [1, 2, 3], "gene_symbol": ["A", "B", "A"], "row": [45, 12, 49]})
    samples = pd.DataFrame({"donor": ["d", "d"], "structure_id": [1, 2], "column": [3, 25]})
    probe_scores(
        expression,
        probes,
        samples,
        probe_selection="max_intensity",
        donor_probes="aggregate",
        probes_per_block=2,
    ).compute(scheduler="synchronous")
    assert sorted(read) == [(1, 0), (1, 2), (4, 0), (4, 2)]


@settings(deadline=None)
@given(st.data())
def test_blocks_hold_whole_genes_of_neighbours_and_no_more_than_they_should(data):
    units = np.array(data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=60)))
    rows = np.array(data.draw(st.permutations(range(len(units)))))
    size = data.draw(st.integers(1, 70))
    chunks = data.draw(st.lists(st.integers(1, 30), max_size=5))
    blocks = split_into_blocks(units, rows, size, chunks=chunks)
    assert sorted(np.concatenate(blocks)) == list(range(len(units)))
    firsts = [[rows[units == units[probe]].min() for probe in block] for block in blocks]
    assert list(itertools.chain(*firsts)) == sorted(itertools.chain(*firsts))
    for block, others in zip(blocks, [*blocks[1:], []], strict=True):
        assert not set(units[block]) & set(units[np.array(others, dtype=int)])
        assert len(block) < size + np.bincount(units).max()
        assert all(np.all(np.diff(block[units[block] == unit]) > 0) for unit in set(units[block]))
    assert len(blocks) <= len(units) // size + 1 + len(chunks)
    chunk_of = np.repeat(np.arange(len(chunks) + 1), [*chunks, len(units)])
    for own in firsts:
        assert len(set(chunk_of[own])) == 1


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_neither_block_size_nor_store_order_nor_chunks_change_a_choice(data):
    method = data.draw(st.sampled_from(SCORING))
    mode = data.draw(st.sampled_from(DONOR_PROBES))
    seed = data.draw(st.integers(0, 2**32))
    shuffled = Invented(
        store_order=np.random.default_rng(seed).permutation(len(INVENTED.by_id)),
        chunks=(data.draw(st.integers(20, 400)), data.draw(st.integers(50, 400))),
    )
    block = data.draw(st.integers(1, 400))
    ours = shuffled.select(method, mode, probes_per_block=block)
    reference = INVENTED.select(method, mode)
    pd.testing.assert_frame_equal(ours.genes, reference.genes, rtol=1e-12)
    for donor, rows in reference.rows.items():
        found = shuffled.by_id.reset_index().set_index("row")["probe_id"][ours.rows[donor]]
        expected = INVENTED.by_id.reset_index().set_index("row")["probe_id"][rows]
        assert found.tolist() == expected.tolist()


def test_a_row_correlates_to_the_last_bit_the_same_alone_and_in_a_block():
    """Probes whose scores are equal but for rounding are chosen between by the last bit."""
    one, other = np.random.default_rng(0).integers(0, 30, (2, 200, 47)).astype(float)
    alone = [spearman(one[row : row + 1], other[row : row + 1]) for row in range(len(one))]
    np.testing.assert_array_equal(spearman(one, other), np.concatenate(alone))


@pytest.mark.parametrize("mode", DONOR_PROBES)
@pytest.mark.parametrize("method", SCORING)
def test_the_order_of_donors_changes_nothing(method, mode):
    reversed_donors = Invented(donors=RECORDER.DONORS[::-1])
    ours, reference = reversed_donors.select(method, mode), INVENTED.select(method, mode)
    pd.testing.assert_frame_equal(ours.genes, reference.genes, rtol=1e-12)
    assert list(ours.rows) == list(reference.rows)[::-1]
    for donor, rows in reference.rows.items():
        np.testing.assert_array_equal(ours.rows[donor], rows)


# Choosing -------------------------------------------------------------------------------------------


def choose(scores, symbols, *, method="max_variance", mode="aggregate", ids=None):
    """Choose from written-out scores, one column a donor (a, b, ...) or one for all."""
    scores = np.asarray(scores, dtype=float)
    pools = ["all"] if scores.shape[1] == 1 else list("abcdefg"[: scores.shape[1]])
    probes = pd.DataFrame(
        {
            "probe_id": np.arange(len(symbols)) if ids is None else ids,
            "gene_symbol": list(symbols),
            "entrez_id": 7,
            "row": np.arange(len(symbols)) + 100,
        }
    )
    array = xr.DataArray(scores, dims=("probe", "pool"), coords={"pool": pools})
    donors = list("ab") if pools == ["all"] else pools
    return choose_probes(array, probes, donors, probe_selection=method, donor_probes=mode)


def test_equal_scores_go_to_the_first_in_the_tables_order():
    selection = choose([[1], [1], [2], [2]], "BBAA", ids=[9, 1, 8, 2])
    assert selection.genes["gene_symbol"].tolist() == ["A", "B"]
    assert selection.genes["probe_id"].tolist() == [8, 9]
    assert selection.genes["n_probes"].tolist() == [2, 2]
    assert selection.starts.tolist() == [0, 1, 2]
    assert {donor: rows.tolist() for donor, rows in selection.rows.items()} == {
        "a": [102, 100],
        "b": [102, 100],
    }


def test_undefined_scores_lose_and_a_gene_of_them_is_dropped():
    selection = choose([[np.nan], [-5], [np.nan], [np.nan]], "AABB")
    assert selection.genes["gene_symbol"].tolist() == ["A"]
    assert selection.genes["probe_id"].tolist() == [1]
    assert selection.genes["score"].tolist() == [-5]


def test_methods_that_keep_undefined_genes_take_their_first_probe():
    selection = choose([[np.nan], [np.nan], [1], [2]], "AABB", method="corr_variance")
    assert selection.genes["probe_id"].tolist() == [0, 3]


def test_symbols_sort_as_plain_strings():
    selection = choose([[1], [1], [1], [1]], ["b", "B", "A10", "A9"])
    assert selection.genes["gene_symbol"].tolist() == ["A10", "A9", "B", "b"]


def test_common_choice_is_the_most_frequent_and_of_several_the_smallest_id():
    votes = [[1, 0, 0, 1], [0, 1, 1, 0], [3, 0, 1, 0], [0, 3, 0, 0], [1, 1, 3, 3]]
    selection = choose(votes, "AABBB", mode="common", ids=[5, 4, 1, 3, 2])
    assert selection.genes["probe_id"].tolist() == [4, 2]
    assert selection.genes["score"].tolist() == [0.5, 2.0]
    assert all(rows.tolist() == [101, 104] for rows in selection.rows.values())


def test_only_donors_that_could_choose_vote():
    votes = [[np.nan, 1, np.nan], [np.nan, 0, np.nan], [1, np.nan, 1]]
    selection = choose(votes, "AAB", mode="common", ids=[5, 4, 1])
    assert selection.genes["probe_id"].tolist() == [5, 1]


def test_independent_choices_differ_and_need_every_donor():
    votes = [[1, 0], [0, 1], [5, 5], [np.nan, 2]]
    selection = choose(votes, "AABC", mode="independent")
    assert selection.genes["gene_symbol"].tolist() == ["A", "B"]
    assert selection.genes["probe_id"].tolist() == [-1, 2]
    assert {donor: rows.tolist() for donor, rows in selection.rows.items()} == {
        "a": [100, 102],
        "b": [101, 102],
    }


def test_no_gene_left_is_an_error():
    with pytest.raises(ChoiceError, match="'max_variance' is undefined for every gene"):
        choose([[np.nan]], "A")


def test_one_sample_has_no_variance():
    one = Invented(donors=("9861",))
    one.samples = one.samples.iloc[:1]
    with pytest.raises(ChoiceError, match="undefined for every gene"):
        one.select("max_variance")
    assert len(one.select("corr_variance").genes) == RECORDER.N_GENES


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"method": "max_mean"}, "probe_selection 'max_mean' is unknown: choose one of average, mean"),
        ({"method": "average", "mode": "each"}, "donor_probes 'each' is unknown: choose one of aggregate"),
        ({"method": "max_variance", "mode": "each"}, "donor_probes 'each' is unknown"),
    ],
)
def test_unknown_choices_are_named(choices, message):
    with pytest.raises(ChoiceError, match=message):
        INVENTED.select(**choices)


def test_scores_of_an_average_do_not_exist():
    with pytest.raises(ChoiceError, match="'mean' scores no probe"):
        INVENTED.scores("mean")


def test_stability_needs_two_donors():
    with pytest.raises(ChoiceError, match="needs 2 or more, not 1"):
        Invented(donors=("9861",)).select("diff_stability")


def test_rnaseq_needs_a_donor_with_rnaseq():
    without = Invented(donors=("12876", "15496"))
    with pytest.raises(ChoiceError, match="donors 12876, 15496, and there is that of 9861, 10021"):
        without.select("rnaseq")
    without.rnaseq = None
    with pytest.raises(ChoiceError, match="and there is none"):
        without.select("rnaseq")


# Stability ------------------------------------------------------------------------------------------


def sample_table(**structures_of_donors):
    tables = [
        pd.DataFrame({"donor": donor, "structure_id": structures})
        for donor, structures in structures_of_donors.items()
    ]
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_stability_of_more_donors_than_fit_one_word(decimals):
    random = np.random.default_rng(5)
    samples = sample_table(**{f"d{n}": random.choice(300, 280) for n in range(12)})
    values = random.normal(size=(150, len(samples))).round(decimals)
    genes = np.zeros(len(values))
    expected = differential_stability(values, genes, samples, None)
    np.testing.assert_allclose(diff_stability(values, genes, samples), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("other", [[4, 5, 6], [3, 4, 5]])
def test_stability_is_undefined_with_fewer_than_two_shared_structures(other):
    samples = sample_table(a=[1, 2, 3], b=[1, 2, 3], c=other)
    values = np.random.default_rng(0).normal(size=(4, len(samples)))
    assert np.isnan(diff_stability(values, np.arange(4), samples)).all()


def test_stability_is_undefined_for_constant_and_incomplete_profiles():
    samples = sample_table(a=[1, 2, 3, 4], b=[4, 3, 2, 1])
    values = np.array([[1.0, 2, 3, 4, 4, 3, 2, 1], [1, 2, 3, 4, 5, 5, 5, 5], [1, 2, 3, np.nan, 1, 2, 3, 4]])
    np.testing.assert_allclose(diff_stability(values, np.arange(3), samples), [1, np.nan, np.nan], rtol=1e-14)


def test_structure_means_are_those_of_pandas_to_the_last_bit():
    random = np.random.default_rng(1)
    structures = random.choice(20, 200)
    values = random.normal(7, 2, size=(50, 210))
    numbers = random.permutation(210)[:200]
    means = StructureMeans.of(structures, numbers)
    expected = pd.DataFrame(values[:, numbers].T).groupby(structures).mean()
    np.testing.assert_array_equal(means.structures, expected.index)
    np.testing.assert_array_equal(means(values), expected.T)


def test_spearman_is_scipys():
    random = np.random.default_rng(2)
    one, other = random.integers(0, 9, size=(2, 30, 12)).astype(float)
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(one, other, strict=True)]
    np.testing.assert_allclose(spearman(one, other), expected, rtol=1e-12, atol=1e-14)
