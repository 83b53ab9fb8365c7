"""VGMR as the paper writes it: one sample, one modality, one time step at a time, in plain numpy.

Slow on purpose, and written from the equations, so that the fast module has something independent to agree with.
Also the made inputs that the tests of the core share.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

Weights = dict[str, np.ndarray]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])


def affine(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def two_layers(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return affine(weights, f"{name}.2", gelu(affine(weights, f"{name}.0", x)))


def layer_norm(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean()
    return weights[f"{name}.weight"] * centred / np.sqrt((centred**2).mean() + 1e-5) + weights[f"{name}.bias"]


def numpy_weights(module: nn.Module) -> Weights:
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def refine_sample(
    weights: Weights,
    sample: dict[str, np.ndarray],
    alpha: float,
    rho: float,
    norm: str,
    use_global_value: bool = True,
    use_channel_value: bool = True,
    use_agreement: bool = True,
    use_discrepancy: bool = True,
) -> dict[str, dict[str, np.ndarray]]:
    """Eqs. (1) to (13) for one sample of real steps only, name -> (T_m, d_m); the "others" go by alphabet."""
    latent, summary = {}, {}
    for m, x in sample.items():
        latent[m] = [affine(weights, f"maps.{m}.projection", step) for step in x]  # (2)
        mean = sum(latent[m]) / len(latent[m])
        largest = np.array([max(step[k] for step in latent[m]) for k in range(len(mean))])
        summary[m] = two_layers(weights, f"maps.{m}.summary_encoder", np.concatenate([mean, largest]))  # (3)
    result = {}
    for m, x in sample.items():
        others = sorted(n for n in sample if n != m)  # (4)
        context = sum(summary[n] for n in others) / len(others)  # (5)
        agreement = [summary[m] * summary[n] for n in others]  # (6), (7)
        discrepancy = [abs(summary[m] - summary[n]) for n in others]
        blocks = [summary[m]] + [summary[n] for n in others]
        if use_agreement:
            blocks += agreement
        if use_discrepancy:
            blocks += discrepancy
        blocks.append(context)
        r = two_layers(weights, f"maps.{m}.interaction_encoder", np.concatenate(blocks))  # (8), (9)
        u = two_layers(weights, f"maps.{m}.value_encoder", np.concatenate([summary[m], r]))
        global_value = sigmoid(affine(weights, f"maps.{m}.global_value", u))  # (10)
        channel_value = sigmoid(affine(weights, f"maps.{m}.channel_value", u))
        gates, effective_gates, refined = [], [], []
        for t, step in enumerate(x):
            evidence = affine(weights, f"maps.{m}.gate_from_features", step)
            evidence = evidence + affine(weights, f"maps.{m}.gate_from_latent", latent[m][t])
            if use_global_value:
                evidence = evidence + affine(weights, f"maps.{m}.gate_from_global", global_value - 0.5)
            if use_channel_value:
                evidence = evidence + affine(weights, f"maps.{m}.gate_from_channel", channel_value - 0.5)
            gate = sigmoid(evidence)  # (11)
            amplification = 1 + alpha * (2 * gate - 1)  # (12)
            effective_gate = rho + (1 - rho) * amplification  # (13)
            product = effective_gate * step
            gates.append(gate)
            effective_gates.append(effective_gate)
            refined.append(layer_norm(weights, f"maps.{m}.norm", product) if norm == "layer" else product)
        result[m] = {
            "features": np.stack(refined),
            "global_value": global_value[0],
            "channel_value": channel_value,
            "gate": np.stack(gates),
            "effective_gate": np.stack(effective_gates),
        }
    return result


def real_steps(features: dict[str, Tensor], mask: dict[str, Tensor] | None, row: int) -> dict[str, np.ndarray]:
    """One sample without its padding, name -> (T_m, d_m)."""
    return {
        name: (x[row] if mask is None else x[row][mask[name][row]]).detach().double().numpy()
        for name, x in features.items()
    }


def randomise(module: nn.Module, seed: int, scale: float = 0.7) -> None:
    """Every parameter drawn anew, wide enough for gates and values to leave their neutral points."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = (scale * drawn).to(parameter.dtype)


def made_inputs(
    dims: dict[str, int],
    batch: int,
    lengths: dict[str, int],
    seed: int = 0,
    ragged: bool = True,
    dtype: torch.dtype = torch.float64,
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Random features and masks; each row has its own number of real steps, and one sample is full."""
    generator = torch.Generator().manual_seed(seed)
    features = {
        name: torch.randn(batch, lengths[name], dim, generator=generator, dtype=torch.float64).to(dtype)
        for name, dim in dims.items()
    }
    if not ragged:
        return features, None
    mask = {}
    for name in dims:
        longest = lengths[name]
        real = torch.randint(1, longest + 1, (batch,), generator=generator)
        real[0] = longest
        mask[name] = torch.arange(longest).unsqueeze(0) < real.unsqueeze(1)
    return features, mask
