"""The training loop: deterministic, blind to the test part, left at the best validation epoch."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vgmr import VGMR, Batch, Classifier, MultimodalData, Objective, PooledBackbone, TransformerBackbone, load
from vgmr.fusion.attention import ByteDropout
from vgmr.fusion.mag import MAG
from vgmr.inference import predict
from vgmr.loop.seeds import Together
from vgmr.loop.steps import corrupted, mini_batches, trim, use_byte_dropout
from vgmr.prefusion import Identity
from vgmr.training import fit, fit_seeds

DIMS = {"text": 5, "audio": 3}
STEPS = {"text": 9, "audio": 14}
CLASSES = 3


def ragged(size: int, seed: int, strength: float = 1.0) -> Batch:
    """Noise, and in each channel `strength` where the channel's number modulo 3 is the class."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(CLASSES, (size,), generator=generator)
    features, mask = {}, {}
    for name, d in DIMS.items():
        length = torch.randint(1, STEPS[name] + 1, (size,), generator=generator)
        mask[name] = torch.arange(STEPS[name]) < length[:, None]
        evidence = strength * (torch.arange(d) % CLASSES == label[:, None]).float()
        x = torch.randn(size, STEPS[name], d, generator=generator) + evidence[:, None]
        features[name] = x * mask[name].unsqueeze(2)
    return Batch(features, mask, label, torch.arange(size))


def made(strength: float = 1.0) -> MultimodalData:
    parts = {
        name: ragged(size, size, strength) for name, size in (("train", 90), ("validation", 45), ("test", 30))
    }
    return MultimodalData("made", **parts, classes=("a", "b", "c"), source="", licence="", fingerprint="")


def pooled(seed: int = 0, prefusion: str = "vgmr") -> Classifier:
    torch.manual_seed(seed)
    backbone = PooledBackbone(DIMS, CLASSES, width=8)
    return Classifier(VGMR(DIMS, 6) if prefusion == "vgmr" else Identity(DIMS), backbone)


