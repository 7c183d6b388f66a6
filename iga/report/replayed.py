"""The types of the document of `iga replay`: a call that crossed a limit in training, run alone."""

from typing import Literal, TypedDict

__all__ = ["Crossed", "Replay", "ReplayEnvironment"]


class Crossed(TypedDict):
    """A limit that was crossed: the value recorded, and that of the call run alone, null where it is not finite, or, of
    the second, not shown. `where` is the worst place now, `names` what is not finite."""

    kind: str
    unit: str
    limit: float
    then: float | None
    now: float | None
    crossed: bool
    where: str
    names: list[str]


class ReplayEnvironment(TypedDict):
    """Versions of the replay, and those of the recording."""

    device: str
    platform: str
    date: str
    versions: dict[str, str]
    recorded_versions: dict[str, str]
    recorded_date: str
    recorded_device: str


class Replay(TypedDict):
    """The result of `iga replay`: exit code 1 while a limit is crossed. `target` is the layer, by its number, name and
    class; null metrics are not finite; `notes` say what is not as it was."""

    schema: Literal[1]
    document: Literal["replay"]
    command: str
    target: str
    exit_code: int
    seconds: float
    environment: ReplayEnvironment
    step: int
    rank: int
    crossed: list[Crossed]
    metrics: dict[str, float | None]
    notes: list[str]
