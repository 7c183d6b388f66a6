"""The contract that every preset is judged against, and how much of it a profile examines."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["DEFAULT_POINTS", "PROFILES", "Contract", "Profile", "check_seed", "the_profile"]

DEFAULT_POINTS = (1, 2, 3, 4, 7, 8, 16, 32, 64)  # odd ones too: what takes points by twos or fours leaves some out


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What the product promises: σ ≥ sigma_min in float32, any geometry with σ ≤ sigma_max (nm), any P in `points`.

    digits   significant decimal digits asked for: what the rounded inputs leave open by more is not judged
    """

    sigma_min: float = 0.03
    sigma_max: float = 150.0
    points: tuple[int, ...] = DEFAULT_POINTS
    digits: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min must be between 0 and {self.sigma_max} nm, got {self.sigma_min!r} (1 Å = 0.1 nm)"
            )
        if not self.points or any(p < 1 for p in self.points):
            raise ValueError(f"points must be whole numbers from 1 up, got {self.points!r}")
        if not 1 <= self.digits <= 15:
            raise ValueError(f"digits must be from 1 to 15, what float64 can hold, got {self.digits!r}")
        object.__setattr__(self, "points", tuple(sorted(set(self.points))))


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that torch, NumPy or what counts on from it can't take."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number from 0 to 2³² − 1, got {seed}")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How much is examined. Sizes of the layer are those of a small backbone model.

    residues         of each structure as it is, this many are sampled for the checks over all structures
    degenerate       and this many for each of its degenerate perturbations
    synthetic        synthetic structures when none is given
    focus            structures on which the costlier checks run (spread over the list by length)
    focus_residues   residues of a focus structure
    seeds            seeds of each statistical check
    digits_pairs     pairs judged against 50 digits in float64
    pairs            degenerate pairs on which the values of an overlap function are judged
    perturb_every    each structure gets every k-th degenerate perturbation, in rotation (1: all of them)
    focus_perturb_every  and a focus structure these
    implementation   which of `iga.kernels` computes this package's own layer, unless another is asked for
    c_s … no_v_points  sizes of the layer. Pairwise different, and none a multiple of another: what takes one for
                     another shows. P comes beside them, from 1 to 64
    others           further sets of sizes; structures are judged with each set in turn
    """

    name: str
    residues: int
    degenerate: int
    synthetic: int
    focus: int
    focus_residues: int
    seeds: int
    digits_pairs: int
    perturb_every: int
    pairs: int
    focus_perturb_every: int = 1
    implementation: str = "auto"
    c_s: int = 34
    c_z: int = 13
    c_hidden: int = 11
    no_heads: int = 3
    no_v_points: int = 5
    others: tuple[Mapping[str, int], ...] = ({"c_s": 25, "c_z": 9, "c_hidden": 14, "no_heads": 8, "no_v_points": 12},)

    def sets(self) -> list["Profile"]:
        """The profile with each of its sets of sizes."""
        return [self, *(replace(self, **sizes) for sizes in self.others)]

    @property
    def is_other(self) -> bool:
        """Whether it has one of its further sets of sizes."""
        return any(all(getattr(self, name) == size for name, size in other.items()) for other in self.others)

    def rounded(self, multiple_of: Mapping[str, int]) -> "Profile":
        """With every size raised to the next multiple that is asked for."""

        def up(sizes: Mapping[str, int]) -> dict[str, int]:
            return {
                name: -(-size // multiple_of.get(name, 1)) * multiple_of.get(name, 1) for name, size in sizes.items()
            }

        own = up({name: getattr(self, name) for name in multiple_of})
        return replace(self, **own, others=tuple(up(sizes) for sizes in self.others))

    def within(self, residues: int | None) -> "Profile":
        """With no more than so many residues anywhere."""
        if residues is None:
            return self
        names = ("residues", "degenerate", "focus_residues")
        return replace(self, **{name: min(getattr(self, name), residues) for name in names})


PROFILES: dict[str, Profile] = {
    "fast": Profile(
        name="fast",
        residues=48,
        degenerate=32,
        synthetic=8,
        focus=2,
        focus_residues=40,
        seeds=2,
        digits_pairs=50,
        perturb_every=2,
        pairs=100_000,
        # The kernels' machine code is made at their first call, which would be most of a first run.
        implementation="reference",
    ),
    "ci": Profile(
        name="ci",
        residues=64,
        degenerate=32,
        synthetic=16,
        focus=3,
        focus_residues=64,
        seeds=3,
        digits_pairs=100,
        perturb_every=3,
        pairs=300_000,
    ),
    "nightly": Profile(
        name="nightly",
        residues=192,
        degenerate=64,
        synthetic=64,
        focus=8,
        focus_residues=96,
        seeds=8,
        digits_pairs=1000,
        perturb_every=1,
        pairs=3_000_000,
    ),
}


def the_profile(profile: str | Profile) -> Profile:
    """The profile of that name, or the one given. Raises ValueError for a name that is none."""
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; profiles: {', '.join(PROFILES)}")
    return PROFILES[profile]
