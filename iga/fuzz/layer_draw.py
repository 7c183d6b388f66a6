"""Draws of calls of a layer: sizes in a fixed order that reaches every small one soon, everything else at random.

One size of a call is its subject: taken from that size's own ladder, which visits small numbers and the neighbours of
powers of two first and then all others. The rest of the call is small and random. So every N up to 300 and every P up
to 64 comes after a known number of rounds, whatever the seed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from iga import rotation
from iga._typing import Tensor
from iga.frame import Frame
from iga.fuzz.layer_genome import GEOMETRY, LAYOUTS, LayerGenome
from iga.fuzz.layer_structures import Parts, stretch
from iga.gaussian import GaussianRigid
from iga.search.ties import right_angles
from iga.testing.contract import Contract
from iga.testing.layer.cases import LOG_SCALE_ROOM, PERTURBATIONS
from iga.testing.targets import Claims

__all__ = ["FAMILIES", "LADDERS", "Room", "draw", "draw_ordinary", "draw_residues", "ladder", "mutated"]

MOST_RESIDUES, MOST_POINTS = 300, 64
PAIR_POINTS = 400_000  # b · h · P · n² of a call: some hundredths of a second
SMALL = 33  # numbers under it come before the strides
ORDINARY = 12  # residues of an ordinary call
FARTHEST = 1000.0  # nm, of the product's contract on geometry

Generator = torch.Generator


def ladder(most: int, *, first: int) -> list[int]:
    """1 … most, each once: up to `first` in order, then one more than each power of two, one less, the powers, halfway
    between them, then all that are small, and the others in strides."""
    head = list(range(1, min(first, most) + 1))
    powers = [2**k for k in range(1, 1 + int(math.log2(max(most, 2))))]
    near = [p + off for off in (1, -1, 0) for p in powers] + [p + p // 2 + off for off in (0, 1) for p in powers]
    rest = list(range(1, most + 1))
    stride = next(k for k in (7, 11, 13, 17) if math.gcd(k, max(most, 1)) == 1)
    spread = [rest[i * stride % most] for i in range(most)]
    return list(dict.fromkeys(n for n in (*head, *near, most, *range(1, SMALL), *spread) if 1 <= n <= most))


LADDERS: dict[str, list[int]] = {
    "residues": ladder(MOST_RESIDUES, first=9),
    "no_qk_points": ladder(MOST_POINTS, first=17),
    "samples": ladder(33, first=9),
    "no_heads": ladder(16, first=9),
    "c_hidden": ladder(33, first=17),
    "c_s": ladder(40, first=4),
    "c_z": ladder(24, first=4),
    "no_v_points": ladder(17, first=9),
}


# The largest of a second size of a call, and the least that sizes are cut down to, in this order.
SECOND = {"residues": 200, "no_heads": 16, "no_qk_points": 16, "samples": 8}
LEAST = {"no_qk_points": 1, "no_heads": 1, "samples": 1, "residues": 2}


@dataclass(frozen=True)
class Room:
    """What a target claims to take, where a draw has to stay; and the structures that it begins with, if any."""

    claims: Claims
    contract: Contract
    dtypes: tuple[torch.dtype, ...]
    structures: tuple[Parts, ...] = ()

    @property
    def log_scales(self) -> tuple[float, float]:
        """Log of σ: from a thousandth of the floor to the ceiling, less what a layer may add."""
        return math.log(self.contract.sigma_min * 1e-3), math.log(self.contract.sigma_max) - LOG_SCALE_ROOM

    def size(self, name: str, value: int) -> int:
        """The nearest value that is claimed."""
        most = {"residues": self.claims.max_residues, "no_qk_points": self.claims.max_points}.get(name)
        if name == "samples" and {"batch_size"} & self.claims.lacking:
            most = 1
        step = self.claims.multiple_of.get(name, 1)
        return -(-min(value, value if most is None else most) // step) * step

    def shapes(self, samples: int, generator: Generator) -> tuple[int, ...]:
        """Leading dimensions of so many samples."""
        lacking, turn = self.claims.lacking, _whole(generator, 0, 5)
        if samples == 1 and turn == 0 and "no_batch_dimension" not in lacking:
            return ()
        if turn == 1 and "several_batch_dimensions" not in lacking:
            factors = [k for k in range(1, samples + 1) if samples % k == 0]
            k = factors[_whole(generator, 0, len(factors) - 1)]
            return (k, samples // k)
        return (samples,)

    def layout(self, generator: Generator) -> str:
        allowed = [
            x for x in LAYOUTS if not (x in ("gaps", "offset", "transposed") and "strided" in self.claims.lacking)
        ]
        allowed = [x for x in allowed if not (x == "expanded" and "expanded" in self.claims.lacking)]
        return allowed[_whole(generator, 0, len(allowed) - 1)] if _chance(generator, 0.4) else "plain"


def draw(room: Room, generator: Generator, subject: str, value: int) -> LayerGenome:
    """A call whose size `subject`, one of LADDERS, is `value`, as far as that is claimed; of some another one is large
    too, since what is wrong may be so for many heads of a long chain alone."""
    small = {"no_heads": 3, "no_qk_points": 4, "c_hidden": 6, "c_s": 8, "c_z": 5, "no_v_points": 4}
    sizes = {name: _whole(generator, 1, most) for name, most in small.items()}
    sizes["residues"], alone = _whole(generator, 2, 9), _chance(generator, 0.6) or subject == "residues" and value > 40
    sizes["samples"] = 1 if alone else _whole(generator, 2, 4)
    sizes[subject] = value
    second = list(SECOND)[_whole(generator, 0, len(SECOND) - 1)] if _chance(generator, 0.4) else subject
    if second != subject:
        sizes[second] = round(SECOND[second] ** float(torch.rand((), generator=generator)))
    residues, samples = sizes.pop("residues"), sizes.pop("samples")
    sizes = {name: room.size(name, x) for name, x in sizes.items()}
    residues, samples = room.size("residues", residues), room.size("samples", samples)
    # what is no subject gives way, the second one last
    order = sorted(LEAST, key=lambda name: name == second)
    while samples * sizes["no_heads"] * sizes["no_qk_points"] * residues**2 > PAIR_POINTS:
        for name in order:
            now = sizes.get(name, samples if name == "samples" else residues)
            if name != subject and now > room.size(name, LEAST[name]):
                if name in sizes:
                    sizes[name] = room.size(name, max(now // 2, 1))
                elif name == "samples":
                    samples = max(now // 2, 1)
                else:
                    residues = max(now // 2, 2)
                break
        else:
            break
    if subject != "c_z":
        sizes["c_z"] = room.size("c_z", max(1, min(sizes["c_z"], 200_000 // (samples * residues**2))))
    parts = [draw_residues(residues, room, generator) for _ in range(samples)]
    return LayerGenome(
        sizes=sizes,
        seed=_whole(generator, 0, 2**20),
        gain=(1.0, 1.0, 0.5, 2.0)[_whole(generator, 0, 3)],
        dtype=room.dtypes[_whole(generator, 0, len(room.dtypes) - 1)],
        shape=room.shapes(samples, generator),
        layout=room.layout(generator),
        choice=_whole(generator, 0, 2**20),
        features=_whole(generator, 0, 2**20),
        s_size=(1.0, 1.0, 1.0, 0.0, 4.0)[_whole(generator, 0, 4)],
        z_size=(1.0, 1.0, 1.0, 0.0, 8.0)[_whole(generator, 0, 4)],
        ids=torch.arange(residues),
        samples=torch.arange(samples),
        mask=torch.stack([_mask(residues, generator) for _ in range(samples)]),
        **{name: torch.stack([part[name] for part in parts]) for name in GEOMETRY},
    )


def draw_ordinary(room: Room, generator: Generator, subject: str, value: int) -> LayerGenome:
    """A call as the checks of the registry have it: chains, all valid, no channel too narrow to show a thing; in
    float64 if that is claimed. One sample of 12 residues, unless these are the subject."""
    genome = draw(room, generator, subject, value)
    sizes = {name: max(genome.sizes[name], room.size(name, 4)) for name in ("c_s", "c_z", "c_hidden")}
    n = genome.residues if subject == "residues" else room.size("residues", ORDINARY)
    b = len(genome.samples) if subject == "samples" else 1
    if n > ORDINARY:
        sizes = {}
    samples = [_ordinary(n, room, generator) for _ in range(b)]
    parts = {name: [one[name] for one in samples] for name in GEOMETRY}
    return replace(
        genome.picked(torch.arange(b)).sized(**sizes),
        **{name: torch.stack(x) for name, x in parts.items()},
        dtype=torch.float64 if torch.float64 in room.dtypes else room.dtypes[0],
        ids=torch.arange(n),
        mask=torch.ones(b, n, dtype=torch.bool),
        s_size=1.0,
        z_size=1.0,
        gain=1.0,
        layout="plain",
    )


def _perturbed(n: int, room: Room, generator: Generator) -> Mapping[str, Tensor]:
    """A chain, degenerate as a whole: needles in frames that are shared or nearly so, all in one place, and so on."""
    parts = _ordinary(n, room, generator)
    rigid = GaussianRigid(Frame(parts["rot"], parts["trans"]), parts["local_mean"], parts["log_scale"])[None]
    change = tuple(PERTURBATIONS.values())[_whole(generator, 0, len(PERTURBATIONS) - 1)]
    found = change(rigid, room.contract, generator)
    return {"rot": found.rot[0], **{name: getattr(found, name)[0] for name in GEOMETRY[1:]}}


def _ordinary(n: int, room: Room, generator: Generator) -> Mapping[str, Tensor]:
    if room.structures:
        return stretch(room.structures, n, generator)
    return {
        "rot": _any_turn(n, room, generator),
        "trans": _chain(n, room, generator),
        "local_mean": torch.zeros(n, 3, dtype=torch.float64),
        "log_scale": _natural(n, room, generator),
    }


# --- masks ---------------------------------------------------------------------------------------------------


def _mask(n: int, generator: Generator) -> Tensor:
    """All valid, a prefix, a suffix, single ones, single gaps, at random, and now and then none at all."""
    turn, mask = _whole(generator, 0, 9), torch.ones(n, dtype=torch.bool)
    at = _whole(generator, 0, n - 1)
    if turn in (0, 1, 2):
        return mask
    if turn == 3:
        mask[at:] = False
    elif turn == 4:
        mask[: n - 1 - at] = False
    elif turn == 5:
        mask[at] = False
    elif turn == 6:
        mask[:] = False
        mask[at] = True
    elif turn in (7, 8):
        mask = torch.rand(n, generator=generator) < 0.2 + 0.6 * torch.rand((), generator=generator)
    elif n > 1:
        mask[1:-1] = torch.rand(n - 2, generator=generator) < 0.5
    return mask


# --- residues ------------------------------------------------------------------------------------------------


def draw_residues(n: int, room: Room, generator: Generator) -> Mapping[str, Tensor]:
    """Frames and Gaussians of n residues, float64: each of places, turns, scales and local means of its own family.

    Every fourth is a chain as a run of the checks degenerates it. Where there are structures, every other call begins
    with a stretch of one, a third of whose parts a family replaces.
    """
    if _chance(generator, 0.25):
        return _perturbed(n, room, generator)
    trans = _pick(FAMILIES["places"], generator)(n, room, generator)
    if _chance(generator, 0.15):
        trans = trans + _unit(generator) * _decade(generator, 0.0, math.log10(FARTHEST))
    rot = _pick(FAMILIES["turns"], generator)(n, room, generator)
    log_scale = _pick(FAMILIES["scales"], generator)(n, room, generator)
    mean = torch.zeros(n, 3, dtype=torch.float64)
    if _chance(generator, 0.6):
        mean = _normal(generator, n, 3) * _decade(generator, -2.0, 0.0)
    found = {"rot": rot, "trans": trans, "local_mean": mean, "log_scale": log_scale}
    if room.structures and _chance(generator, 0.5):
        real = stretch(room.structures, n, generator)
        found |= {name: x for name, x in real.items() if _chance(generator, 2 / 3)}
    return found


def _chain(n: int, room: Room, generator: Generator) -> Tensor:
    """Steps of 0.38 nm, as Cα have them."""
    step = _normal(generator, n, 3)
    return (0.38 * step / step.norm(dim=-1, keepdim=True)).cumsum(0)


def _ball(n: int, room: Room, generator: Generator) -> Tensor:
    return _normal(generator, n, 3) * _decade(generator, -3.0, 2.5)


def _decades(n: int, room: Room, generator: Generator) -> Tensor:
    """Each at a distance of its own, by decades, from the first."""
    away = _normal(generator, n, 3)
    length = 10.0 ** (-3.0 + 6.0 * torch.rand(n, 1, generator=generator, dtype=torch.float64))
    found = away / away.norm(dim=-1, keepdim=True) * length
    found[0] = 0.0
    return found


def _clusters(n: int, room: Room, generator: Generator) -> Tensor:
    """Two clusters, nm to 10³ nm apart."""
    far = torch.rand(n, 1, generator=generator) < 0.5
    return _chain(n, room, generator) + far * _unit(generator) * _decade(generator, 0.0, math.log10(FARTHEST))


def _coincident(n: int, room: Room, generator: Generator) -> Tensor:
    return _unit(generator).expand(n, 3).clone()


def _grid(n: int, room: Room, generator: Generator) -> Tensor:
    """Whole numbers of a step: zeros, equal components, equal places."""
    step = (0.25, 1.0, 16.0)[_whole(generator, 0, 2)]
    return step * torch.randint(-2, 3, (n, 3), generator=generator).double()


def _any_turn(n: int, room: Room, generator: Generator) -> Tensor:
    return rotation.random(n, generator=generator, dtype=torch.float64)


def _no_turn(n: int, room: Room, generator: Generator) -> Tensor:
    return torch.eye(3, dtype=torch.float64).expand(n, 3, 3).clone()


def _right_turns(n: int, room: Room, generator: Generator) -> Tensor:
    return right_angles().double()[torch.randint(0, 24, (n,), generator=generator)]


def _shared_turns(n: int, room: Room, generator: Generator) -> Tensor:
    """One turn for all, or nearly one: off by a share of σ_min/σ_max, or by half a turn."""
    one = _any_turn(1, room, generator)
    off = _normal(generator, n, 3) * _decade(generator, -5.0, 0.0)
    turned = rotation.multiply(one, rotation.exp(off))
    return torch.where((torch.rand(n, generator=generator) < 0.5)[:, None, None], one, turned)


def _natural(n: int, room: Room, generator: Generator) -> Tensor:
    """0.05 to 0.5 nm."""
    low, high = math.log(0.05), math.log(0.5)
    return low + (high - low) * torch.rand(n, 3, generator=generator, dtype=torch.float64)


def _mixed(n: int, room: Room, generator: Generator) -> Tensor:
    """Each axis anywhere between floor and ceiling."""
    low, high = math.log(room.contract.sigma_min), room.log_scales[1]
    return low + (high - low) * torch.rand(n, 3, generator=generator, dtype=torch.float64)


def _ends(n: int, room: Room, generator: Generator) -> Tensor:
    """Each axis at the ceiling or far under the floor: needles, pancakes, points, balloons."""
    low, high = room.log_scales
    return torch.where(torch.rand(n, 3, generator=generator) < 0.5, low, high).double()


def _equal(n: int, room: Room, generator: Generator) -> Tensor:
    """Spheres of one σ, of a round number of nm now and then."""
    low, high = room.log_scales
    if _chance(generator, 0.5):
        return torch.full((n, 3), math.log((0.1, 0.5, 1.0, 10.0)[_whole(generator, 0, 3)]), dtype=torch.float64)
    return torch.full((n, 3), low + (high - low) * float(torch.rand((), generator=generator)), dtype=torch.float64)


def _collapsed(n: int, room: Room, generator: Generator) -> Tensor:
    return torch.full((n, 3), -30.0, dtype=torch.float64)


Family = Callable[[int, Room, Generator], Tensor]
FAMILIES: dict[str, tuple[Family, ...]] = {
    "places": (_chain, _chain, _ball, _decades, _clusters, _coincident, _grid),
    "turns": (_any_turn, _any_turn, _no_turn, _right_turns, _shared_turns),
    "scales": (_natural, _natural, _mixed, _ends, _equal, _collapsed),
}


def mutated(genome: LayerGenome, room: Room, generator: Generator) -> LayerGenome:
    """The call with one thing changed: a size, the features, the mask, or some numbers by a step of any size."""
    turn = _whole(generator, 0, 9)
    if turn == 0:
        name = tuple(genome.sizes)[_whole(generator, 0, len(genome.sizes) - 1)]
        return genome.sized(**{name: room.size(name, max(1, genome.sizes[name] + (-1, 1)[_whole(generator, 0, 1)]))})
    if turn == 1:
        return replace(genome, seed=_whole(generator, 0, 2**20), features=_whole(generator, 0, 2**20))
    if turn == 2:
        return replace(genome, choice=_whole(generator, 0, 2**20))
    if turn == 3:
        sizes = {name: getattr(genome, name) * _decade(generator, -0.5, 0.5) for name in ("s_size", "z_size")}
        return replace(genome, **{name: min(x, 16.0) for name, x in sizes.items()})
    if turn == 4:
        return replace(genome, mask=torch.stack([_mask(genome.residues, generator) for _ in genome.mask]))
    if turn == 5:
        low, high = room.log_scales
        moved = genome.log_scale + _decade(generator, -3.0, 0.5) * _normal(generator, *genome.log_scale.shape)
        return replace(genome, log_scale=moved.clamp(low, high))
    if turn == 6:
        turned = rotation.exp(_decade(generator, -5.0, 0.0) * _normal(generator, *genome.trans.shape))
        return replace(genome, rot=rotation.multiply(genome.rot, turned))
    size = float(genome.trans.abs().amax().clamp(min=0.1))
    one = (torch.rand(genome.residues, generator=generator) < 0.3)[:, None]
    moved = genome.trans + one * size * _decade(generator, -4.0, 0.5) * _normal(generator, *genome.trans.shape)
    return replace(genome, trans=moved.clamp(-2 * FARTHEST, 2 * FARTHEST))


# --- numbers -------------------------------------------------------------------------------------------------


def _whole(generator: Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _chance(generator: Generator, share: float) -> bool:
    return float(torch.rand((), generator=generator)) < share


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _unit(generator: Generator) -> Tensor:
    x = _normal(generator, 3)
    return x / x.norm()


def _decade(generator: Generator, low: float, high: float) -> float:
    """10 to an exponent between low and high."""
    return 10.0 ** (low + (high - low) * float(torch.rand((), generator=generator)))


def _pick(families: tuple[Family, ...], generator: Generator) -> Family:
    return families[_whole(generator, 0, len(families) - 1)]
