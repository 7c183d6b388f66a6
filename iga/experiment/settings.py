"""Settings of an experiment: frozen values, read from YAML, every one of them overridable.

    defaults (the dataclasses below) ← configs/sizes/SIZE.yaml ← configs/arms/ARM.yaml ← overrides ("training.lr=1e-3")

Each file holds any part of what `to_yaml` writes; a later one wins, key by key (`iga.experiment.typed`). Lengths are
nm, sizes are residues.
"""

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from typing import Any

from omegaconf import OmegaConf

from iga.experiment.cures import ARMS_APART, LAYER_CURES
from iga.experiment.typed import built, override, parsed
from iga.presets import IGAConfig, preset

__all__ = [
    "ARMS",
    "SIZES",
    "Arm",
    "Data",
    "Model",
    "Settings",
    "Stress",
    "Training",
    "from_yaml",
    "load_arm",
    "load_settings",
    "to_yaml",
]

# In the order of tables: the baseline, the history of the blow-up, the default, and what it was chosen over.
ARMS: tuple[str, ...] = (
    "ipa",
    "pre_fix",
    "logdet_clamp",
    "sigma_floor",
    "soft_start",
    "bounded",
    "gaussian_tanh",
    "bounded_time_gate",
)
SIZES: tuple[str, ...] = ("small", "paper")
GAUSSIANS = ("fixed", "learned", "free")
STRESSES = ("both", "collapse", "needles")
LAYERS = ("ipa", "iga")
IMPLEMENTATIONS = ("auto", "fused", "cpu", "reference")  # of iga.kernels, which loads torch


@dataclass(frozen=True)
class Arm:
    """An attention to be compared.

    label      what a run's name carries, after the seed's manner: "_sigmaMin03nm_scaleP"
    note       one sentence for tables
    attention  layer: "ipa" or "iga"; for "iga" a preset, any field of IGAConfig, and implementation (`iga.kernels`);
               for either a cure of the layer's own (`iga.experiment.cures.LAYER_CURES`)
    """

    name: str
    label: str
    note: str = ""
    attention: dict[str, Any] = field(default_factory=lambda: {"layer": "ipa"})

    def __post_init__(self) -> None:
        self.config  # noqa: B018 - raises where the attention is none

    @property
    def config(self) -> IGAConfig | None:
        """The geometry of an "iga" arm, None for "ipa". Raises ValueError for keys and values that do not fit."""
        given = dict(self.attention)
        layer = given.pop("layer", None)
        _one_of("arm.attention.layer", layer, LAYERS)
        cure = given.pop("cure", "none")
        _one_of("arm.attention.cure", cure, ("none", *LAYER_CURES))
        if layer == "ipa":
            if cure == "softplus":
                raise ValueError('arm.attention.cure "softplus" belongs to layer "iga"; layer "ipa" has no σ')
            if given:
                raise ValueError(f'arm.attention.{min(given)} belongs to layer "iga"; layer "ipa" has no such key')
            return None
        _one_of("arm.attention.implementation", given.pop("implementation", "auto"), IMPLEMENTATIONS)
        if "preset" not in given:
            raise ValueError('arm.attention.preset is missing; layer "iga" starts from a preset (iga.presets)')
        name = given.pop("preset")
        try:
            return built(IGAConfig, asdict(preset(name)), given, source="arm.attention")
        except ValueError as error:
            raise ValueError(f"arm.attention: {error}") from error


@dataclass(frozen=True)
class Model:
    """Sizes of the network (docs/experiment/network.md). gaussians "learned": scales and local means move as well;
    "free": they start as those of the data and move too, and no loss holds them."""

    c_s: int = 256
    c_z: int = 128
    c_hidden: int = 16
    heads: int = 8
    points: int = 8
    value_points: int = 12
    blocks: int = 6
    transformer_layers: int = 2
    transformer_heads: int = 4
    gaussians: str = "fixed"

    def __post_init__(self) -> None:
        counted = ("blocks", "heads", "transformer_heads", "transformer_layers", "points", "value_points")
        for entry in fields(self):
            if entry.name != "gaussians":
                _at_least("model", entry.name, getattr(self, entry.name), 1, 1000 if entry.name in counted else 2**16)
        _one_of("model.gaussians", self.gaussians, GAUSSIANS)
        if self.c_s % self.transformer_heads:
            raise ValueError(
                f"model.c_s must be a multiple of model.transformer_heads = {self.transformer_heads}, got {self.c_s}; "
                "change either"
            )


