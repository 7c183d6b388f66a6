"""The layer that is looked at: a preset's, with new parameters or a checkpoint's, or a target of yours."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from iga.attention import InvariantGaussianAttention
from iga.inspection.checkpoint import read_checkpoint, sizes_of, state_of_layer
from iga.structure.synthetic import synthetic_structures
from iga.testing.contract import PROFILES, Contract, check_seed
from iga.testing.layer.cases import make_case
from iga.testing.layer.subject import Subject, layer_subject
from iga.testing.targets import DTYPES, TargetError, load_target, own_layer

__all__ = ["Layer", "the_layer"]


@dataclass(frozen=True)
class Layer:
    """`subject` builds it with any number of points; `module` is the one that is looked at, with `points`.

    words     what it is, for people
    dtype     that it is called in
    trained   whether its parameters are a checkpoint's, so that no other number of points can be had
    """

    subject: Subject
    module: nn.Module
    contract: Contract
    points: int
    words: str
    dtype: torch.dtype
    trained: bool


def the_layer(
    target: str | None,
    preset: str,
    points: Sequence[int],
    seed: int,
    checkpoint: Path | None = None,
    layer: str | None = None,
) -> Layer:
    """The layer of a target's place, or of a preset; P is the first of `points`, a checkpoint's own with one.

    Raises ValueError, one line, for a target, preset or checkpoint that does not load, and parameters that don't fit.
    """
    check_seed(seed)
    state = None
    if checkpoint is not None:
        found = read_checkpoint(checkpoint)
        name, state = (layer or "", found) if target is not None else state_of_layer(found, layer)
        called = f"layer {name} of {checkpoint.name}" if name else checkpoint.name
    if target is not None:
        made = _of_target(target, points[0], seed)
        if state is None:
            return made
        _take(made.module, state)
        return replace(made, words=f"{made.words}, parameters of {called}", trained=True)
    made = _of_preset(preset, points[0], seed, {} if state is None else sizes_of(state))
    if state is None:
        return made
    _take(made.module, state)
    return replace(made, words=f"preset {preset}, parameters of {called}", trained=True)


def _of_preset(preset: str, points: int, seed: int, sizes: dict) -> Layer:
    own = own_layer(preset)
    config, profile = own.config, PROFILES["fast"]
    build = partial(InvariantGaussianAttention, implementation="reference")
    if sizes:
        config = replace(config, pair_value_dim=sizes["pair_value_dim"])
        build = partial(build, is_multimer=sizes["is_multimer"])
        points = sizes["no_qk_points"]
        profile = replace(
            profile, **{name: sizes[name] for name in ("c_s", "c_z", "c_hidden", "no_heads", "no_v_points")}
        )
    subject = Subject(own.name, config, profile, build, pair_features=profile.c_z > 0, implementation="reference")
    low, high = own.sigma_range
    words = f"preset {preset}, as initialised with seed {seed}, P = {points}"
    contract = Contract(sigma_min=low, sigma_max=high)
    return Layer(subject, subject.fresh(points, seed), contract, points, words, torch.float32, trained=False)


def _of_target(place: str, points: int, seed: int) -> Layer:
    target = load_target(place, kind="layer")
    claims = target.claims
    if claims.max_points is not None and points > claims.max_points:
        points = claims.max_points
    profile = PROFILES["fast"].rounded(claims.multiple_of).within(claims.max_residues)
    probe = make_case(synthetic_structures(1, seed=seed)[0], profile, residues=6, seed=seed)
    subject = layer_subject(target, profile, probe)
    dtype = torch.float32 if torch.float32 in target.dtypes else DTYPES[1]
    low, high = target.sigma_range
    try:
        module = subject.fresh(points, seed).to(dtype)
    except TargetError as error:
        raise ValueError(f"{place}: {error}") from error
    words = f"{place}, as initialised with seed {seed}, P = {points}"
    return Layer(subject, module, Contract(sigma_min=low, sigma_max=high), points, words, dtype, trained=False)


def _take(module: nn.Module, state: dict) -> None:
    """The parameters of a checkpoint into the module. ValueError, one line, where they are others."""
    own = module.state_dict()
    strange, lacking = sorted(set(state) - set(own)), sorted(set(own) - set(state))
    if lacking:
        raise ValueError(f"the checkpoint lacks {lacking[0]}, which the layer has")
    if strange:
        raise ValueError(f"the checkpoint has {strange[0]}, which the layer has not")
    for name, value in state.items():
        if own[name].shape != value.shape:
            raise ValueError(f"the checkpoint's {name} is {list(value.shape)}, and the layer's {list(own[name].shape)}")
    module.load_state_dict(state)
