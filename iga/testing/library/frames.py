"""The functions that `frame_laws` and `quaternion_sign` judge, as one value in which any of them can be replaced."""

from collections.abc import Callable
from dataclasses import dataclass

from iga import rotation
from iga._typing import Tensor
from iga.frame import Frame

__all__ = ["FRAMES", "FrameLibrary"]


@dataclass(frozen=True)
class FrameLibrary:
    """The functions under judgement, with the signatures of `iga.rotation` and `iga.frame.Frame`.

    compose(a, b), invert(f), apply(f, x), invert_apply(f, x), from_backbone(n, ca, c, convention=, unit=), to_7(f),
    from_7(vector) and identity(n, dtype=) are Frame's methods as plain functions.
    """

    exp: Callable[..., Tensor] = rotation.exp
    log: Callable[..., Tensor] = rotation.log
    from_quaternion: Callable[..., Tensor] = rotation.from_quaternion
    to_quaternion: Callable[..., Tensor] = rotation.to_quaternion
    multiply: Callable[..., Tensor] = rotation.multiply
    rotate: Callable[..., Tensor] = rotation.rotate
    rotate_inverse: Callable[..., Tensor] = rotation.rotate_inverse
    geodesic_distance: Callable[..., Tensor] = rotation.geodesic_distance
    gram_schmidt: Callable[..., tuple[Tensor, Tensor]] = rotation.gram_schmidt
    random: Callable[..., Tensor] = rotation.random
    identity: Callable[..., Frame] = Frame.identity
    compose: Callable[..., Frame] = Frame.compose
    invert: Callable[..., Frame] = Frame.invert
    apply: Callable[..., Tensor] = Frame.apply
    invert_apply: Callable[..., Tensor] = Frame.invert_apply
    from_backbone: Callable[..., Frame] = Frame.from_backbone
    to_7: Callable[..., Tensor] = Frame.to_7
    from_7: Callable[..., Frame] = Frame.from_7


FRAMES = FrameLibrary()
