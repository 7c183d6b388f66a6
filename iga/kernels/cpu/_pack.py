"""Machine code for what precedes the pairs: keys into tiles, and the ends of their range; numba, one thread, one pass.

Layout and fields are those of `iga.kernels.packing`, which says the same in torch.
"""

import numpy as np

from iga.kernels.cpu._compile import compiled

__all__ = ["pack_keys", "widen_range"]


def _pack_keys(mean, sigma, lanes, b, h, keys):
    """keys [B, H, P, tiles, 10·lanes] of head h from mean and sigma [B, H, P, N, 3]; what is beyond N is one."""
    points, tiles, fields = keys.shape[2], keys.shape[3], keys.shape[4] // lanes
    n = mean.shape[3]
    for p in range(points):
        for t in range(tiles):
            out, first = keys[b, h, p, t], t * lanes
            for at in range(min(lanes, n - first)):
                i = first + at
                s0, s1, s2 = sigma[b, h, p, i, 0], sigma[b, h, p, i, 1], sigma[b, h, p, i, 2]
                v0, v1, v2 = s0 * s0, s1 * s1, s2 * s2
                w0 = v1 * v2
                for k in range(3):
                    out[k * lanes + at] = mean[b, h, p, i, k]
                out[3 * lanes + at], out[4 * lanes + at], out[5 * lanes + at] = v0, v1, v2
                out[6 * lanes + at], out[7 * lanes + at], out[8 * lanes + at] = w0, v2 * v0, v0 * v1
                out[9 * lanes + at] = w0 * v0
            for at in range(n - first, lanes):
                for k in range(fields):
                    out[k * lanes + at] = 1


def _widen_range(x, ends):
    """ends [2, 3]: least and largest of each column of x [·, 3], and of what was there; NaN where one is not finite."""
    flat = x.reshape(-1)
    low, high, wrong = np.empty(48, x.dtype), np.empty(48, x.dtype), np.zeros(48, x.dtype)
    for k in range(48):
        low[k], high[k] = ends[0, k % 3], ends[1, k % 3]
    whole = flat.shape[0] // 48 * 48
    for first in range(0, whole, 48):
        for k in range(48):
            y = flat[first + k]
            low[k] = y if y < low[k] else low[k]
            high[k] = y if y > high[k] else high[k]
            wrong[k] += y - y
    for j in range(whole, flat.shape[0]):
        y, k = flat[j], j - whole
        low[k] = y if y < low[k] else low[k]
        high[k] = y if y > high[k] else high[k]
        wrong[k] += y - y
    for k in range(48):
        # y − y is NaN for NaN and for infinity: neither has a range
        ends[0, k % 3] = min(ends[0, k % 3], low[k]) + wrong[k]
        ends[1, k % 3] = max(ends[1, k % 3], high[k]) + wrong[k]


pack_keys = compiled("T5 T5 i i i T5")(_pack_keys)
widen_range = compiled("T2 T2")(_widen_range)
