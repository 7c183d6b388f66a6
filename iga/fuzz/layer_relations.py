"""Relations that hold of any right layer on any call: two calls of it beside each other, no reference needed.

Each hands differences with their limits to a tally, as a check does. Limits are exact where a check's are (what stands
behind a mask, a call repeated), else what two evaluations may be off by (`layer_scene`). What a target claims not to
support is not asked. `iga.fuzz.layer_laws` has those that a layer has to have shown before they are asked of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from iga import rotation
from iga._typing import Tensor
from iga.frame import Frame
from iga.fuzz.layer_genome import case_of
from iga.fuzz.layer_scene import LayerScene, reshaped, sample_of
from iga.gaussian import GaussianRigid
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import kept
from iga.testing.layer.masks import FILLS, behind_mask
from iga.testing.layer.symmetry import moved
from iga.testing.tally import Tally

__all__ = ["RELATIONS", "Relation"]

ALONE = 3  # samples of a batch that are asked alone
SHIFTS = (0.0, 10.0, 1000.0)  # nm, as `se3_invariance` moves
FEW = 3  # residues of the call in between


@dataclass(frozen=True)
class Relation:
    """One relation: name, what its numbers are, and measure(scene, tally)."""

    name: str
    unit: str
    measure: Callable[[LayerScene, Tally], None]
    asks: tuple[str, ...] = ()  # what a target may claim not to support


def finite_outputs(scene: LayerScene, tally: Tally) -> None:
    """Valid residues have numbers."""
    found = scene.plain[scene.valid]
    tally.add((~found.isfinite()).double(), 0.0, "outputs that are not finite")


def masked_numbers(scene: LayerScene, tally: Tally) -> None:
    """What stands behind the mask changes no bit of a valid residue."""
    case, mask = scene.case, scene.valid
    if bool(mask.all()):
        return
    fills = [x for x in FILLS if x != "NaN"]
    name = fills[scene.genome.choice % len(fills)]
    for words in (name, "NaN"):
        fill = FILLS[words]
        other = behind_mask(case, torch.finfo(case.s.dtype).max if fill is None else fill)
        difference = scene.output(other, shape=scene.genome.shape) - scene.plain
        tally.add(difference[mask].abs(), 0.0, _residue(f"{words} behind the mask", mask))


def masked_removed(scene: LayerScene, tally: Tally) -> None:
    """Masked residues taken away leave the others' answers, of each sample alone."""
    for k in _some(scene, len(scene.case.s)):
        one = sample_of(scene.case, k)
        keep = one.mask[0].nonzero().flatten()
        if not len(keep) or len(keep) == one.s.shape[-2]:
            continue
        whole = scene.plain[k] if len(scene.case.s) == 1 else scene.output(one)[0]
        difference = torch.zeros_like(scene.plain)
        difference[k, keep] = scene.output(kept(one, keep))[0] - whole[keep]
        at = torch.zeros_like(scene.valid)
        at[k] = one.mask[0]
        scene.judge(tally, difference, "masked residues removed", at=at)


def sample_alone(scene: LayerScene, tally: Tally) -> None:
    """A sample of a batch is that sample alone, wherever in the batch it stands."""
    count = len(scene.case.s)
    if count == 1 and scene.genome.shape == (1,):
        return
    for k in _some(scene, count):
        found = torch.zeros_like(scene.plain)
        found[k] = scene.output(sample_of(scene.case, k))[0]
        at = torch.zeros_like(scene.valid)
        at[k] = scene.valid[k]
        scene.judge(tally, found - scene.plain, f"alone against in a batch of {count}", at=at)
    if count > 1:
        order = torch.arange(count).roll(1)
        c = scene.case
        rolled = replace(c, s=c.s[order], z=c.z[order], rigid=c.rigid[order], mask=c.mask[order])
        found = scene.output(rolled, shape=scene.genome.shape)[order.argsort()]
        scene.judge(tally, found - scene.plain, f"each one place further in a batch of {count}")


def residues_reordered(scene: LayerScene, tally: Tally) -> None:
    """Residues in another order give the same answers in that order."""
    n = scene.genome.residues
    if n < 2:
        return
    order = torch.randperm(n, generator=scene.generator)
    found = scene.output(kept(scene.case, order), shape=scene.genome.shape)[:, order.argsort()]
    scene.judge(tally, found - scene.plain, "residues in another order")


def frames_moved(scene: LayerScene, tally: Tally) -> None:
    """A rigid motion of all frames changes nothing."""
    generator = scene.generator
    turn = rotation.random(1, generator=generator, dtype=torch.float64)[0]
    away = torch.randn(3, generator=generator, dtype=torch.float64)
    shift = SHIFTS[scene.genome.choice % len(SHIFTS)] * away / away.norm()
    found = scene.output(moved(scene.case, turn, shift), shape=scene.genome.shape)
    words = f"all frames turned and moved by {float(shift.norm()):g} nm"
    scene.judge(tally, found - scene.plain, words, farther=float(shift.norm()))


def other_precision(scene: LayerScene, tally: Tally) -> None:
    """float32 says what float64 does."""
    if scene.genome.dtype != torch.float32 or torch.float64 not in scene.subject.dtypes:
        return
    scene.judge(tally, scene.plain.double() - scene.least.output, "float32 against float64", evaluations=1.0)


