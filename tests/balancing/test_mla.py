"""MLA: the projector, the alternation against its literal form, and the weights of predictions."""

import pytest
import torch
import torch.nn.functional as F
from made_models import THREE, TWO, digits, make_model, start, take_step

from vgmr.balancing import MLA
from vgmr.balancing.mla import update_projector
from vgmr.classifier import Classifier
from vgmr.fusion.confidence import ConfidenceGate
from vgmr.fusion.heads import SharedHead
from vgmr.objective import Objective
from vgmr.training import fit


def close(x, expected, atol=6e-5):
    torch.testing.assert_close(x, torch.tensor(expected), atol=atol, rtol=0)


def test_projector_loses_the_direction():
    mean = torch.tensor([1.0, 2.0])
    projector = update_projector(torch.eye(2), mean, 0.1)
    close(projector, [[0.8039, -0.3922], [-0.3922, 0.2157]])
    close(torch.linalg.eigvalsh(projector), [0.0196, 1.0])
    close(projector @ mean, [0.0196, 0.0392])
    torch.testing.assert_close(projector @ mean, mean * 0.1 / 5.1)


def test_the_released_denominator_is_a_matrix():
    projector = update_projector(torch.eye(2), torch.tensor([1.0, 2.0]), 0.1, "elementwise")
    close(projector, [[0.091, -0.952], [-0.952, 0.024]], atol=5e-4)
    close(projector / projector.norm() @ torch.tensor([1.0, 2.0]) * projector.norm(), [-1.8, -0.9], atol=0.05)


def test_a_gradient_is_projected():
    projector = update_projector(torch.eye(2), torch.tensor([1.0, 0.0]), 0.1)
    close(torch.tensor([[3.0, 4.0]]) @ projector.T, [[0.2727, 4.0]])


def test_projector_stays_symmetric_with_eigenvalues_in_0_to_1():
    generator = torch.Generator().manual_seed(0)
    projector = torch.eye(6, dtype=torch.float64)
    for step in range(200):
        mean = torch.randn(6, generator=generator, dtype=torch.float64)
        projector = update_projector(projector, mean, 0.1 ** (1 + step / 200))
        torch.testing.assert_close(projector, projector.T)
        values = torch.linalg.eigvalsh(projector)
        assert values.min() > 0 and values.max() <= 1 + 1e-12


def logits_of_entropy(entropy):
    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        log_probability = torch.tensor([middle, 0.0, 0.0], dtype=torch.float64).log_softmax(0)
        low, high = (middle, high) if -(log_probability.exp() * log_probability).sum() > entropy else (low, middle)
    return torch.tensor([low, 0.0, 0.0])


def test_prediction_weights_by_entropy():
    head = SharedHead(TWO, 4, 3)
    logits = torch.stack([logits_of_entropy(0.2), logits_of_entropy(1.0)]).unsqueeze(1)
    close(head.weights(logits, head.preference)[:, 0], [0.690, 0.310], atol=5e-4)
    same = torch.randn(1, 5, 3).expand(4, 5, 3)
    torch.testing.assert_close(SharedHead("abcd", 4, 3).weights(same, torch.zeros(4)), torch.full((4, 5), 0.25))


def test_prediction_weights_are_per_sample():
    head = SharedHead(TWO, 4, 2)
    logits = torch.tensor([[[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [4.0, 0.0]]])
    close(head.weights(logits, head.preference), [[0.646, 0.354], [0.354, 0.646]], atol=5e-4)
    encodings = {name: torch.randn(7, 4) for name in TWO}
    order = torch.randperm(7)
    moved = head({name: x[order] for name, x in encodings.items()}, TWO)
    torch.testing.assert_close(moved, head(encodings, TWO)[order])


def test_prediction_weights_can_be_fixed_and_are_kept_with_the_model():
    method = MLA(weights={"left": 0.55, "spectrum": 0.45})
    model = make_model(TWO, head="shared")
    start(method, model)
    batch = digits(TWO).train.index(torch.arange(5))
    output = model(batch.features, batch.mask)
    linear = model.backbone.head.linear
    by_hand = 0.55 * linear(output.encodings["left"]) + 0.45 * linear(output.encodings["spectrum"])
    torch.testing.assert_close(output.logits, by_hand)
    other = make_model(TWO, head="shared", seed=1)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(batch.features, batch.mask).logits, by_hand)
    with pytest.raises(ValueError, match="expected a positive weight for each of"):
        start(MLA(weights={"left": 1.0}), model)


def test_absent_modalities_have_no_weight():
    head = SharedHead(THREE, 4, 3)
    encodings = {name: torch.randn(2, 4) for name in THREE}
    torch.testing.assert_close(head(encodings, {"right"}), head.linear(encodings["right"]))
    torch.testing.assert_close(head(encodings, set()), head.linear.bias.expand(2, 3))


