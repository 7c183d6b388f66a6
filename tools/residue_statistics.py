"""The table of side chains in iga/structure/synthetic.py, measured over structure files.

Usage: python tools/residue_statistics.py FILE_OR_FOLDER...

Of each of the 20 amino acids, over the residues with a frame (alphafold convention): share, mean and standard deviation
along each axis of the side chain's centroid in the residue's frame, and mean along each axis of the population standard
deviation of the side chain's heavy atoms, nm. Then, pooled over types and axes, the spread of the log of that deviation
about its type's mean log (deviations over 0.005 nm). Residues that lack their side chain or all of it but one atom are
left out, others that lack atoms count as found; files that can't be read are skipped.
"""

import sys
from collections import defaultdict

import torch

from iga.structure import BASE_THICKNESS, read_structures

AMINO_ACIDS = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split()


def main(paths: list[str]) -> None:
    structures, records = read_structures(paths, dtype=torch.float64)
    rows: dict[str, list[torch.Tensor]] = defaultdict(list)
    for structure in structures:
        values = torch.cat([structure.gaussian.local_mean, structure.gaussian.sigma - BASE_THICKNESS / 10.0], dim=-1)
        for name, value, valid in zip(structure.residue_names, values, structure.mask.tolist(), strict=True):
            if valid and name in AMINO_ACIDS and _has_side_chain(name, value):
                rows[name].append(value)
    total = sum(map(len, rows.values()))
    print(f"# {len(structures)} of {len(records)} files, {total} residues")
    print("# residue: frequency, mean centroid, spread of the centroid, mean standard deviation of the atoms; nm")
    logs = []
    for name in AMINO_ACIDS:
        if not rows[name]:
            continue
        values = torch.stack(rows[name])
        mean, spread = values.mean(dim=0), values.std(dim=0, correction=0)
        triples = ", ".join(f"({x:.3f}, {y:.3f}, {z:.3f})" for x, y, z in (mean[:3], spread[:3], mean[3:]))
        print(f'"{name}": ({len(values) / total:.3f}, {triples}),')
        for axis in values[:, 3:].unbind(dim=-1):
            if len(axis := axis[axis > 0.005]) > 1:
                logs.append(axis.log() - axis.log().mean())
    if logs:
        print(f"# spread of the log standard deviation: {torch.cat(logs).std(correction=0):.2f}")


def _has_side_chain(name: str, value: torch.Tensor) -> bool:
    """Whether there are atoms enough to measure: alanine one, glycine none, all others two, which have a deviation."""
    measured = {"GLY": True, "ALA": bool(value[:3].any())}
    return measured.get(name, bool(value[3:].max() > 0.005))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python tools/residue_statistics.py FILE_OR_FOLDER...")
    main(sys.argv[1:])