@dataclass(frozen=True)
class Training:
    """How a run goes. Counts are of steps, chains, samples or residues.

    lr, weight_decay   of Adam              clip_grad         largest norm of all gradients together; None: no clipping
    residues_squared   samples · longest² of a batch stay under it, and samples under max_samples
    parts              the samples of a batch are a multiple of it: the number of processes that share a batch
    crop, shortest     longest and shortest chain, in residues
    held_out           share of the entries that is never trained on
    seed               of the weights, of the split, and of data order and noise, which are the same for every arm
    """

    steps: int = 2000
    lr: float = 1e-4
    weight_decay: float = 0.0
    clip_grad: float | None = None
    residues_squared: int = 60000
    max_samples: int = 64
    parts: int = 1
    crop: int = 256
    shortest: int = 16
    held_out: float = 0.1
    evaluate_every: int = 200
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("steps", "residues_squared", "max_samples", "parts", "crop", "shortest")
        for name in (*counts, "evaluate_every", "checkpoint_every"):
            _at_least("training", name, getattr(self, name), 1)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"training.seed must be from 0 to 2³² − 1, got {self.seed}; pass another one")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"training.lr must be a positive finite number, got {self.lr!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"training.weight_decay must be a finite number ≥ 0, got {self.weight_decay!r}")
        if self.clip_grad is not None and not 0 < self.clip_grad < math.inf:
            raise ValueError(f"training.clip_grad must be a positive finite number or null, got {self.clip_grad!r}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"training.held_out must be a share between 0 and 1, got {self.held_out!r}")
        if self.shortest > self.crop:
            raise ValueError(
                f"training.shortest must be at most training.crop = {self.crop}, got {self.shortest}; raise the crop"
            )


@dataclass(frozen=True)
class Data:
    """structures: files, folders or globs; none: `synthetic` generated backbones. stress: scales that collapse.

    stressor: which part of the stress, "collapse", "needles" or "both". collapse: a shift of all log scales by this
    number, in place of one drawn for each residue; null draws it.

    break_gap: how many positions of a chain are left free where it is interrupted (`Structure.chain_breaks`), so that
    the features of positions do not show the two sides as bonded; 0 numbers on.
    """

    structures: tuple[str, ...] = ()
    synthetic: int = 24
    stress: bool = False
    stressor: str = "both"
    collapse: float | None = None
    break_gap: int = 0

    def __post_init__(self) -> None:
        _one_of("data.stressor", self.stressor, STRESSES)
        if self.collapse is not None and not -20 <= self.collapse <= 0:
            raise ValueError(f"data.collapse must be from −20 to 0, a shift of log scales, got {self.collapse:g}")
        if self.collapse is not None and self.stressor == "needles":
            raise ValueError("data.collapse belongs to data.stressor=collapse or both; needles alone have no collapse")
        _at_least("data", "synthetic", self.synthetic, 2, 10**5)
        _at_least("data", "break_gap", self.break_gap, 0)

    @property
    def stressed(self) -> "Stress | None":
        """The stress of the Gaussians; None without."""
        return Stress(self.stressor != "needles", self.stressor != "collapse", self.collapse) if self.stress else None


@dataclass(frozen=True)
class Stress:
    """collapse: log scales shifted, all by `dose` or, where that is None, each residue by a number of its own; needles:
    one axis of every fourth residue long (`iga.experiment.task.flow.noised`)."""

    collapse: bool = True
    needles: bool = True
    dose: float | None = None

    @property
    def label(self) -> str:
        """Of a run's name: "stress" for both parts."""
        kind = "stress" if self.collapse and self.needles else "collapse" if self.collapse else "needles"
        return kind if self.dose is None else f"{kind}{self.dose:g}"


@dataclass(frozen=True)
class Settings:
    """One run: `name` is what its runs are called, `run_name` that with the arm's label and the seed."""

    name: str
    arm: Arm
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    data: Data = field(default_factory=Data)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.,+=()\[\] -]{0,199}", self.run_name) or not self.name:
            raise ValueError(
                f"name and arm.label must make a folder's name, of letters, digits and -_.+=, got {self.run_name!r}"
            )

    @property
    def run_name(self) -> str:
        """For instance "small_learned_sigmaMin03nm_scaleP_seed0": the arm, and what makes it another experiment."""
        learned = "" if self.model.gaussians == "fixed" else f"_{self.model.gaussians}"
        stress = "" if self.data.stressed is None else f"_{self.data.stressed.label}"
        return f"{self.name}{learned}{stress}{self.arm.label}_seed{self.training.seed}"


