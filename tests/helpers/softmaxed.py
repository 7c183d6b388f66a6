"""Attention that knows nothing of this package: softmax and scaled_dot_product_attention as anybody calls them."""

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["N", "WIDTH", "Chain", "Softmaxed", "hooks_of", "stance", "tokens"]

N, WIDTH = 6, 8


class Softmaxed(nn.Module):
    """A layer that knows nothing of this package."""

    def __init__(self, sharp: float = 1.0, dot_product: bool = False) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.softmax, self.sharp, self.dot_product = nn.Softmax(dim=-1), sharp, dot_product

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k = self.sharp * self.query(x), self.key(x)
        if self.dot_product:
            some = None if mask is None else mask[:, None, :].expand(len(x), N, N)
            return F.scaled_dot_product_attention(q, k, x, attn_mask=some, scale=1.0)
        logits = q @ k.mT
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, :], -torch.inf)
        return self.softmax(logits) @ x


class Chain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, N, WIDTH, generator=torch.Generator().manual_seed(seed))


def hooks_of(model: nn.Module) -> list[tuple[set[str], int]]:
    return [
        (set(vars(module)), len(module._forward_hooks) + len(module._forward_pre_hooks)) for module in model.modules()
    ]


def stance() -> str:
    from torch._dynamo import eval_frame

    return eval_frame._stance.stance
