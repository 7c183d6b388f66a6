"""FlashIPA, whose scores are one product of vectors that FlashAttention takes in bf16, as a target of `iga verify`.

    git clone https://github.com/flagshippioneering/flash_ipa && export PYTHONPATH=flash_ipa/src
    iga verify docs/examples/flashipa.py:layer
    iga verify docs/examples/flashipa.py:dense

FlashAttention needs a GPU, and this suite runs on a CPU: `on_a_cpu` takes its place, with the same roundings. `layer`
is judged without pair features, which enter it as two factors and not as z; `dense` is the class's dense path.
"""

import sys
from types import SimpleNamespace

import torch
from torch import nn

from iga.testing import target


def on_a_cpu(qkv: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, softmax_scale: float) -> torch.Tensor:
    """softmax(q kᵀ) v of each sequence, operands and weights in bf16 as they come, sums in float32."""
    outputs = []
    for start, end in zip(cu_seqlens.tolist(), cu_seqlens.tolist()[1:], strict=False):
        q, k, v = qkv[start:end].transpose(0, 2).unbind(1)  # [h, n, d]
        logits = softmax_scale * (q.float() @ k.float().mT)
        weights = (logits - logits.amax(-1, keepdim=True)).exp()  # as the kernel does: no softmax to be caught
        mean = weights.to(v.dtype).float() @ v.float() / weights.sum(-1, keepdim=True)
        outputs.append(mean.transpose(0, 1).to(v.dtype))
    return torch.cat(outputs) if outputs else qkv[:, 2]


class FlashIPA(nn.Module):
    """The layer behind forward(s, z, r, mask) -> [b, n, c_s]; lengths in nm."""

    def __init__(self, sizes: dict[str, int], *, flash: bool) -> None:
        super().__init__()
        functions = ("flash_attn_varlen_qkvpacked_func", "flash_attn_varlen_func")
        sys.modules["flash_attn"] = SimpleNamespace(**dict.fromkeys(functions, on_a_cpu))
        from flash_ipa.ipa import InvariantPointAttention, IPAConfig
        from flash_ipa.rigid import Rigid, Rotation

        pairs = {"c_z": 0, "z_factor_rank": 0, "attn_dtype": "bf16"} if flash else {"attn_dtype": "fp32"}
        self.attention = InvariantPointAttention(IPAConfig(**(sizes | pairs), use_flash_attn=flash))
        self.rigid, self.rotation = Rigid, Rotation

    def forward(self, s: torch.Tensor, z: torch.Tensor | None, r, mask: torch.Tensor) -> torch.Tensor:
        frames = self.rigid(self.rotation(rot_mats=r.get_rots().get_rot_mats()), r.get_trans())
        return self.attention(s, z, None, None, frames, mask.to(s.dtype))


@target(kind="layer", pair_features=False, dtypes=(torch.float32,), max_points=40)
def layer(**sizes: int) -> nn.Module:
    """The path of FlashAttention, in bf16: its vectors hold c_hidden + 5P numbers, 256 at most."""
    return FlashIPA(sizes, flash=True)


@target(kind="layer", dtypes=(torch.float32,))
def dense(**sizes: int) -> nn.Module:
    """The dense path."""
    return FlashIPA(sizes, flash=False)
