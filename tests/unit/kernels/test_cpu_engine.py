"""The numba engine against float64 QR and its autograd: scores, gradients, lowest log_det, determinism.

Budgets. Scores: those of `iga.overlap.gaussian_overlap`, dist_sq (15 + 8κ)u relative and log_det (25 + 3κ)u absolute,
carried through the score, and for the sum and its logarithms six roundings of every summand and P of the total.
Gradients: the reference with every number of its input changed by random signs of relative size s moves by s·S; an
evaluation with p roundings along its longest chain errs by p·u·(S + |result|), here p = 40 + N. The numbers of a
rotation one by one, since a rounded one is off SO(3) by as much, and forms differ there; ∂R counts along the tangent.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from llvmlite.binding import get_host_cpu_features
from numba import njit
from torch import Tensor

from iga import rotation
from iga.kernels.cpu import _backward, _compile, _forward
from iga.kernels.cpu.engine import CpuEngine
from iga.kernels.engine import Geometry, Gradients, Score
from iga.search.pairs import decode, degenerate_pairs
from iga.testing.judges.overlap import condition, overlap_reference

NONE = float("-inf")
GAUSSIAN, STUDENT = Score("gaussian", 4.0, NONE), Score("student_t", 4.0, NONE)
SCORES = [GAUSSIAN, STUDENT]
NAMES = ("rot", "q_mean", "q_sigma", "k_mean", "k_sigma")
UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
TURN = 2.0**-32
PROBES = 3
AVX_512 = get_host_cpu_features().get("avx512f", False)


def ordinary(
    batch: int = 2,
    n: int = 37,
    heads: int = 2,
    points: int = 3,
    dtype: torch.dtype = torch.float32,
    sigma: tuple[float, float] = (0.05, 3.0),
    spread: float = 2.0,
) -> Geometry:
    """Gaussians log-uniform in σ, normal in position; the last residue of each entry but the first is masked."""
    generator = torch.Generator().manual_seed(7)
    shape = (batch, heads, points, n, 3)
    low, high = math.log(sigma[0]), math.log(sigma[1])
    rot = rotation.random(batch, n, generator=generator, dtype=torch.float64)
    means = [spread * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in "qk"]
    sigmas = [(low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)).exp() for _ in "qk"]
    mask = torch.ones(batch, n, dtype=torch.bool)
    if n > 1:
        mask[1:, -1] = False
        rot[1:, -1] = torch.eye(3, dtype=torch.float64)
        for t, neutral in ((means, 0.0), (sigmas, 1.0)):
            for x in t:
                x[1:, :, :, -1] = neutral
    ordered = (rot, mask, means[0], sigmas[0], means[1], sigmas[1])
    return Geometry(*(x if x.dtype == torch.bool else x.to(dtype) for x in ordered))


def degenerate(count: int = 300) -> Geometry:
    """Each pair of genomes as a batch entry of two residues, each against the other and itself; σ 0.03 to 150 nm."""
    r_i, m_i, s_i, r_j, m_j, s_j = decode(degenerate_pairs(count, torch.Generator().manual_seed(3)))
    rot, mean, sigma = (torch.stack(pair, dim=1) for pair in ((r_i, r_j), (m_i, m_j), (s_i, s_j)))
    mean, sigma = mean[:, None, None].contiguous(), sigma[:, None, None].contiguous()
    return Geometry(rot, torch.ones(count, 2, dtype=torch.bool), mean, sigma, mean.clone(), sigma.clone())


@dataclass(frozen=True, eq=False)
class Judged:
    """Σ_p score and its budget [B, H, N, N], log_det [B, H, P, N, N], in float64."""

    sums: Tensor
    budget: Tensor
    log_det: Tensor


def overlaps(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    r = tensors["rot"]
    return overlap_reference(
        r[:, None, None, :, None],
        tensors["q_mean"][..., :, None, :],
        tensors["q_sigma"][..., :, None, :],
        r[:, None, None, None],
        tensors["k_mean"][..., None, :, :],
        tensors["k_sigma"][..., None, :, :],
    )


def scores(dist_sq: Tensor, log_det: Tensor, score: Score) -> Tensor:
    clamped = log_det.clamp(min=score.log_det_min)
    if score.kind == "gaussian":
        return -0.5 * (dist_sq + clamped)
    return -0.5 * ((score.dof + 3) * torch.log1p(dist_sq / score.dof) + clamped)


def wide(g: Geometry) -> dict[str, Tensor]:
    return {name: getattr(g, name).double() for name in NAMES}


def judged(g: Geometry, score: Score) -> Judged:
    t, u = wide(g), UNIT[g.rot.dtype]
    dist_sq, log_det = overlaps(t)
    kappa = condition(t["q_sigma"][..., :, None, :], t["k_sigma"][..., None, :, :])
    each = scores(dist_sq, log_det, score)
    student = score.kind == "student_t"
    slope = 0.5 * (score.dof + 3) / (score.dof + dist_sq) if student else torch.full_like(dist_sq, 0.5)
    budget = slope * dist_sq * (15 + 8 * kappa) + 0.5 * (25 + 3 * kappa)
    budget = budget + 6 * (slope * dist_sq + 0.5 * log_det.abs() + each.abs())
    if student:
        # ln(1 + x) of a rounded 1 + x, and its logarithm's own roundings
        budget = budget + (score.dof + 3) * (1 + 3 * torch.log1p(dist_sq / score.dof))
    points = each.shape[2]
    return Judged(each.sum(2), u * (budget.sum(2) + points * each.abs().sum(2)), log_det)


def assert_within(found: Tensor, wanted: Tensor, budget: Tensor, what: str) -> None:
    assert found.isfinite().all(), f"{what}: not finite"
    ratio = (found.double() - wanted).abs() / budget.clamp(min=torch.finfo(torch.float64).tiny)
    assert (ratio <= 1).all(), f"{what}: {ratio.max():.3g} of its budget at {int(ratio.argmax())}"
    assert (budget < wanted.abs()).any(), f"{what}: the budget excuses anything"


def tangent(rot: Tensor, grad: Tensor) -> Tensor:
    """The components of ∂R along SO(3): Rᵀ∂R − (Rᵀ∂R)ᵀ, three numbers."""
    a = (rot.double()[..., :, :, None] * grad.double()[..., :, None, :]).sum(-3)
    return torch.stack([a[..., 2, 1] - a[..., 1, 2], a[..., 0, 2] - a[..., 2, 0], a[..., 1, 0] - a[..., 0, 1]], dim=-1)


def reference_gradients(tensors: dict[str, Tensor], score: Score, gamma: Tensor) -> dict[str, Tensor]:
    leaves = {name: x.clone().requires_grad_() for name, x in tensors.items()}
    total = (gamma.double() * scores(*overlaps(leaves), score).sum(2)).sum()
    found = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
    return found | {"rot": tangent(tensors["rot"], found["rot"])}


def changed(tensors: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    def sign(x: Tensor) -> Tensor:
        return torch.randint(0, 2, x.shape, generator=generator).double() * 2 - 1

    return {name: x * (1 + TURN * sign(x)) for name, x in tensors.items()}


def assert_gradients(g: Geometry, score: Score, gamma: Tensor, found: Gradients) -> None:
    tensors, generator = wide(g), torch.Generator().manual_seed(1)
    wanted = reference_gradients(tensors, score, gamma)
    probes = [reference_gradients(changed(tensors, generator), score, gamma) for _ in range(PROBES)]
    n = g.rot.shape[1]
    # float64: the judge is float64 too, and rounds as much
    chain = (40 + n) * (1 if g.rot.dtype == torch.float32 else 8)
    for name, result in zip(NAMES, found, strict=True):
        assert result.shape == getattr(g, name).shape and result.dtype == g.rot.dtype
        moved = torch.stack([(probe[name] - wanted[name]).abs() for probe in probes]).sum(0) / TURN
        # the components of one vector turn into one another
        size = (moved + wanted[name].abs()).amax(-1, keepdim=True).expand_as(moved)
        result = tangent(g.rot, result) if name == "rot" else result
        assert_within(result, wanted[name], chain * UNIT[g.rot.dtype] * size, name)


def run_back(g: Geometry, score: Score, gamma: Tensor, rows: int | None = None) -> Gradients:
    engine, n = CpuEngine(g, score), g.rot.shape[1]
    step = rows or n
    for start in range(0, n, step):
        stop = min(n, start + step)
        engine.add_gradients(start, stop, gamma[:, :, start:stop])
    return engine.gradients()


def gammas(g: Geometry) -> Tensor:
    batch, heads, _, n, _ = g.q_mean.shape
    gamma = torch.randn(batch, heads, n, n, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    valid = g.mask[:, None, :, None] & g.mask[:, None, None, :]
    return torch.where(valid, gamma, 0.0).to(g.rot.dtype)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# Dtypes, scores and sizes in pairs.
@pytest.mark.parametrize(
    ("dtype", "score", "n", "points"),
    [
        (torch.float32, GAUSSIAN, 1, 1),
        (torch.float32, STUDENT, 37, 3),
        (torch.float32, GAUSSIAN, 130, 2),
        (torch.float32, STUDENT, 129, 1),
        (torch.float32, STUDENT, 37, 4),
        (torch.float32, STUDENT, 130, 7),
        (torch.float32, GAUSSIAN, 37, 5),
        (torch.float64, STUDENT, 1, 2),
        (torch.float64, GAUSSIAN, 37, 3),
        (torch.float64, STUDENT, 130, 1),
    ],
)
def test_sums_are_those_of_the_reference(dtype: torch.dtype, score: Score, n: int, points: int) -> None:
    g = ordinary(n=n, points=points, dtype=dtype)
    engine, judge = CpuEngine(g, score), judged(g, score)
    assert engine.together == (4 if score is STUDENT else 2)
    sums, lowest = engine.sums(0, n, lowest=True)
    assert sums.dtype == dtype and lowest.shape == (2, 2, n)
    assert_within(sums, judge.sums, judge.budget, "sums")
    valid = g.mask[:, None, None, None, :]
    least = torch.where(valid, judge.log_det, math.inf).amin((2, -1))
    kappa = 3.0 / 0.05
    assert_within(lowest, least, UNIT[dtype] * (25 + 3 * kappa + 4 * least.abs()), "lowest")
    assert engine.sums(0, n)[1].shape == (0,)


@pytest.mark.parametrize("score", SCORES, ids=lambda s: s.kind)
def test_sums_of_degenerate_pairs_stay_in_the_budget_of_the_closed_form(score: Score) -> None:
    g = degenerate()
    engine, judge = CpuEngine(g, score), judged(g, score)
    assert_within(engine.sums(0, 2)[0], judge.sums, judge.budget, "sums")
    doubled = Geometry(g.rot, g.mask, *(t.repeat(1, 1, 2, 1, 1) for t in (g.q_mean, g.q_sigma, g.k_mean, g.k_sigma)))
    engine, judge = CpuEngine(doubled, score), judged(doubled, score)
    assert engine.together == 2, "σ of 0.03 to 150 nm and 1 µm apart: two determinants multiply in float32"
    assert_within(engine.sums(0, 2)[0], judge.sums, judge.budget, "sums of two points")


@pytest.mark.parametrize("score", SCORES, ids=lambda s: s.kind)
@pytest.mark.parametrize("sigma", [1e-6, 1e-4, 1e5, 3e5])
def test_sums_are_right_where_no_two_determinants_multiply(score: Score, sigma: float) -> None:
    g = ordinary(sigma=(sigma, 1.5 * sigma), points=2, n=9, spread=3 * sigma)
    engine, judge = CpuEngine(g, score), judged(g, score)
    assert engine.together == 1
    assert_within(engine.sums(0, 9)[0], judge.sums, judge.budget, "sums")


@pytest.mark.parametrize("score", SCORES, ids=lambda s: s.kind)
def test_a_clamp_acts_on_scores_and_gradients_and_not_on_the_lowest_log_det(score: Score) -> None:
    g, clamped = ordinary(), replace(score, log_det_min=-2.0)
    engine, judge = CpuEngine(g, clamped), judged(g, clamped)
    assert engine.together == 1 and 0.1 < (judge.log_det < -2.0).double().mean() < 0.9
    sums, lowest = engine.sums(0, 37, lowest=True)
    assert_within(sums, judge.sums, judge.budget, "sums")
    assert torch.equal(lowest, CpuEngine(g, score).sums(0, 37, lowest=True)[1])
    gamma = gammas(g)
    assert_gradients(g, clamped, gamma, run_back(g, clamped, gamma))


def test_a_clamp_that_no_determinant_can_reach_changes_nothing() -> None:
    g = ordinary()
    inert = replace(STUDENT, log_det_min=3 * math.log(2 * 0.05**2) - 0.1)
    assert CpuEngine(g, inert).together == 4
    assert torch.equal(CpuEngine(g, inert).sums(0, 37)[0], CpuEngine(g, STUDENT).sums(0, 37)[0])


@pytest.mark.parametrize("dof", [0.5, 2.5, 30.0, 1e4])
def test_any_number_of_degrees_of_freedom_is_right_near_and_far(dof: float) -> None:
    """At dof 10⁴ a ln(1 + x) that rounds 1 + x first would be off by 10⁴ units; the budget allows dist_sq its own."""
    score = Score("student_t", dof, NONE)
    g = ordinary(points=2)
    judge = judged(g, score)
    dist_sq, log_det = overlaps(wide(g))
    slope = 0.5 * (dof + 3) / (dof + dist_sq)
    kappa = 60.0
    spread = 0.5 * (dof + 3) * torch.log1p(dist_sq / dof)
    budget = slope * dist_sq * (15 + 8 * kappa) + 0.5 * (25 + 3 * kappa) + 8 * (spread + log_det.abs()) + 8
    assert_within(CpuEngine(g, score).sums(0, 37)[0], judge.sums, 2.0**-24 * budget.sum(2), "sums")


@pytest.mark.parametrize(
    ("score", "geometry"),
    [
        (GAUSSIAN, lambda: ordinary(n=1, points=2)),
        (STUDENT, lambda: ordinary()),
        (GAUSSIAN, lambda: ordinary(n=130, heads=1, points=1)),
        (STUDENT, lambda: ordinary(n=1, points=2, dtype=torch.float64)),
        (GAUSSIAN, lambda: ordinary(dtype=torch.float64)),
        (STUDENT, lambda: ordinary(n=130, heads=1, points=1, dtype=torch.float64)),
        (GAUSSIAN, degenerate),
        (STUDENT, degenerate),
    ],
)
def test_gradients_are_those_of_the_reference(score: Score, geometry: Callable[[], Geometry]) -> None:
    g = geometry()
    gamma = gammas(g)
    assert_gradients(g, score, gamma, run_back(g, score, gamma))


@pytest.mark.parametrize("score", SCORES, ids=lambda s: s.kind)
def test_blocks_of_rows_add_up_to_the_whole(score: Score) -> None:
    g = ordinary(n=150, batch=1, heads=1, points=2)
    engine, gamma = CpuEngine(g, score), gammas(g)
    whole, lowest = engine.sums(0, 150, lowest=True)
    for start, stop in ((0, 64), (64, 65), (65, 150)):
        part, low = engine.sums(start, stop, lowest=True)
        assert torch.equal(part, whole[:, :, start:stop]) and torch.equal(low, lowest[:, :, start:stop])
    at_once, by_blocks = run_back(g, score, gamma), run_back(g, score, gamma, rows=64)
    assert_gradients(g, score, gamma, by_blocks)
    assert torch.equal(at_once.q_mean, by_blocks.q_mean) and torch.equal(at_once.k_mean, by_blocks.k_mean)


def test_one_and_two_threads_give_the_same_bits_every_time(two_threads: None) -> None:
    g = ordinary(n=150, heads=3)
    gamma = gammas(g)
    torch.set_num_threads(1)
    alone, back = CpuEngine(g, STUDENT).sums(0, 150)[0], run_back(g, STUDENT, gamma, rows=100)
    torch.set_num_threads(2)
    for _ in range(3):
        assert torch.equal(CpuEngine(g, STUDENT).sums(0, 150)[0], alone)
        for once, again in zip(back, run_back(g, STUDENT, gamma, rows=100), strict=True):
            assert once.isfinite().all() and torch.equal(once, again)


def test_rows_without_valid_keys_have_no_lowest_log_det() -> None:
    g = replace(ordinary(), mask=torch.zeros(2, 37, dtype=torch.bool))
    sums, lowest = CpuEngine(g, GAUSSIAN).sums(0, 37, lowest=True)
    assert sums.isfinite().all() and (lowest == math.inf).all()


@pytest.mark.parametrize("score", [*SCORES, Score("student_t", 4.0, -2.0)], ids=str)
def test_what_is_not_a_number_in_a_valid_key_is_not_a_number_in_its_sums(score: Score) -> None:
    g = ordinary(points=2)
    for field in ("k_mean", "k_sigma"):
        spoiled = getattr(g, field).clone()
        spoiled[0, 1, 1, 5, 2] = math.nan
        sums = CpuEngine(replace(g, **{field: spoiled}), score).sums(0, 37)[0]
        assert sums[0, 1, :, 5].isnan().all() and sums[0, 0].isfinite().all() and sums[1].isfinite().all()


def test_nothing_accumulated_is_zero() -> None:
    g = ordinary()
    for name, x in zip(NAMES, CpuEngine(g, GAUSSIAN).gradients(), strict=True):
        assert x.shape == getattr(g, name).shape and (x == 0).all()


def test_the_logarithm_is_within_three_units_over_the_whole_range_of_float32() -> None:
    """Every binade of normal float32 at 2¹¹ mantissas, those around 1 and √½ among them, against float64."""

    @njit
    def walk(x: np.ndarray, out: np.ndarray) -> None:
        for j in range(x.shape[0]):
            out[j] = _forward._ln(x[j])

    step = np.arange(1 << 11, dtype=np.int64)[None] * 4096 + np.arange(1, 255, dtype=np.int64)[:, None] * (1 << 23)
    near = np.float32([0.5**0.5, 1.0, 2.0**0.5]).view(np.int32)[:, None] + np.arange(-500, 500)[None]
    x = np.concatenate([step.ravel(), near.ravel()]).astype(np.int32).view(np.float32)
    found = np.empty_like(x)
    walk(x, found)
    wanted = np.log(x.astype(np.float64))
    assert np.isfinite(found).all()
    assert (np.abs(found - wanted) <= 3 * 2.0**-24 * np.abs(wanted)).all()
    assert (found[x == 1.0] == 0).all()


def test_both_kernels_read_tiles_of_the_same_size() -> None:
    assert (_forward.LANES, _forward.FIELDS) == (_backward.LANES, _backward.FIELDS)


@pytest.mark.skipif(not AVX_512, reason="the processor has no AVX-512")
def test_loops_take_the_full_width_of_the_vectors_where_they_ask_for_it() -> None:
    def widened(x: np.ndarray) -> None:
        _compile.full_width()  # pyright: ignore[reportCallIssue] - numba passes the context
        for j in range(x.shape[0]):
            x[j] = x[j] * x[j]

    quick = njit(widened)
    quick(np.ones(64, np.float32))
    (code,) = quick.inspect_asm().values()  # pyright: ignore[reportAttributeAccessIssue]
    assert "zmm" in code


def test_scratch_begins_with_a_cache_line() -> None:
    @njit
    def made(size: int, like: np.ndarray) -> np.ndarray:
        return _compile.aligned(size, like.dtype)

    for kind in (np.float32, np.float64):
        for size in (1, 128, 3456):
            x = made(size, np.ones(1, kind))
            assert x.shape == (size,) and x.dtype == kind and x.ctypes.data % 64 == 0