def transformer(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(VGMR(DIMS, 6), TransformerBackbone(DIMS, CLASSES, 14, 8, 2, 2, 16))


def equal_state(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# fit


@pytest.mark.parametrize("length_buckets", [False, True])
def test_the_same_seed_gives_the_same_bits(length_buckets):
    def train(seed: int):
        model = pooled()
        return model, fit(model, made(), epochs=3, seed=seed, length_buckets=length_buckets)

    (first, history), (second, again), (third, _) = train(1), train(1), train(2)
    assert equal_state(first, second)
    assert replace(history, seconds=0) == replace(again, seconds=0)
    assert not equal_state(first, third), "another seed, another order and other dropout"


def test_the_seed_does_not_depend_on_what_was_drawn_before():
    first, second = pooled(), pooled()
    fit(first, made(), epochs=1, seed=3)
    torch.rand(17)
    fit(second, made(), epochs=1, seed=3)
    assert equal_state(first, second)


@pytest.mark.parametrize("make", [pooled, transformer])
def test_the_loss_falls_and_the_classes_are_learnt(make):
    model, data = make(), made(3.0)
    history = fit(model, data, epochs=12, learning_rate=1e-2)
    assert history.train_loss[-1] < 0.6 * history.train_loss[0]
    assert (predict(model, data.test).argmax(1) == data.test.label).float().mean() > 0.85


def test_history_has_one_value_per_epoch():
    history = fit(pooled(), made(), epochs=4)
    assert {len(history.train_loss), len(history.validation_loss), len(history.validation_accuracy)} == {4}
    assert 0 <= history.best_epoch < 4 and history.seconds > 0


class Recorder:
    """An objective that keeps the model as it was after every epoch."""

    def __init__(self):
        self.objective, self.states, self.model = Objective(), {}, None

    def __call__(self, model, output, batch, epoch=0):
        if epoch not in self.states:
            self.states[epoch] = {name: value.clone() for name, value in model.state_dict().items()}
        return self.objective(model, output, batch, epoch)


@pytest.mark.parametrize("seed", range(3))
def test_the_model_is_left_at_its_best_validation_epoch(seed):
    """Recomputed: the state at the start of epoch k + 1 is that at the end of epoch k."""
    data, recorder, epochs = made(0.3), Recorder(), 8
    model = pooled(seed)
    history = fit(model, data, epochs=epochs, learning_rate=0.05, objective=recorder, seed=seed)
    scores, probe = [], pooled()
    for epoch in range(1, epochs):
        probe.load_state_dict(recorder.states[epoch])
        logits = predict(probe, data.validation)
        hit = (logits.argmax(1) == data.validation.label).float().mean()
        scores.append((float(hit), -float(F.cross_entropy(logits, data.validation.label))))
    for epoch, (hit, loss) in enumerate(scores):
        assert history.validation_accuracy[epoch] == pytest.approx(hit)
        assert history.validation_loss[epoch] == pytest.approx(-loss, rel=1e-5)
    scores.append((history.validation_accuracy[-1], -history.validation_loss[-1]))
    assert history.best_epoch == scores.index(max(scores))
    assert history.best_epoch < epochs - 1, "the data are chosen so that the last epoch is not the best"
    probe.load_state_dict(recorder.states[history.best_epoch + 1])
    assert equal_state(model, probe)
    assert not model.training


def test_ties_in_accuracy_go_to_the_lower_loss():
    """One class only: every epoch has accuracy 1, so the loss alone decides."""
    data = made(0.0)
    parts = {name: replace(part, label=torch.zeros_like(part.label)) for name, part in data.parts.items()}
    history = fit(pooled(), replace(data, **parts), epochs=6, learning_rate=0.03)
    tied = [epoch for epoch in range(6) if history.validation_accuracy[epoch] == 1]
    assert len(tied) > 3
    assert history.best_epoch == min(tied, key=lambda epoch: history.validation_loss[epoch])


def test_the_test_part_is_never_touched():
    """Garbage of another shape and NaN in the test part changes no bit."""
    nan = {"text": torch.full((1, 1, 1), float("nan"))}
    garbage = Batch(nan, {"text": torch.zeros(1, 1, dtype=torch.bool)}, torch.tensor([99]))
    first, second = pooled(), pooled()
    history = fit(first, made(), epochs=3)
    again = fit(second, replace(made(), test=garbage), epochs=3)
    assert equal_state(first, second)
    assert replace(history, seconds=0) == replace(again, seconds=0)


def test_the_training_loss_is_the_mean_over_samples():
    """With a learning rate of 0 and no dropout the model stands still; 90 samples in batches of 32, 32, 26."""
    model = pooled(prefusion="none").eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    data = made()
    history = fit(model, data, epochs=1, learning_rate=0.0, weight_decay=0.0)
    expected = F.cross_entropy(predict(model, data.train), data.train.label)
    assert history.train_loss[0] == pytest.approx(float(expected), rel=1e-5)


def test_a_mini_batch_is_gone_before_the_next_is_made(monkeypatch):
    """So that one lies where the other lay, and the peak of memory has one of them."""
    taken, alive = [], []
    index = Batch.index

    def watched(self, rows):
        alive.append(sum(batch() is not None for batch in taken))
        batch = index(self, rows)
        taken.append(weakref.ref(batch))
        return batch

    model, data = pooled(), made()
    monkeypatch.setattr(Batch, "index", watched)
    fit(model, data, epochs=2)
    assert len(alive) >= 6 and not any(alive)


def test_mini_batches_of_several_seeds_are_gone_before_the_next_are_made(monkeypatch):
    taken, alive = [], []
    batch_of = Together._batch

    def watched(self, *places):
        alive.append(sum(label() is not None for label in taken))
        batch = batch_of(self, *places)
        taken.append(weakref.ref(batch.label))
        return batch

    models = [pooled(), pooled()]
    monkeypatch.setattr(Together, "_batch", watched)
    fit_seeds(models, made(), [0, 1], epochs=2)
    assert len(alive) >= 6 and not any(alive)


def test_a_part_that_was_written_into_is_refused_before_a_model_reads_it():
    data, model = made(), pooled(prefusion="none")
    for part in (data.train, data.test):
        object.__setattr__(part, "padded", False)
        part.features["text"] = part.features["text"][:, :-1]
    for reading in (lambda: fit(model, data, epochs=1), lambda: predict(model, data.test)):
        with pytest.raises(ValueError, match=r"^text: expected a bool mask of shape \(\d+, 8\), got torch.bool"):
            reading()


def test_the_pre_fusion_module_may_learn_at_its_own_rate():
    """AdamW's first step moves by the learning rate (weight decay off), so the rates can be read off."""
    model, before = pooled(), pooled()
    one_step = {"epochs": 1, "batch_size": 90, "weight_decay": 0.0}
    fit(model, made(), learning_rate=1e-3, prefusion_learning_rate=1e-2, **one_step)
    old = before.state_dict()
    moved = {name: float((x - old[name]).abs().max()) for name, x in model.state_dict().items()}
    for name, step in moved.items():
        if step:
            assert step == pytest.approx(1e-2 if name.startswith("prefusion") else 1e-3, rel=0.02), name
    assert len([step for step in moved.values() if step]) > 10


def test_a_loss_that_is_not_finite_stops_the_training():
    class Broken:
        def __call__(self, model, output, batch, epoch=0):
            return output.logits.sum() * (float("nan") if epoch == 1 else 1.0)

    with pytest.raises(FloatingPointError, match=r"no longer finite in epoch 1.*lower learning_rate, now 0\.01"):
        fit(pooled(), made(), epochs=3, learning_rate=0.01, objective=Broken())


def test_a_model_ruined_by_the_last_step_is_not_returned_in_silence():
    """One step, whose loss is still finite, to weights whose logits are not."""
    model = pooled(prefusion="none")
    try:
        fit(model, made(), epochs=1, batch_size=90, learning_rate=1e38)
    except FloatingPointError:
        return
    assert torch.isfinite(predict(model, made().validation)).all()


@pytest.mark.parametrize("label", [-100, -1, 3])
@pytest.mark.parametrize("part", ["train", "validation"])
def test_labels_out_of_range_are_refused(part, label):
    """-100 too, which torch's cross-entropy leaves out in silence."""
    data = made()
    wrong = data.parts[part].label.clone()
    wrong[4] = label
    with pytest.raises(ValueError, match="label"):
        fit(pooled(), replace(data, **{part: replace(data.parts[part], label=wrong)}), epochs=1)


@pytest.mark.parametrize("epochs", [0, -1])
def test_epochs_are_at_least_one(epochs):
    with pytest.raises(ValueError, match=f"epochs must be at least 1, got {epochs}"):
        fit(pooled(), made(), epochs=epochs)


def test_labels_beyond_the_outputs_of_the_model_are_refused():
    """Three classes in the data, two outputs: without the check torch says "Target 2 is out of bounds"."""
    model = Classifier(Identity(DIMS), PooledBackbone(DIMS, 2))
    with pytest.raises(ValueError, match=r"^made, train: label: expected 0 to 1 for 2 classes, got 0 to 2$"):
        fit(model, made(), epochs=1)


def test_a_rate_of_zero_leaves_the_pre_fusion_module_as_it_is():
    model, before = pooled(), pooled()
    fit(model, made(), epochs=2, prefusion_learning_rate=0.0)
    assert equal_state(model.prefusion, before.prefusion)
    assert not equal_state(model.backbone, before.backbone)


def test_values_are_looked_at_once_and_not_in_the_loop(monkeypatch):
    """Nothing in a step waits for a number: as many tensors become numbers in one step as in thirty."""
    looks = []
    for name in ("item", "__bool__", "__float__", "__int__", "tolist"):
        true = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda x, true=true, name=name: (looks.append(name), true(x))[1])
    counts = set()
    for batch_size in (90, 3):
        looks.clear()
        fit(pooled(), made(), epochs=2, batch_size=batch_size)
        counts.add(len(looks))
    assert len(counts) == 1 and counts.pop() > 0


def test_direct_calls_refuse_nan_during_and_after_a_training():
    model = pooled()
    batch = ragged(4, 0)
    spoilt = {name: x.clone() for name, x in batch.features.items()}
    spoilt["text"][2, 0, 0] = float("nan")

    def call(*_):
        with pytest.raises(ValueError, match="text: sample 2 holds NaN"):
            model(spoilt, batch.mask)

    fit(model, made(), epochs=1, checkpoint=call)
    call()


def test_memory_stays_flat():
    """As many tensors live at the first step of epoch 2 as at that of epoch 5: nothing keeps a graph."""
    counts = {}

    def count(model, output, batch, epoch=0):
        if epoch not in counts:
            gc.collect()
            counts[epoch] = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        return Objective()(model, output, batch, epoch)

    fit(pooled(), made(), epochs=6, objective=count)
    assert counts[2] == counts[5]


# Feeding


@given(st.integers(1, 40), st.integers(1, 50), st.booleans(), st.integers(0, 999))
def test_every_sample_comes_once(size, batch_size, length_buckets, seed):
    part = ragged(size, seed)
    generator = torch.Generator().manual_seed(seed)
    batches = list(mini_batches(part, batch_size, generator, length_buckets))
    assert sorted(torch.cat([batch.group for batch in batches]).tolist()) == list(range(size))
    sizes = sorted((len(batch) for batch in batches), reverse=True)
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1) and 0 < sizes[-1] <= batch_size
    for batch in batches:
        batch.check(CLASSES)
        for row, sample in enumerate(batch.group.tolist()):
            assert batch.label[row] == part.label[sample]
            for name, x in batch.features.items():
                steps = x.shape[1]
                assert torch.equal(x[row], part.features[name][sample, :steps])
                assert not part.mask[name][sample, steps:].any(), "only padding is cut off"


