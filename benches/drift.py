"""Drift of rotation matrices in float32, what it leaves of the proven digits, and what each cure costs.

    python benches/drift.py [--frames N] [--json benches/results/drift.json]

Drift is ‖R − nearest rotation‖_F in units of u = 2⁻²⁴. Each way to make a frame is measured as this package has it and
as it is without the correction (`plain`): constructors, and chains of 1 to 1000 products with random rotations. Digits
are those proven of dist_sq at κ = 5000 for the worst drift seen (docs/theory.md, 6.4). Costs are medians of interleaved
repeats: a plain and a corrected product, the correction alone, and the forward pass at whose door it could stand; the
outputs of that are compared bit by bit. docs/theory.md, 6.7.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from iga import bounds, rotation
from iga._runtime import environment
from iga.attention import InvariantGaussianAttention
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.judges.overlap import drift

CHAINS = (1, 10, 100, 500, 1000)
KAPPA = 5000.0
REPEATS = 41


@contextmanager
def uncorrected() -> Iterator[None]:
    """Constructors and products as they are without the correction."""
    kept = rotation.orthonormalised
    rotation.orthonormalised = lambda rot: rot
    try:
        yield
    finally:
        rotation.orthonormalised = kept


def made(frames: int) -> Iterator[tuple[str, Tensor]]:
    """Float32 frames by each constructor, and after chains of products."""
    generator = torch.Generator().manual_seed(0)
    yield "random", rotation.random(frames, generator=generator)
    yield "from_quaternion", rotation.from_quaternion(torch.randn(frames, 4, generator=generator))
    yield "exp", rotation.exp(torch.randn(frames, 3, generator=generator))
    yield "gram_schmidt", rotation.gram_schmidt(*torch.randn(2, frames, 3, generator=generator))[0]
    rot = rotation.random(frames, generator=generator)
    for count in range(1, max(CHAINS) + 1):
        rot = rotation.compose(rot, rotation.random(frames, generator=generator))
        if count in CHAINS:
            yield f"{count} products", rot


def drifts(frames: int) -> list[dict[str, float | str]]:
    """Median and worst drift of each way, plain and corrected, in u, and the digits that the worst leaves."""
    u = bounds.unit_roundoff(torch.float32)
    rows: dict[str, dict[str, float | str]] = {}
    for kind in ("plain", "corrected"):
        with uncorrected() if kind == "plain" else torch.no_grad():
            for name, rot in made(frames):
                off = drift(rot) / u
                row = rows.setdefault(name, {"made by": name})
                row[f"{kind} median"], row[f"{kind} worst"] = float(off.median()), float(off.amax())
                # the threshold of the correction is √3 u, to the rounding of its own arithmetic
                hypothesis = max(bounds.ROUNDED_DRIFT, float(off.amax()))
                row[f"{kind} digits"] = bounds.digits_left(KAPPA, torch.float32, drift=hypothesis)
    return list(rows.values())


def milliseconds(*ways: Callable[[], object]) -> list[float]:
    """Median time of each, interleaved."""
    times: list[list[float]] = [[] for _ in ways]
    for repeat in range(REPEATS + 3):
        for way, found in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            if repeat >= 3:
                found.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(found) for found in times]


def costs(residues: int) -> dict[str, float]:
    """Times in ms at `residues`, and the share of the layer's outputs that a correction at its door changes."""
    generator = torch.Generator().manual_seed(1)
    with uncorrected():
        rot = rotation.random(1, residues, generator=generator)
    other = rotation.random(1, residues, generator=generator)
    trans, mean = 2.0 * torch.randn(2, 1, residues, 3, generator=generator)
    log_scale = torch.randn(1, residues, 3, generator=generator) - 1.5
    rigid = GaussianRigid(Frame(rot, trans), 0.1 * mean, log_scale)
    torch.manual_seed(0)
    layer = InvariantGaussianAttention(c_s=64, c_z=32, c_hidden=16, no_heads=8, no_qk_points=8, no_v_points=8)
    s, z = (
        torch.randn(1, residues, 64, generator=generator),
        torch.randn(1, residues, residues, 32, generator=generator),
    )
    mask = torch.ones(1, residues, dtype=torch.bool)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.0, 0.1)  # the last projection begins at zero, which would hide any difference
        product, corrected, correction, forward = milliseconds(
            lambda: rotation.multiply(rot, other),
            lambda: rotation.compose(rot, other),
            lambda: rigid.orthonormalised(),
            lambda: layer(s, z, rigid, mask),
        )
        differ = layer(s, z, rigid, mask) != layer(s, z, rigid.orthonormalised(), mask)
    return {
        "residues": residues,
        "product ms": product,
        "corrected product ms": corrected,
        "correction alone ms": correction,
        "forward ms": forward,
        "outputs that a correction at the door changes": float(differ.double().mean()),
    }


def table(rows: list[dict[str, float | str]]) -> str:
    """Rows as a Markdown table."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for row in rows:
        cells = (x if isinstance(x, str) else f"{x:.4g}" for x in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows, cost = drifts(chosen.frames), [costs(residues) for residues in (64, 256)]
    print(table(rows), table(cost), sep="\n\n")  # pyright: ignore[reportArgumentType] - rows of numbers alone
    if chosen.json:
        document = {"environment": environment(0), "frames": chosen.frames, "drift": rows, "cost": cost}
        chosen.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
