"""A target of either kind made ready for a search, and the stream of a layer, whose relations have names too."""

from collections.abc import Mapping
from typing import Any

from iga.fuzz.layer import LayerStream
from iga.fuzz.layer_measure import RELATION_NAMES
from iga.fuzz.layer_structures import parts_of
from iga.testing.run import Run
from iga.testing.targets import load_target
from iga.testing.verify import prepare

__all__ = ["layer_stream", "prepared_for", "stated"]


def prepared_for(target: str, options: Mapping[str, Any]) -> Run:
    """What is searched: the place of a target, or a preset. Raises ValueError, OSError and Unloadable as `prepare`.

    options["only"] may name relations of layers, which `prepare` does not know.
    """
    asked = options.get("only")
    own = [name for name in asked or () if name in RELATION_NAMES]
    rest = [name for name in asked or () if name not in own]
    placed = ":" in target
    given = load_target(target, kind=options["kind"]) if placed else target
    changed = {"only": rest or None, "kind": options["kind"] if placed else None}
    plan = prepare(given, **{**options, **changed})
    if own and plan.kind != "layer":
        raise ValueError(f"unknown invariant {own[0]!r} of an {plan.kind}: it is asked of layers")
    reference = plan.subject.reference if plan.kind == "layer" else None
    if reference is not None and reference.odd:
        raise ValueError(reference.odd)
    return plan


def layer_stream(plan: Run, shard: tuple[int, int], options: Mapping[str, Any]) -> LayerStream:
    """The stream of a layer that is ready, with options["only"] and ["structures"] as they were asked for."""
    return LayerStream(
        plan.subject,
        plan.contract,
        checks=plan.checks,
        profile=plan.profile.name,
        seed=plan.seed,
        shard=shard,
        only=options.get("only"),
        structures=parts_of(plan.structures) if options.get("structures") else (),
    )


def stated(layer: Mapping[str, Any] | None) -> dict[str, Any]:
    """What builds a layer again, of a case; of an overlap function nothing."""
    return dict(layer or {})
