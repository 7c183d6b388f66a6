"""`iga warm`: the CPU kernels compiled ahead, for images and CI."""

import logging
import time
from typing import TYPE_CHECKING, Annotated

import typer

from iga.cli.terminal import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["warm"]

DTYPES = ("float32", "float64")


def warm(
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="float32 or float64; repeats.", show_default="both"),
    ] = None,
    forward_only: Annotated[
        bool, typer.Option("--forward-only/--backward", help="Without the kernels of the gradients, or with them.")
    ] = False,
) -> None:
    """Compile the CPU kernels ahead, and keep them.

    They prove themselves against the reference meanwhile, and that is kept too. The first call then finds all of it:
    run it where an image is built or a CI cache is filled, on a processor of the kind that will use them.
    NUMBA_CACHE_DIR names the folder; without it, the package's own or the user's cache. Ends 2 if they cannot be
    compiled or kept, or are wrong.
    """
    wanted = list(dict.fromkeys(dtype or DTYPES))
    for name in wanted:
        if name not in DTYPES:
            raise typer.BadParameter(f"must be float32 or float64, got {name!r}", param_hint="--dtype")
    logging.getLogger("iga").setLevel(logging.ERROR)  # what it would say while it compiles is said here
    import torch

    from iga.kernels.choice import obstacle
    from iga.presets import IGAConfig

    for name in wanted:
        start = time.perf_counter()
        reason = obstacle("cpu", torch.device("cpu"), getattr(torch, name), IGAConfig())
        if reason is not None:
            raise UsageError(f"there is nothing to compile with: {reason}")
        from iga.kernels.cpu import ready
        from iga.kernels.cpu.cache import find, folders

        kernels = (*ready.FORWARD, *(() if forward_only else ready.BACKWARD))
        ready.ready(name, kernels)
        if not forward_only and (reason := _wrong_gradients(getattr(torch, name))):
            raise UsageError(f"the gradients of the CPU kernels are wrong here: {reason}")
        found = [find((kernel, name)) for kernel in kernels]
        places = sorted({str(kept[0]) for kept in found if kept is not None})
        if None in found:
            tried = " or ".join(map(str, folders()))
            raise UsageError(
                f"compiled kernels cannot be kept in {tried}; let NUMBA_CACHE_DIR name a folder that can be written to"
            )
        seconds = time.perf_counter() - start
        print(f"{name}: {len(kernels)} kernels ready in {seconds:.1f} s, kept in {' and '.join(places)}")


def _wrong_gradients(dtype: "torch.dtype") -> str | None:
    import torch

    from iga.kernels.trust import BACKWARD, distrust

    return distrust("cpu", torch.device("cpu"), dtype, "student_t", 1, BACKWARD)
