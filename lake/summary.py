"""What a store holds, in numbers."""

from pathlib import Path
from typing import Any

from lake.store import Lake


def summarize(store: Lake) -> dict[str, Any]:
    """Counts, sizes and origin of a store; reads the small tables only.

    Returns
    -------
    dict
        ``simulated``, ``snapshot``, ``format_version``, ``n_probes``, ``genes`` (published,
        reannotated), ``donors`` (a dict each: donor, uid, age, sex, n_samples, n_cortex,
        n_uncorrected, stored_bytes, sources; ``rnaseq``: None, or a dict of n_samples, n_genes,
        stored_bytes, sources), ``licence``, ``citation``, ``software``.
    """
    manifest, probes = store.manifest, store.probes
    named = probes.loc[probes["entrez_id"] >= 0, "gene_symbol"]
    renamed = probes.loc[probes["reannotated_entrez_id"] >= 0, "reannotated_gene_symbol"]
    return {
        "simulated": manifest.simulated,
        "snapshot": manifest.snapshot,
        "format_version": manifest.format_version,
        "n_probes": manifest.n_probes,
        "genes": {"published": int(named.nunique()), "reannotated": int(renamed.nunique())},
        "donors": [_summarize_donor(store, donor) for donor in store.donors],
        "licence": manifest.licence,
        "citation": manifest.citation,
        "software": manifest.software,
    }


def _summarize_donor(store: Lake, donor: str) -> dict[str, Any]:
    entry = store.manifest.donors[donor]
    samples = store.samples[store.samples["donor"] == donor]
    facts = store.donor_table.set_index("donor")
    known = facts.loc[donor, ["uid", "age", "sex"]].to_dict() if donor in facts.index else {}
    return {
        "donor": donor,
        "uid": known.get("uid", ""),
        "age": known.get("age", ""),
        "sex": known.get("sex", ""),
        "n_samples": entry.n_samples,
        "n_cortex": int((samples["structure"] == "cortex").sum()),
        "n_uncorrected": int(samples["corrected_mni_x"].isna().sum()),
        "stored_bytes": _stored_bytes(Path(store.path) / entry.group),
        "sources": entry.sources,
        "rnaseq": _summarize_rnaseq(store, donor),
    }


def _summarize_rnaseq(store: Lake, donor: str) -> dict[str, Any] | None:
    entry = store.manifest.rnaseq.get(donor)
    if entry is None:
        return None
    return {
        "n_samples": entry.n_samples,
        "n_genes": entry.n_genes,
        "stored_bytes": _stored_bytes(Path(store.path) / entry.group),
        "sources": entry.sources,
    }


def _stored_bytes(group: Path) -> int:
    """Bytes on disk; 0 for a store that is not on a local disk."""
    return sum(path.stat().st_size for path in group.rglob("*") if path.is_file())