def test_the_order_is_drawn_anew_each_time():
    part, generator = ragged(40, 0), torch.Generator().manual_seed(0)
    orders = [torch.cat([batch.group for batch in mini_batches(part, 8, generator)]).tolist() for _ in range(2)]
    assert orders[0] != orders[1] != list(range(40))


def test_length_buckets_cut_padding():
    part = ragged(320, 1)

    def steps(length_buckets: bool) -> int:
        batches = mini_batches(part, 16, torch.Generator().manual_seed(0), length_buckets)
        return sum(mask.numel() for batch in batches for mask in batch.mask.values())

    real = sum(int(mask.sum()) for mask in part.mask.values())
    assert steps(False) == 320 * 23
    assert real <= steps(True) < 0.85 * steps(False)


@pytest.mark.parametrize("make", [pooled, transformer])
def test_length_buckets_change_no_output(make):
    model, part = make().eval(), ragged(50, 2)
    logits = predict(model, part)
    with torch.inference_mode():
        for batch in mini_batches(part, 8, torch.Generator().manual_seed(1), length_buckets=True):
            output = model(batch.features, batch.mask).logits
            torch.testing.assert_close(output, logits[batch.group], atol=1e-5, rtol=0)


def test_aligned_steps_stay_aligned_in_length_buckets():
    """MAG needs as many steps in all modalities; the real ones may differ."""
    steps, generator = torch.arange(6), torch.Generator().manual_seed(0)
    real = {"text": 1 + torch.arange(12) % 3, "audio": 1 + torch.arange(12) % 5}
    mask = {name: steps < length.unsqueeze(1) for name, length in real.items()}
    features = {n: torch.randn(12, 6, d, generator=generator) * mask[n].unsqueeze(2) for n, d in DIMS.items()}
    part = Batch(features, mask, torch.arange(12) % CLASSES)
    lengths = set()
    for batch in mini_batches(part, 4, torch.Generator().manual_seed(0), length_buckets=True):
        longest = max(int(real.sum(1).max()) for real in batch.mask.values())
        assert [x.shape[1] for x in batch.features.values()] == [longest, longest]
        lengths.add(longest)
    assert min(lengths) < 5, "padding is still cut off"
    data = MultimodalData("made", part, part, part, ("a", "b", "c"), "", "", "")
    model = Classifier(Identity(DIMS), MAG(DIMS, CLASSES, "text", width=8, num_layers=1))
    assert len(fit(model, data, epochs=1, batch_size=4, length_buckets=True).train_loss) == 1