@pytest.mark.parametrize("projection", ["none", "rls", "elementwise"])
def test_the_same_as_stepping_every_modality_in_its_turn(projection):
    """One pass, then per modality: loss, projection, a step that must not move any other encoder."""
    ours, literal = make_model(head="shared"), make_model(head="shared")
    method = MLA(projection)
    optimizer = start(method, ours, rate=0.1)
    turns = torch.optim.SGD(literal.parameters(), 0.1, momentum=0.9)
    projector, count = torch.eye(8), 0
    train = digits().train
    for turn, rows in enumerate(torch.arange(96).split(32)):
        batch = train.index(rows)
        method.step(ours, batch, Objective(), optimizer, 0)
        encodings = literal(batch.features, batch.mask).encodings
        linear = literal.backbone.head.linear
        regular = 0.1 ** (1 + turn / -(-len(train) // 32))  # batch index / number of batches
        for name in THREE:
            others = {
                other: [p.clone() for p in literal.branch_parameters(other)] for other in THREE if other != name
            }
            turns.zero_grad()
            F.cross_entropy(linear(encodings[name]), batch.label).backward()
            mean = encodings[name].detach().mean(0)
            if projection == "rls":
                linear.weight.grad = linear.weight.grad @ projector.T
            if projection == "rls" or count:  # the official guard leaves out update and projection of the first
                projector = update_projector(projector, mean, regular, projection)
            if projection == "elementwise" and count:
                linear.weight.grad = linear.weight.grad @ projector.T
            turns.step()
            count += 1
            for other, before in others.items():
                for parameter, old in zip(literal.branch_parameters(other), before, strict=True):
                    assert torch.equal(parameter, old)
    for (name, parameter), expected in zip(ours.named_parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, msg=name)


def test_one_modality_without_projection_is_plain_unimodal_training():
    losses = []
    for method in (None, MLA("none")):
        model = make_model(("left",), head="shared")
        history = fit(model, digits(("left",)), epochs=2, method=method, optimizer="sgd", learning_rate=0.1)
        losses.append(history.train_loss + history.validation_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_every_parameter_of_a_model_with_vgmr_and_a_shared_encoder_learns():
    model = make_model(backbone="transformer", prefusion="vgmr", head="shared")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    method = MLA()
    optimizer = start(method, model, rate=0.1)
    for _ in range(2):
        take_step(method, model, optimizer)
    still = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert not still


def test_vgmrs_own_terms_stay_in_the_gradient():
    found = []
    for objective in (Objective(), Objective(0, 0)):
        model = make_model(prefusion="vgmr", head="shared")
        method = MLA()
        optimizer = start(method, model)
        batch = digits().train.index(torch.arange(32))
        total = method.step(model, batch, objective, optimizer, 0)
        found.append(({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, total))
    (with_terms, total), (without, task) = found
    output = model(batch.features, batch.mask)
    own = Objective()(model, output, batch) - F.cross_entropy(output.logits, batch.label)
    torch.testing.assert_close(total - task, own.detach(), atol=1e-5, rtol=1e-4)
    parameters = dict(model.named_parameters())
    maps = [name for name in without if name.startswith("prefusion")]
    expected = torch.autograd.grad(own, [parameters[name] for name in maps], retain_graph=True, allow_unused=True)
    unimodal = sum(
        F.cross_entropy(model.backbone.head.linear(encoding), batch.label)
        for encoding in output.encodings.values()
    )
    alone = torch.autograd.grad(unimodal, [parameters[name] for name in maps], retain_graph=True)
    moved = 0
    for name, gradient in zip(maps, expected, strict=True):
        gradient = torch.zeros_like(without[name]) if gradient is None else gradient
        torch.testing.assert_close(with_terms[name] - without[name], gradient, atol=1e-6, rtol=1e-3)
        moved += bool(gradient.any())
    for name, gradient in zip(maps, alone, strict=True):
        torch.testing.assert_close(without[name], gradient, atol=1e-6, rtol=1e-3)
    assert moved > 10


def test_the_own_loss_of_another_module_stays_too():
    """The confidence gate learns its confidences by a loss of its own alone."""
    model = make_model(head="shared")
    model = Classifier(ConfidenceGate(model.backbone.dims, 10), model.backbone)
    before = {name: p.detach().clone() for name, p in model.prefusion.named_parameters()}
    method = MLA()
    optimizer = start(method, model, rate=0.1)
    take_step(method, model, optimizer)
    assert not any(torch.equal(p, before[name]) for name, p in model.prefusion.named_parameters())


def test_the_second_modality_hardly_moves_the_head_along_the_mean_of_the_first():
    """With one modality standing for two turns, the projected step is a / (a + r r) of the free one along r."""
    model = make_model(("left",), head="shared")
    method = MLA("rls")
    optimizer = start(method, model)
    take_step(method, model, optimizer)
    with torch.no_grad():
        batch = digits(("left",)).train.index(torch.arange(32))
        mean = model(batch.features, batch.mask).encodings["left"].mean(0)
    expected = update_projector(torch.eye(8), mean, 0.1)
    torch.testing.assert_close(method.projector, expected)
    torch.testing.assert_close(expected @ mean, mean * 0.1 / (0.1 + mean @ mean))
    weight = model.backbone.head.linear.weight
    weight.grad = mean.expand(10, 8).clone()
    method._protect(weight, mean, 0.1)
    torch.testing.assert_close(weight.grad, (mean * 0.1 / (0.1 + mean @ mean)).expand(10, 8))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="projection must be one of none, rls, elementwise, got 'qr'"):
        MLA("qr")
    with pytest.raises(ValueError, match="defined for the head 'shared' only, got ConcatHead; build"):
        start(MLA(), make_model())