def memory_layouts(scene: LayerScene, tally: Tally) -> None:
    """However the numbers lie in memory, the answers are those of dense tensors."""
    if scene.genome.layout == "plain":
        return
    shape = scene.genome.shape
    given = reshaped(scene.case, shape)
    turn = scene.genome.choice
    if scene.genome.layout == "expanded":
        if not shape or shape[0] < 2:
            return
        # one sample for all, without memory of its own
        first = sample_of(scene.case, 0)
        dense = _every(first, lambda name, x: x.expand(len(scene.case.s), *x.shape[1:]).clone())
        given = _every(first, lambda name, x: x.expand(*shape, *x.shape[1:]))
        found, plain = _call(scene, given), scene.output(dense, shape=shape)
        scene.judge(tally, found - plain, "one sample expanded over the batch", at=dense.mask)
        return
    names = ("s", "z", "rot", "trans", "mask")
    chosen = {names[turn % len(names)], names[turn // 8 % len(names)]}
    lie = {"gaps": _gaps, "offset": _offset, "transposed": _transposed}[scene.genome.layout]
    given = _every(given, lambda name, x: lie(x) if name in chosen else x)
    scene.judge(tally, _call(scene, given) - scene.plain, f"{' and '.join(sorted(chosen))} {scene.genome.layout}")


def called_again(scene: LayerScene, tally: Tally) -> None:
    """The call after one of other sizes says the same bits; with gradients wanted, the same but for rounding."""
    plain, case = scene.plain.clone(), scene.case
    few = kept(case, torch.arange(min(FEW, case.s.shape[-2])).flip(0))
    scene.output(few)
    again = scene.output(case, shape=scene.genome.shape)
    tally.add((again - plain)[scene.valid].abs(), 0.0, _residue("after a call of other sizes", scene.valid))
    if "gradients" in scene.subject.claims.lacking:
        return
    wanting = replace(case, s=case.s.clone().requires_grad_(True))
    with torch.enable_grad():
        found = scene.subject.output(scene.layer, reshaped(wanting, scene.genome.shape)).detach().reshape(plain.shape)
    scene.judge(tally, found - plain, "with gradients wanted")


def copied_layer(scene: LayerScene, tally: Tally) -> None:
    """A layer built anew, which has seen nothing, says the same bits, and rebuilt inputs too."""
    case = case_of(scene.genome)
    found = scene.output(case, shape=scene.genome.shape, layer=scene.built())
    tally.add((found - scene.plain)[scene.valid].abs(), 0.0, _residue("against a fresh layer", scene.valid))


RELATIONS: dict[str, Relation] = {
    one.name: one
    for one in (
        Relation("finite_outputs", "entries that are not finite", finite_outputs),
        Relation("masked_numbers", "output", masked_numbers),
        Relation("masked_removed", "of the output", masked_removed),
        Relation("sample_alone", "of the output", sample_alone, ("batch_size",)),
        Relation("residues_reordered", "of the output", residues_reordered),
        Relation("frames_moved", "of the output", frames_moved),
        Relation("other_precision", "of the output", other_precision),
        Relation("memory_layouts", "of the output", memory_layouts),
        Relation("called_again", "output", called_again),
        Relation("copied_layer", "output", copied_layer),
    )
}


def _some(scene: LayerScene, count: int) -> list[int]:
    """A few samples: all of a small batch, else the first, the last and others in turn."""
    if count <= ALONE:
        return list(range(count))
    others = torch.randperm(count, generator=scene.generator).tolist()
    return sorted({count - 1, *others[: ALONE - 1]})


def _residue(words: str, at: Tensor) -> Callable[[tuple[int, ...]], str]:
    places = at.nonzero()

    def named(index: tuple[int, ...]) -> str:
        sample, residue = places[index[0]].tolist()
        return f"{words}, sample {sample}, residue {residue}, channel {index[1]}"

    return named


def _every(case: Case, change: Callable[[str, Tensor], Tensor]) -> Case:
    r = case.rigid
    frame = Frame(change("rot", r.rot), change("trans", r.trans))
    rigid = GaussianRigid(frame, change("local_mean", r.local_mean), change("log_scale", r.log_scale))
    return replace(case, s=change("s", case.s), z=change("z", case.z), rigid=rigid, mask=change("mask", case.mask))


def _call(scene: LayerScene, case: Case) -> Tensor:
    with torch.no_grad():
        return scene.subject.output(scene.layer, case).reshape(-1, *case.s.shape[-2:])


def _gaps(x: Tensor) -> Tensor:
    """Every second number of a tensor whose others are 7 (of a mask, the opposite)."""
    other = ~x if x.dtype == torch.bool else torch.full_like(x, 7.0)
    return torch.stack([x, other], dim=-1)[..., 0]


def _offset(x: Tensor) -> Tensor:
    """Behind other numbers in its storage."""
    if not x.ndim:
        return x
    before = torch.ones_like(x[:1])
    return torch.cat([before, x])[1:]


def _transposed(x: Tensor) -> Tensor:
    """Its last two dimensions stored the other way about."""
    return x.mT.contiguous().mT if x.ndim > 1 else x