def test_trim_by_hand():
    batch = trim(ragged(4, 0), {"text": 2, "audio": 3})
    assert batch.features["text"].shape == (4, 2, 5) and batch.mask["audio"].shape == (4, 3)
    assert torch.equal(batch.features["audio"], ragged(4, 0).features["audio"][:, :3])
    assert batch.corrupted is None


def test_steps_that_a_corruption_cuts_off_are_padding_and_hold_zeros():
    features = {name: torch.ones(4, STEPS[name], d) for name, d in DIMS.items()}
    mask = {name: torch.ones(4, STEPS[name], dtype=torch.bool) for name in DIMS}
    whole = Batch(features, mask, torch.zeros(4, dtype=torch.int64)).noting_padding()
    cut = {name: torch.arange(STEPS[name]).expand(4, -1) < 5 for name in DIMS}
    same = corrupted(lambda batch, _: replace(batch, features=features), torch.Generator(), whole)
    shorter = corrupted(lambda batch, _: replace(batch, mask=cut), torch.Generator(), whole)
    assert same.model_mask is None and shorter.model_mask is cut
    for name, x in shorter.features.items():
        assert torch.equal(x, cut[name].unsqueeze(2).expand_as(x).float())


def test_trimmed_samples_keep_the_marks_that_are_known():
    part = ragged(4, 0)
    marks = {"text": part.mask["text"].unsqueeze(2), "audio": torch.tensor([1, 0, 1, 0]).bool().view(4, 1, 1)}
    batch = trim(replace(part, corrupted=marks), {"text": 2, "audio": 3})
    assert torch.equal(batch.corrupted["text"], marks["text"][:, :2])
    assert torch.equal(batch.corrupted["audio"], marks["audio"])


