"""The machine's limit, measured in the same run: float32 operations a second that its vector units reach.

An operation is one of a lane's: a fused multiply-add counts once, as it does in the instruction counts of a kernel.
CPU: chains of fused multiply-adds near the registers, on all threads. CUDA: a float32 matrix product, TF32 off, which
runs at nearly the rate of the FP32 units.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from iga.bench.measure import clock
from iga.report import documents

__all__ = ["OPERATIONS", "Limit", "measure_limit"]

# Operations of one pair-point, an assumption: the closed form takes 100 forward, and backward 135 on each of its two
# sides, what is computed again included. A share of the limit above 1 says that fewer were needed.
OPERATIONS = {"forward": 100.0, "forward_backward": 370.0}
_ROUNDS, _REPEATS = 20_000, 5


class Limit(NamedTuple):
    """float32 operations a second, and how they were measured.

    `scaling`: of all threads together, over that of one times their number: 1 where every thread had a core for itself.
    """

    operations: float
    how: str
    scaling: float = 1.0

    def share(self, pair_points_per_second: float, direction: str) -> float:
        """The share of the limit that this many pair-points a second need."""
        return pair_points_per_second * OPERATIONS[direction] / self.operations

    def described(self) -> documents.Limit:
        """The limit in a document."""
        return {"goperations_per_s": self.operations / 1e9, "how": self.how, "scaling": self.scaling}


def measure_limit(device: torch.device) -> Limit:
    """The limit of this device, on a CPU at torch's number of threads: the best of a few runs of 0.1 s."""
    return _matrix_product(device) if device.type == "cuda" else _multiply_adds(torch.get_num_threads())


def _multiply_adds(threads: int) -> Limit:
    from iga.bench._fma import run_chains

    seconds = clock(torch.device("cpu"))
    with ThreadPoolExecutor(threads) as pool:
        once = run_chains(pool, 1, 1)  # compiles
        alone = min(seconds(lambda: run_chains(pool, 1, _ROUNDS)) for _ in range(_REPEATS))
        best = min(seconds(lambda: run_chains(pool, threads, _ROUNDS)) for _ in range(_REPEATS))
    how = "numba, fused multiply-adds near the registers"
    return Limit(once * _ROUNDS * threads / best, how, alone / best)


def _matrix_product(device: torch.device, size: int = 8192) -> Limit:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        a = torch.randn(size, size, device=device)
        seconds = clock(device)
        seconds(lambda: a @ a)
        best = min(seconds(lambda: a @ a) for _ in range(_REPEATS))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return Limit(size**3 / best, f"float32 matrix product of {size}, TF32 off")
