"""What surrounds the mathematics: graphs, replicas, repr, and one clear line for input of the wrong kind."""

import copy

import numpy as np
import pytest
import torch
from reference import made_inputs
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel.scatter_gather import gather
from torch.utils import _pytree as pytree

from vgmr import VGMR, Classifier, PooledBackbone, TransformerBackbone
from vgmr.classifier import Output
from vgmr.fusion.confidence import ConfidenceGate
from vgmr.fusion.squeeze_excitation import SqueezeExcitation
from vgmr.prefusion import CrossAttention, FeatureMLP, Identity, SigmoidTanhGate
from vgmr.refining.inputs import trusted_values
from vgmr.refining.refinement import Refinement

DIMS = {"text": 4, "audio": 3}
LENGTHS = {"text": 2, "audio": 5}


def inputs(size: int = 6):
    return made_inputs(DIMS, size, LENGTHS, dtype=torch.float32)


def pooled() -> Classifier:
    torch.manual_seed(0)
    return Classifier(VGMR(DIMS, 4), PooledBackbone(DIMS, 3, width=5))


def transformer() -> Classifier:
    torch.manual_seed(0)
    return Classifier(VGMR(DIMS, 4), TransformerBackbone(DIMS, 3, 5, 8, 1, 2, 8))


MODELS = {"vgmr": lambda: VGMR(DIMS, 4), "pooled": pooled, "transformer": transformer}
BEFORE = {
    "identity": Identity,
    "mlp": lambda dims: FeatureMLP(dims, 4),
    "attention": lambda dims: CrossAttention(dims, 4),
    "gate": lambda dims: SigmoidTanhGate(dims, 4),
    "se": SqueezeExcitation,
    "confidence": lambda dims: ConfidenceGate(dims, 3),
    "vgmr": lambda dims: VGMR(dims, 4),
}


def assert_close(one, other) -> None:
    for a, b in zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True):
        torch.testing.assert_close(a, b)


def some_loss(output) -> torch.Tensor:
    return sum(x.square().sum() for x in pytree.tree_leaves(output))


# Graphs


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("which", MODELS)
def test_an_exported_model_gives_the_same_for_any_number_of_samples(which, masked):
    model = MODELS[which]().eval()
    given = inputs()[: 1 + masked]
    samples = torch.export.Dim("samples", min=2, max=1000)
    shapes = ({name: {0: samples} for name in DIMS},) * len(given)
    exported = torch.export.export(model, given, dynamic_shapes=shapes).module()
    for size in (6, 9):
        given = inputs(size)[: 1 + masked]
        assert type(exported(*given)) is type(model(*given))
        assert_close(exported(*given), model(*given))


@pytest.mark.parametrize("steps", [1, 5])
def test_an_exported_calibrated_refiner_gives_the_same_for_any_number_of_samples(steps):
    def given(size):
        return made_inputs(DIMS, size, dict.fromkeys(DIMS, steps), dtype=torch.float32)

    torch.manual_seed(0)
    model = VGMR.calibrated(DIMS, 3).eval()
    model.prepare(*given(12), torch.arange(12) % 3)
    samples = torch.export.Dim("samples", min=2, max=1000)
    shapes = ({name: {0: samples} for name in DIMS},) * 2
    exported = torch.export.export(model, given(6), dynamic_shapes=shapes).module()
    for size in (6, 9):
        assert_close(exported(*given(size)), model(*given(size)))


@pytest.mark.parametrize("which", MODELS)
def test_a_compiled_model_is_one_graph_with_the_same_gradients(which):
    model = MODELS[which]().train(False)
    given = inputs()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    results = []
    for call in (compiled, model):
        output = call(*given)
        results.append((output, torch.autograd.grad(some_loss(output), list(model.parameters()))))
    assert type(results[0][0]) is type(results[1][0])
    assert_close(*results)


def test_torch_func_maps_over_samples():
    """Each sample by itself, as per-sample gradients need it; values cannot be looked at there."""
    model = pooled().eval()
    features, _ = inputs()

    def one(x):
        return model({name: part.unsqueeze(0) for name, part in x.items()}).logits.squeeze(0)

    assert_close(torch.func.vmap(one)(features), model(features).logits)


