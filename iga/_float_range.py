"""The range of σ for which nothing overflows or underflows in the closed form, in a floating-point format. No torch.

docs/theory.md, section 5, derives it: with E the largest distance of two anchors and u_max = offset_max,

    values      σ_min ≥ tiny^(1/6), (2E²/max)^(1/2)
                σ_max ≤ (max/16)^(1/6), (max/(384 u_max²))^(1/6), (max/(32 E²))^(1/4)
    gradients   σ_min ≥ (6 u_max²/max)^(1/6), (E²/(2 max))^(1/8) besides
"""

__all__ = ["FLOAT32", "sigma_limits"]

# Smallest normal and largest finite number.
FLOAT32 = (2.0**-126, (2.0 - 2.0**-23) * 2.0**127)


def sigma_limits(
    extent: float, offset_max: float, limits: tuple[float, float] = FLOAT32, *, gradients: bool = False
) -> tuple[float, float]:
    """(least σ_min, largest σ_max) in nm for anchors within `extent` nm, in the format with these `limits`."""
    tiny, most = limits
    root = most**0.5
    low = max(tiny ** (1 / 6), 2**0.5 * extent / root)
    if gradients:
        low = max(low, (6 * offset_max**2 / most) ** (1 / 6), (extent / root) ** (1 / 4) * 2 ** (-1 / 8))
    high = min((most / 16) ** (1 / 6), (most / 384 / offset_max**2) ** (1 / 6))
    if extent > 0:
        high = min(high, (root / extent) ** (1 / 2) * 32 ** (-1 / 4))
    return low, high
