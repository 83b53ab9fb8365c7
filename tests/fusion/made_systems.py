"""Weights and inputs of the reference numbers, and small systems with their options."""

import torch
from torch import nn

from vgmr.data.types import Batch, MultimodalData
from vgmr.systems import make_backbone

DIMS = {"audio": 3, "text": 5, "vision": 4}
LENGTHS = {"audio": 6, "text": 4, "vision": 1}
SMALL = {  # options that make each system tiny
    "pooled": {"width": 4},
    "transformer": {"width": 4, "num_layers": 1, "num_heads": 2, "feedforward_dim": 6, "max_length": 40},
    "tfn": {"width": 2, "post_dim": 3, "sequential": ["text"]},
    "lmf": {"width": 6, "rank": 2, "sequential": ["text"]},
    "mult": {"width": 4, "num_heads": 2},
    "gmu": {"width": 3},
    "pcag": {"width": 3},
    "misa": {"width": 4, "averaged": ["text"], "hidden_dim": 2, "feedforward_dim": 6},
    "mag": {"anchor": "text", "width": 4, "num_layers": 1, "num_heads": 2, "feedforward_dim": 6, "max_length": 40},
    "mmim": {"width": 4, "averaged": ["text"], "hidden_dim": 3},
    "self-mm": {"width": 4, "averaged": ["text"], "hidden_dim": 3},
    "tetfn": {"anchor": "text", "width": 4, "num_heads": 2, "hidden_dim": 3, "post_dim": 3},
    "conf-moe": {"width": 4, "num_heads": 2, "num_experts": 3, "max_length": 40},
}


def fill(tensors, scale=0.4, level=0.2):
    """The tensors, in order, with level + scale sin(i) for i = 1, 2, ... over all their entries."""
    i = 1
    with torch.no_grad():
        for tensor in tensors:
            count = torch.arange(i, i + tensor.numel(), dtype=torch.float64)
            tensor.copy_((level + scale * count.sin()).view(tensor.shape))
            i += tensor.numel()


def wave(*shape, c=0.0):
    """cos(0.7 j + c) over the entries j = 0, 1, ... of a float64 tensor."""
    size = torch.Size(shape).numel()
    return torch.cos(0.7 * torch.arange(size, dtype=torch.float64) + c).view(shape)


def of(*modules):
    """The tensors of linear layers, norms, attentions and plain tensors, as listed."""
    found = []
    for module in modules:
        if isinstance(module, nn.MultiheadAttention):
            out = module.out_proj
            found += [module.in_proj_weight, module.in_proj_bias, out.weight, out.bias]
        elif isinstance(module, nn.Module):
            found.append(module.weight)
            found += [] if module.bias is None else [module.bias]
        else:
            found.append(module)
    return found


def of_stack(stack):
    """The tensors of a crossmodal stack: per layer attention, two linear layers, two norms; then the last norm."""
    found = []
    for layer in stack.layers:
        found += of(layer.attention, layer.widen, layer.narrow, layer.norm_attention, layer.norm_feedforward)
    return [*found, *of(stack.norm)]


def close(got, expected, tolerance=2e-6):
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=tolerance, rtol=0)


ALIGNED = {"mag"}  # systems that need the same steps in all modalities


def make(system, dims=None, outputs=2, rename=None, **options):
    """A small system of float64 in evaluation mode with weights that are nowhere zero."""
    given = {**SMALL[system], **options}
    for key in {"sequential", "averaged", "anchor"} & set(given if rename else ()):
        names = given[key]
        given[key] = rename[names] if isinstance(names, str) else [rename[name] for name in names]
    torch.manual_seed(1)
    model = make_backbone(system, DIMS if dims is None else dims, outputs, **given).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape).double())
    return model


def made_data(system, size=24):
    """Two classes of `size` samples that every modality shows a little."""
    generator = torch.Generator().manual_seed(0)
    lengths = dict.fromkeys(DIMS, 4) if system in ALIGNED else LENGTHS
    label = torch.arange(size) % 2
    shift = label.view(-1, 1, 1) - 0.5
    features = {n: shift + torch.randn(size, lengths[n], d, generator=generator) for n, d in DIMS.items()}
    mask = {name: torch.ones(size, lengths[name], dtype=torch.bool) for name in DIMS}
    part = Batch(features, mask, label)
    return MultimodalData("made", part, part, part, ("no", "yes"), "made", "none", "0", stand_in=True)


def recorded(monkeypatch, module, name):
    """What is asked of a function that computes several stacks in one pass; stacks alone."""
    asked, original = [], getattr(module, name)

    def record(wanted, *rest, **named):
        asked.extend(stack for stack, *_ in wanted)
        return original(wanted, *rest, **named)

    monkeypatch.setattr(module, name, record)
    return asked
