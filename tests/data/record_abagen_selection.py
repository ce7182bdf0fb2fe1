"""Invented probes, and the choices that the real abagen 0.1.3 makes among them.

Run in an environment that holds abagen (see ``abagen-workflow.md``, "Run the real one") to write the choices
again::

    python tests/data/record_abagen_selection.py tests/data/abagen_selection.json

The tests import `invent`, which needs only numpy and pandas and gives the same numbers under any of their
versions (``RandomState`` is frozen), and compare our choices with those of the file.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

DONORS = ("9861", "10021", "12876", "15496")
SAMPLES = (90, 80, 40, 50)
SIZES = (1, 2, 2, 3, 2, 5, 1, 2, 3, 4)
N_GENES = 120
# They cancel over ten samples. The largest stands out: were several as large but of opposite sign, the sign
# rule for principal components would be decided by the rounding of the linear algebra library.
LEVEL_SHIFTS = (0.75, -0.25, -0.25, -0.25, 0, 0, 0, 0, 0, 0)
METHODS = (
    "max_intensity",
    "max_variance",
    "pc_loading",
    "corr_intensity",
    "corr_variance",
    "diff_stability",
    "rnaseq",
    "average",
)
MODES = ("aggregate", "independent", "common")


def invent():
    """Invent probes, each donor's expression and samples, and RNA-seq.

    Returns
    -------
    probes : pandas.DataFrame
        Index probe_id ascending; gene_symbol, entrez_id, published_row.
    expression : dict of str to pandas.DataFrame
        Donor -> probe_id x sample_id (from 1).
    annotation : dict of str to pandas.DataFrame
        Donor -> structure_id by sample_id; two donors' last sample ids are repeated, with other structures,
        as mirrored copies are.
    rnaseq : dict of str to pandas.DataFrame
        The first two donors -> gene_symbol x structure_id of single RNA-seq samples (structures repeat).
    """
    random = np.random.RandomState(20190315)
    probes = _invent_probes(random)
    expression, annotation = {}, {}
    regional = random.normal(size=(len(probes), 70))
    for donor, n_samples in zip(DONORS, SAMPLES):  # noqa: B905 - runs on abagen's Python
        structures = random.choice(np.sort(random.permutation(70)[:45]), n_samples)
        signal = random.uniform(0, 2, size=(len(probes), 1)) * regional[:, structures]
        values = 7 + signal + random.normal(size=(len(probes), n_samples))
        _make_awkward(values, probes["gene_symbol"].to_numpy())
        ids = np.arange(1, n_samples + 1)
        expression[donor] = pd.DataFrame(values, pd.Index(probes.index), pd.Index(ids, name="sample_id"))
        annotation[donor] = pd.DataFrame(
            {"structure_id": 4000 + structures}, index=pd.Index(ids, name="sample_id")
        )
    for donor in DONORS[1:3]:
        copies = annotation[donor].iloc[-15:].copy()
        copies["structure_id"] += 35
        annotation[donor] = pd.concat([annotation[donor], copies])
    return probes, expression, annotation, _invent_rnaseq(random)


def _invent_probes(random):
    sizes = np.resize(SIZES, N_GENES)
    symbols = np.array([f"GENE{gene:03d}" for gene in random.permutation(N_GENES)])
    probes = pd.DataFrame({"gene_symbol": np.repeat(symbols, sizes)})
    probes = probes.iloc[random.permutation(len(probes))].reset_index(drop=True)
    probes["entrez_id"] = 1000 + probes["gene_symbol"].str[4:].astype(int)
    probes["published_row"] = random.permutation(len(probes))
    probes.index = pd.Index(
        np.sort(1_000_000 + random.permutation(5 * len(probes))[: len(probes)]), name="probe_id"
    )
    return probes


def _make_awkward(values, symbols):
    """Give some genes equal structure means, equal scores and constant probes."""
    values[::7] = np.round(values[::7])
    by_size = {size: [] for size in range(1, 6)}
    for symbol in np.unique(symbols):
        rows = np.flatnonzero(symbols == symbol)
        by_size[len(rows)].append(rows)
    for first, second in by_size[2][:10]:  # equal means: quarters, whose sums are exact
        values[first] = np.round(values[first] * 4) / 4
        values[second] = values[first] + np.resize(LEVEL_SHIFTS, values.shape[1])
    for first, second in by_size[2][10:20]:  # equal ranks
        values[second] = 2 * values[first]
    for first, _, _ in by_size[3][:3]:
        values[first] = 6.5
    values[by_size[1][0]] = 5.0


def _invent_rnaseq(random):
    genes = [f"GENE{gene:03d}" for gene in range(N_GENES) if gene % 9]
    tables = {}
    for donor in DONORS[:2]:
        structures = 4000 + random.choice(70, 60)
        tpm = np.round(random.gamma(1, 10, size=(len(genes), len(structures))), 1)
        tpm[::11] = 0
        tables[donor] = pd.DataFrame(tpm, pd.Index(genes, name="gene_symbol"), structures)
    return tables


def orders(probes):
    """The probe table in the order of ``reannotated=True``, and of False."""
    return {"reannotated": probes, "published": probes.sort_values("published_row")}


def code_choice(table, donor_expression, chosen):
    """One character a gene, symbols ascending: which of its probes (by probe_id) was chosen, "-" if none.

    `chosen` is a gene x sample table; a probe is recognised by its values, which no two probes of a gene
    share.
    """
    code = ""
    for symbol, own in table.groupby("gene_symbol"):
        if symbol not in chosen.index:
            code += "-"
            continue
        candidates = donor_expression.loc[np.sort(own.index.to_numpy()), :].to_numpy()
        equal = (candidates == chosen.loc[symbol].to_numpy()).all(axis=1)
        code += str(np.flatnonzero(equal)[0]) if equal.sum() == 1 else "?"
    return code


def record():
    """All choices: "order/method/mode" -> donor -> code; for ``average`` the rounded sum of all values."""
    from abagen import datasets, probes_

    probes, expression, annotation, rnaseq = invent()
    datasets.fetch_rnaseq = lambda **_: {
        donor: {
            "tpm": table.set_axis(range(1, table.shape[1] + 1), axis=1),
            "annotation": pd.DataFrame({"structure_id": table.columns}, index=range(1, table.shape[1] + 1)),
        }
        for donor, table in rnaseq.items()
    }
    recorded = {}
    for order, table in orders(probes).items():
        for method in METHODS:
            for mode in MODES:
                found = probes_.collapse_probes(
                    dict(expression), dict(annotation), table, method=method, donor_probes=mode
                )
                recorded[f"{order}/{method}/{mode}"] = {
                    donor: _code(
                        method, table, expression[donor].loc[:, annotation[donor].index], found[donor].T
                    )
                    for donor in DONORS
                }
    return recorded


def _code(method, table, donor_expression, chosen):
    if method == "average":
        return [chosen.shape[0], round(float(np.sum(chosen.to_numpy() ** 2)), 6)]
    return code_choice(table, donor_expression, chosen)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(record(), indent=0) + "\n")
