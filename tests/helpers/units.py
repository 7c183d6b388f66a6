"""Chains in one unit or the other, and the rule of `check_unit` counted again in plain Python.

A chain is drawn as its steps (a CA–CA distance of a protein, another one, none at all) and as its residues' bonds.
"""

import math
from collections.abc import Sequence

import torch

# ångström: kinds of steps between neighbouring CA, and of residues by N–CA, CA–C and their angle
STEPS = {"protein": 3.8, "long": 5.0, "short": 0.5, "none": 0.0}
BONDS = {"protein": (1.46, 1.53, 111.0), "long": (1.9, 1.53, 111.0), "none": (0.0, 1.53, 111.0)}
OTHER = {"nm": "angstrom", "angstrom": "nm"}
# one ångström in the unit that was not named
ANGSTROM = {"nm": 1.0, "angstrom": 0.1}
Atoms = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def chain(steps: Sequence[str], residues: Sequence[str], lost: Sequence[bool]) -> Atoms:
    """N, CA, C [len(residues), 3] in ångström, CA along x; where `lost`, the CA is not a number."""
    n, ca, c = [], [], []
    x = 0.0
    for kind, step, gone in zip(residues, ("none", *steps), lost, strict=True):
        x += STEPS[step]
        to_n, to_c, angle = BONDS[kind]
        turn = math.radians(angle)
        ca.append([math.nan if gone else x, 0.0, 0.0])
        c.append([x, to_c, 0.0])
        n.append([x, to_n * math.cos(turn), to_n * math.sin(turn)])
    return tuple(torch.tensor(atom, dtype=torch.float64) for atom in (n, ca, c))  # pyright: ignore[reportReturnType]


def proven(steps: Sequence[str], residues: Sequence[str], lost: Sequence[bool], bonds: bool) -> bool:
    """The docstring of `check_unit`, on the draws."""
    known = [s for s, a, b in zip(steps, lost, lost[1:], strict=False) if s != "none" and not (a or b)]
    m, near = len(known), known.count("protein")
    judged = [r for r, gone in zip(residues, lost, strict=True) if r != "none" and not gone]
    by_bonds = bonds and len(judged) > 0 and 4 * judged.count("protein") >= 3 * len(judged)
    by_distances = m >= 8 and near >= m / 2 + 3
    return m > 0 and near >= m / 2 and (by_bonds or by_distances)


def refused(function, *arguments) -> bool:
    try:
        function(*arguments)
    except ValueError as error:
        assert "coordinates must be in the named unit" in str(error)
        return True
    return False