@pytest.mark.parametrize("length_buckets", [False, True])
def test_samples_known_to_be_corrupted_train_the_value_with_and_without_buckets(length_buckets):
    data = load("synthetic", samples=40, steps=4)
    assert data.train.corrupted is not None
    model = Classifier(VGMR(data.dims, 4), PooledBackbone(data.dims, len(data.classes), 8))
    objective = Objective(target="corruption")
    fit(model, data, epochs=1, objective=objective, length_buckets=length_buckets, batch_size=np.int64(8))


# predict


@pytest.mark.parametrize("training", [True, False])
def test_predict_keeps_the_training_flag_and_evaluates(training):
    model, part = pooled().train(training), ragged(20, 0)
    logits = predict(model, part)
    assert model.training is training and all(module.training is training for module in model.modules())
    assert torch.equal(predict(model, part), logits), "no dropout"
    assert logits.shape == (20, CLASSES) and not logits.requires_grad


def test_predict_in_pieces_is_predict_at_once():
    model, part = pooled(), ragged(20, 0)
    torch.testing.assert_close(predict(model, part, batch_size=7), predict(model, part))
    model.eval()
    kept = model(part.features, part.mask, ["text"]).logits
    torch.testing.assert_close(predict(model, part, ["text"]), kept.detach())


