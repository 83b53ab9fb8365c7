"""For which models the methods are defined, and which parameter belongs where."""

import pytest
import torch
from made_models import THREE, TWO, differing, digits, make_model, names_of, start, take_step
from torch import nn

from vgmr.backbones import PooledBackbone, TransformerBackbone
from vgmr.balancing import METHODS, make_method
from vgmr.classifier import Classifier
from vgmr.fusion.heads import HEADS
from vgmr.objective import Objective
from vgmr.prefusion import CrossAttention, FeatureMLP, Identity, SigmoidTanhGate
from vgmr.refiner import VGMR
from vgmr.settings import Experiment
from vgmr.training import fit

PREFUSIONS = {
    "none": Identity,
    "mlp": lambda dims: FeatureMLP(dims, 4),
    "attention": lambda dims: CrossAttention(dims, 8),
    "gate": lambda dims: SigmoidTanhGate(dims, 4),
    "vgmr": lambda dims: VGMR(dims, 4),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("prefusion", PREFUSIONS)
@pytest.mark.parametrize("backbone", [PooledBackbone, TransformerBackbone])
def test_every_parameter_has_exactly_one_place(backbone, prefusion, head):
    """With names that would fool a search by substring."""
    dims = {"head": 3, "visual": 4, "encoder": 5}
    options = {"num_layers": 1, "feedforward_dim": 8} if backbone is TransformerBackbone else {}
    model = Classifier(PREFUSIONS[prefusion](dims), backbone(dims, 2, width=8, head=head, **options))
    groups = [model.branch_parameters(name) for name in dims]
    groups += [model.shared_parameters(), model.head_parameters()]
    placed = [id(parameter) for group in groups for parameter in group]
    assert len(placed) == len(set(placed))
    assert set(placed) == {id(parameter) for parameter in model.parameters()}
    shared = names_of(model, model.shared_parameters())
    assert bool(shared) == (backbone is TransformerBackbone)
    assert all(name.startswith(("backbone.position", "backbone.encoder.")) for name in shared)
    for name in dims:
        branch, weights = model.branch_parameters(name), model.modulable(name)
        assert weights and {id(w) for w in weights} < {id(p) for p in branch}
        assert {w.ndim for w in weights} == {2}
        assert {id(p) for p in branch if p.ndim == 1}.isdisjoint(id(w) for w in weights)


def test_modulable_leaves_norms_and_embeddings_out():
    model = make_model(("left",))
    model.backbone.encoder["left"] = nn.Sequential(
        nn.Embedding(5, 4), nn.LayerNorm((2, 4)), nn.Conv1d(2, 3, 2), nn.MultiheadAttention(4, 2)
    )
    shapes = {tuple(weight.shape) for weight in model.modulable("left")}
    assert shapes == {(3, 2, 2), (12, 4), (4, 4)}


# MMIM adds terms from the third batch on and Self-MM needs two classes: see their own tests
ANY_CLASSES = [name for name in METHODS if name not in ("mmim", "self-mm")]


@pytest.mark.parametrize("name", ANY_CLASSES)
@pytest.mark.parametrize("prefusion", ["none", "vgmr"])
@pytest.mark.parametrize("backbone", ["pooled", "transformer"])
@pytest.mark.parametrize("names", [TWO, THREE])
def test_every_method_trains_every_model(name, prefusion, backbone, names):
    head = "shared" if name == "mla" else "concat"
    model = make_model(names, backbone, prefusion, head, dropout=0.1)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    method = make_method(name, **{"arl": {"start_epoch": -1}}.get(name, {}))
    optimizer = start(method, model, "adamw", 0.01)
    first, last = None, None
    for _ in range(6):
        batch = digits(names).train.index(torch.arange(32))
        last = float(method.step(model, batch, Objective(), optimizer, 0))
        first = last if first is None else first
    assert last < first
    assert len(differing(before, {key: p.detach() for key, p in model.named_parameters()})) == len(before)


REFUSED = {"ogm-ge": ("concat",), "arl": ("concat",), "mla": ("shared",)}


@pytest.mark.parametrize("name", ANY_CLASSES)
@pytest.mark.parametrize("head", HEADS)
def test_heads_a_method_is_not_defined_for_are_refused(name, head):
    model = make_model(head=head)
    if head in REFUSED.get(name, HEADS):
        method = make_method(name)
        take_step(method, model, start(method, model))
    else:
        with pytest.raises(ValueError, match=f"defined for the head '{REFUSED[name][0]}' only, got"):
            fit(model, digits(), epochs=1, method=make_method(name))


@pytest.mark.parametrize("name", METHODS)
def test_one_modality_is_refused_where_there_is_nothing_to_balance(name):
    model = make_model(("left",), head="shared" if name == "mla" else "concat")
    if name in ("none", "relearning", "mla"):
        fit(model, digits(("left",)), epochs=1, batch_size=512, method=make_method(name))
    else:
        with pytest.raises(ValueError, match=r"needs at least 2, got \['left'\]"):
            fit(model, digits(("left",)), epochs=1, method=make_method(name))


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(ValueError, match="unknown method 'ogm'; there are: none, uniform, grad-blending, ogm-ge"):
        make_method("ogm")
    with pytest.raises(ValueError, match="unknown option beta of method 'agm'; there are: alpha, limit, clip"):
        make_method("agm", beta=1)
    with pytest.raises(ValueError, match="unknown option alpha of method 'none'; there are: none"):
        make_method("none", alpha=1)
    with pytest.raises(ValueError, match="unknown method 'ogm'; there are: none, uniform"):
        Experiment("digits", method="ogm")
    with pytest.raises(ValueError, match="unknown option beta of method 'agm'"):
        Experiment("digits", method="agm", method_options={"beta": 1})
    with pytest.raises(ValueError, match="unknown optimizer 'adam'; there are: adamw, sgd"):
        Experiment("digits", optimizer="adam")
