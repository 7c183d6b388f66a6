"""Machine code that carries value points between frames and space: numba, one thread. What it computes: `placing`."""

from numba import njit

from iga.kernels.cpu._compile import INLINE, compiled, full_width

__all__ = ["carry_points"]


@njit(**INLINE)
def _carry(x, r, a, b, y, points):
    """y = r (x − a) + b; one of a and b is 0, and then changes nothing."""
    full_width()
    for p in range(points):
        x0, x1, x2 = x[3 * p] - a[0], x[3 * p + 1] - a[1], x[3 * p + 2] - a[2]
        y[3 * p] = r[0] * x0 + r[1] * x1 + r[2] * x2 + b[0]
        y[3 * p + 1] = r[3] * x0 + r[4] * x1 + r[5] * x2 + b[1]
        y[3 * p + 2] = r[6] * x0 + r[7] * x1 + r[8] * x2 + b[2]


def _carry_points(points, rot, trans, home, b, row, end, out):
    """out [B, H, N, 3·pv] of rows row … end − 1: R x + t, or where `home` Rᵀ (x − t); rot [B, N, 9], trans [B, N, 3]"""
    heads, columns = points.shape[1], points.shape[3]
    for i in range(row, end):
        m, t = rot[b, i], trans[b, i]
        at, none = (t[0], t[1], t[2]), (m[0] - m[0], m[0] - m[0], m[0] - m[0])
        if home:
            r, before, after = (m[0], m[3], m[6], m[1], m[4], m[7], m[2], m[5], m[8]), at, none
        else:
            r, before, after = (m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8]), none, at
        for h in range(heads):
            _carry(points[b, h, i], r, before, after, out[b, h, i], columns // 3)


carry_points = compiled("T4 T3 T3 b i i i T4")(_carry_points)
