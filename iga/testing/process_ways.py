"""Ways of calling while the process is in another mode: default dtype and device, deterministic algorithms, anomalies.

What is computed belongs to the inputs' dtype and device, whatever the process would choose for a tensor made anew.
"""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from iga.testing.ways import Answers, Inputs, Scene, Way

__all__ = ["PROCESS"]


def _default_dtype(scene: Scene, inputs: Inputs) -> Answers:
    """While the process makes its tensors in the other dtype."""
    own = next(x.dtype for x in inputs.values() if x.is_floating_point())
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if own == torch.float32 else torch.float32)
    try:
        return scene.call(inputs)
    finally:
        torch.set_default_dtype(before)


def _default_device(scene: Scene, inputs: Inputs) -> Answers:
    with torch.device("meta"):
        return scene.call(inputs)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Deterministic algorithms where torch has them; of others it warns, which is no fault of the accused."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _deterministically(scene: Scene, inputs: Inputs) -> Answers:
    with _deterministic():
        return scene.call(inputs)


def _watched(scene: Scene, inputs: Inputs) -> Answers:
    looked_for: AbstractContextManager[object] = torch.autograd.set_detect_anomaly(True, check_nan=False)
    with looked_for:
        return scene.call(inputs)


PROCESS: tuple[Way, ...] = (
    Way(name="another default dtype", claim="default_dtype", run=_default_dtype),
    Way(name="another default device", claim="device_context", run=_default_device),
    Way(name="with deterministic algorithms", claim="deterministic_algorithms", run=_deterministically),
    Way(name="while anomalies are looked for", claim="anomaly_mode", run=_watched),
)
