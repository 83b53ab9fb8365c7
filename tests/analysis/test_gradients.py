"""Gradients while training, slices of the loss, measures of curves: against passes of their own and by hand."""

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from made_batches import DIMS, batch, labelled_batch, pooled, transformer
from torch import nn

from vgmr.analysis import gradients as diagnostics
from vgmr.analysis.gradients import branch_gradients, gradient_change, movement
from vgmr.backbones import PooledBackbone
from vgmr.balancing import OGMGE, Balancing, Uniform
from vgmr.classifier import Classifier
from vgmr.data import Batch
from vgmr.prefusion import Identity
from vgmr.refiner import VGMR


def test_plain_training_changes_no_gradient_and_looking_changes_nothing():
    model, part = pooled(), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    frame = gradient_change(model, Balancing(), part, epoch=4)
    assert [*frame["length"], *frame["cosine"]] == pytest.approx([1.0] * 4)
    assert set(frame["modality"]) == set(DIMS) and set(frame["epoch"]) == {4}
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradient_change_is_that_of_the_methods_own_step():
    model, part, method = pooled(), batch(), Uniform()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    method.names = list(DIMS)
    method.heads = torch.nn.ModuleDict({name: torch.nn.Linear(3, 2) for name in DIMS})
    mine = branch_gradients(model, method, part, 0)
    for name in DIMS:
        output = model.train()(part.features, part.mask)
        loss = torch.nn.functional.cross_entropy(output.logits, part.label)
        loss = loss + torch.nn.functional.cross_entropy(method.heads[name](output.encodings[name]), part.label)
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.branch_parameters(name))])
        torch.testing.assert_close(mine[name], expected)
    damped = OGMGE(alpha=100.0, noise=False)
    damped.names, damped.active = list(DIMS), (0, 0)
    assert gradient_change(model, damped, part, 0)["length"].min() < 0.99  # biases stay as they are
    assert gradient_change(model, damped, part, 1)["length"].tolist() == pytest.approx([1.0, 1.0])


def test_adamw_undoes_damping_but_neither_noise_nor_a_damped_update():
    model, batches = pooled(), [batch()] * 8
    for optimizer in ("sgd", "adamw"):
        whole = movement(model, batches, "sound", optimizer, 0.01)
        scaled = movement(model, batches, "sound", optimizer, 0.01, scale=0.1)
        updated = movement(model, batches, "sound", optimizer, 0.01, scale=0.1, on_update=True)
        torch.testing.assert_close(scaled, whole * (0.1 if optimizer == "sgd" else 1.0), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(updated, whole * 0.1, rtol=1e-3, atol=1e-6)
    noisy = movement(model, batches, "sound", "adamw", 0.01, scale=0.1, noise=1.0)
    assert float(noisy @ whole / whole.square().sum()) < 0.7


def test_cosine_of_identical_losses_is_1_and_of_opposite_ones_minus_1():
    same, again = diagnostics.gradients(transformer(), labelled_batch(), [["sound"], ["sound"]])
    assert diagnostics.cosine(same, again) == pytest.approx(1, abs=1e-12)
    assert diagnostics.cosine(same, -3 * again) == pytest.approx(-1, abs=1e-12)
    assert diagnostics.cosine(torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])) == pytest.approx(24 / 25)


def test_cosine_is_0_where_two_losses_share_no_parameter():
    """The head has columns of its own for each modality."""
    model = Classifier(Identity(DIMS), PooledBackbone(DIMS, 2, width=3))
    weight = [model.backbone.head.linear.weight]
    sound, video = diagnostics.gradients(model, labelled_batch(), [["sound"], ["video"]], weight)
    assert sound.norm() > 0 and video.norm() > 0
    assert diagnostics.cosine(sound, video) == 0


def test_gradients_are_those_of_the_loss():
    """Against a pass of its own and `backward`, in evaluation mode although the model is training."""
    model, part = transformer().train(), labelled_batch()
    (found,) = diagnostics.gradients(model, part, [["video"]])
    assert model.training
    model.eval()
    F.cross_entropy(model(part.features, part.mask, ["video"]).logits, part.label).backward()
    names = {"position", "head.linear.weight", "head.linear.bias"}
    parameters = {
        name: parameter
        for name, parameter in model.backbone.named_parameters()
        if name in names or name.startswith("encoder")
    }
    wanted = torch.cat([parameter.grad.flatten() for parameter in parameters.values()])
    assert len(found) == len(wanted) == sum(p.numel() for p in diagnostics.common_parameters(model))
    assert sorted(found.tolist()) == pytest.approx(sorted(wanted.tolist()), abs=1e-7)
    every = [parameter for name, parameter in model.backbone.named_parameters() if "project" in name]
    assert not {id(p) for p in every} & {id(p) for p in diagnostics.common_parameters(model)}


def test_no_gradient_comes_from_a_padded_step():
    model, part = transformer(), labelled_batch()
    longer = {name: F.pad(x, (0, 0, 0, 1), value=7.0) for name, x in part.features.items()}
    mask = {name: F.pad(m, (0, 1), value=False) for name, m in part.mask.items()}
    (plain,) = diagnostics.gradients(model, part, [list(DIMS)])
    (padded,) = diagnostics.gradients(model, Batch(longer, mask, part.label), [list(DIMS)])
    torch.testing.assert_close(padded, plain)
    real = {name: torch.ones_like(m) for name, m in mask.items()}
    (counted,) = diagnostics.gradients(model, Batch(longer, real, part.label), [list(DIMS)])
    assert not torch.allclose(counted, plain, atol=1e-3), "a real step must count"