def load_arm(name: str) -> Arm:
    """The arm of configs/arms/NAME.yaml, or of the table of arms taken apart. Raises ValueError for an unknown one,
    naming those that exist."""
    return built(Arm, _arm_file(name).arm)


def load_settings(arm: str, size: str, overrides: Sequence[str] = ()) -> Settings:
    """defaults ← size ← arm ← overrides.

    overrides   "KEY=VALUE", KEY dotted ("training.lr"), VALUE in YAML ("1e-3", "null", "[a.pdb, b.pdb]"); later win.
                An overridden part of the attention goes into the arm's label ("_bounded_sigma_min0.05"), so that no run
                bears the name of an attention that it does not have, unless arm.label is given as well.

    Raises ValueError for an unknown arm or size, and for keys and values that do not fit.
    """
    return _loaded(arm, size, tuple(overrides))


@functools.cache  # a plan of eight arms and three seeds asks for the settings of each run many times
def _loaded(arm: str, size: str, overrides: tuple[str, ...]) -> Settings:
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; sizes: {', '.join(SIZES)}")
    files = ({"name": size}, _file(f"sizes/{size}.yaml"), _arm_file(arm))
    settings = built(Settings, *files, *map(override, overrides))
    plain, made = load_arm(arm), settings.arm
    if made.label != plain.label:
        return settings
    changed = [f"_{key}{value}" for key, value in made.attention.items() if plain.attention.get(key) != value]
    return replace(settings, arm=replace(made, label=plain.label + "".join(changed)))


def to_yaml(settings: Settings) -> str:
    """All settings as YAML; `from_yaml` gives them back exactly."""
    return OmegaConf.to_yaml(OmegaConf.structured(settings))


def from_yaml(text: str) -> Settings:
    """Settings from what `to_yaml` wrote, or from a part of it: what is absent has its default.

    Raises ValueError where the text is no YAML mapping, and for keys and values that do not fit.
    """
    return built(Settings, parsed(text, "the settings"))


@functools.cache
def _file(name: str) -> Any:
    text = resources.files("iga.experiment").joinpath("configs", *name.split("/")).read_text(encoding="utf-8")
    return parsed(text, f"configs/{name}")


def _arm_file(name: str) -> Any:
    if name in ARMS_APART:
        return OmegaConf.create(ARMS_APART[name])
    if name not in ARMS:
        raise ValueError(f"unknown arm {name!r}; arms: {', '.join((*ARMS, *ARMS_APART))}")
    return _file(f"arms/{name}.yaml")


def _one_of(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")


def _at_least(section: str, name: str, value: int, least: int, most: int = 10**9) -> None:
    if value < least:
        raise ValueError(f"{section}.{name} must be at least {least}, got {value}")
    if value > most:
        raise ValueError(f"{section}.{name} must be at most {most}, got {value}")
