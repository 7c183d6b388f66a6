"""The overlap of two Gaussians: dist_sq, log_det and the scores made of them.

For a query Gaussian (R_i, μ_i, σ_i) and a key Gaussian (R_j, μ_j, σ_j), with δ = μ_i − μ_j and
Σ = R_i diag(σ_i²) R_iᵀ + R_j diag(σ_j²) R_jᵀ:

    dist_sq = δᵀ Σ⁻¹ δ          log_det = ln det Σ

Two forms compute them. `gaussian_overlap` is the closed form that the layer uses: sums of squares times
positive numbers, nothing to clamp, an error that grows as κ·2⁻²⁴ (docs/theory.md, sections 5 and 6).
`gaussian_overlap_textbook` builds Σ and factors it, as the historical arms did; its error grows as κ²·2⁻²⁴
and it falls through the floor once κ² reaches 2²⁴. κ is the largest over the smallest σ of a pair.

Everything is elementwise arithmetic: TF32, autocast and BLAS cannot reach it.
"""

import torch

from iga._typing import Float, Tensor
from iga.rotation import check_alike, check_geometry

__all__ = [
    "closed_form",
    "gaussian_overlap",
    "gaussian_overlap_textbook",
    "gaussian_score",
    "student_t_score",
]

Vec = tuple[Tensor, Tensor, Tensor]
Mat = tuple[Vec, Vec, Vec]


def closed_form(q: Mat, g: Vec, h: Vec, v_i: Vec, v_j: Vec) -> tuple[Tensor, Tensor]:
    """dist_sq and log_det from relative quantities, each a scalar field that broadcasts (structure of arrays).

    With Q = R_iᵀR_j, g = R_iᵀδ, h = R_jᵀδ, v = σ² per axis, w_k the product of the two other v, p the
    product of all three, q_l the column l of Q:

        det = p_i + p_j + Σ_kl Q_kl² (w_ik v_jl + v_ik w_jl)
        num = Σ_k w_ik g_k² + Σ_l w_jl h_l² + Σ_kl v_ik v_jl T_kl²,      T_kl = (g × e_k) · q_l
        dist_sq = num / det          log_det = ln det

    T is formed in frame i: in the global frame it would lose κ² instead of κ.
    """
    for name, fields in (("q", (*q[0], *q[1], *q[2])), ("g", g), ("h", h), ("v_i", v_i), ("v_j", v_j)):
        for field in fields:
            if isinstance(field, Tensor):  # the formula holds for other numbers too
                check_geometry(name, field)
    w_i = (v_i[1] * v_i[2], v_i[2] * v_i[0], v_i[0] * v_i[1])
    w_j = (v_j[1] * v_j[2], v_j[2] * v_j[0], v_j[0] * v_j[1])
    det = w_i[0] * v_i[0] + w_j[0] * v_j[0]
    num = w_i[0] * g[0].square() + w_i[1] * g[1].square() + w_i[2] * g[2].square()
    num = num + (w_j[0] * h[0].square() + w_j[1] * h[1].square() + w_j[2] * h[2].square())
    for l in range(3):  # noqa: E741 - the letter of the formula
        q_l = (q[0][l], q[1][l], q[2][l])
        # (g × e_k) · q_l for k = 0, 1, 2: the components of q_l × g, which is what they are
        t_l = (
            g[2] * q_l[1] - g[1] * q_l[2],
            g[0] * q_l[2] - g[2] * q_l[0],
            g[1] * q_l[0] - g[0] * q_l[1],
        )
        for k in range(3):
            det = det + q_l[k].square() * (w_i[k] * v_j[l] + v_i[k] * w_j[l])
            num = num + (v_i[k] * v_j[l]) * t_l[k].square()
    return num / det, det.log()


def gaussian_overlap(
    q_rot: Float[Tensor, "... 3 3"],
    q_mean: Float[Tensor, "... 3"],
    q_sigma: Float[Tensor, "... 3"],
    k_rot: Float[Tensor, "... 3 3"],
    k_mean: Float[Tensor, "... 3"],
    k_sigma: Float[Tensor, "... 3"],
) -> tuple[Tensor, Tensor]:
    """(dist_sq [...], log_det [...]) of two Gaussians by the closed form; the leading dimensions broadcast.

    `*_rot` maps local to global, `*_mean` is the global mean (nm), `*_sigma` the standard deviation along each
    of the frame's own axes (nm, > 0). dist_sq has no unit; log_det is that of a covariance in nm².

    float32, searched: dist_sq within (15 + 8κ)·2⁻²⁴ relative, log_det within (25 + 3κ)·2⁻²⁴ absolute (or half its last
    bit, where that is more), log_det under 3 ln(2 σ_min²) by at most 4 ulp, for κ ≤ 5000; proved: `iga.bounds`.
    Range, forward and backward: `iga.bounds.sigma_range`, in float32 3e-5 to 7e5 nm for anchors 20 nm apart; relative
    in dist_sq from |δ| = `iga.bounds.delta_floor` on (4e-10 nm at σ = 3e-5 nm, 1e-13 nm at κ = 5000 and 0.03 nm), below
    it to 2·2⁻²⁴. float64 inputs are computed in float64; other dtypes, or two of them, raise ValueError. Source:
    docs/theory.md, sections 5 and 6.
    """
    _check_pair(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma)
    r_i, r_j = _matrix(q_rot), _matrix(k_rot)
    delta = _difference(q_mean, k_mean)
    dist_sq, log_det = closed_form(
        relative_rotation(r_i, r_j),
        _into(r_i, delta),
        # R_jᵀδ directly, not Qᵀg: half the error
        _into(r_j, delta),
        _squares(q_sigma),
        _squares(k_sigma),
    )
    return dist_sq, log_det.expand(dist_sq.shape)  # many means may share frames and scales


