"""One call of an attention layer as numbers: what builds the layer, the call's form, its residues, seeds of features.

    sizes, seed, gain     the layer: its sizes, and the draw of its parameters (`iga.testing.layer.subject.randomise`)
    dtype, shape, layout  the call's form; samples lie flat, [b], until the layer is called
    ids, samples          whole numbers that features follow from (`iga.search.counted`): s of (sample, residue), z of
                          (sample, residue, residue); two residues of one number are alike
    mask, rot, trans, …   the residues, float64, rounded to the dtype once

It crosses pipes and lies in files as named tensors with whole numbers beside them, and is rebuilt bit by bit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from iga._typing import Bool, Float, Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.search.counted import unit_numbers
from iga.testing.latest import Call
from iga.testing.layer.cases import Case
from iga.testing.targets import DTYPES

__all__ = ["GEOMETRY", "LAYOUTS", "SIZES", "LayerGenome", "call_of", "case_of", "genome_of"]

SIZES = ("c_s", "c_z", "c_hidden", "no_heads", "no_qk_points", "no_v_points")
GEOMETRY = ("rot", "trans", "local_mean", "log_scale")
LAYOUTS = ("plain", "gaps", "offset", "transposed", "expanded")
MOST = {"residues": 4096, "samples": 4096, "numbers": 1 << 26, "size": 4096}  # that a file may ask for
_DTYPE_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerGenome:
    """See the module. `choice` is the seed of what a relation draws; `s_size`, `z_size` multiply the features.

    ids [n], samples [b], int64
    """

    sizes: Mapping[str, int]
    seed: int = 0
    gain: float = 1.0
    dtype: torch.dtype = torch.float32
    shape: tuple[int, ...] = (1,)
    layout: str = "plain"
    choice: int = 0
    features: int = 0
    s_size: float = 1.0
    z_size: float = 1.0
    ids: Tensor
    samples: Tensor
    mask: Bool[Tensor, "b n"]
    rot: Float[Tensor, "b n 3 3"]
    trans: Float[Tensor, "b n 3"]
    local_mean: Float[Tensor, "b n 3"]
    log_scale: Float[Tensor, "b n 3"]

    @property
    def residues(self) -> int:
        return len(self.ids)

    @property
    def points(self) -> int:
        return self.sizes["no_qk_points"]

    @property
    def pair_points(self) -> int:
        """b · h · P · n²: what a call costs."""
        return len(self.samples) * self.sizes["no_heads"] * self.points * self.residues**2

    def kept(self, index: Tensor) -> "LayerGenome":
        """The residues of the index."""
        parts = {name: getattr(self, name)[:, index] for name in ("mask", *GEOMETRY)}
        return replace(self, ids=self.ids[index], **parts)

    def picked(self, index: Tensor, shape: tuple[int, ...] | None = None) -> "LayerGenome":
        """The samples of the index, in one leading dimension unless a shape is given."""
        parts = {name: getattr(self, name)[index] for name in ("samples", "mask", *GEOMETRY)}
        return replace(self, shape=(len(index),) if shape is None else shape, **parts)

    def sized(self, **sizes: int) -> "LayerGenome":
        """With other sizes of the layer."""
        return replace(self, sizes={**self.sizes, **sizes})

    @property
    def label(self) -> str:
        """The form of the call in words."""
        shape = "×".join(map(str, self.shape)) or "none"
        sizes = self.sizes
        form = "" if self.layout == "plain" else f", {self.layout}"
        return (
            f"N = {self.residues}, P = {self.points}, H = {sizes['no_heads']}, c_hidden = {sizes['c_hidden']}, "
            f"batch {shape}, {str(self.dtype).removeprefix('torch.')}{form}"
        )


def case_of(genome: LayerGenome) -> Case:
    """The call's inputs, [b, n, …], in the genome's dtype."""
    n, c_s, c_z = genome.residues, genome.sizes["c_s"], genome.sizes["c_z"]
    sample, ids = genome.samples[:, None], genome.ids
    channel = torch.arange(max(c_s, c_z))
    s = unit_numbers(2 * genome.features, sample[..., None], ids[:, None], channel[:c_s])
    pairs = (sample[..., None, None], ids[:, None, None], ids[None, :, None], channel[:c_z])
    z = unit_numbers(2 * genome.features + 1, *pairs)
    dtype = genome.dtype
    rot, trans, mean, log_scale = (getattr(genome, name).to(dtype) for name in GEOMETRY)
    rigid = GaussianRigid(Frame(rot, trans), mean, log_scale)
    s = (genome.s_size * s).to(dtype).expand(len(genome.samples), n, c_s)
    z = (genome.z_size * z).to(dtype).expand(len(genome.samples), n, n, c_z)
    return Case(genome.label, rigid, s, z, genome.mask.clone())


def call_of(genome: LayerGenome) -> Call:
    """The genome as a call's tensors, and what builds the layer."""
    form = [*genome.shape]
    numbers = [genome.choice, genome.features, list(_DTYPE_NAMES.values()).index(genome.dtype)]
    inputs = {
        "shape": torch.tensor(form, dtype=torch.int64),
        "numbers": torch.tensor([*numbers, LAYOUTS.index(genome.layout)], dtype=torch.int64),
        "feature_sizes": torch.tensor([genome.s_size, genome.z_size], dtype=torch.float64),
        "ids": genome.ids,
        "samples": genome.samples,
        "mask": genome.mask,
        **{name: getattr(genome, name) for name in GEOMETRY},
    }
    layer = {**genome.sizes, "made": "random", "seed": genome.seed, "gain": genome.gain}
    return Call("layer", {name: x.clone() for name, x in inputs.items()}, layer)


def genome_of(call: Call) -> LayerGenome:
    """The genome of such a call. Raises ValueError, one line, for what is none: a case may be a stranger's."""
    given, layer = call.inputs, call.layer
    try:
        sizes = {name: _within(layer[name], MOST["size"], name) for name in SIZES}
        choice, features, dtype, layout = (int(x) for x in given["numbers"])
        s_size, z_size = (float(x) for x in given["feature_sizes"])
        found = LayerGenome(
            sizes=sizes,
            seed=int(layer["seed"]),
            gain=float(layer["gain"]),
            dtype=DTYPES[dtype],
            shape=tuple(int(x) for x in given["shape"]),
            layout=LAYOUTS[layout],
            choice=choice,
            features=features,
            s_size=s_size,
            z_size=z_size,
            **{name: given[name] for name in ("ids", "samples", "mask", *GEOMETRY)},
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"no call of a layer: {type(error).__name__}: {error}") from error
    b, n = len(found.samples), found.residues
    wanted: dict[str, Any] = {"mask": (b, n), "rot": (b, n, 3, 3), **dict.fromkeys(GEOMETRY[1:], (b, n, 3))}
    odd = [name for name, shape in wanted.items() if getattr(found, name).shape != shape]
    if odd or math.prod(found.shape) != b or found.mask.dtype != torch.bool:
        raise ValueError(f"no call of a layer: {odd[0] if odd else 'shape or mask'} is of another size")
    numbers = b * n * n * max(sizes["c_z"], 1) + found.pair_points
    if n > MOST["residues"] or b > MOST["samples"] or numbers > MOST["numbers"]:
        raise ValueError(f"no call of a layer: {found.label} is larger than any that is searched")
    return found


def _within(value: Any, most: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{name} is {value!r}")
    return value
