"""A recorder for training: what layers of a model show, limits, and the call that crossed one, kept and run again."""

from iga.recording.limits import KINDS, LimitCrossed, Limits
from iga.recording.recorder import Recorder, watch

__all__ = ["KINDS", "LimitCrossed", "Limits", "Recorder", "watch"]
