"""Weights and inputs by formula, so that reference numbers can be stated without files."""

import math

import torch


def fill(*tensors):
    """0.2 + 0.4 sin(i), i = 1, 2, ... running over the tensors in the order given, each row by row."""
    start = 1
    for tensor in tensors:
        index = torch.arange(start, start + tensor.numel(), dtype=torch.float64)
        tensor.data = (0.2 + 0.4 * torch.sin(index)).view(tensor.shape)
        start += tensor.numel()


def wave(*shape, c=0):
    """cos(0.7 j + c), j = 0, 1, ... row by row; float64."""
    return torch.cos(0.7 * torch.arange(math.prod(shape), dtype=torch.float64) + c).view(shape)


def linear(*layers):
    """Weight and bias of each layer, in order; norms alike."""
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]


def attention(layer):
    """The four tensors of a multi-head attention, in order."""
    return [layer.in_proj_weight, layer.in_proj_bias, layer.out_proj.weight, layer.out_proj.bias]
