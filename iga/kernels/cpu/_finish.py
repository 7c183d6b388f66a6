"""Machine code that makes gradients of the sums over all pairs: numba, one thread.

What it computes is `packing.finished`; sums over heads and points are taken in float64, one by one.
"""

import numpy as np

from iga.kernels.cpu._compile import compiled

__all__ = ["finish_sums"]


def _finish_sums(rot, sigma, sums, lanes, factor, b, row, end, d_mean, d_sigma, d_rot):
    """Of residues row … end − 1: writes d_mean = factor · R Σ e u and d_sigma = 2 σ_k M_kk [B, H, P, N, 3], and adds
    R K to d_rot [B, N, 9]. rot [B, N, 9], sigma [B, H, P, N, 3], sums [B, H, P, ·] in tiles of `lanes` residues."""
    heads, points = sigma.shape[1], sigma.shape[2]
    k = np.zeros((end - row, 3))
    for h in range(heads):
        for p in range(points):
            of_all, s = sums[b, h, p], sigma[b, h, p]
            mean, of_sigma = d_mean[b, h, p], d_sigma[b, h, p]
            for i in range(row, end):
                at = i // lanes * (9 * lanes) + i % lanes
                u0, u1, u2 = of_all[at], of_all[at + lanes], of_all[at + 2 * lanes]
                m = rot[b, i]
                mean[i, 0] = factor * (m[0] * u0 + m[1] * u1 + m[2] * u2)
                mean[i, 1] = factor * (m[3] * u0 + m[4] * u1 + m[5] * u2)
                mean[i, 2] = factor * (m[6] * u0 + m[7] * u1 + m[8] * u2)
                s0, s1, s2 = s[i, 0], s[i, 1], s[i, 2]
                of_sigma[i, 0] = (s0 + s0) * of_all[at + 3 * lanes]
                of_sigma[i, 1] = (s1 + s1) * of_all[at + 4 * lanes]
                of_sigma[i, 2] = (s2 + s2) * of_all[at + 5 * lanes]
                k[i - row, 0] += of_all[at + 6 * lanes] * ((s1 - s0) * (s1 + s0))
                k[i - row, 1] += of_all[at + 7 * lanes] * ((s2 - s0) * (s2 + s0))
                k[i - row, 2] += of_all[at + 8 * lanes] * ((s2 - s1) * (s2 + s1))
    for i in range(row, end):
        m, out = rot[b, i], d_rot[b, i]
        k01, k02, k12 = k[i - row, 0], k[i - row, 1], k[i - row, 2]
        for a in range(0, 9, 3):
            out[a] += -m[a + 1] * k01 - m[a + 2] * k02
            out[a + 1] += m[a] * k01 - m[a + 2] * k12
            out[a + 2] += m[a] * k02 + m[a + 1] * k12


finish_sums = compiled("T3 T5 T4 i T i i i T5 T5 T3")(_finish_sums)
