"""Bad input to the attention operator: one ValueError that names the argument, or a right result; never a crash."""

from collections.abc import Callable

import jaxtyping
import pytest
import torch

from helpers.operators import by
from iga.attention import InvariantGaussianAttention
from iga.frame import Frame
from iga.kernels import choose, gaussian_attention
from iga.presets import preset
from iga.testing.judges.attention_problem import random_problem


@pytest.fixture(autouse=True)
def as_users_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the shape checks of the test session, which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


IMPLEMENTATIONS = ("reference", "cpu", "fused")


def arguments() -> dict:
    p = random_problem("bounded", seed=0)
    t = p.tensors
    names = ("q", "k", "v", "value_points", "geo_scale", "geo_bias", "gate", "bias", "z", "z_weight")
    given = {name: t[name] for name in names}
    given |= {"query": (t["q_mean"], t["q_sigma"]), "key": (t["k_mean"], t["k_sigma"])}
    return given | {"frame": Frame(t["rot"], t["trans"]), "mask": p.mask, "config": p.config}


BAD: dict[str, tuple[str, Callable[[dict], object]]] = {
    "q without heads": ("q", lambda a: a["q"][:, 0]),
    "k of another length": ("k", lambda a: a["k"][:, :, :-1]),
    "k with other channels": ("k", lambda a: a["k"][..., :-1]),
    "v with other heads": ("v", lambda a: a["v"][:, :1]),
    "value_points without xyz": ("value_points", lambda a: a["value_points"][..., :2]),
    "points of query and key differ": ("key's mean", lambda a: tuple(x[:, :, :2] for x in a["key"])),
    "sigma of another shape": ("query's sigma", lambda a: (a["query"][0], a["query"][1][..., :1])),
    "no points": ("query", lambda a: tuple(x[:, :, :0] for x in a["query"])),
    "query is one tensor": ("query", lambda a: a["query"][0]),
    "frames of another batch": ("frame", lambda a: a["frame"][:1]),
    "mask of another shape": ("mask", lambda a: a["mask"][:, :-1]),
    "a float mask": ("mask", lambda a: a["mask"].float()),
    "geo_scale of another length": ("geo_scale", lambda a: a["geo_scale"][:1]),
    "geo_bias of another length": ("geo_bias", lambda a: a["geo_bias"].repeat(2)),
    "gate per residue": ("gate", lambda a: a["mask"].float()),
    "bias without heads": ("bias", lambda a: a["bias"][:, 0]),
    "z not square": ("z", lambda a: a["z"][:, :, :-1]),
    "z_weight of other channels": ("z_weight", lambda a: a["z_weight"][:, :-1]),
    "integer v": ("v", lambda a: a["v"].long()),
    "half geometry": ("query's mean", lambda a: tuple(x.half() for x in a["query"])),
    "means in float64 only": ("key's mean", lambda a: (a["key"][0].double(), a["key"][1])),
    "another device": ("v", lambda a: a["v"].to("meta")),
}


def test_what_does_not_fit_is_named() -> None:
    """Before an implementation is chosen: the same for each."""
    for case, (named, change) in BAD.items():
        given = arguments()
        given[named.split("'")[0]] = change(given)
        with pytest.raises(ValueError, match=rf"\b{named}\b"):
            pytest.fail(f"{case}: {gaussian_attention(**given)}")
    with pytest.raises(ValueError, match="z_weight was given without z"):
        gaussian_attention(**arguments() | {"z": None})


@pytest.mark.parametrize(
    ("implementation", "dtype", "config", "reason"),
    [
        ("nonesuch", torch.float32, "bounded", "must be one of 'auto', 'fused', 'cpu', 'reference'"),
        ("fused", torch.float64, "bounded", "its geometry is float32"),
        ("cpu", torch.float32, "pre_fix", "runs on the reference only"),
        ("fused", torch.float32, "pre_fix", "runs on the reference only"),
    ],
)
def test_an_implementation_asked_for_by_name_says_why_it_cannot(
    implementation: str, dtype: torch.dtype, config: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        choose(implementation, torch.device("cpu"), dtype, preset(config))


def test_cpu_kernels_refuse_other_devices_and_fused_refuses_a_plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="runs on a CPU"):
        choose("cpu", torch.device("meta"), torch.float32, preset("bounded"))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="runs on CUDA"):
        choose("fused", torch.device("cpu"), torch.float32, preset("bounded"))