# Byte dropout


def dropped(layer: nn.Module, size: int = 8 * 40_000) -> torch.Tensor:
    torch.manual_seed(0)
    return (layer.train()(torch.ones(size)) == 0).float()


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_byte_dropout_drops_alike_at_every_byte_of_the_word(p):
    """40,000 draws per position; the rate is p rounded to 1/256."""
    rates = dropped(ByteDropout(p)).view(-1, 8).mean(0)
    rate = round(256 * p) / 256
    assert (rates - rate).abs().max() < 5 * (rate * (1 - rate) / 40_000) ** 0.5


def test_words_without_a_sign_would_not():
    """Why the bounds are given: without them the highest byte of each word is never above 127."""
    torch.manual_seed(0)
    octets = torch.empty(40_000, dtype=torch.int64).random_().view(torch.uint8).view(-1, 8)
    rates = (octets < 26).float().mean(0)
    assert (rates - 26 / 256).abs().topk(2).values[0] > 0.09, "twice the rate"
    assert int(((rates - 26 / 256).abs() > 0.01).sum()) == 1, "in one of eight positions"
    torch.manual_seed(0)
    octets = torch.empty(40_000, dtype=torch.int64).random_(-(2**63), None).view(torch.uint8).view(-1, 8)
    assert ((octets < 26).float().mean(0) - 26 / 256).abs().max() < 0.01


def test_byte_dropout_keeps_the_mean_and_drops_independently():
    torch.manual_seed(0)
    x = ByteDropout(0.3).train()(torch.ones(400_000))
    assert float(x.mean()) == pytest.approx(1, abs=0.006)
    assert x.unique().tolist() == pytest.approx([0, 256 / 179])
    gone = dropped(ByteDropout(0.3))
    both = (gone[1:] * gone[:-1]).mean()
    assert float(both) == pytest.approx((77 / 256) ** 2, abs=0.004), "neighbours are independent"


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (3, 5, 7), (0, 4)])
def test_byte_dropout_takes_any_shape(shape):
    x = torch.rand(shape)
    y = ByteDropout(0.5).train()(x)
    assert y.shape == x.shape and bool(((y == 0) | (y == 2 * x)).all())


def test_byte_dropout_is_the_identity_in_evaluation_and_at_zero():
    x = torch.rand(50)
    assert torch.equal(ByteDropout(0.5).eval()(x), x)
    assert torch.equal(ByteDropout(0.0).train()(x), x)


def test_byte_dropout_drops_everything_at_one_as_torch_does():
    x = torch.ones(100_000, requires_grad=True)
    y = ByteDropout(1.0).train()(x)
    y.sum().backward()
    assert not y.any() and not x.grad.any()


def test_byte_dropout_near_one_keeps_one_in_256():
    assert float(dropped(ByteDropout(0.999)).mean()) == pytest.approx(255 / 256, abs=1e-3)


def test_gradient_of_byte_dropout():
    x = torch.rand(400, requires_grad=True)
    torch.manual_seed(1)
    y = ByteDropout(0.25).train()(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y != 0).float() * 256 / 192)


def test_use_byte_dropout_replaces_all():
    model = transformer()
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    logits = predict(model, ragged(10, 0))
    use_byte_dropout(model)
    kinds = [type(module) for module in model.modules()]
    assert nn.Dropout not in kinds and kinds.count(ByteDropout) == len(rates) > 3
    assert [module.p for module in model.modules() if isinstance(module, ByteDropout)] == rates
    attention = [module.dropout for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    assert attention == [0.0, 0.0]
    torch.testing.assert_close(predict(model, ragged(10, 0)), logits)
    history = fit(model, made(), epochs=2)
    assert history.train_loss[1] < history.train_loss[0]
