"""Made-up probes and their made-up signal.

Names, symbols and Entrez ids of the probes that re-annotation keeps are the true ones (Arnatkeviciute et
al. 2019, NeuroImage 189:353), so that choices about probes meet a realistic number of probes a gene. The
probes that re-annotation drops, every description, and every expression value are invented: a gene is a
smooth field over (|x|, y, z) with a step at the border of structure classes, shared by the donors; a probe
sees its gene's field with a gain, a level and a noise of its own; a donor shifts each gene.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ingest.reference import reannotation
from ingest.simulated_anatomy import BoolArray, FloatArray, IntArray, Samples, fold

PUBLISHED_PROBES = 58_692
# Genes that are always there, with good probes, so that examples can ask for them.
MARKERS = ("SST", "PVALB", "GFAP", "MBP", "SNAP25")
# Expression is written as whole multiples of 1e-10.
DECIMALS = 10
MARK = "simulated"

_UNIT = 10**DECIMALS
# Deterministic parts are rounded to 1e-4, so that the last bits of a matrix product, which differ between
# machines, never reach a file.
_SIGNAL_UNIT = 10**4
_LOWEST, _HIGHEST = 1.4, 17.6

_FIRST_PROBE_ID = 1_058_001
_FIRST_OLD_ENTREZ_ID = 990_000_001
_CHROMOSOMES = (*(str(number) for number in range(1, 23)), "X", "Y", "MT", "")
# Of the genes that re-annotation keeps: Probes.csv knows another symbol and Entrez id, or none.
_RENAMED_SHARE, _UNNAMED_SHARE = 0.015, 0.015
# Of the probes that it drops: Probes.csv has the symbol of a kept gene, or of a retired one, or none.
_MISPLACED_SHARE, _RETIRED_SHARE = 0.45, 0.15

_N_WAVES, _WAVELENGTH_MM = 24, 45.0
_CLASSES = ("cortex", "subcortex/brainstem", "cerebellum", "white matter", "other")
# Quality of a probe: share, gain on the gene's field, sd of the noise (log2).
_QUALITIES = {
    "good": (0.62, 1.0, 0.25),
    "fair": (0.22, 0.6, 0.5),
    "noisy": (0.09, 0.1, 0.9),
    "off": (0.07, 0.0, 0.04),
}
_OFF_LEVEL = 2.2
_DONOR_GENE_SD, _SAMPLE_SD = 0.25, 0.1
_DETECTED_LEVEL, _DETECTED_SLOPE = 4.0, 0.45

# First parts of the seeds of the streams of random numbers, one a purpose (1 draws the samples).
_TABLE, _FIELD, _QUALITY, _DONOR, _BLOCK = 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Probes:
    """The simulated probes in the order of Probes.csv.

    Attributes
    ----------
    table : pandas.DataFrame
        Columns of Probes.csv; ``entrez_id`` is text, "" where there is none.
    gene : numpy.ndarray of int, shape (probe,)
        The gene whose signal the probe sees, whatever the table calls it.
    marker : numpy.ndarray of bool, shape (probe,)
        Whether that gene is one of `MARKERS`.
    """

    table: pd.DataFrame
    gene: IntArray
    marker: BoolArray


def simulated_probes(n_probes: int, seed: int) -> Probes:
    """Make up Probes.csv.

    Parameters
    ----------
    n_probes : int
        Number of probes; with fewer than the published 58,692, whole genes are left out.
    seed : int

    Returns
    -------
    Probes
    """
    random = np.random.default_rng([seed, _TABLE])
    kept = _whole_genes(round(n_probes * len(reannotation()) / PUBLISHED_PROBES), random)
    table = pd.concat(
        [_as_published(kept, random), _dropped(n_probes - len(kept), kept, random)], ignore_index=True
    )
    gene = np.concatenate([kept["gene"], kept["gene"].max() + 1 + np.arange(n_probes - len(kept))])
    marker = np.arange(n_probes) < kept["gene_symbol"].isin(MARKERS).sum()
    table.insert(0, "probe_id", _FIRST_PROBE_ID + random.permutation(n_probes))
    table.insert(2, "gene_id", 1 + np.unique(table["gene_symbol"], return_inverse=True)[1])
    table.insert(4, "gene_name", f"{MARK} gene, " + table["gene_symbol"])
    chromosomes = random.choice(np.array(_CHROMOSOMES, dtype=object), table["gene_id"].max() + 1)
    table["chromosome"] = chromosomes[table["gene_id"]]
    order = random.permutation(n_probes)
    return Probes(table.iloc[order].reset_index(drop=True), gene[order], marker[order])


def _whole_genes(n_probes: int, random: np.random.Generator) -> pd.DataFrame:
    """Re-annotated probes of as many whole genes as fit, the markers first; ``gene`` numbers the genes."""
    table = reannotation()
    sizes = table.groupby("gene_symbol").size()
    others = sizes.index.difference(pd.Index(MARKERS))
    first = [symbol for symbol in MARKERS if symbol in sizes.index]
    left = n_probes
    chosen: dict[str, int] = {}
    for symbol in [*first, *others[random.permutation(len(others))]]:
        if sizes[symbol] <= left:
            chosen[symbol] = len(chosen)
            left -= sizes[symbol]
    table = table.assign(gene=table["gene_symbol"].map(chosen)).dropna(subset="gene")
    return table.astype({"gene": "int64"}).sort_values("gene", kind="stable", ignore_index=True)


def _as_published(kept: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """What Probes.csv says of probes that re-annotation keeps: mostly the same, sometimes older names."""
    draw = random.random(kept["gene"].max() + 1)[kept["gene"]]
    draw[kept["gene_symbol"].isin(MARKERS)] = 1
    renamed = draw < _RENAMED_SHARE
    unnamed = ~renamed & (draw < _RENAMED_SHARE + _UNNAMED_SHARE)
    number = kept["gene"].to_numpy()
    symbol = np.where(renamed, _texts("SIM_OLD_{:06d}", 1 + number), kept["gene_symbol"])
    entrez_id = np.where(renamed, _FIRST_OLD_ENTREZ_ID + number, kept["entrez_id"]).astype(str)
    return pd.DataFrame(
        {
            "probe_name": kept["probe_name"].to_numpy(object),
            "gene_symbol": np.where(unnamed, kept["probe_name"], symbol),
            "entrez_id": np.where(unnamed, "", entrez_id),
        }
    )


def _dropped(n_probes: int, kept: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Invented probes, unknown to the re-annotation: some with a gene's name, some with none."""
    name = _texts("SIM_DROPPED_{:06d}", 1 + np.arange(n_probes))
    draw = random.random(n_probes)
    misplaced, retired = draw < _MISPLACED_SHARE, draw < _MISPLACED_SHARE + _RETIRED_SHARE
    like = kept.iloc[random.integers(len(kept), size=n_probes)]
    number = 500_000 + np.arange(n_probes)
    symbol = np.where(retired, _texts("SIM_OLD_{:06d}", number), name)
    entrez_id = np.where(retired, (_FIRST_OLD_ENTREZ_ID + number).astype(str), "")
    return pd.DataFrame(
        {
            "probe_name": name,
            "gene_symbol": np.where(misplaced, like["gene_symbol"], symbol),
            "entrez_id": np.where(misplaced, like["entrez_id"].astype(str), entrez_id),
        }
    )


