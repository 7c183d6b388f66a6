"""The files of `iga inspect --out`: each structure's Gaussians for molecular viewers."""

from pathlib import Path

from iga.inspection.run import Found
from iga.structure.ellipsoids import write_ellipsoids
from iga.structure.write import PdbLimit

__all__ = ["write_files"]


def write_files(found: Found, folder: Path) -> None:
    """NAME_gaussians.pdb and .cif of each structure, whose names go into what was found; what the columns of PDB do
    not hold is a note there. OSError where a file cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    names: set[str] = set()
    for structure, protein in found.proteins:
        stem = Path(structure.path).name.split(".")[0] or "structure"
        name, number = f"{stem}_gaussians", 2
        while name in names:  # of files of one name in several folders
            name, number = f"{stem}_{number}_gaussians", number + 1
        names.add(name)
        for ending in (".pdb", ".cif"):
            file = folder / f"{name}{ending}"
            try:
                write_ellipsoids(file, structure)
            except PdbLimit as error:
                protein["notes"].append(f"no {file.name}: {error}")
            else:
                protein["files"].append(str(file))
