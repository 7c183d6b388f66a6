"""Softmax is caught in a layer that shows nothing, however it is spelled, with its logits and with its keys."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iga.testing.layer.softmax import SoftmaxCatcher

N = 6


def by_hand(x):
    e = (x - x.amax(dim=-1, keepdim=True)).exp()
    return e / e.sum(dim=-1, keepdim=True)


def masked_by_hand(x):
    e = torch.exp(x - x.amax(dim=-1, keepdim=True)) * torch.ones(N)
    return e * e.sum(dim=-1, keepdim=True).reciprocal()


def in_place(x):
    e = (x - x.amax(dim=-1, keepdim=True)).exp_()
    return e.div_(e.sum(dim=-1, keepdim=True))


def by_logsumexp(x):
    return torch.exp(x - torch.logsumexp(x, dim=-1, keepdim=True))


def scripted(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(function)


SPELLINGS = {
    "torch.softmax": lambda x: torch.softmax(x, -1),
    "Tensor.softmax": lambda x: x.softmax(dim=-1),
    "F.softmax": lambda x: F.softmax(x, dim=-1),
    "nn.Softmax": nn.Softmax(dim=-1),
    "log_softmax": lambda x: F.log_softmax(x, dim=-1).exp(),
    "torch.special": lambda x: torch.special.softmax(x, -1),
    "a script": scripted(by_hand),
    "by hand": by_hand,
    "by hand with a mask, times the reciprocal": masked_by_hand,
    "by hand, in place": in_place,
    "by logsumexp": by_logsumexp,
}


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def centred(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(dim=-1, keepdim=True)


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("grad", [False, True])
def test_each_spelling_gives_its_weights_and_logits(spelling, grad) -> None:
    x = normal(2, 3, N, N).requires_grad_(grad)
    with SoftmaxCatcher(N) as caught:
        spelling(x)
    logits, weights = caught.found[0]
    expected = x.detach().reshape(6, N, N)
    assert logits is not None
    torch.testing.assert_close(weights, expected.softmax(dim=-1))
    torch.testing.assert_close(centred(logits), centred(expected))


def test_the_dimension_that_softmax_runs_over_are_the_keys() -> None:
    x = normal(2, N, N, 3)  # [b, q, k, h]
    with SoftmaxCatcher(N) as caught:
        x.softmax(dim=-2)
    ((logits, weights),) = caught.found
    assert logits is not None and torch.equal(logits, x.movedim(-1, 1).reshape(6, N, N))
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(6, N))


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_logits_of_scaled_dot_product_attention_are_made_again(mask) -> None:
    q, k, v = normal(3, 1, 2, N, 4)
    bias = normal(1, 2, N, N) if mask == "float" else torch.eye(N, dtype=torch.bool) if mask else None
    with SoftmaxCatcher(N) as caught:
        F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.7)
    logits, _ = caught.found[-1]
    expected = 0.7 * (q @ k.mT)
    expected = expected.masked_fill(~bias, -math.inf) if mask == "bool" else expected + (0 if bias is None else bias)
    assert logits is not None
    torch.testing.assert_close(logits, expected[0])


def test_softmax_by_hand_with_hidden_logits_still_gives_its_weights() -> None:
    x = normal(N, N)
    e = x.exp()
    with SoftmaxCatcher(N) as caught:
        e / e.sum(dim=-1, keepdim=True)
    ((logits, weights),) = caught.found
    assert logits is None
    torch.testing.assert_close(weights[0], x.softmax(dim=-1))


def test_what_is_no_attention_is_not_caught() -> None:
    with SoftmaxCatcher(N) as caught:
        normal(N, 4).softmax(dim=-1)
        normal(3, N).softmax(dim=-1)
        normal(N, N).exp() / normal(N, 1).exp()
        normal(N, N) * normal(N, 1)
        normal(N, N).sigmoid()
    assert caught.found == []


def test_what_becomes_of_weights_in_place_later_is_not_what_was_caught() -> None:
    with SoftmaxCatcher(N) as caught:
        normal(N, N).softmax(dim=-1).zero_()
    assert float(caught.found[0][1].sum()) == pytest.approx(N)