def gaussian_overlap_textbook(
    q_rot: Float[Tensor, "... 3 3"],
    q_mean: Float[Tensor, "... 3"],
    q_sigma: Float[Tensor, "... 3"],
    k_rot: Float[Tensor, "... 3 3"],
    k_mean: Float[Tensor, "... 3"],
    k_sigma: Float[Tensor, "... 3"],
    *,
    jitter: float = 0.0,
    pivot_min: float = 1e-8,
) -> tuple[Tensor, Tensor]:
    """The same two numbers by building Σ and its Cholesky factor: the historical form, kept to be judged.

    `jitter` (nm²) is added to the diagonal of each of the two covariances; a pivot under `pivot_min` (nm²) is
    raised to it. Loses κ² units of rounding: at κ = 5000 in float32 no digit is left (docs/theory.md, section 4).
    Shapes, units and errors are those of `gaussian_overlap`.
    """
    _check_pair(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma)
    a, b = _covariance(_matrix(q_rot), _squares(q_sigma)), _covariance(_matrix(k_rot), _squares(k_sigma))
    s = {key: a[key] + b[key] for key in a}
    for diagonal in ("00", "11", "22"):
        s[diagonal] = s[diagonal] + 2 * jitter
    delta = _difference(q_mean, k_mean)
    p0 = s["00"].clamp(min=pivot_min)
    l10, l20 = s["01"] / p0, s["02"] / p0
    p1 = (s["11"] - l10 * s["01"]).clamp(min=pivot_min)
    l21 = (s["12"] - l20 * s["01"]) / p1
    p2 = (s["22"] - l20 * s["02"] - l21 * (s["12"] - l20 * s["01"])).clamp(min=pivot_min)
    y0 = delta[0]
    y1 = delta[1] - l10 * y0
    y2 = delta[2] - l20 * y0 - l21 * y1
    dist_sq = y0.square() / p0 + y1.square() / p1 + y2.square() / p2
    return dist_sq, (p0.log() + p1.log() + p2.log()).expand(dist_sq.shape)


def gaussian_score(dist_sq: Tensor, log_det: Tensor, *, log_det_min: float | None = None) -> Tensor:
    """−½ dist_sq − ½ max(log_det, log_det_min): the log-overlap of two Gaussians up to a constant."""
    check_geometry("dist_sq", dist_sq)
    check_geometry("log_det", log_det)
    return -0.5 * dist_sq - 0.5 * _clamped(log_det, log_det_min)


def student_t_score(dist_sq: Tensor, log_det: Tensor, *, dof: float, log_det_min: float | None = None) -> Tensor:
    """−½(ν+3) ln(1 + dist_sq/ν) − ½ max(log_det, log_det_min): the log-density of a trivariate t, ν = `dof`.

    Logarithmic in dist_sq, hence bounded by the bounds of section 3 of docs/theory.md without a cap, and every pair
    keeps a gradient; ν → ∞ gives `gaussian_score`.
    """
    check_geometry("dist_sq", dist_sq)
    check_geometry("log_det", log_det)
    return -0.5 * (dof + 3.0) * torch.log1p(dist_sq / dof) - 0.5 * _clamped(log_det, log_det_min)


def relative_rotation(r_i: Mat, r_j: Mat) -> Mat:
    """Q = R_iᵀ R_j, component by component."""
    return tuple(  # pyright: ignore[reportReturnType] - three rows of three
        tuple(r_i[0][k] * r_j[0][l] + r_i[1][k] * r_j[1][l] + r_i[2][k] * r_j[2][l] for l in range(3))  # noqa: E741
        for k in range(3)
    )


def _check_pair(*tensors: Tensor) -> None:
    """Raises ValueError unless the six are float32 or float64, all the same, with space in the last dimensions."""
    names = ("q_rot", "q_mean", "q_sigma", "k_rot", "k_mean", "k_sigma")
    for name, tensor in zip(names, tensors, strict=True):
        check_geometry(name, tensor, *((3, 3) if name.endswith("rot") else (3,)))
        check_alike(name, tensor, names[0], tensors[0])


def _difference(a: Tensor, b: Tensor) -> Vec:
    """a − b, component by component: contiguous over the keys when the two broadcast."""
    return tuple(x - y for x, y in zip(a.unbind(-1), b.unbind(-1), strict=True))  # pyright: ignore[reportReturnType]


def _into(r: Mat, x: Vec) -> Vec:
    """Rᵀx: the global vector x in the frame's own axes."""
    return tuple(r[0][k] * x[0] + r[1][k] * x[1] + r[2][k] * x[2] for k in range(3))  # pyright: ignore[reportReturnType]


def _matrix(rot: Tensor) -> Mat:
    return tuple(tuple(row.unbind(-1)) for row in rot.unbind(-2))  # pyright: ignore[reportReturnType]


def _squares(sigma: Tensor) -> Vec:
    return tuple(sigma.square().unbind(-1))  # pyright: ignore[reportReturnType]


def _covariance(r: Mat, v: Vec) -> dict[str, Tensor]:
    """The six entries of R diag(v) Rᵀ."""
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    return {f"{a}{b}": sum((r[a][k] * v[k] * r[b][k] for k in range(1, 3)), r[a][0] * v[0] * r[b][0]) for a, b in pairs}


def _clamped(log_det: Tensor, log_det_min: float | None) -> Tensor:
    return log_det if log_det_min is None else log_det.clamp(min=log_det_min)
