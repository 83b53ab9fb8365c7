"""A long sequence in chunks: the whole pass's result, in memory that the chunk decides."""

import numpy as np
import pytest
import torch
from reference import made_inputs, randomise
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vgmr import VGMR
from vgmr.refiner import FORMS
from vgmr.refining.chunks import refine_in_chunks
from vgmr.refining.maps import ModalityMaps

DIMS = {"text": 4, "audio": 3, "vision": 2}
LENGTHS = {"text": 23, "audio": 9, "vision": 1}
CALIBRATED = {**FORMS["calibrated"], "num_classes": 3, "evidence_frequencies": 3}
FORMS_HERE = {
    "paper": {},
    "rank": {"rank": 2, "sharing": True, "sparsity": 0.5},
    "rank 0": {"rank": 0, "norm": "none"},
    "one gate": {"per_step": False, "sharing": True},
    "calibrated": CALIBRATED,
    "calibrated, one gate": {**CALIBRATED, "rank": 2, "per_step": False},
    "both": {"value_from": "both", "num_classes": 3},
}


def made(dims=DIMS, **options):
    vgmr = VGMR(dims, **{"latent_dim": 3, **options}).double().eval()
    randomise(vgmr, 0)
    features, mask = made_inputs(dims, 60, {**LENGTHS, "vision": 4}, 11)
    vgmr.prepare(features, mask, torch.arange(60) % 3)
    return vgmr


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("form", FORMS_HERE)
def test_chunks_equal_the_whole(form, chunk, ragged):
    vgmr = made(**FORMS_HERE[form])
    features, mask = made_inputs(DIMS, 3, LENGTHS, 2, ragged)
    whole = vgmr(features, mask)
    parts = list(refine_in_chunks(vgmr, features, mask, chunk))
    assert len(parts) == -(-23 // chunk)
    for name in DIMS:
        for what in ("features", "gate", "effective_gate"):
            got = torch.cat([getattr(part, what)[name] for part in parts if name in part.features], 1)
            torch.testing.assert_close(got, getattr(whole, what)[name], atol=1e-6, rtol=0)
        for what in ("global_value", "channel_value"):
            got = getattr(parts[0], what)[name]
            torch.testing.assert_close(got, getattr(whole, what)[name], atol=1e-6, rtol=0)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in numbers."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.size = max([self.size, *made])
        return result


def test_the_first_pass_projects_nothing_that_no_value_is_learned_from(monkeypatch):
    vgmr, steps = made(**CALIBRATED), []
    project = ModalityMaps.project
    monkeypatch.setattr(ModalityMaps, "project", lambda self, x: (steps.append(x.shape[1]), project(self, x))[1])
    features, _ = made_inputs(DIMS, 2, LENGTHS, 3)
    assert len(list(refine_in_chunks(vgmr, features, chunk=4))) == 6
    assert sum(steps) == sum(LENGTHS.values())


@pytest.mark.parametrize("form", FORMS_HERE)
def test_memory_grows_with_the_chunk_and_not_with_the_length(form):
    """Five thousand steps from an array of numpy, which is read by slices."""
    vgmr = made({"text": 4, "audio": 3}, **FORMS_HERE[form])
    random = np.random.default_rng(0)
    sizes = {}
    for length, chunk in ((500, 50), (5000, 50), (500, 200)):
        features = {name: random.normal(size=(1, length, dim)) for name, dim in vgmr.dims.items()}
        with Largest() as largest:
            for _ in refine_in_chunks(vgmr, features, chunk=chunk):
                pass
        sizes[length, chunk] = largest.size
    assert sizes[5000, 50] == sizes[500, 50] < sizes[500, 200]


def test_what_cannot_be_is_refused():
    vgmr = made()
    features, mask = made_inputs(DIMS, 2, LENGTHS)
    with pytest.raises(ValueError, match="chunks are for evaluation"):
        next(refine_in_chunks(made().train(), features))
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        next(refine_in_chunks(vgmr, features, mask, 0))
    with pytest.raises(ValueError, match="expected the modalities"):
        next(refine_in_chunks(vgmr, {"text": features["text"]}))
    with pytest.raises(
        ValueError, match=r"^mask: expected the modalities \['text', 'audio', 'vision'\], got \['text'\]"
    ):
        next(refine_in_chunks(vgmr, features, {"text": mask["text"]}))
    for wrong, kind in ((list(features.values()), "list"), (None, "NoneType")):
        with pytest.raises(ValueError, match=rf"^features: expected the modalities .*, got {kind}$"):
            next(refine_in_chunks(vgmr, wrong))
    for wrong in (
        features["text"][:1],
        features["text"][..., :2],
        features["text"][:, :0],
        features["text"][:, 0],
    ):
        with pytest.raises(ValueError, match=r"^text: expected features of shape \(2, T, 4\)") as error:
            next(refine_in_chunks(vgmr, {"audio": features["audio"], "vision": features["vision"], "text": wrong}))
        assert str(error.value).endswith(f"got {tuple(wrong.shape)}")
    features["text"][0, 20, 0] = torch.nan
    with pytest.raises(ValueError, match="text: steps from 20 hold NaN"):
        list(refine_in_chunks(vgmr, features, None, 10))


@pytest.mark.parametrize("steps", [1, 21, 22, 24])
def test_a_mask_of_another_length_is_refused_and_not_spread(steps):
    """21 of 23 steps in chunks of 10 leave a mask of one step to the last chunk of three."""
    vgmr = made()
    features, mask = made_inputs(DIMS, 2, LENGTHS)
    mask["text"] = torch.ones(2, steps, dtype=torch.bool)
    with pytest.raises(
        ValueError, match=rf"^text: expected a bool mask of shape \(2, 23\), got torch.bool \(2, {steps}\)$"
    ):
        list(refine_in_chunks(vgmr, features, mask, 10))
    with pytest.raises(ValueError, match=r"^text: expected a bool mask .*, got torch.float32 \(2, 23\)$"):
        list(refine_in_chunks(vgmr, features, {**mask, "text": torch.ones(2, 23)}))


def test_sequences_that_stand_still_have_finite_values():
    """Where the mean of squares falls below the square of the mean by rounding."""
    dims = {"one": 2, "other": 3}
    vgmr = VGMR.calibrated(dims, 2, latent_dim=2).eval()
    level = torch.linspace(0.1, 0.9, 64).view(-1, 1, 1)
    features = {name: level.expand(-1, 50, dim) for name, dim in dims.items()}
    whole = vgmr(features)
    for part in refine_in_chunks(vgmr, features, chunk=7):
        for name, value in part.global_value.items():
            torch.testing.assert_close(value, whole.global_value[name])
