"""Several seeds in one pass: each takes the steps that it takes alone."""

import inspect
from dataclasses import replace

import pytest
import torch
from test_training import CLASSES, DIMS, equal_state, made, ragged
from torch import nn

from vgmr import VGMR, Batch, Classifier, Objective, PooledBackbone, TransformerBackbone
from vgmr.balancing import make_method
from vgmr.corruption import Drawn
from vgmr.inference import predict
from vgmr.loop import lists
from vgmr.loop.seeds import pays_together, why_alone
from vgmr.loop.steps import use_byte_dropout
from vgmr.prefusion import CrossAttention, FeatureMLP, Identity
from vgmr.training import _fit, fit, fit_seeds

PREFUSIONS = {
    "plain": lambda dropout: Identity(DIMS),
    "mlp": lambda dropout: FeatureMLP(DIMS, 4, dropout),
    "vgmr": lambda dropout: VGMR(DIMS, 6, dropout=dropout),
    "cheap vgmr": lambda dropout: VGMR(DIMS, 6, dropout=dropout, rank=2, sharing=True, sparsity=0.5),
    "one gate": lambda dropout: VGMR(
        DIMS, 6, dropout=dropout, rank=2, per_step=False, value_from="anchors", num_classes=3, norm="none"
    ),
    "steady vgmr": lambda dropout: VGMR(DIMS, 6, dropout=dropout, rank=0, norm="none"),
    "attention": lambda dropout: CrossAttention(DIMS, 4, dropout=dropout),
}
BACKBONES = {
    "pooled": lambda dropout: PooledBackbone(DIMS, CLASSES, width=8, dropout=dropout),
    "transformer": lambda dropout: TransformerBackbone(DIMS, CLASSES, 14, 8, 2, 2, 16, dropout=dropout),
}


def models(
    count: int, prefusion: str = "vgmr", backbone: str = "pooled", dropout: float = 0.0
) -> list[Classifier]:
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(Classifier(PREFUSIONS[prefusion](dropout), BACKBONES[backbone](dropout)))
    return made


def distance(one: nn.Module, other: nn.Module) -> float:
    """Largest difference of weights. Biases of attention's keys are left out: they change no softmax, so their
    gradients are rounding errors, of which Adam makes whole steps.
    """
    largest = 0.0
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if name.endswith("in_proj_bias"):
            query, _, value = (a - b).chunk(3)
            largest = max(largest, float(query.abs().max()), float(value.abs().max()))
        else:
            largest = max(largest, float((a - b).abs().max()))
    return largest


def assert_as_alone(together, alone, histories, others):
    assert max(map(distance, together, alone)) < 1e-4
    for history, other in zip(histories, others, strict=True):
        assert history.train_loss == pytest.approx(other.train_loss, rel=1e-5)
        assert history.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
        assert history.best_epoch == other.best_epoch


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("prefusion", PREFUSIONS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"length_buckets": True, "batch_size": 16},
        {"optimizer": "sgd", "learning_rate": 0.01},
        {"prefusion_learning_rate": 3e-3, "weight_decay": 0.3},
        {"objective": Objective(removal="before", value_weight=1.0, warmup_epochs=2)},
    ],
    ids=["adamw", "buckets", "sgd", "rates", "before"],
)
def test_a_seed_of_several_is_the_seed_alone(prefusion, backbone, settings):
    data, seeds = made(), [5, 6, 7]
    together, alone = models(3, prefusion, backbone), models(3, prefusion, backbone)
    histories = fit_seeds(together, data, seeds, epochs=1, **settings)
    others = [fit(model, data, seed=seed, epochs=1, **settings) for model, seed in zip(alone, seeds, strict=True)]
    assert_as_alone(together, alone, histories, others)
    assert distance(together[0], models(1, prefusion, backbone)[0]) > 1e-3, "it has moved"
    assert not any(model.training for model in together)
    assert histories[0].together == seeds and others[0].together == []


def test_settings_have_the_same_defaults():
    one, many = inspect.signature(fit).parameters, inspect.signature(_fit).parameters
    shared = set(one) - {"model", "seed"}
    assert shared == set(many) - {"models", "seeds"}
    assert all(one[name].default == many[name].default for name in shared)


def test_folds_of_unequal_size_take_each_their_own_steps():
    """90, 70 and 33 training samples: the last has fewer steps an epoch, and Adam counts those of each."""
    whole = made()
    data = [replace(whole, train=ragged(size, size), validation=ragged(20 + size % 7, 1)) for size in (90, 70, 33)]
    together, alone = models(3), models(3)
    histories = fit_seeds(together, data, [1, 2, 3], epochs=3)
    others = [fit(m, each, seed=s, epochs=3) for m, each, s in zip(alone, data, [1, 2, 3], strict=True)]
    assert_as_alone(together, alone, histories, others)