def _texts(pattern: str, numbers: IntArray) -> NDArray[np.object_]:
    return np.array([pattern.format(number) for number in numbers.tolist()], dtype=object)


@dataclass(frozen=True)
class Signal:
    """What the probes measure, the same for every donor.

    Attributes
    ----------
    gene : numpy.ndarray of int, shape (probe,)
    weights : numpy.ndarray of float64, shape (gene, feature)
        Of the features of a place, see `features`.
    level, gain, noise : numpy.ndarray of float64, shape (probe,)
        Mean (log2), gain on the gene's field, and sd of the noise (log2).
    seed : int
    """

    gene: IntArray
    weights: FloatArray
    level: FloatArray
    gain: FloatArray
    noise: FloatArray
    seed: int


def simulated_signal(probes: Probes, seed: int) -> Signal:
    """Draw the genes' fields and the probes' qualities.

    Parameters
    ----------
    probes : Probes
    seed : int

    Returns
    -------
    Signal
    """
    random = np.random.default_rng([seed, _QUALITY])
    n_probes, n_genes = len(probes.gene), int(probes.gene.max()) + 1
    marker_genes = np.unique(probes.gene[probes.marker])
    silent = random.random(n_genes) < 0.24
    gene_level = np.where(silent, random.normal(2.9, 0.5, n_genes), random.normal(6.6, 2.2, n_genes))
    strength = random.gamma(2.0, 0.35, n_genes) * np.clip((gene_level - 2) / 4, 0.15, 1)
    gene_level[marker_genes], strength[marker_genes] = 9.0, 1.0
    weights = random.normal(size=(n_genes, _N_WAVES + len(_CLASSES))) * strength[:, np.newaxis]
    shares, gains, noises = np.array(list(_QUALITIES.values())).T
    quality = random.choice(len(shares), n_probes, p=shares)
    quality[probes.marker] = 0
    level = gene_level[probes.gene] + random.normal(0, 0.5, n_probes)
    level = np.where(quality == list(_QUALITIES).index("off"), _OFF_LEVEL, level)
    return Signal(
        gene=probes.gene,
        weights=weights,
        level=np.clip(level, _OFF_LEVEL, 14.0),
        gain=gains[quality] * random.uniform(0.8, 1.2, n_probes),
        noise=noises[quality] * random.uniform(0.6, 1.4, n_probes),
        seed=seed,
    )


