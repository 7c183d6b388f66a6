"""The picture of a pair of ellipsoids."""

import math

import torch

from iga.report.pair_picture import covariance, ellipse


def test_the_shadow_of_an_ellipsoid_is_that_of_its_points() -> None:
    generator = torch.Generator().manual_seed(0)
    rot, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    sigma, mean = torch.tensor([3.0, 0.5, 0.05], dtype=torch.float64), [1.0, -2.0, 4.0]
    across, up = ellipse(covariance(rot.flatten().tolist(), sigma.tolist()), mean, 0, 2)
    sphere = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=generator, dtype=torch.float64), dim=-1)
    points = (rot * sigma * sphere[:, None, :]).sum(-1) + torch.tensor(mean, dtype=torch.float64)
    cosine = 1 - math.cos(math.pi / (len(across) - 1))  # of the turn from the curve's own end to its nearest corner
    cap = 20 / 200_000  # share of the sphere that holds no point with a chance of e⁻²⁰; it is as high as 2 · its share
    for seen, axis in ((across, 0), (up, 2)):  # as wide as the points lie apart, up to how densely both are drawn
        off = max(cosine, 2 * cap) * float(sigma.max())
        assert abs(max(seen) - float(points[:, axis].max())) <= off
        assert abs(min(seen) - float(points[:, axis].min())) <= off
