"""The meaning of a red row for whoever uses what was judged: one sentence a rule, and where the documentation has more.

A rule is a check by its name, or one of the few things beside checks that a document judges. docs/checks.md has a
heading for each, with the same sentence.
"""

from iga._text import one_line

__all__ = ["MEANINGS", "anchor", "meaning"]

PAGE = "docs/checks.md"

MEANINGS = {
    # scores and their growth
    "log_det_floor": "Scales can collapse below the floor, so that the score of a pair rises without bound and float32 "
    "is left with noise.",
    "dist_sq_bound": "A distance in units of the Gaussians' widths leaves its bound, so that one pair can outweigh all "
    "others and overflow in half precision.",
    "geometry_logit_bound": "A geometry logit exceeds what its Gaussians allow, so that softmax sees one key and the "
    "other logits, and their gradients, count for nothing.",
    "growth_with_points": "Logits grow with the number of points per head, or most rows see one key alone before any "
    "training: a layer that starts saturated learns slowly or not at all.",
    "point_scaling_law": "The sum over points does not follow the scaling that the layer names, so that a change of P "
    "changes how much the geometry counts.",
    "geometry_is_alive": "The geometry reaches too few pairs, scales or weights to be learned from: the layer trains "
    "as if it had none.",
    "attention_weights": "Weights are no distribution over the valid keys or no softmax of the logits, so that an "
    "output is not the average it is taken for.",
    # values and gradients
    "accuracy": "Values are wrong by more than rounding explains, so that results differ between machines, dtypes and "
    "implementations, or are wrong everywhere.",
    "coincident_means": "Two Gaussians with the same mean have a distance other than exactly 0, so that a residue is "
    "not nearest to itself.",
    "score_laws": "The score changes under an exchange, a rigid motion or other units, so that the answer depends on "
    "how the same pair is written down.",
    "gradient_finiteness": "Some geometry gives a gradient that is not finite or none at all: one such example in a "
    "batch ends a training.",
    "gradient_values": "Gradients are not the derivatives of the outputs, so that a training follows another function "
    "than the one that is evaluated.",
    "gradient_bounds": "A derivative of a score exceeds its proven bound, so that single pairs can dominate a step of "
    "the optimizer.",
    "score_slopes": "A Student-t score changes faster with a mean, a scale or a turn than its proven bound, so that "
    "one step of the optimizer can move attention without limit.",
    "second_derivatives": "Second derivatives are wrong or missing, so that gradient penalties and forces in a loss "
    "cannot be trusted.",
    "reference_agrees": "The layer is not the one that it is said to equal: with the same weights it computes other "
    "values or gradients.",
    # symmetries, masks, ways of calling
    "se3_invariance": "The output changes when the whole structure is turned or moved, so that a prediction depends on "
    "where the coordinates happen to lie.",
    "mask_inertness": "What stands behind the mask leaks into outputs or gradients, so that padding changes a "
    "prediction.",
    "permutations": "The order of residues or points changes more than the order of the output, so that a prediction "
    "depends on how the input is sorted.",
    "calls_agree": "The same inputs called in another way (batched, compiled, without gradients, in other memory) give "
    "another answer.",
    "compiled_calls": "Compiled or exported, it computes something else than when it is called plainly.",
    "determinism": "The same call twice gives two answers, or changes its own inputs, so that no run can be "
    "reproduced.",
    "small_sizes": "It fails for very few residues or keys, which the end of a batch or a short chain brings.",
    "large_sizes": "It is wrong for long chains, which short tests do not show.",
    "feature_laws": "It reads pair features of other rows than the query's own, or takes zeros for padding, so that "
    "what one residue is given changes another.",
    "reduced_precision": "Under autocast or TF32 the geometry loses digits, so that training in mixed precision sees "
    "other distances.",
    "process_state": "A call leaves its process changed (threads, default dtype, seeds, environment), so that code "
    "which runs after it behaves otherwise.",
    # this package's own parts
    "frame_laws": "Rotations or frames break a law of rigid motions, so that whatever is computed in them is off.",
    "quaternion_sign": "A rotation depends on the sign of its quaternion, which stands for no other rotation.",
    "diagnostics_agree": "What training logs of saturation, entropy or spread is not what the weights are.",
    # of one protein
    "sigma_range": "A Gaussian that the layer made is narrower than the floor or wider than the ceiling, so that no "
    "bound of its scores holds.",
    "condition_range": "A Gaussian is longer along one axis than along another by more than the range of σ allows, so "
    "that its scores lose digits.",
    # of a call that crossed a limit in training
    "watched_non_finite": "A call holds numbers that are not finite, so that neither its loss nor its gradients are.",
    "watched_log_det": "A pair's scales fell under the floor, so that its score rises without bound.",
    "watched_geometry_logit": "A geometry logit is so large that another key's weight can be exactly 0 in float32, and "
    "learns nothing.",
    "watched_saturated": "Most rows give nearly all their weight to one key, so that attention is a switch that "
    "gradients hardly reach.",
    "watched_entropy": "Rows hold on average less entropy than one that is saturated, so that attention hardly mixes.",
    # beside checks
    "loads": "The target could not be loaded or called even once: nothing else was judged.",
    "process": "A call ended its process, hung or printed without end, so that whatever runs it goes down with it.",
    "judged": "Nothing was judged, so that nothing is known.",
    "fault_is_caught": "A function that is wrong on purpose passes a check that has to see it: the same mistake in "
    "real code would pass too.",
    "check_can_fail": "This check caught no planted fault, so that its green says nothing.",
    "no_false_alarm": "A check is red for something that is right, so that its red cannot be believed.",
    "right_before_timed": "This implementation is wrong on what it was to be timed on: its speed means nothing.",
    "not_slower": "Relative to the yardstick this became slower than was allowed since the earlier result.",
    "run_is_made": "A run of the comparison could not be made, so that its arm is judged on less than was planned.",
}


def meaning(rule: str) -> str:
    """One sentence; of a rule that is not known, as in a file of a later version, that."""
    return MEANINGS.get(rule, f"This version of iga does not know the check {one_line(rule)}.")


def anchor(rule: str) -> str:
    """Where the documentation speaks of a rule."""
    return f"{PAGE}#{rule}" if rule in MEANINGS else PAGE