def full(data):
    """The same data with every step real, which models then see without a mask."""

    def change(part: Batch) -> Batch:
        return replace(part, mask={name: mask | True for name, mask in part.mask.items()})

    return replace(data, train=change(data.train), validation=change(data.validation))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_without_padding_no_model_sees_a_mask_and_nothing_changes(backbone):
    data, seen = full(made()), []
    together, alone, masked = models(2, "vgmr", backbone), models(2, "vgmr", backbone), models(1, "vgmr", backbone)
    for model in (together[0], alone[0]):
        model.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    histories = fit_seeds(together, data, [1, 2], epochs=1)
    assert len(seen) > 3 and not any(seen)
    others = [fit(model, data, seed=seed, epochs=1) for model, seed in zip(alone, [1, 2], strict=True)]
    assert len(seen) > 6 and not any(seen)
    assert_as_alone(together, alone, histories, others)
    late = replace(data.train, mask={name: mask.clone() for name, mask in data.train.mask.items()})
    late.mask["text"][0, -1] = False
    late.features["text"][0, -1] = 0.0
    fit(masked[0], replace(data, train=late), seed=1, epochs=1)
    assert 0 < distance(masked[0], alone[0]) < 1e-2, "one padded step: all masks are back"


def test_corruptions_are_those_that_a_seed_draws_alone():
    data = made()
    settings = {"epochs": 2, "corruption": Drawn.like(data.train, ("noise", "missing", "masking"), 0.7)}
    together, alone = models(2), models(2)
    histories = fit_seeds(together, data, [3, 4], **settings)
    others = [fit(model, data, seed=seed, **settings) for model, seed in zip(alone, [3, 4], strict=True)]
    assert_as_alone(together, alone, histories, others)
    plain = models(1)[0]
    fit(plain, data, seed=3, epochs=2)
    assert distance(plain, alone[0]) > 1e-3


def test_value_targets_from_known_corruption_reach_every_seed():
    data = made()
    settings = {
        "epochs": 1,
        "corruption": Drawn.like(data.train, ("missing",), 0.5),
        "objective": Objective(target="corruption", value_weight=1.0),
    }
    together, alone = models(2), models(2)
    histories = fit_seeds(together, data, [3, 4], **settings)
    others = [fit(model, data, seed=seed, **settings) for model, seed in zip(alone, [3, 4], strict=True)]
    assert_as_alone(together, alone, histories, others)


@pytest.mark.parametrize("in_bytes", [False, True])
def test_the_same_group_gives_the_same_bits_and_each_seed_its_own_dropout(in_bytes):
    def train():
        group = [models(1, dropout=0.5)[0] for _ in range(3)]  # the same weights
        for model in group if in_bytes else ():
            use_byte_dropout(model)
        return group, fit_seeds(group, made(), [1, 1, 2], epochs=2)  # and twice the same order

    (first, histories), (second, again) = train(), train()
    assert all(map(equal_state, first, second))
    assert [replace(one, seconds=0) for one in histories] == [replace(one, seconds=0) for one in again]
    assert histories[0].train_loss != histories[1].train_loss, "same weights and order, other dropout"
    alone = models(1, dropout=0.5)[0]
    drawn = fit(alone, made(), seed=1, epochs=2).train_loss
    assert drawn[0] == pytest.approx(histories[0].train_loss[0], rel=0.1), "of the same strength"


def test_patience_stops_each_seed_by_itself_at_its_best_state():
    data = made(0.3)
    together, alone = models(3), models(3)
    settings = {"epochs": 25, "learning_rate": 0.03, "patience": 3}
    histories = fit_seeds(together, data, [1, 2, 3], **settings)
    lengths = [len(history.train_loss) for history in histories]
    assert len(set(lengths)) > 1 and max(lengths) < 25
    for model, history, length in zip(together, histories, lengths, strict=True):
        assert length == history.best_epoch + 1 + 3
        logits = predict(model, data.validation)
        hit = (logits.argmax(1) == data.validation.label).float().mean()
        assert history.validation_accuracy[history.best_epoch] == pytest.approx(float(hit))
    others = [fit(model, data, seed=seed, **settings) for model, seed in zip(alone, [1, 2, 3], strict=True)]
    assert [len(history.train_loss) for history in others] == lengths
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        fit(alone[0], data, patience=0)


