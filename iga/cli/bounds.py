"""`iga bounds` and `iga picture`: the proven bounds, and what the presets do, as commands."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from iga.cli.terminal import Bars, check_outputs, kept, misuse, say, show_rows

__all__ = ["bounds", "picture"]


def bounds(
    sigma_min: Annotated[float, typer.Option(help="Floor of every sigma, nm.")] = 0.03,
    sigma_max: Annotated[float, typer.Option(help="Largest sigma, nm.")] = 150.0,
    extent: Annotated[float, typer.Option(help="Largest distance of two anchors, nm.")] = 20.0,
    points: Annotated[int, typer.Option(help="Points P per head.")] = 8,
    cap: Annotated[float | None, typer.Option(help="Cap c of the geometry logit, if any.")] = None,
    residues: Annotated[int, typer.Option(help="Residues N of a row, for the saturation bound.")] = 256,
    drift: Annotated[
        float | None,
        typer.Option(
            help="Drift of the frames: ‖R − rotation‖ in units of the roundoff u. Default: √3, that of this package's."
        ),
    ] = None,
) -> None:
    """Print the proven bounds.

    For given floors, extent, P and cap: every bound, whether it fits in fp16, whether softmax can saturate, and how
    many digits float32 leaves.
    """
    from iga.bounds import ROUNDED_DRIFT, bounds_summary
    from iga.bounds.summary import check_range

    with misuse():
        off = ROUNDED_DRIFT if drift is None else drift
        rows = bounds_summary(sigma_min, sigma_max, extent, points, cap, keys=residues, drift=off)
        check_range(sigma_min, sigma_max, extent)
    show_rows(rows)


def picture(
    output: Annotated[Path, typer.Argument(help="PNG or SVG file to write.")] = Path("presets.png"),
    seed: Annotated[int, typer.Option(help="Seed of parameters and synthetic structures.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the numbers behind the picture to this file too.")] = None,
) -> None:
    """Draw what the presets do.

    Lowest log_det and largest |geometry logit| as sigma_max grows from 0.3 to 150 nm, and growth with P.
    """
    check_outputs(OUTPUT=output, json=json)
    from iga.bounds import FP16_MAX, log_det_floor
    from iga.report.picture import draw
    from iga.report.plots import check_file
    from iga.testing.preset_sweep import measure, write_numbers

    with misuse():
        check_file(output)
    with misuse(), Bars() as on_progress:
        data = measure(seed=seed, on_progress=on_progress)
    drawing = partial(draw, data, output, floor=log_det_floor(0.03), largest=FP16_MAX)
    with kept(json and partial(write_numbers, data, json), drawing):
        pass
    say(f"wrote {output}")
