"""One run of a sweep in a process of its own: python -m iga.experiment.sweep.worker SWEEP RUN [--wandb MODE].

That of a comparison (`iga.experiment.run.worker`), with a probe of the network at every evaluation.
"""

from functools import partial

from iga.experiment.run import worker
from iga.experiment.sweep.grid import SweepPlan
from iga.experiment.sweep.probe import probe_of

__all__ = ["main", "run"]

run = partial(worker.run, kind=SweepPlan, probes=probe_of)
main = partial(worker.main, kind=SweepPlan, probes=probe_of)


if __name__ == "__main__":
    main()