def test_checkpoints_are_the_states_of_each_seed():
    kept = {}

    def keep(place, epoch, model):
        kept[place, epoch] = {name: x.clone() for name, x in model.state_dict().items()}

    group = models(2)
    histories = fit_seeds(group, made(), [1, 2], epochs=3, checkpoint=keep)
    assert set(kept) == {(place, epoch) for place in (0, 1) for epoch in range(3)}
    for place, (model, history) in enumerate(zip(group, histories, strict=True)):
        best = kept[place, history.best_epoch]
        assert all(torch.equal(x, best[name]) for name, x in model.state_dict().items())


def test_parameters_that_no_loss_reaches_stay_as_they_are():
    """Weight decay would shrink them; an optimiser leaves alone what has no gradient."""
    together, alone = models(2), models(2)
    for model in (*together, *alone):
        model.backbone.idle = nn.Linear(3, 3)
        model.backbone.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    before = [model.backbone.idle.weight.clone() for model in together]
    fit_seeds(together, made(), [1, 2], epochs=1, weight_decay=0.5)
    for model, seed in zip(alone, (1, 2), strict=True):
        fit(model, made(), seed=seed, epochs=1, weight_decay=0.5)
    assert all(torch.equal(model.backbone.idle.weight, x) for model, x in zip(together, before, strict=True))
    for one, other in zip(together, alone, strict=True):
        one.backbone.idle = other.backbone.idle = None
        assert distance(one, other) < 1e-4


def test_batch_norm_counts_the_samples_of_its_own_seed():
    together, alone = models(2, "plain"), models(2, "plain")
    for model in (*together, *alone):
        model.backbone.encoder["text"][2] = nn.BatchNorm1d(8)
    fit_seeds(together, made(), [1, 2], epochs=2)
    for model, one, seed in zip(alone, together, (1, 2), strict=True):
        fit(model, made(), seed=seed, epochs=2)
        assert distance(model, one) < 1e-4
        norm = one.backbone.encoder["text"][2]
        assert norm.running_mean.abs().max() > 1e-3 and int(norm.num_batches_tracked) in (3, 6)


# Steps as lists of operations


def normed(group: list[Classifier]) -> list[Classifier]:
    for model in group:
        model.backbone.encoder["text"][2] = nn.BatchNorm1d(8)
    return group


def in_bytes(group: list[Classifier]) -> list[Classifier]:
    for model in group:
        use_byte_dropout(model)
    return group


LISTED = {
    **{name: (lambda name=name: models(3, name, dropout=0.3), {}) for name in PREFUSIONS},
    "transformer": (lambda: models(3, "vgmr", "transformer", 0.3), {}),
    "byte dropout": (lambda: in_bytes(models(3, dropout=0.3)), {}),
    "batch norm": (lambda: normed(models(3, "plain", dropout=0.3)), {}),
    "warm-up": (lambda: models(3), {"epochs": 7, "objective": Objective(value_weight=1.0, warmup_epochs=2)}),
    "corruption": (lambda: models(3), {"corruption": Drawn.like(made().train, ("missing", "conflict"), 0.5)}),
    "patience": (lambda: models(3), {"epochs": 9, "batch_size": 32, "learning_rate": 0.05, "patience": 1}),
}


@pytest.mark.parametrize("case", LISTED)
def test_steps_as_lists_of_operations_give_the_same_bits(case, monkeypatch):
    make, settings = LISTED[case]
    whole, made_lists, make_fx = made(), [], lists.make_fx
    sizes = (90, 90, 70) if case == "patience" else (90, 90, 90)
    data = [replace(whole, train=ragged(size, size)) for size in sizes]
    settings = {"epochs": 4, "batch_size": 45, **settings}

    def watched(function):
        def listed(*given):
            made_lists.append(make_fx(function)(*given))
            return made_lists[-1]

        return listed

    monkeypatch.setattr(lists, "make_fx", watched)
    group = make()
    histories = fit_seeds(group, data, [1, 2, 3], **settings)
    assert not made_lists
    listed = make()
    with lists.listing_after(1):
        again = fit_seeds(listed, data, [1, 2, 3], **settings)
    assert bool(made_lists) == (case != "byte dropout")
    assert all(map(equal_state, group, listed))
    assert [replace(one, seconds=0) for one in histories] == [replace(one, seconds=0) for one in again]


