"""Frames from atoms: the unit of the coordinates, and triangles that fix no frame.

Neighbouring CA atoms of a chain are 3.8 Å apart (trans peptide), whatever the protein; within a residue N–CA is
1.46 Å, CA–C 1.53 Å, and N–C 2.46 Å across the angle. Coordinates that show these lengths in the other unit are in the
other unit. Source of the lengths: R. A. Engh and R. Huber, Acta Crystallographica A47 (1991), 392.
"""

import torch

from iga._typing import Float, Tensor
from iga.rotation import check_geometry, cross, gram_schmidt

__all__ = ["check_trans_unit", "check_unit", "points_to_frame", "refuse_degenerate", "units_per_nm"]

# How many of the unit make a nanometre: x / 10 is rounded once, x * 0.1 twice.
_PER_NM = {"nm": 1.0, "angstrom": 10.0}
_CONVERSION = {"nm": "ångström = 10 × nm", "angstrom": "nm = 0.1 × ångström"}

# Windows in ångström: CA–CA within 5 %; N–CA, CA–C and N–C within 10 to 15 %.
_CA_CA = (3.61, 3.99)
_BONDS = ((1.30, 1.65), (1.35, 1.75), (2.15, 2.80))


def units_per_nm(unit: str) -> float:
    """1 for "nm", 10 for "angstrom"; anything else is a ValueError."""
    if unit not in _PER_NM:
        raise ValueError(f'unit must be "nm" or "angstrom", got {unit!r}')
    return _PER_NM[unit]


def check_unit(n: Float[Tensor, "*b 3"], ca: Float[Tensor, "*b 3"], c: Float[Tensor, "*b 3"], unit: str = "nm") -> None:
    """Raises ValueError if atoms N, CA, C, each [..., residues, 3], are in the unit that `unit` is not.

    A chain (one of the leading dimensions) is in the other unit if at least half of its m CA–CA distances lie within
    5 % of 3.8 Å read in that unit, and either the bonds of three residues in four agree, or the distances alone are
    proof: m ≥ 8, and m/2 + 3 of them in the window. (Independent points of a normal distribution or a cube put about
    one distance in ten there at the worst scale, and reach that count with a probability under 10⁻⁵.) Distances that
    are not finite, and those of atoms in one place (padding), are left out. A single residue can't be judged.
    """
    check_atoms(n, ca, c)
    n, ca, c = n.detach(), ca.detach(), c.detach()
    _judge_unit(ca, (n - ca, c - ca, n - c), unit)


def check_trans_unit(trans: Float[Tensor, "*b 3"], unit: str = "nm") -> None:
    """`check_unit` for CA positions alone, [..., residues, 3]: judges chains with at least 8 distances."""
    check_geometry("trans", trans, 3)
    _judge_unit(trans.detach(), (), unit)


def check_atoms(n: Tensor, ca: Tensor, c: Tensor) -> None:
    """Raises ValueError unless the three are float32 or float64, [..., 3], of one shape."""
    for name, atom in (("n", n), ("ca", ca), ("c", c)):
        check_geometry(name, atom, 3)
    if not n.shape == ca.shape == c.shape:
        raise ValueError(
            f"n, ca and c must have one shape [..., residues, 3], got {list(n.shape)}, {list(ca.shape)} and "
            f"{list(c.shape)}; expand or index them to match"
        )


def points_to_frame(
    origin: Tensor, x_axis: Tensor, xy_plane: Tensor, corners: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """(rot, trans, valid) from an origin, two edges that leave it, and the three corners that the edges came from.

    In the corners' own unit. Not valid: what `rotation.gram_schmidt` refuses, and triangles that are no larger than
    the rounding of their coordinates; there `rot` is the identity without gradient, and `trans` is 0 if not finite.
    """
    resolved = _triangle_is_resolved(x_axis.detach(), xy_plane.detach(), corners)
    # A zero vector spans no plane, so that gram_schmidt gives the identity there.
    rot, valid = gram_schmidt(torch.where(resolved[..., None], x_axis, 0.0), xy_plane)
    finite = origin.isfinite().all(dim=-1, keepdim=True)
    return rot, torch.where(finite, origin, 0.0), valid


def refuse_degenerate(valid: Tensor, what: str, remedy: str) -> None:
    """Raises ValueError with the indices where `valid` is False, if any."""
    if valid.all():
        return
    bad = [tuple(index) if len(index) > 1 else index[0] for index in (~valid).nonzero().tolist() if index]
    shown = ", ".join(map(str, bad[:8])) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
    raise ValueError(
        f"{what} must be three finite points that neither coincide nor lie on a line, got {int((~valid).sum())} of "
        f"{valid.numel()} that do" + (f", at index {shown}" if shown else "") + f"; {remedy}"
    )


def _triangle_is_resolved(a: Tensor, b: Tensor, corners: tuple[Tensor, ...]) -> Tensor:
    """False where a height of the triangle with edges a, b is within the rounding of its corners.

    A coordinate of size up to m is known to ½ eps m, an edge to √3 eps m, a height to twice that: 3.5 eps m. The bar
    is 8 eps m. The heights on a and b are |a × b| over the length; all in units of m.
    """
    size = torch.stack([corner.detach() for corner in corners]).abs().amax(dim=(0, -1))[..., None]
    size = torch.where(size > 0, size, 1.0)
    a, b = a / size, b / size
    area = cross(a, b).square().sum(dim=-1).sqrt()
    longest = torch.maximum(a.square().sum(dim=-1), b.square().sum(dim=-1)).sqrt()
    return area > 8 * torch.finfo(a.dtype).eps * longest


def _judge_unit(ca: Tensor, bonds: tuple[Tensor, ...], unit: str) -> None:
    # One ångström as a number, if the coordinates are in the unit that was not named.
    other, angstrom = ("angstrom", 1.0) if units_per_nm(unit) == 1.0 else ("nm", 0.1)
    if ca.ndim < 2 or ca.shape[-2] < 2:
        return
    steps = _lengths(ca[..., 1:, :] - ca[..., :-1, :]) / angstrom
    seen = _present(steps)
    count = seen.sum(dim=-1)
    near = (seen & _within(steps, _CA_CA)).sum(dim=-1)
    proof = (count >= 8) & (2 * near >= count + 6)
    if bonds:
        lengths = [_lengths(bond) / angstrom for bond in bonds]
        judged = torch.stack([_present(length) for length in lengths]).all(dim=0)
        typical = torch.stack([_within(x, window) for x, window in zip(lengths, _BONDS, strict=True)]).all(dim=0)
        total = judged.sum(dim=-1)
        proof = proof | ((total > 0) & (4 * (judged & typical).sum(dim=-1) >= 3 * total))
    wrong = (count > 0) & (2 * near >= count) & proof
    if wrong.any():
        median = (steps[wrong][seen[wrong]] * angstrom).median().item()
        raise ValueError(
            f'coordinates must be in the named unit, "{unit}", but look like "{other}": neighbouring CA atoms are '
            f'{median:.3g} apart, and 3.8 Å = 0.38 nm in proteins; pass unit="{other}", or convert '
            f"({_CONVERSION[other]})"
        )


def _lengths(x: Tensor) -> Tensor:
    return x.square().sum(dim=-1).sqrt()


def _present(length: Tensor) -> Tensor:
    """True for a length that is finite and not between two atoms in one place."""
    return length.isfinite() & (length > 0)


def _within(x: Tensor, window: tuple[float, float]) -> Tensor:
    return (x >= window[0]) & (x <= window[1])
