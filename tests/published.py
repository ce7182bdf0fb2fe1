"""The published files read by pandas and nothing else: what queries are compared with."""

from functools import cached_property
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from ingest.reference import reference_file
from tests.helpers import DONORS, donor_folder


class Published:
    """All donors' files, in memory."""

    def __init__(self, directory: Path) -> None:
        self.folders = {donor: donor_folder(directory, donor) for donor in DONORS}

    def _matrix(self, name: str) -> pd.DataFrame:
        parts = []
        for donor, folder in self.folders.items():
            # Through text: a pandas before 3 rounds the last bit of a float.
            text = pd.read_csv(folder / name, header=None, dtype=str)
            part = text.set_index(text.pop(0).astype(int)).astype(float)
            part.columns = self.samples.loc[self.samples["donor"] == donor, "well_id"].tolist()
            parts.append(part)
        return pd.concat(parts, axis=1)

    @cached_property
    def expression(self) -> pd.DataFrame:
        """Probe id x well id."""
        return self._matrix("MicroarrayExpression.csv")

    @cached_property
    def detected(self) -> pd.DataFrame:
        """Probe id x well id."""
        return self._matrix("PACall.csv").astype(bool)

    @cached_property
    def samples(self) -> pd.DataFrame:
        tables = [
            pd.read_csv(folder / "SampleAnnot.csv").assign(donor=donor)
            for donor, folder in self.folders.items()
        ]
        corrected = pd.read_csv(reference_file("corrected_mni_coordinates.csv.gz"), dtype=str)
        corrected = corrected.astype(float).astype({"well_id": int})
        return pd.concat(tables).merge(corrected, on="well_id", how="left", validate="1:1")

    @cached_property
    def ontology(self) -> pd.DataFrame:
        return pd.read_csv(self.folders[DONORS[0]] / "Ontology.csv", keep_default_na=False)

    @cached_property
    def probes(self) -> pd.DataFrame:
        """With the re-annotation beside: ``new_symbol`` and ``new_entrez``."""
        probes = pd.read_csv(self.folders[DONORS[0]] / "Probes.csv", keep_default_na=False)
        new = pd.read_csv(reference_file("reannotated.csv.gz"), dtype=str, keep_default_na=False)
        new = new[new["entrez_id"] != ""].set_index("probe_name")
        return probes.assign(
            new_symbol=probes["probe_name"].map(new["gene_symbol"]).fillna(""),
            new_entrez=probes["probe_name"].map(new["entrez_id"]).fillna("-1").astype(int),
        )

    def wells_around(self, point: np.ndarray, *, corrected: bool) -> pd.Series:
        """Distance in mm by well id."""
        names = [f"{'corrected_' if corrected else ''}mni_{axis}" for axis in "xyz"]
        offset = self.samples.set_index("well_id")[names].to_numpy() - point
        return pd.Series(np.linalg.norm(offset, axis=1), index=self.samples["well_id"])

    def wells_below(self, structure_id: int) -> set[int]:
        """Wells of a structure and all that is in it, by walking up from each sample."""
        parent = dict(
            zip(self.ontology["id"], pd.to_numeric(self.ontology["parent_structure_id"]), strict=True)
        )

        def is_below(structure: float) -> bool:
            while not np.isnan(structure) and structure in parent:
                if structure == structure_id:
                    return True
                structure = parent[int(structure)]
            return False

        return set(self.samples.loc[self.samples["structure_id"].map(is_below), "well_id"])

    def wells_in(self, image: nibabel.Nifti1Image) -> set[int]:
        """Wells whose voxel is not 0."""
        labels = self.labels_in(image)
        return set(labels.index[labels != 0])

    def labels_in(self, image: nibabel.Nifti1Image, *, corrected: bool = True) -> pd.Series:
        """Value of the voxel whose centre is nearest, 0 outside of the image, by well id."""
        names = [f"{'corrected_' if corrected else ''}mni_{axis}" for axis in "xyz"]
        points = self.samples[names].to_numpy()
        voxels = np.rint(nibabel.affines.apply_affine(np.linalg.inv(image.affine), points)).astype(int)
        inside = ((voxels >= 0) & (voxels < image.shape)).all(axis=1)
        values = np.zeros(len(points), dtype=int)
        values[inside] = np.asarray(image.dataobj)[tuple(voxels[inside].T)]
        return pd.Series(values, index=self.samples["well_id"])