def test_modules_that_someone_else_wrote_are_gone_through_in_every_step(monkeypatch):
    """They may count, or choose in Python."""
    monkeypatch.setattr(lists, "make_fx", None)

    class Own(PooledBackbone):
        pass

    group = [Classifier(Identity(DIMS), Own(DIMS, CLASSES, width=8)) for _ in range(2)]
    hooked = models(2)
    hooked[0].backbone.register_forward_hook(lambda *_: None)
    with lists.listing_after(2):
        fit_seeds(group, made(), [1, 2], epochs=4)
        fit_seeds(hooked, made(), [1, 2], epochs=4)
        with pytest.raises(TypeError, match="not callable"):
            fit_seeds(models(2), made(), [1, 2], epochs=4)


def test_what_no_list_can_be_made_of_is_trained_as_it_is():
    """Anomaly detection looks at every value."""
    group, watched = models(2), models(2)
    fit_seeds(group, made(), [1, 2], epochs=2)
    with torch.autograd.set_detect_anomaly(True), lists.listing_after(1):
        fit_seeds(watched, made(), [1, 2], epochs=2)
    assert all(map(equal_state, group, watched))


# What a user's corruption leaves in padding


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("prefusion", ["plain", "vgmr", "mlp"])
def test_padding_has_no_effect_whatever_a_corruption_puts_there(prefusion, several):
    def spoiled(batch, _):
        features = {n: torch.where(batch.mask[n].unsqueeze(2), x, torch.nan) for n, x in batch.features.items()}
        return replace(batch, features=features)

    def train(corruption):
        group = models(2 if several else 1, prefusion)
        if several:
            return group, fit_seeds(group, made(), [1, 2], epochs=1, corruption=corruption)
        return group, [fit(group[0], made(), seed=1, epochs=1, corruption=corruption)]

    (group, histories), (others, again) = train(lambda batch, _: batch), train(spoiled)
    assert all(map(equal_state, group, others))
    assert [one.validation_loss for one in histories] == [one.validation_loss for one in again]


# Who can, and whom it pays


class Undecided(nn.Module):
    """Looks at values, which nothing mapped over seeds can."""

    dims = DIMS

    def forward(self, features, mask=None):
        return Identity(DIMS)(features, mask if features["text"].sum() > 0 else None)


def test_reasons_to_train_alone():
    group, data = models(2), [made()] * 2
    assert why_alone(group, data) == ""
    assert why_alone(group, data, method=make_method("none")) == ""
    assert why_alone(group, data, method=make_method("ogm-ge")) == "OGMGE takes steps of its own"
    assert "not the package's objective" in why_alone(group, data, lambda *_: 0.0)
    assert "differ in their parameters" in why_alone([group[0], models(1, "plain")[0]], data)
    short = replace(made(), train=replace(made().train.select(["text", "audio"])))
    cut = replace(
        short.train,
        features={name: x[:, :5] for name, x in short.train.features.items()},
        mask={name: x[:, :5] for name, x in short.train.mask.items()},
    )
    assert "train parts differ" in why_alone(group, [made(), replace(made(), train=cut)])
    undecided = [Classifier(Undecided(), BACKBONES["pooled"](0.0)) for _ in range(2)]
    assert why_alone(undecided, data).startswith("an operation cannot be mapped over seeds: ")
    with pytest.raises(ValueError, match=r"^these seeds cannot be trained in one pass: an operation"):
        fit_seeds(undecided, made(), [1, 2], epochs=1)
    with pytest.raises(ValueError, match="OGMGE takes steps of its own"):
        fit_seeds(group, made(), [1, 2], epochs=1, method=make_method("ogm-ge"))


@pytest.mark.parametrize("training", [False, True])
def test_asking_changes_neither_models_nor_random_state(training):
    group, twins = models(2), models(2)
    group[0].train(training)
    state = torch.get_rng_state()
    why_alone(group, [made()] * 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(equal_state, group, twins)) and group[0].training == training and group[1].training
    assert all(parameter.grad is None for model in group for parameter in model.parameters())


def test_numbers_must_agree():
    with pytest.raises(ValueError, match="got 2 models and 2 data sets for 3 seeds"):
        fit_seeds(models(2), made(), [1, 2, 3])


def test_a_seed_that_diverges_is_named():
    with pytest.raises(FloatingPointError, match=r"no longer finite in epoch \d of seed \d+.*lower learning_rate"):
        fit_seeds(models(2, "plain"), made(), [11, 12], epochs=5, learning_rate=1e38)


def test_the_rule_for_when_one_pass_pays():
    data, pooled = made(), models(1)[0]
    assert pays_together(pooled, data, 10) and not pays_together(pooled, data, 3)
    assert not pays_together(pooled, data, 10, batch_size=10**5), "memory decides"
    wide = Classifier(Identity(DIMS), TransformerBackbone(DIMS, CLASSES, 14, 256))
    assert not pays_together(wide, data, 10, batch_size=64), "arithmetic decides"
