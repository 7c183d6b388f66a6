"""The one order of dimensions in which taps are read, [b, h, p, q, k], whatever order a layer has them in."""

from iga._typing import Tensor

__all__ = ["NEEDED", "ORDER", "arranged"]

# The dimensions of each tap, in the order in which readers have them. n are residues: queries, keys or both.
ORDER = {
    **dict.fromkeys(("log_det", "dist_sq", "score"), "bhpqk"),
    **dict.fromkeys(("geometry_logit", "logits", "weights"), "bhqk"),
    **dict.fromkeys(("sigma", "mean"), "bhpnx"),
    "values": "bhnc",
}
NEEDED = {"bhpqk": "qk", "bhqk": "qk", "bhpnx": "n", "bhnc": "n"}  # the others may be missing


def arranged(name: str, tensor: Tensor, dims: str, residues: int | None = None) -> tuple[Tensor, str]:
    """A tap in the order of `ORDER`, with dimensions of size 1 where it has none, and of Gaussians whose they are: "q",
    "k" or, of both, "n".

    Raises ValueError for dimensions that are not its own, or of another number of `residues` (None: any).
    """
    letters, order = dims.split(), ORDER[name]
    if letters[:1] == ["b"]:
        lead = tensor.ndim - len(letters) + 1
        tensor = tensor.flatten(0, lead - 1) if lead else tensor.unsqueeze(0)
    side = "n"
    if "n" in order:
        side = next((letter for letter in letters if letter in "qkn"), "n")
        letters = ["n" if letter == side else letter for letter in letters]
    lacking = [letter for letter in NEEDED[order] if letter not in letters]
    if lacking or not set(letters) <= set(order):
        raise ValueError(f"{name}: dims={dims!r}, and it has {' '.join(order)}")
    for letter in NEEDED[order] if residues is not None else "":
        if tensor.shape[letters.index(letter)] not in (1, residues):
            raise ValueError(f"{name}: {letter} of dims={dims!r} is of {residues} residues, got {list(tensor.shape)}")
    tensor = tensor.permute([letters.index(letter) for letter in order if letter in letters])
    for place, letter in enumerate(order):
        if letter not in letters:
            tensor = tensor.unsqueeze(place)
    return tensor, side
