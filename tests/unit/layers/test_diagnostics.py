"""Numbers to log: statistics of a trace, and the monitor's dict."""

import math

import pytest
import torch
from torch import nn

from helpers.layers import Net, layer_inputs, small_layer
from iga import diagnostics, rotation
from iga.diagnostics import Monitor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.judges.overlap import drift as judge_of_drift


def test_names_are_those_that_runs_already_log() -> None:
    trace = small_layer("bounded").trace(*layer_inputs())
    assert set(diagnostics.global_metrics([trace])) == {
        "debug/iga/global/geo_scaled_absmax",
        "debug/iga/global/wmax_sat_frac",
        "debug/iga/global/log_det_min",
    }
    names = set(diagnostics.layer_metrics(trace, "debug/iga/l3/"))
    for quantity in ("scalar", "geo_raw", "geo_scaled", "dist_sq", "log_det"):
        assert {f"debug/iga/l3/{quantity}_{statistic}" for statistic in ("mean", "std", "min", "max")} <= names
    for name in ("wmax_mean", "geo_a", "geo_b", "row_entropy_mean"):
        assert f"debug/iga/l3/{name}" in names


def test_statistics_are_over_valid_pairs_only() -> None:
    given_ = layer_inputs()
    given_.mask[0, 4:] = False
    with torch.no_grad():
        trace = small_layer("sigma_floor").trace(*given_)
    valid = torch.cat([trace.dist_sq[0, :, :, :4, :4].flatten(), trace.dist_sq[1].flatten()])
    metrics = diagnostics.layer_metrics(trace)
    assert metrics["dist_sq_max"] == float(valid.max()) and metrics["dist_sq_min"] == float(valid.min())
    assert math.isclose(metrics["dist_sq_mean"], float(valid.double().mean()), rel_tol=1e3 * 2**-24)
    scaled = torch.cat([trace.geo_scaled[0, :, :4, :4].flatten(), trace.geo_scaled[1].flatten()])
    assert float(diagnostics.geo_scaled_absmax(trace)) == float(scaled.abs().max())
    lowest = torch.cat([trace.log_det[0, :, :, :4, :4].flatten(), trace.log_det[1].flatten()]).min()
    assert float(diagnostics.log_det_min(trace)) == float(lowest)


def test_log_det_min_is_raw_where_the_score_is_clamped() -> None:
    given_ = layer_inputs()
    collapsed = given_.r.log_scale.new_full(given_.r.log_scale.shape, -30.0)
    given_.r = type(given_.r)(given_.r.frame, given_.r.local_mean, collapsed)
    with torch.no_grad():
        trace = small_layer("logdet_clamp").trace(*given_)
    # Two covariances with nothing left but σ = 1e-6 and a jitter of 1e-6 nm² each.
    expected = 3 * math.log(2 * (1e-6 + 1e-12))
    assert abs(float(diagnostics.log_det_min(trace)) - expected) <= 16 * 2**-24 * abs(expected)


@pytest.mark.parametrize(("weights", "share", "entropy"), [("uniform", 0.0, math.log(7)), ("one-hot", 1.0, 0.0)])
def test_saturation_and_entropy_of_rows_that_are_known(weights: str, share: float, entropy: float) -> None:
    layer, given_ = small_layer("bounded"), layer_inputs()
    with torch.no_grad():
        layer.geo_scale.fill_(-60.0)
        layer.linear_b.weight.zero_()
        layer.linear_b.bias.zero_()
        layer.linear_q.bias.zero_()
        layer.linear_q.weight.mul_(1e3 if weights == "one-hot" else 0.0)
    with torch.no_grad():
        trace = layer.trace(*given_)
    assert abs(float(diagnostics.saturated_share(trace)) - share) <= (0.1 if weights == "one-hot" else 0.0)
    if weights == "uniform":
        assert ((diagnostics.row_entropy(trace) - entropy).abs() <= 1e2 * 2**-24).all()
        assert (diagnostics.row_spread(trace).abs() <= 1e-6).all()
    else:
        assert float(diagnostics.row_entropy(trace).mean()) < 0.2


def test_a_value_that_is_not_finite_shows() -> None:
    trace = small_layer("bounded").trace(*layer_inputs())
    trace.geo_scaled.detach()[0, 0, 0, 0] = math.nan
    assert math.isnan(diagnostics.global_metrics([trace])["debug/iga/global/geo_scaled_absmax"])


def test_a_monitor_numbers_the_layers_and_leaves_the_output_alone() -> None:
    model, given_ = Net("sigma_floor"), layer_inputs()
    plain = model(*given_)
    with Monitor(model) as monitor:
        assert monitor.metrics() == {}
        assert torch.equal(model(*given_), plain)
        metrics = monitor.metrics()
    assert all(isinstance(value, float) for value in metrics.values())
    assert {name.split("/")[2] for name in metrics} == {"global", "l0", "l1"}
    trace = model.first.trace(*given_)
    assert metrics["debug/iga/l0/geo_raw_max"] == diagnostics.layer_metrics(trace)["geo_raw_max"]
    largest = max(abs(metrics[f"debug/iga/l{n}/geo_scaled_{end}"]) for n in (0, 1) for end in ("min", "max"))
    assert metrics["debug/iga/global/geo_scaled_absmax"] == largest


def test_a_sparse_monitor_watches_each_kth_call() -> None:
    model, given_ = Net(), layer_inputs()
    with Monitor(model, every=2) as monitor:
        found = []
        for _ in range(3):
            model(*given_)
            found.append(monitor.metrics()["debug/iga/l0/geo_b"])
            with torch.no_grad():
                model.first.geo_bias.add_(1.0)
    assert found[1] == found[0] and found[2] != found[0]


def test_a_model_without_such_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="trace"):
        Monitor(nn.Linear(2, 2))


def drifted(products: int) -> tuple:
    """Inputs of a layer whose frames went through so many plain products in float32."""
    given = layer_inputs()
    rot, draw = given.r.rot, torch.Generator().manual_seed(3)
    for _ in range(products):
        rot = rotation.multiply(rot, rotation.random(*rot.shape[:-2], generator=draw))
    given.r = GaussianRigid(Frame(rot.contiguous(), given.r.trans), given.r.local_mean, given.r.log_scale)
    return given


def test_frame_drift_is_the_worst_distance_of_a_valid_frame_from_a_rotation_in_u() -> None:
    given = drifted(100)
    given.mask[0, 0] = False
    trace = small_layer("bounded").trace(*given)
    expected = judge_of_drift(given.r.rot)[given.mask].amax() / 2**-24
    assert math.isclose(float(diagnostics.frame_drift(trace)), float(expected), rel_tol=1e-9)
    given.mask[:] = False
    assert float(diagnostics.frame_drift(small_layer("bounded").trace(*given))) == 0.0


def test_a_monitor_warns_once_of_frames_that_drifted_and_not_of_what_this_package_composes() -> None:
    net = nn.ModuleList([small_layer("bounded")])
    given = drifted(300)
    with Monitor(net):
        with pytest.warns(UserWarning, match=r"layer 0: a frame's matrix is \d+ u off a rotation.*orthonormalised"):
            net[0](*given)
        net[0](*given)  # a second warning would be an error
    with Monitor(net):
        given.r = given.r.orthonormalised()
        net[0](*given)
