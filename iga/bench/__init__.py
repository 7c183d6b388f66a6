"""Timing Gaussian attention beside its peers: every implementation computes one `Problem`, is judged, then timed.

    problem          inputs of a healthy layer on a synthetic structure
    implementations  who computes it: ours, dense torch, and the peers of `peers`
    gate             float64 reference and derived budgets: what is wrong is not timed
    measure          interleaved repeats, order statistics, fits; memory, probe: peak memory and the machine's limit
    run              `iga bench`: one run, schema 1; baseline, table, plot, render: what is made of it

Imported by the command line and by benches/ only; peers are loaded when they are asked for.
"""