@pytest.mark.parametrize("make", [lambda: VGMR(DIMS, 4), lambda: VGMR.calibrated(DIMS, 3)])
def test_tensors_without_values_pass_through(make):
    with FakeTensorMode():
        made = make().eval()(*inputs())
    assert {name: x.shape for name, x in made.features.items()} == {"text": (6, 2, 4), "audio": (6, 5, 3)}
    model = make().eval()
    graph = make_fx(lambda features: model(features).features)(inputs()[0])
    assert_close(graph(inputs(6)[0]), model(inputs(6)[0]).features)


# Replicas


def test_outputs_are_pytrees_with_named_fields():
    output = pooled()(*inputs())
    leaves, spec = pytree.tree_flatten(output)
    assert len(leaves) == 2 + 3 * 2 + 5 * 2 and all(isinstance(x, torch.Tensor) for x in leaves)
    again = pytree.tree_unflatten(leaves, spec)
    assert isinstance(again, Output) and isinstance(again.refinement, Refinement)
    assert torch.equal(again.refinement.gate["audio"], output.refinement.gate["audio"])


def test_replicas_are_gathered(monkeypatch):
    """What `nn.DataParallel` does with the outputs of its replicas; its copy between GPUs is made a `cat` here."""
    monkeypatch.setattr("torch.nn.parallel.scatter_gather.Gather.apply", lambda device, dim, *x: torch.cat(x, dim))
    model = pooled().eval()
    features, mask = inputs()
    halves = [
        model({name: x[rows] for name, x in features.items()}, {name: x[rows] for name, x in mask.items()})
        for rows in (slice(0, 2), slice(2, 6))
    ]
    whole = gather(halves, "cpu")
    assert isinstance(whole, Output) and isinstance(whole.refinement, Refinement)
    assert_close(whole, model(features, mask))


def test_distributed_training_has_the_same_gradients(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = pooled().eval()
        wrapped = DistributedDataParallel(copy.deepcopy(model), find_unused_parameters=True)
        output = wrapped(*inputs())
        assert isinstance(output, Output)
        torch.nn.functional.cross_entropy(output.logits, torch.zeros(6).long()).backward()
        torch.nn.functional.cross_entropy(model(*inputs()).logits, torch.zeros(6).long()).backward()
        for one, other in zip(wrapped.module.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
    finally:
        torch.distributed.destroy_process_group()


# repr and folded copies


def test_repr_shows_the_settings():
    text = repr(VGMR(DIMS, 6, amplification=0.4, retention=0.3, norm="none"))
    assert "latent_dim=6, amplification=0.4, retention=0.3, norm='none'" in text
    assert "folded for inference" not in text


def test_a_folded_copy_says_so_and_its_weights_load_into_another():
    one, other = VGMR(DIMS, 4).fold(), VGMR(DIMS, 4).fold()
    assert "folded for inference" in repr(one) and "folded for inference" in repr(one.fold())
    other.load_state_dict(one.state_dict())
    assert_close(other(*inputs()), one(*inputs()))
    with pytest.raises(RuntimeError, match="folded"):
        VGMR(DIMS, 4).load_state_dict(one.state_dict())


# One clear line


@pytest.mark.parametrize("which", BEFORE)
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda x: list(x.values()), ["features: expected a dict, modality name -> tensor, got list"]),
        (lambda x: x["text"], ["features: expected a dict", "got Tensor"]),
        (lambda x: None, ["features: expected a dict", "got NoneType"]),
        (lambda x: {**x, "audio": x["audio"].numpy()}, ["'audio'", "got ndarray", "torch.as_tensor(x) makes one"]),
        (lambda x: {**x, "audio": x["audio"].tolist()}, ["expected a tensor for 'audio', got list"]),
    ],
)
def test_features_of_the_wrong_kind(which, change, parts):
    with pytest.raises(ValueError) as error:
        BEFORE[which](DIMS)(change(inputs()[0]))
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in parts), message


