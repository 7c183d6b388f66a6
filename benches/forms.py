"""Five ways to the same two numbers in float32: how far each is off, and how far it falls under the floor of log_det.

    python benches/forms.py [--pairs N] [--json benches/results/forms_float32.json]

For each σ_max (σ_min = 0.03 nm) degenerate pairs are drawn and rounded once to float32; every form gets the same pairs.
Pivots of Σ are clamped at 1e-8 nm², those of the whitened matrix at 1, which none can be under. Per form: the worst
relative error of dist_sq where it is finite, the lowest log_det, the share of pairs where one is NaN or ±Inf. The
judge is a QR in float64; the worst pairs of each form are judged again in 50 digits, and that is the figure. Jitter:
1e-6 nm² on the diagonal of each covariance; its bias is its cost in exact arithmetic over the pairs whose κ is at least
half the row's, beside the Cholesky that runs with it. docs/theory.md, sections 4 and 5.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from iga._runtime import environment
from iga.overlap import gaussian_overlap, gaussian_overlap_textbook
from iga.search.pairs import Domain, Pairs, decode, degenerate_pairs
from iga.testing.judges.overlap import condition, overlap_digits, overlap_reference

SIGMA_MAX = (0.3, 3.0, 20.0, 150.0, 1000.0)
PIVOT_MIN = 1e-8
JITTER = 1e-6
SEED = 0
CHUNK = 20_000
JUDGED_AGAIN = 4  # pairs of a chunk and form that go to 50 digits, as long as they beat the worst so far

Form = Callable[..., tuple[Tensor, Tensor]]


def cofactors(r_i: Tensor, mu_i: Tensor, s_i: Tensor, r_j: Tensor, mu_j: Tensor, s_j: Tensor) -> tuple[Tensor, Tensor]:
    """dist_sq = δᵀ adj(Σ) δ / det Σ, log_det = ln det Σ, with Σ built and expanded along its first row."""
    s = _covariance(r_i, s_i) + _covariance(r_j, s_j)
    delta = mu_i - mu_j
    adj = torch.stack([torch.linalg.cross(s[..., (a + 1) % 3], s[..., (a + 2) % 3]) for a in range(3)], dim=-1)
    det = (s[..., 0] * adj[..., 0]).sum(-1)
    num = (delta[..., :, None] * adj * delta[..., None, :]).sum((-2, -1))
    return num / det, det.log()


def whitened(r_i: Tensor, mu_i: Tensor, s_i: Tensor, r_j: Tensor, mu_j: Tensor, s_j: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky of I + AAᵀ, A = diag(σ_i)⁻¹ R_iᵀ R_j diag(σ_j): Σ in the axes in which the query is a unit sphere.

    Its pivots are Schur complements of I plus a positive matrix, so none is under 1.
    """
    a = (r_i[..., :, :, None] * r_j[..., :, None, :]).sum(-3) * s_j[..., None, :] / s_i[..., :, None]
    z = (r_i * (mu_i - mu_j)[..., :, None]).sum(-2) / s_i
    m = (a[..., :, None, :] * a[..., None, :, :]).sum(-1) + torch.eye(3, dtype=a.dtype)
    p0 = m[..., 0, 0].clamp(min=1.0)
    l10, l20 = m[..., 1, 0] / p0, m[..., 2, 0] / p0
    p1 = (m[..., 1, 1] - l10 * m[..., 1, 0]).clamp(min=1.0)
    below = m[..., 2, 1] - l20 * m[..., 1, 0]
    l21 = below / p1
    p2 = (m[..., 2, 2] - l20 * m[..., 2, 0] - l21 * below).clamp(min=1.0)
    y1 = z[..., 1] - l10 * z[..., 0]
    y2 = z[..., 2] - l20 * z[..., 0] - l21 * y1
    dist_sq = z[..., 0].square() / p0 + y1.square() / p1 + y2.square() / p2
    return dist_sq, p0.log() + p1.log() + p2.log() + 2.0 * s_i.log().sum(-1)


def factor_qr(r_i: Tensor, mu_i: Tensor, s_i: Tensor, r_j: Tensor, mu_j: Tensor, s_j: Tensor) -> tuple[Tensor, Tensor]:
    """QR of the 6×3 factor [diag(σ_i) R_iᵀ; diag(σ_j) R_jᵀ] in the pairs' own dtype: Σ = UᵀU is never built."""
    factor = torch.cat([s_i[..., :, None] * r_i.mT, s_j[..., :, None] * r_j.mT], dim=-2)
    u = torch.linalg.qr(factor).R
    delta = mu_i - mu_j
    pivots = u.diagonal(dim1=-2, dim2=-1)
    d = torch.where(pivots < 0, -1.0, 1.0) * pivots.abs().clamp(min=PIVOT_MIN**0.5)
    y0 = delta[..., 0] / d[..., 0]
    y1 = (delta[..., 1] - u[..., 0, 1] * y0) / d[..., 1]
    y2 = (delta[..., 2] - u[..., 0, 2] * y0 - u[..., 1, 2] * y1) / d[..., 2]
    return y0.square() + y1.square() + y2.square(), 2.0 * d.abs().log().sum(-1)


FORMS: dict[str, Form] = {
    "Cholesky of Σ": partial(gaussian_overlap_textbook, pivot_min=PIVOT_MIN),
    "cofactors of Σ": cofactors,
    "whitened Cholesky": whitened,
    "QR of the factor": factor_qr,
    "closed form": gaussian_overlap,
    "Cholesky, jitter": partial(gaussian_overlap_textbook, jitter=JITTER, pivot_min=PIVOT_MIN),
}


