"""Every argument of the layers, the operator and the configs: of a wrong kind, or absurd, it is refused by its name.

Origin: an imaginary part was dropped without a word, a sparse s ended in torch's NotImplementedError, and a layer of
2.5 heads in a TypeError from within torch.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from typing import Any

import pytest
import torch

from iga import Frame, GaussianRigid, IGAConfig, InvariantGaussianAttention, InvariantPointAttention, Monitor, preset
from iga.kernels import gaussian_attention

# torch warns of the layouts that it means to change.
pytestmark = [pytest.mark.usefixtures("without_shape_checks"), pytest.mark.filterwarnings("ignore")]

LAYERS: tuple[Any, ...] = (InvariantGaussianAttention, InvariantPointAttention)
N = 3
FRAME: Any = Frame(torch.eye(3).repeat(2, N, 1, 1), torch.zeros(2, N, 3))

BAD: dict[str, Callable[[torch.Tensor], Any]] = {
    "integers": lambda x: x.long(),
    "complex": lambda x: x.cfloat(),
    "bool": lambda x: x > 0,
    "sparse": lambda x: x.to_sparse(),
    "mkldnn": lambda x: x.float().to_mkldnn(),
    "quantized": lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
    "nested": lambda x: torch.nested.nested_tensor(list(x)),
    "jagged": lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged),
    "float8": lambda x: x.to(torch.float8_e5m2),
    "list": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "text": lambda x: "0.5",
    "object": lambda x: object(),
}


def told(name: str, case: str, call: Callable[[], Any]) -> Iterable[str]:
    """What there is to complain of, if anything: `call` has to end in a ValueError that begins with `name`."""
    try:
        call()
    except ValueError as error:
        if not str(error).startswith(f"{name} "):
            yield f"{name}, {case}: {error}"
    except Exception as error:
        yield f"{name}, {case}: {type(error).__name__}: {error}"
    else:
        yield f"{name}, {case}: accepted"


def each(arguments: dict[str, torch.Tensor], call: Callable[..., Any], *excused: tuple[str, str]) -> Iterable[str]:
    for name, right in arguments.items():
        for case, make in BAD.items():
            if (case != "jagged" or right.ndim > 1) and (name, case) not in excused:
                wrong = arguments | {name: make(right)}
                yield from told(name, case, partial(call, **wrong))


def tensors() -> Iterable[str]:
    g = torch.Generator().manual_seed(0)
    given = {"s": torch.rand(2, N, 8, generator=g), "z": torch.rand(2, N, N, 6, generator=g), "mask": torch.ones(2, N)}
    gaussian, point = (kind(8, 6, 4, 2, 2, 2) for kind in LAYERS)
    calls = [gaussian, gaussian.with_statistics, gaussian.trace, point, point.with_statistics]
    calls += [partial(layer, _offload_inference=True) for layer in (gaussian, point)]
    for call in calls:
        yield from each(given, partial(call, r=FRAME), ("mask", "integers"), ("mask", "bool"))
    gaussians = {"local_mean": torch.zeros(2, N, 3), "log_scale": torch.zeros(2, N, 3)}
    yield from each(gaussians, partial(gaussian, **given, r=FRAME))
    yield from each(gaussians, partial(GaussianRigid, FRAME))
    yield from each({"rot": FRAME.rot, "trans": FRAME.trans}, Frame)


def flow_times() -> Iterable[str]:
    layer = InvariantGaussianAttention(8, 0, 4, 2, 2, 2, config=preset("bounded", time_gate=1.0))
    call = partial(layer, torch.rand(2, N, 8), None, FRAME, torch.ones(2, N))
    yield from each({"t": torch.rand(2)}, call, ("t", "integers"), ("t", "list"), ("t", "numpy"))
    for t in (None, True, math.nan, -0.1, 1.5, 10**400, 1j, torch.rand(3)):
        yield from told("config.time_gate" if t is None else "t", repr(t), partial(call, t=t))
    for t in (1, 0.5, torch.tensor([0, 1]), [0.0, 1.0]):
        if not call(t=t).isfinite().all():
            yield f"t, {t}: not finite"


def operator() -> Iterable[str]:
    points, rows = torch.ones(1, 2, 2, N, 3), torch.ones(1, 2, N, 4)
    given = dict.fromkeys(("query's mean", "query's sigma", "key's mean", "key's sigma"), points)
    given |= {"q": rows, "k": rows, "v": rows, "value_points": torch.ones(1, 2, N, 2, 3)}
    given |= {"mask": torch.ones(1, N, dtype=torch.bool), "geo_scale": torch.zeros(2), "geo_bias": torch.zeros(2)}
    given |= {"gate": torch.ones(1), "bias": torch.zeros(1, 2, N, N), "z": torch.ones(1, N, N, 3)}
    given |= {"z_weight": torch.zeros(2, 3)}

    def call(config: Any = "bounded", **x: Any) -> Any:
        query, key = ((x.pop(f"{of}'s mean"), x.pop(f"{of}'s sigma")) for of in ("query", "key"))
        config = preset(config) if config == "bounded" else config
        return gaussian_attention(
            query=query, key=key, frame=FRAME[:1], config=config, implementation="reference", **x
        ).values

    yield from each(given, call, ("mask", "bool"))
    for wrong in (None, 5, {"form": "closed"}, ["bounded"]):
        yield from told("config", repr(wrong), partial(call, config=wrong, **given))
        yield from told("config", repr(wrong), partial(LAYERS[0], 8, 0, 4, 2, 2, 2, config=wrong))


SIZES = ("c_s", "c_z", "c_hidden", "no_heads", "no_qk_points", "no_v_points", "pair_value_dim")
ABSURD = (2.5, 8.0, math.nan, math.inf, "8", None, True, [8], -1, 10**30, 2**31 - 1)  # the last: not for any memory


def sizes() -> Iterable[str]:
    for name in SIZES:
        for value in ABSURD:
            if name == "pair_value_dim" and value is None:
                continue
            given: dict[str, Any] = dict(zip(SIZES, (16, 8, 8, 2, 3, 3, 4), strict=True)) | {name: value}
            yield from told(name, f"IPA, {value}", partial(LAYERS[1], **given))
            dim = given.pop("pair_value_dim")
            yield from told(
                name,
                f"IGA, {value}",
                lambda given=given, dim=dim: LAYERS[0](**given, config=preset("bounded", pair_value_dim=dim)),
            )
    layer = LAYERS[0](8, 0, 4, 2, 2, 2)
    for every in (*ABSURD[:-1], 0):
        yield from told("every", repr(every), partial(Monitor, layer, every=every))


OPTIONAL = ("sigma_max", "log_det_min", "logit_cap", "time_gate", "pair_value_dim")
TOO_SMALL = {"geo_scale_init": -88.0, "log_det_min": -300.0, "jitter": -1e-9, "sigma_max": 1e-30}


def configs() -> Iterable[str]:
    for name in (field.name for field in fields(IGAConfig)):
        wrong: list[Any] = ["0.03", math.nan, math.inf, -math.inf, True, [1.0], 1j, object(), 10**400, 1e30]
        wrong += [TOO_SMALL.get(name, 5e-324)] + ([] if name in OPTIONAL else [None])
        for value in wrong:
            yield from told(name, repr(value)[:30], partial(preset, "bounded", **{name: value}))


@pytest.mark.parametrize("arguments", [tensors, flow_times, operator, sizes, configs])
def test_whatever_is_of_a_wrong_kind_or_absurd_is_refused_by_its_name(arguments: Callable[[], Iterable[str]]) -> None:
    assert list(arguments()) == []


def ends(name: str) -> list[float]:
    """The least and the largest number that IGAConfig takes for `name`, by bisection from 1."""

    def takes(value: float) -> bool:
        try:
            config(name, value)
        except ValueError:
            return False
        return True

    found = []
    for bad in (-1e30, 0.0, 1e30):
        good = 1.0
        for _ in range(300):
            middle = math.sqrt(good * bad) if good > 2 * bad > 0 or bad > 2 * good > 0 else (good + bad) / 2
            good, bad = (middle, bad) if takes(middle) else (good, middle)
        found.append(good)
    return found


def config(name: str, value: float) -> IGAConfig:
    changes: dict[str, Any] = {name: value} | ({"form": "textbook"} if name == "jitter" else {})
    return preset("bounded", **changes)


NOT_REAL = ("form", "score", "floor", "point_scaling", "pair_value_dim")
OF_SIGMA = ("sigma_min", "sigma_max")  # in test_sigma_range.py, with the extents that belong to them


@pytest.mark.parametrize("name", [f.name for f in fields(IGAConfig) if f.name not in (*NOT_REAL, *OF_SIGMA)])
def test_at_the_ends_of_its_range_a_field_gives_finite_outputs_and_gradients(name: str) -> None:
    g = torch.Generator().manual_seed(0)
    s, z, frame = (
        torch.randn(1, 4, 8, generator=g),
        torch.randn(1, 4, 4, 4, generator=g),
        Frame.random(1, 4, generator=g),
    )
    for value in ends(name):
        torch.manual_seed(0)
        layer = InvariantGaussianAttention(8, 4, 4, 2, 2, 2, config=config(name, value), implementation="reference")
        torch.nn.init.normal_(layer.linear_out.weight)
        out = layer(s, z, frame, torch.ones(1, 4), t=0.5)
        out.square().sum().backward()
        assert out.isfinite().all(), (name, value)
        for what, parameter in layer.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), (name, value, what)
