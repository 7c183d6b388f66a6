"""Claim (d) read by samples instead of steps: a rule made after its data had been seen, and marked so.

A batch has about four samples, and trans_loss of a step reaches 5 only where every one of them is at the clamp. So the
rule of the claim counts one clamped step in a thousand where one sample in forty is clamped. This reading counts the
samples. It was chosen with the committed results in hand: what it says of them is a guess to be tested on fresh seeds.
"""

import math
import statistics

from iga.experiment.results.readings import Result
from iga.experiment.results.verdicts import (
    CLAMP,
    CLAMPED_PREMISE,
    CLAMPED_RATIO,
    COMPARED,
    ClaimVerdict,
    Rule,
    judge_rule,
)

__all__ = ["BY_SAMPLES", "MARK", "judge_post_hoc"]

MARK = "post hoc"

BY_SAMPLES = Rule(
    letter="d",
    claim=f"fewer samples are at the clamp, trans_loss ≥ {CLAMP:g}",
    quantity=f"number of samples with trans_loss ≥ {CLAMP:g}, over the steps",
    series="clamped_samples",
    worst=math.inf,
    reading=math.fsum,
    # Half a sample is added to both, as half a step is in the claim's own rule.
    effect=lambda before, after, steps: math.log10((before + 0.5) / (after + 0.5)),
    shown="ratio",
    premise_holds=lambda before, samples: (
        statistics.fmean(count / of if of else 0.0 for count, of in zip(before, samples, strict=True))
        >= CLAMPED_PREMISE
    ),
    supported_when=lambda effect, after: effect.mean >= math.log10(CLAMPED_RATIO) and effect.low > 0.0,
    refuted_when=lambda effect, after: effect.high < math.log10(CLAMPED_RATIO),
    premise=f"before the change at least {100 * CLAMPED_PREMISE:g} % of the samples are such",
    supported=f"(count before + ½) / (count after + ½) is at least {CLAMPED_RATIO:g}, and its interval lies above 1",
    refuted=f"the interval of that factor lies below {CLAMPED_RATIO:g}",
    whole="samples",
)


def judge_post_hoc(result: Result) -> list[ClaimVerdict]:
    """(d) by samples, of every arm in COMPARED."""
    return [judge_rule(result, BY_SAMPLES, arm) for arm in COMPARED]