@dataclass
class Worst:
    """What one form did to the pairs of one row, so far."""

    dist_sq: float = 0.0
    log_det: float = 0.0
    lowest: float = float("inf")
    not_finite: int = 0

    def add(self, form: Form, pairs: Pairs, reference: tuple[Tensor, Tensor]) -> None:
        """Take in a chunk; a pair whose error would be the new worst is judged in 50 digits first."""
        values = [x.double() for x in form(*pairs)]
        finite = [x.isfinite() for x in values]
        self.not_finite += int((~(finite[0] & finite[1])).sum())
        self.lowest = min(self.lowest, float(torch.where(values[1].isnan(), torch.inf, values[1]).min()))
        relative = torch.where(finite[0], (values[0] - reference[0]).abs() / reference[0], 0.0)
        absolute = torch.where(finite[1], (values[1] - reference[1]).abs(), 0.0)
        for index in relative.topk(min(JUDGED_AGAIN, len(reference[0]))).indices.tolist():
            if float(relative[index]) > self.dist_sq:
                exact = float(overlap_digits(*(x[index] for x in pairs))[0])
                self.dist_sq = max(self.dist_sq, abs(float(values[0][index]) - exact) / exact)
        for index in absolute.topk(min(JUDGED_AGAIN, len(reference[0]))).indices.tolist():
            if float(absolute[index]) > self.log_det:
                exact = float(overlap_digits(*(x[index] for x in pairs))[1])
                self.log_det = max(self.log_det, abs(float(values[1][index]) - exact))


@dataclass
class Row:
    """One σ_max: the forms, and the cost of a jitter in exact arithmetic (float64 beside float64)."""

    sigma_max: float
    forms: dict[str, Worst] = field(default_factory=lambda: {name: Worst() for name in FORMS})
    bias: list[float] = field(default_factory=lambda: [0.0, 0.0])
    pairs: int = 0


def measure(sigma_max: float, count: int) -> Row:
    """`count` degenerate pairs with σ in [0.03, sigma_max] nm through every form."""
    domain = Domain(sigma_max=sigma_max)
    generator = torch.Generator().manual_seed(SEED)
    row = Row(sigma_max)
    while row.pairs < count:
        drawn = decode(degenerate_pairs(CHUNK, generator, domain), domain)
        # δ = 0 has no relative error
        kept = (drawn[1] != drawn[4]).any(-1).nonzero()[: count - row.pairs, 0]
        pairs: Pairs = tuple(x[kept] for x in drawn)  # pyright: ignore[reportAssignmentType] - six of them
        reference = overlap_reference(*pairs)
        for name, form in FORMS.items():
            row.forms[name].add(form, pairs, reference)
        r_i, mu_i, s_i, r_j, mu_j, s_j = (x.double() for x in pairs)
        wider = [(s.square() + JITTER).sqrt() for s in (s_i, s_j)]  # R (diag(v) + jitter I) Rᵀ
        jittered = overlap_reference(r_i, mu_i, wider[0], r_j, mu_j, wider[1])
        long = condition(s_i, s_j) >= 0.5 * sigma_max / domain.sigma_min
        bias = ((jittered[0] - reference[0]).abs() / reference[0], (jittered[1] - reference[1]).abs())
        row.bias = [max(old, float(torch.where(long, new, 0.0).max())) for old, new in zip(row.bias, bias, strict=True)]
        row.pairs += len(kept)
    return row


def _covariance(r: Tensor, sigma: Tensor) -> Tensor:
    half = r * sigma[..., None, :]
    return (half[..., :, None, :] * half[..., None, :, :]).sum(-1)


def _cell(worst: Worst, pairs: int) -> str:
    share = f", {worst.not_finite / pairs:.0e} NaN, Inf" if worst.not_finite else ""
    return f"{worst.dist_sq:.0e} / {worst.lowest:.2f}{share}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000, help="pairs for each σ_max")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"dist_sq worst relative error / lowest log_det, {arguments.pairs} degenerate pairs a row, float32\n")
    print("| σ_max (nm) | κ | " + " | ".join(FORMS) + " | jitter: bias of dist_sq / log_det |")
    print("| --- " * (len(FORMS) + 3) + "|")
    rows = []
    for sigma_max in SIGMA_MAX:
        row = measure(sigma_max, arguments.pairs)
        cells = [_cell(worst, row.pairs) for worst in row.forms.values()]
        kappa = sigma_max / Domain().sigma_min
        bias = f"{row.bias[0]:.2e} / {row.bias[1]:.2e}"
        print(f"| {sigma_max:g} | {kappa:.0f} | " + " | ".join(cells) + f" | {bias} |", flush=True)
        forms = {
            name: {
                "dist_sq_relative": worst.dist_sq,
                "log_det_absolute": worst.log_det,
                "log_det_lowest": worst.lowest if math.isfinite(worst.lowest) else None,
                "not_finite": worst.not_finite,
            }
            for name, worst in row.forms.items()
        }
        bias_of = dict(zip(("dist_sq_relative", "log_det_absolute"), row.bias, strict=True))
        rows.append({"sigma_max_nm": sigma_max, "pairs": row.pairs, "forms": forms, "jitter_bias": bias_of})
    if arguments.json:
        setup = {"sigma_min_nm": Domain().sigma_min, "pivot_min": PIVOT_MIN, "jitter_nm2": JITTER}
        result = {"environment": environment(SEED), **setup, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