def test_masks_of_the_wrong_kind():
    features, mask = inputs()
    for wrong, what in ((list(mask.values()), "list"), (mask["text"], "Tensor")):
        with pytest.raises(ValueError, match=f"^mask: expected a dict, modality name -> tensor, got {what}$"):
            VGMR(DIMS, 4)(features, wrong)
    with pytest.raises(ValueError, match=r"^mask: expected a tensor for 'audio', got ndarray"):
        VGMR(DIMS, 4)(features, {**mask, "audio": mask["audio"].numpy()})
    for count in (torch.uint8, torch.int64, torch.float32):  # as tokenizers give them
        with pytest.raises(ValueError, match=r"^audio: .* bool mask .*; mask\.bool\(\) makes one of 1 and 0$"):
            VGMR(DIMS, 4)(features, {**mask, "audio": mask["audio"].to(count)})


@pytest.mark.parametrize("which", BEFORE)
def test_features_of_another_type_than_the_weights(which):
    """Also where nothing before the backbone has weights."""
    features = {name: x.double() for name, x in inputs()[0].items()}
    model = Classifier(BEFORE[which](DIMS), PooledBackbone(DIMS, 3))
    with pytest.raises(ValueError, match=r"^text: expected torch.float32 features.*got torch.float64 on cpu"):
        model(features)
    assert model.double()(features).logits.dtype == torch.float64
    if which != "identity":
        with pytest.raises(ValueError, match=r"expected torch.float64 .* got torch.float32"):
            model.prefusion(inputs()[0])


def test_autocast_may_mix_types():
    features = {name: x.bfloat16() for name, x in inputs()[0].items()}
    with torch.autocast("cpu", torch.bfloat16):
        assert pooled()(features).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("which", BEFORE)
def test_shapes_alone_pass_through(which):
    """On the meta device, where FLOPs are counted; another device than the model's is named."""
    features, mask = ({name: x.to("meta") for name, x in each.items()} for each in inputs())
    model = Classifier(BEFORE[which](DIMS), PooledBackbone(DIMS, 3))
    with pytest.raises(ValueError, match=r"expected torch.float32 features on cpu, .* on meta"):
        model(features)
    assert model.to("meta")(features, mask).logits.shape == (6, 3)


def test_whole_numbers_of_numpy_are_dimensions():
    module = VGMR({name: np.int64(dim) for name, dim in DIMS.items()}, np.int32(4))
    assert module.dims == DIMS and all(type(dim) is int for dim in module.dims.values())
    assert type(module.latent_dim) is int and module(*inputs()).features["text"].shape == (6, 2, 4)


@pytest.mark.parametrize("wrong", [8.0, "8", True, None, 0, -1])
def test_widths_that_are_no_whole_numbers(wrong):
    with pytest.raises(ValueError) as error:
        VGMR(DIMS, wrong)
    assert str(error.value) == f"latent_dim must be a whole number of at least 1, got {wrong!r}"
    with pytest.raises(ValueError, match=r"^audio: a feature dimension must be a whole number of at least 1, got"):
        VGMR({**DIMS, "audio": wrong}, 4)


def test_dims_that_are_no_dict():
    with pytest.raises(ValueError, match=r"^expected dims as a dict, modality name -> dimension, got list$"):
        VGMR([4, 3])


# Values


def test_values_are_looked_at_but_where_they_are_trusted():
    features, mask = inputs()
    features["audio"][1, 0, 2] = float("nan")
    module = VGMR(DIMS, 4)
    with trusted_values():
        assert module(features, mask).features["audio"].isnan().any()
        with pytest.raises(ValueError, match="shape"):
            module({**features, "text": features["text"][..., :3]})
    with pytest.raises(ValueError, match="audio: sample 1 holds NaN"):
        module(features, mask)


def test_trust_ends_with_an_exception():
    with pytest.raises(KeyError), trusted_values():
        raise KeyError
    with pytest.raises(ValueError, match="NaN"):
        Identity({"text": 4})({"text": torch.full((2, 3, 4), float("nan"))})