def features(samples: Samples, seed: int) -> FloatArray:
    """Smooth waves over the folded brain, then one column a structure class.

    Parameters
    ----------
    samples : Samples
    seed : int

    Returns
    -------
    numpy.ndarray of float64, shape (sample, feature)
        Scaled so that unit weights give a field of about unit variance.
    """
    random = np.random.default_rng([seed, _FIELD])
    frequency = random.normal(size=(3, _N_WAVES)) / _WAVELENGTH_MM
    phase = random.uniform(0, 2 * np.pi, _N_WAVES)
    waves = np.cos(fold(samples.coordinates) @ frequency + phase) / np.sqrt(_N_WAVES)
    classes = (samples.structure[:, np.newaxis] == np.array(_CLASSES, dtype=object)).astype(np.float64)
    return np.hstack([waves, 0.7 * classes])


@dataclass(frozen=True)
class DonorSignal:
    """The signal as one donor shows it.

    Attributes
    ----------
    donor : str
    signal : Signal
    features : numpy.ndarray of float64, shape (sample, feature)
    gene_shift : numpy.ndarray of float64, shape (gene,)
    sample_shift : numpy.ndarray of float64, shape (sample,)
    """

    donor: str
    signal: Signal
    features: FloatArray
    gene_shift: FloatArray
    sample_shift: FloatArray

    def block(self, first: int, stop: int) -> tuple[IntArray, BoolArray]:
        """Expression and detection of some consecutive probes.

        A block is drawn from a stream of its own, so that it does not depend on what was drawn before.

        Parameters
        ----------
        first, stop : int
            Rows of Probes.csv.

        Returns
        -------
        expression : numpy.ndarray of int64, shape (probe, sample)
            log2 expression in units of 1e-10, between 1.4 and 17.6.
        detected : numpy.ndarray of bool, shape (probe, sample)
        """
        signal, rows = self.signal, slice(first, stop)
        random = np.random.default_rng([signal.seed, _BLOCK, int(self.donor), first])
        gene, gain = signal.gene[rows], signal.gain[rows, np.newaxis]
        value = signal.weights[gene] @ self.features.T
        value += self.gene_shift[gene, np.newaxis]
        value *= gain
        value += signal.level[rows, np.newaxis]
        value += self.sample_shift
        np.rint(value * _SIGNAL_UNIT, out=value)
        value *= _UNIT // _SIGNAL_UNIT
        noise = random.standard_normal(value.shape, dtype=np.float32)
        value += np.rint(noise * (signal.noise[rows, np.newaxis] * _UNIT))
        np.clip(value, _LOWEST * _UNIT, _HIGHEST * _UNIT, out=value)
        return value.astype(np.int64), _detected(value, random)


def donor_signal(signal: Signal, donor: str, samples: Samples) -> DonorSignal:
    """Draw a donor's own shifts.

    Parameters
    ----------
    signal : Signal
    donor : str
        Donor number.
    samples : Samples

    Returns
    -------
    DonorSignal
    """
    random = np.random.default_rng([signal.seed, _DONOR, int(donor)])
    return DonorSignal(
        donor,
        signal,
        features(samples, signal.seed),
        gene_shift=random.normal(0, _DONOR_GENE_SD, len(signal.weights)),
        sample_shift=random.normal(0, _SAMPLE_SD, len(samples.coordinates)),
    )


def _detected(expression: FloatArray, random: np.random.Generator) -> BoolArray:
    """Whether a value counts as above the background: likelier the higher it is, a logistic curve.

    The chances are looked up in steps of 1/16, and compared with one random byte.
    """
    steps = np.arange(16 * 20) / 16
    chance = np.rint(256 / (1 + np.exp((_DETECTED_LEVEL - steps) / _DETECTED_SLOPE))).astype(np.uint16)
    level = (expression * (16 / _UNIT)).astype(np.int16)
    byte = np.frombuffer(random.bytes(expression.size), np.uint8).reshape(expression.shape)
    detected: BoolArray = byte < chance[level]
    return detected
