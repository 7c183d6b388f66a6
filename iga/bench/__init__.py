"""The bench of Gaussian attention and its peers: every implementation computes one `Problem`, is judged, then timed.

    problem          inputs of a healthy layer on a synthetic structure
    implementations  who computes it: ours, dense torch, and the peers of `peers`
    gate             float64 reference and derived budgets: what is wrong is not timed
    measure          the clock and interleaved repeats; memory, probe: peak memory and the machine's limit
    run              `iga bench`: one run and its document; baseline: the document against an earlier one

Imported by the command line and by benches/ only; peers are loaded when they are asked for.
"""