@pytest.mark.parametrize("prefusion", [Identity, VGMR])
def test_gradient_cosines_by_pair_against_a_pass_for_each(prefusion):
    model, part = transformer(prefusion), labelled_batch()
    table = diagnostics.gradient_cosines(model, part).set_index(["one", "other"])
    assert sorted(table.index) == [("sound", "video"), ("video", "sound")]
    for one, other in table.index:
        (single,) = diagnostics.gradients(model, part, [[one]])
        (both,) = diagnostics.gradients(model, part, [[one, other]])
        assert table.cosine[one, other] == pytest.approx(diagnostics.cosine(single, both), abs=1e-6)
        through = [diagnostics.gradients(model, part, [[one, other]], through=[[m]])[0] for m in (one, other)]
        encoder = slice(0, -sum(p.numel() for p in model.head_parameters()))
        torch.testing.assert_close((through[0] + through[1])[encoder], both[encoder], atol=1e-6, rtol=1e-4)
        own = float(single.double() @ through[0].double() / (single.norm() * both.norm()))
        assert table.own[one, other] == pytest.approx(own, abs=1e-5)


def test_a_modality_that_the_head_ignores_leaves_the_cosine_at_1():
    model, part = transformer(), labelled_batch()
    with torch.no_grad():
        model.backbone.head.linear.weight[:, 4:] = 0  # video stands second
    encoder = model.backbone.shared_parameters()
    sound, both = diagnostics.gradients(model, part, [["sound"], ["sound", "video"]], encoder)
    assert diagnostics.cosine(sound, both) == pytest.approx(1, abs=1e-6)


def test_permuted_moves_one_modality_and_its_mask_only():
    part, order = labelled_batch(), torch.tensor([1, 0, 2, 3, 4, 5])
    moved = diagnostics.permuted(part, "sound", order)
    assert torch.equal(moved.features["sound"][0], part.features["sound"][1])
    assert moved.mask["sound"].sum(1).tolist() == [4, 2, 4, 4, 4, 4]
    assert torch.equal(moved.features["video"], part.features["video"]) and moved.label is part.label


def test_gradient_norms_are_of_each_modalitys_own_map():
    model, part = transformer(VGMR), labelled_batch()
    norms = diagnostics.gradient_norms(model, part)
    model.eval()
    F.cross_entropy(model(part.features, part.mask).logits, part.label).backward()
    for name in DIMS:
        grads = [parameter.grad.flatten() for parameter in model.backbone.project[name].parameters()]
        assert norms[name] == pytest.approx(float(torch.cat(grads).norm()), rel=1e-4)
    with torch.no_grad():
        model.backbone.head.linear.weight[:, 4:] = 0
    assert diagnostics.gradient_norms(model, part)["video"] == 0


def test_snapshot_holds_the_three_tables_of_one_checkpoint():
    model, part = transformer(VGMR), labelled_batch()
    tables = diagnostics.snapshot(model, part.index(torch.tensor([0, 1])), part)
    wanted = F.cross_entropy(model.eval()(part.features, part.mask).logits, part.label).item()
    assert tables["losses"]["validation_loss"][0] == pytest.approx(wanted, abs=1e-6)
    assert tables["losses"]["train_loss"][0] != pytest.approx(wanted, abs=1e-6)
    pd.testing.assert_frame_equal(tables["cosines"], diagnostics.gradient_cosines(model, part))
    assert dict(tables["norms"].itertuples(index=False, name=None)) == diagnostics.gradient_norms(model, part)


def test_a_slice_of_a_quadratic_is_the_quadratic():
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    directions = [[torch.tensor([[1.0, 0.0]])], [torch.tensor([[0.0, 2.0]])]]
    points = [(0, 0), (1, 0), (-1, 0.5), (0.25, -1)]
    found = diagnostics.loss_slice(lambda: float((weight**2).sum()), [weight], directions, points)
    assert found == pytest.approx([(3 + x) ** 2 + (4 + 2 * y) ** 2 for x, y in points])
    assert weight.tolist() == [[3.0, 4.0]], "the parameters are put back"


def test_a_slice_that_fails_puts_the_parameters_back():
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ZeroDivisionError):
        diagnostics.loss_slice(lambda: 1 / 0, [weight], [[torch.ones(2, 2)]], [(1,)])
    assert weight.tolist() == [[1, 1], [1, 1]]


def test_filter_direction_is_as_long_as_the_weights_row_by_row():
    parameters = [nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])), nn.Parameter(torch.ones(3))]
    matrix, vector = diagnostics.filter_direction(parameters, 0)
    assert matrix.norm(dim=1).tolist() == pytest.approx([5, 0, 1], abs=1e-6)
    assert vector.tolist() == [0, 0, 0]
    assert not torch.equal(matrix, diagnostics.filter_direction(parameters, 1)[0])


def test_measures_of_curves_by_hand():
    assert diagnostics.roughness([3, 2, 1, 0]) == 0
    assert diagnostics.roughness([0, 1, 0, 1]) == 2  # second differences -2 and 2
    assert diagnostics.roughness([0, 1, -1, 0], order=1) == pytest.approx(4 / 3)
    assert pd.isna(diagnostics.roughness([1, 2]))
    assert diagnostics.detour([5, 4, 1]) == diagnostics.detour([2, 2, 2]) == diagnostics.detour([2]) == 1
    assert diagnostics.detour([4, 1, 3]) == pytest.approx(5 / 3)
    assert diagnostics.sign_changes([1, -1, -1, 1, 2]) == 0.5