def test_what_is_not_installed_is_named_and_auto_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iga.kernels.choice.importlib.util.find_spec", lambda name: None)
    for name, package in (("cpu", "numba"), ("fused", "triton")):
        with pytest.raises(ValueError, match=f"{package} is not installed: pip install"):
            choose(name, torch.device("cpu"), torch.float32, preset("bounded"))
    assert choose("auto", torch.device("cpu"), torch.float32, preset("bounded")) == "reference"


def test_a_layer_refuses_an_unknown_implementation() -> None:
    with pytest.raises(ValueError, match="implementation must be one of"):
        InvariantGaussianAttention(8, 0, 4, 2, 2, 2, implementation="triton")


# The dimensions that count residues.
RESIDUES = {name: (2,) for name in ("q", "k", "v", "value_points")}
RESIDUES |= {name: (3,) for name in ("q_mean", "q_sigma", "k_mean", "k_sigma")}
RESIDUES |= {"rot": (1,), "trans": (1,), "gate": (), "bias": (2, 3), "z": (1, 2)}


@pytest.mark.parametrize("without", ["residues", "samples"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_residues_and_no_samples_give_empty_results(implementation: str, without: str) -> None:
    p = random_problem("bounded", seed=1)
    t = dict(p.tensors)
    for name, dims in RESIDUES.items():
        for dim in dims if without == "residues" else (0,):
            t[name] = t[name].narrow(dim, 0, 0)
    mask = p.mask[:, :0] if without == "residues" else p.mask[:0]
    empty = type(p)("empty", t, mask, p.config).leaves()
    out = empty.call(by(implementation), statistics=True)
    assert out.values.numel() == 0 and out.values.shape[:2] == (len(mask), 2)
    (out.values.sum() + out.points.sum()).backward()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_non_contiguous_and_expanded_tensors_give_the_same_numbers(implementation: str) -> None:
    p = random_problem("bounded", seed=2, heads=2, residues=5)
    strided = {n: t.mT.contiguous().mT if t.ndim > 1 else t for n, t in p.tensors.items()}
    strided["q"] = p.tensors["q"].transpose(1, 2).contiguous().transpose(1, 2)
    strided["z"] = p.tensors["z"][:1].expand_as(p.tensors["z"])
    plain = {n: t.contiguous() for n, t in strided.items()}
    assert not strided["q_mean"].is_contiguous()
    out = [type(p)("x", t, p.mask, p.config).call(by(implementation)) for t in (strided, plain)]
    # q·k of a strided q goes through another BLAS routine: sums of 4 products, softmax doubles it
    for one, two in ((out[0].values, out[1].values), (out[0].points, out[1].points)):
        assert bool(((one - two).abs() <= 64 * 2.0**-24 * two.abs().max()).all())


def test_unbatched_and_doubly_batched_calls_are_the_batched_ones() -> None:
    given = arguments()
    whole = gaussian_attention(**given)
    shared = ("geo_scale", "geo_bias", "z_weight", "config")

    def changed(how: Callable) -> dict:
        def of(x: object) -> object:
            return tuple(map(how, x)) if isinstance(x, tuple) else how(x)

        return {name: x if name in shared else of(x) for name, x in given.items()}

    one = gaussian_attention(**changed(lambda x: x[0]))
    assert torch.equal(one.values, whole.values[0]) and one.points.shape == whole.points.shape[1:]
    assert torch.equal(gaussian_attention(**changed(lambda x: x[None])).values[0], whole.values)
