"""Seconds of the first call of a layer, in a process of its own, from an empty cache and from a full one.

    python benches/first_call.py [--repeats 3]

Wall clock; on a machine that does something else it says little.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CALL = """
import time, torch
from iga import Frame, InvariantGaussianAttention
from iga.rotation import random
torch.manual_seed(0)
layer = InvariantGaussianAttention(16, 8, 8, 2, 3, 3, implementation="cpu")
frame, mask = Frame(random(1, 20), torch.randn(1, 20, 3)), torch.ones(1, 20, dtype=torch.bool)
s, z = torch.randn(1, 20, 16), torch.randn(1, 20, 20, 8)
start = time.perf_counter()
with torch.set_grad_enabled({gradients}):
    out = layer(s, z, frame, mask)
if {gradients}:
    out.square().sum().backward()
print(time.perf_counter() - start)
"""


def seconds(gradients: bool, folder: Path) -> float:
    root = Path(__file__).resolve().parents[1]
    env = os.environ | {"NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(root)}
    call = [sys.executable, "-c", CALL.format(gradients=gradients)]
    return float(subprocess.run(call, env=env, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    for gradients in (False, True):
        empty, full = [], []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                empty.append(seconds(gradients, Path(folder)))
                full.append(seconds(gradients, Path(folder)))
        what = "forward and backward" if gradients else "forward"
        cold, warm = statistics.median(empty), statistics.median(full)
        print(f"{what}: {cold:.1f} s from an empty cache, {warm:.1f} s from a full one")


if __name__ == "__main__":
    main()
