"""What every backbone must keep: padding, order, absence, no chance in comparisons, and which method it takes."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from made_systems import ALIGNED, DIMS, LENGTHS, SMALL, made_data, make
from torch import nn

from vgmr.balancing import METHODS, make_method
from vgmr.classifier import Classifier
from vgmr.contributions import contributions, contributions_by_swap
from vgmr.data.types import Batch
from vgmr.experiment import build
from vgmr.fusion.base import evaluating
from vgmr.inference import subset_logits
from vgmr.objective import Objective
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR
from vgmr.settings import Experiment
from vgmr.systems import BACKBONES, make_backbone
from vgmr.training import fit

SYSTEMS = list(BACKBONES)
KEEPS = [keep for size in range(4) for keep in itertools.combinations(sorted(DIMS), size)]
every = pytest.mark.parametrize("system", SYSTEMS)


def inputs(system, size=3, seed=0):
    """Features and masks of float64 with lengths that differ between samples and, if allowed, modalities."""
    generator = torch.Generator().manual_seed(seed)
    lengths = dict.fromkeys(DIMS, 4) if system in ALIGNED else LENGTHS
    features = {n: torch.randn(size, lengths[n], d, generator=generator).double() for n, d in DIMS.items()}
    real = torch.arange(size)
    mask = {n: torch.arange(t) < (t - real % max(1, min(t, 3))).unsqueeze(1) for n, t in lengths.items()}
    if system in ALIGNED:
        mask = {name: mask["text"] for name in DIMS}
    return {name: x * mask[name].unsqueeze(2) for name, x in features.items()}, mask


def test_every_system_is_tried():
    assert set(SMALL) == set(SYSTEMS)


@every
def test_padding_changes_nothing(system):
    model = make(system)
    features, mask = inputs(system)
    label = torch.tensor([0, 1, 0])
    encodings = model.encode(features, mask)
    expected, own = model.fuse_many(encodings, KEEPS, mask), model.auxiliary_loss(encodings, mask, label)
    more = {n: 7 * torch.randn(3, 3, d).double() for n, d in DIMS.items()}
    padded = {n: torch.cat([x + 5 * ~mask[n].unsqueeze(2), more[n]], 1) for n, x in features.items()}
    longer = {n: F.pad(real, (0, 3)) for n, real in mask.items()}
    encodings = model.encode(padded, longer)
    for got, wanted in zip(model.fuse_many(encodings, KEEPS, longer), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)
    for name, value in model.auxiliary_loss(encodings, longer, label).items():
        torch.testing.assert_close(value, own[name], atol=1e-6, rtol=0)
    one = {n: x[1:2, : int(mask[n][1].sum())] for n, x in features.items()}
    torch.testing.assert_close(model.fuse(model.encode(one, None)), expected[-1][1:2], atol=1e-6, rtol=0)


@every
def test_samples_do_not_meet(system):
    model = make(system)
    features, mask = inputs(system)
    expected = model.fuse(model.encode(features, mask), None, mask)
    order = torch.tensor([2, 0, 1])
    mixed, mixed_mask = ({n: x[order] for n, x in given.items()} for given in (features, mask))
    torch.testing.assert_close(model.fuse(model.encode(mixed, mixed_mask), None, mixed_mask), expected[order])
    changed = {n: torch.cat([x[:1] + 1, x[1:]]) for n, x in features.items()}
    got = model.fuse(model.encode(changed, mask), None, mask)
    torch.testing.assert_close(got[1:], expected[1:])
    assert not torch.allclose(got[0], expected[0])


@every
def test_names_do_not_matter(system):
    model = make(system)
    new = {"audio": "a", "text": "b", "vision": "c"}
    renamed = make(system, {new[n]: DIMS[n] for n in reversed(DIMS)}, rename=new)
    state = {".".join(new.get(part, part) for part in key.split(".")): x for key, x in model.state_dict().items()}
    renamed.load_state_dict(state)
    features, mask = inputs(system)
    others = renamed.encode({new[n]: x for n, x in features.items()}, {new[n]: x for n, x in mask.items()})
    for keep in KEEPS:
        got = renamed.fuse(others, [new[n] for n in keep], {new[n]: x for n, x in mask.items()})
        torch.testing.assert_close(got, model.fuse(model.encode(features, mask), keep, mask))


@every
def test_absence(system):
    model = make(system)
    features, mask = inputs(system)
    output = Classifier(Identity(DIMS), model).double().eval()(features, mask)
    together = model.fuse_many(output.encodings, KEEPS, mask)
    for keep, got in zip(KEEPS, together, strict=True):
        encodings = {
            n: (x.detach().clone() if n in keep else torch.full_like(x, torch.nan)).requires_grad_()
            for n, x in output.encodings.items()
        }
        alone = model.fuse(encodings, keep, mask)
        torch.testing.assert_close(alone, got)
        assert torch.isfinite(alone).all()
        grads = torch.autograd.grad(alone.sum(), list(encodings.values()), allow_unused=True)
        for name, grad in zip(encodings, grads, strict=True):
            if name not in keep:
                assert grad is None or not grad.any()
    torch.testing.assert_close(together[-1], output.logits)
    nothing = together[0]
    torch.testing.assert_close(nothing, nothing[:1].expand_as(nothing))
    with pytest.raises(ValueError, match=r"keep: unknown modalities \['smell'\]"):
        model.fuse(output.encodings, ["smell"], mask)


@every
def test_removal_from_cached_encodings_is_that_of_a_full_pass(system):
    features, mask = inputs(system)
    features = {name: x.float() for name, x in features.items()}
    model = Classifier(Identity(DIMS), make(system)).float().eval()
    cached = subset_logits(model, Batch(features, mask, torch.zeros(3, dtype=torch.int64)))
    for keep in KEEPS:
        names = [name for name in DIMS if name in keep]
        torch.testing.assert_close(cached["+".join(names)], model(features, mask, names).logits)


@every
def test_contributions_hold_no_chance(system):
    model = make(system, dropout=0.5).train()
    features, mask = inputs(system, 6)
    label = torch.tensor([0, 1, 0, 1, 0, 1])
    with torch.no_grad():
        encodings = model.encode(features, mask)
    buffers = {name: x.clone() for name, x in model.named_buffers()}
    random = torch.random.get_rng_state()
    one, two = (contributions(model, encodings, label, mask) for _ in range(2))
    assert set(one) == set(DIMS) and all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(x, buffers[name]) for name, x in model.named_buffers())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(module.training for module in model.modules())


def test_steady_gives_each_module_its_own_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError
    assert [module.training for module in model.modules()] == before


@every
def test_every_parameter_has_one_place(system):
    model = make(system)
    branches = {n: [p for module in model.branch_modules(n) for p in module.parameters()] for n in DIMS}
    places = [*itertools.chain(*branches.values()), *model.shared_parameters(), *model.head_parameters()]
    assert len({id(p) for p in places}) == len(places)
    assert {id(p) for p in places} == {id(p) for p in model.parameters()}
    features, mask = inputs(system)
    encodings = model.encode(features, mask)
    for name in DIMS:
        if not encodings[name].requires_grad:
            continue
        others = [p for other in DIMS if other != name for p in branches[other]]
        grads = torch.autograd.grad(encodings[name].sum(), others, allow_unused=True, retain_graph=True)
        assert all(grad is None for grad in grads)


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name not in ("conf-moe",)])
def test_gradients_are_those_of_differences(system):
    model = make(system)
    features, mask = inputs(system, 2)

    def answer(*values):
        given = dict(zip(features, values, strict=True))
        return model.fuse(model.encode(given, mask), None, mask)

    assert torch.autograd.gradcheck(answer, [x.clone().requires_grad_() for x in features.values()])


@every
@pytest.mark.parametrize("steps", [1, 3])
def test_one_vector_per_sample_is_a_sequence_of_one(system, steps):
    model = make(system)
    features = {name: torch.randn(2, steps, dim).double() for name, dim in DIMS.items()}
    assert model.fuse(model.encode(features, None)).shape == (2, 2)


@every
def test_vectors_are_of_one_width_and_for_any_names(system):
    model = make(system)
    features, mask = inputs(system)
    encodings = model.encode(features, mask)
    everything = model.vectors(encodings, mask)
    for name in DIMS:
        alone = model.vectors({name: encodings[name]}, mask)
        assert list(alone) == [name] and alone[name].shape[1] == (model.width or alone[name].shape[1])
        torch.testing.assert_close(alone[name], everything[name])
    fused = model.fused(encodings, None, mask)
    if fused is not None:
        torch.testing.assert_close(model.classify(fused), model.fuse(encodings, None, mask))


@every
def test_no_attention_sees_nothing(system, monkeypatch):
    """Every row of every mask that reaches torch's attention has a step to look at."""
    original = F.scaled_dot_product_attention

    def watched(query, key, value, attn_mask=None, *rest, **options):
        if attn_mask is not None:
            seen = attn_mask if attn_mask.dtype == torch.bool else attn_mask > -torch.inf
            assert seen.any(-1).all()
        return original(query, key, value, attn_mask, *rest, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    model = make(system).train()
    features, mask = inputs(system)
    model.fuse_many(model.encode(features, mask), KEEPS, mask)


@every
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_behind_vgmr_a_step_lowers_the_loss_and_reaches_its_maps(system, task):
    torch.manual_seed(0)
    outputs = 1 if task == "regression" else 2
    # MISA takes the length of its rows as constant, so the difference loss need not fall along its gradient
    true_gradient = {"difference_weight": 0.0} if system == "misa" else {}
    backbone = make(system, outputs=outputs, dropout=0.0, **true_gradient).float()
    model = Classifier(VGMR(DIMS, 4, dropout=0.0), backbone)
    features, mask = inputs(system, 8)
    label = torch.arange(8) % 2
    batch = Batch({n: x.float() for n, x in features.items()}, mask, label if outputs == 2 else label + 2.0)
    objective = Objective(task=task)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = objective(model, model(batch.features, batch.mask), batch)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        for name in DIMS:
            assert all(p.grad is not None for p in model.prefusion.maps[name].projection.parameters())
        optimizer.step()
    assert losses[1] < losses[0]


ONE_READOUT = {"ogm-ge": "concat", "arl": "concat", "mla": "shared"}
WIDTHS_ALIKE = ("uniform", "grad-blending", "pmr", "mmpareto", "unis-mmc", "mmim", "self-mm")
NO_FUSED = ("lmf", "misa", "mag")
SEVERAL_WIDTHS = {"tfn": {"width": {"audio": 2, "text": 3, "vision": 2}}}


def refusal(method, backbone):
    """What a method says of a backbone, in part; None where it works."""
    name = type(backbone).__name__
    if method in ONE_READOUT and backbone.readout != ONE_READOUT[method]:
        got = name if backbone.readout == "opaque" else "ConcatHead"
        return f"is defined for the head '{ONE_READOUT[method]}' only, got {got}; "
    if method in WIDTHS_ALIKE and backbone.width is None:
        return "one width"
    if method in ("mmim", "self-mm") and any(isinstance(backbone, BACKBONES[system]) for system in NO_FUSED):
        return f"reads what the last layers read, and {name} has no such vector"
    return None


@pytest.mark.parametrize(("system", "options"), [*((name, {}) for name in SYSTEMS), *SEVERAL_WIDTHS.items()])
@pytest.mark.parametrize("method", METHODS)
def test_methods_times_systems(method, system, options):
    """Every method trains every system, or refuses it in one line before the first step."""
    torch.manual_seed(0)
    backbone = make(system, dropout=0.1, **options).float()
    model = Classifier(VGMR(DIMS, 4), backbone)
    data = made_data(system)
    before = [parameter.clone() for parameter in model.parameters()]
    expected = refusal(method, backbone)
    given = {"interval": 1} if method == "relearning" else {}
    if expected is None:
        history = fit(model, data, epochs=2, batch_size=8, method=make_method(method, **given))
        assert all(loss == loss for loss in history.train_loss)
        assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
        return
    with pytest.raises(ValueError) as error:
        fit(model, data, epochs=1, method=make_method(method, **given))
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


WITHOUT_LSTM = {
    **{system: {} for system in ("mult", "gmu", "pcag", "mag", "conf-moe")},
    **{system: {"sequential": []} for system in ("tfn", "lmf")},
    **{system: {"averaged": list(DIMS)} for system in ("misa", "mmim", "self-mm")},
    "pooled": {"head": "tensor"},
}


@pytest.mark.parametrize("system", WITHOUT_LSTM)
def test_an_exported_system_gives_the_same_for_any_number_of_samples(system):
    """LSTMs are left out, which torch exports for one number of samples."""
    model = Classifier(Identity(DIMS), make(system, **WITHOUT_LSTM[system])).double().eval()
    samples = torch.export.Dim("samples", min=2, max=1000)
    shapes = {name: {0: samples} for name in DIMS}
    exported = torch.export.export(model, inputs(system, 5), dynamic_shapes=(shapes, shapes)).module()
    for size in (3, 7):
        given = inputs(system, size)
        torch.testing.assert_close(exported(*given).logits, model(*given).logits)


def test_names_and_options_are_refused_in_one_line():
    with pytest.raises(ValueError, match="unknown backbone 'resnet'; there are: pooled, transformer, tfn"):
        make_backbone("resnet", DIMS, 2)
    with pytest.raises(ValueError, match="unknown option depth of backbone 'lmf'; there are: width, rank"):
        make_backbone("lmf", DIMS, 2, depth=3)
    with pytest.raises(ValueError, match="num_outputs must be at least 1, got 0"):
        make_backbone("gmu", DIMS, 0)


@every
def test_an_experiment_takes_every_system(system):
    if system in ("pooled", "transformer"):
        Experiment("digits", backbone=system, method="ogm-ge")
    else:
        with pytest.raises(ValueError, match=f"the head 'concat' of the backbones .* got backbone '{system}'"):
            Experiment("digits", backbone=system, method="ogm-ge")
    options = {name: value for name, value in SMALL[system].items() if name not in ("sequential", "max_length")}
    for prefusion in ("none", "se", "vgmr"):
        model = build(Experiment("digits", prefusion, system, backbone_options=options), made_data(system))
        assert isinstance(model.backbone, BACKBONES[system])


NONSENSE = {
    "tfn": [({"post_dim": 0}, "TensorFusion: post_dim must be at least 1, got 0; give a whole number")],
    "lmf": [({"rank": 1.5}, "rank must be at least 1, got 1.5"), ({"rank": True}, "got True")],
    "mult": [
        ({"num_heads": 0}, "CrossmodalTransformer: num_heads must be at least 1, got 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"memory_layers": 1.5}, "memory_layers must be at least 1, got 1.5"),
    ],
    "pcag": [({"width": None}, "PreGating: width must be at least 1, got None")],
    "misa": [
        ({"num_heads": 0}, "MISA: num_heads must be at least 1, got 0"),
        ({"feedforward_dim": 0}, "feedforward_dim must be at least 1, got 0"),
        ({"difference_weight": float("nan")}, "difference_weight must be a number of at least 0, got nan"),
        ({"averaged": "text"}, r"averaged: expected several of \['audio', 'text', 'vision'\], got 'text'"),
        ({"averaged": ["texxt"]}, r"averaged: expected several of .* got \['texxt'\]"),
    ],
    "mag": [
        ({"num_heads": 3}, "width must be divisible by num_heads, got 4 and 3"),
        ({"num_layers": 0}, "MAG: num_layers must be at least 1, got 0"),
        ({"strength": -1}, "strength must be a number of at least 0, got -1"),
    ],
    "mmim": [({"averaged": "text"}, "averaged: expected several of"), ({"hidden_dim": 0}, "hidden_dim must be")],
    "self-mm": [({"averaged": ["x"]}, "averaged: expected several of")],
    "tetfn": [
        ({"num_heads": 0}, "num_heads must be at least 1"),
        ({"post_dim": 0}, "post_dim must be at least 1"),
    ],
    "conf-moe": [
        ({"num_heads": 3}, "width must be divisible by num_heads, got 4 and 3"),
        ({"top_k": 1.5}, "ConfidenceExperts: top_k must be at least 1, got 1.5"),
        ({"confidence_weight": -1}, "confidence_weight must be a number of at least 0, got -1"),
    ],
}


@pytest.mark.parametrize(
    ("system", "options", "message"), [(name, *case) for name, cases in NONSENSE.items() for case in cases]
)
def test_sizes_and_weights_that_cannot_be_meant_are_refused_in_one_line(system, options, message):
    with pytest.raises(ValueError, match=message) as error:
        make_backbone(system, DIMS, 2, **{**SMALL[system], **options})
    assert "\n" not in str(error.value)


def test_swapped_sequences_are_refused_where_their_masks_would_stay():
    features, mask = inputs("mult")
    label = torch.tensor([0, 1, 0])
    for system in ("mult", "misa"):
        model = make(system)
        encodings = model.encode(features, mask)
        contributions_by_swap(model, encodings, label)
        if system == "misa":
            contributions_by_swap(model, encodings, label, mask)
            continue
        with pytest.raises(
            ValueError, match=r"one vector per sample, and CrossmodalTransformer has sequences with"
        ):
            contributions_by_swap(model, encodings, label, mask)
