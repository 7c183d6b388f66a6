"""The test whether a projection may be read instead of called: both are the same function, and nobody listens.

The kernels take the weight of `linear_b` into their blocks, and apply `down_z` after the sum over keys, so that nothing
of size n² · h is made. People wrap, hook, prune, quantise, parametrise, shard and replace projections. Whatever they
have done, what counts is the module's call: the short way is for an nn.Linear that is one in every respect.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

__all__ = ["is_plain", "with_absent"]

_FORWARD = nn.Linear.forward
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain(module: nn.Module) -> bool:
    """Whether calling `module` is W x + b with its parameters as they stand, and has no other effect.

    Not so: any other class, a subclass and a parametrised Linear included; a `forward` of the instance's own; hooks,
    of the module or of all modules (weight_norm, prune, FSDP and offloading have theirs); a weight that is no
    parameter, or of a tensor class with a life of its own (DTensor, quantised).
    """
    if type(module) is not nn.Linear or nn.Linear.forward is not _FORWARD or "forward" in vars(module):
        return False
    if any(getattr(module, name) for name in _HOOKS) or nn_module._has_any_global_hook():
        return False
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    return weight is not None and _is_plain(weight) and (bias is None or _is_plain(bias))


def with_absent(output: Tensor, *modules: nn.Module) -> Tensor:
    """`output`, with the parameters of `modules` in its graph: their gradient is zero, not absent.

    For modules that a call has no use for: DistributedDataParallel waits for the gradient of every parameter. What is
    added is a sum over nothing, exactly 0 whatever the parameters hold.
    """
    if not torch.is_grad_enabled():
        return output
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad and _is_plain(parameter):
                output = output + parameter.reshape(-1)[:0].sum().to(output.dtype)
    return output


def _is_plain(tensor: Tensor) -> bool:
    # Tracers put tensors of their own in a parameter's place, which stand for plain ones.
    return type(tensor) in (nn.Parameter, Tensor) or type(tensor).__module__.startswith("torch._subclasses.")
