"""What cannot be meant is refused in one line before anything is trained, and nothing sound is."""

import inspect
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vgmr import VGMR, Backbone, Classifier, Experiment, Objective, PooledBackbone, compare, fit, load, predict
from vgmr.balancing import make_method
from vgmr.experiment import build, train
from vgmr.loop.refusals import reads_padding, unheeded
from vgmr.prefusion import FeatureMLP, Identity
from vgmr.refining.maps import masked_mean
from vgmr.systems import BACKBONES


@pytest.fixture(scope="module")
def data():
    return load("synthetic", samples=60, steps=3)


def model_for(data, backbone: Backbone | None = None) -> Classifier:
    backbone = PooledBackbone(data.dims, len(data.classes), width=4) if backbone is None else backbone
    return Classifier(VGMR(data.dims, latent_dim=4), backbone)


class Own(Backbone):
    """A sum of encodings: of all that come, or of those in `keep`."""

    def __init__(self, dims: dict[str, int], num_outputs: int, heeds: bool):
        super().__init__(dims, num_outputs, width=4)
        self.heeds = heeds
        self.layer = nn.ModuleDict({name: nn.Linear(dim, 4) for name, dim in dims.items()})
        self.out = nn.Linear(4, num_outputs)

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.layer[name](x.mean(1))

    def fuse(self, encodings, keep=None, mask=None) -> Tensor:
        names = self.present(keep) if self.heeds else list(encodings)
        return self.out(sum(encodings[name] for name in names))


class Loose(Own):
    """Takes whatever comes."""

    def fuse(self, *given, **named) -> Tensor:
        return super().fuse(*given, **named)


class Short(Own):
    def fuse(self, encodings) -> Tensor:
        return self.out(sum(encodings.values()))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", True),
        ("batch_size", 0),
        ("batch_size", -3),
        ("batch_size", 8.0),
        ("patience", 0),
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("learning_rate", "0.1"),
        ("prefusion_learning_rate", float("inf")),
        ("weight_decay", -0.1),
        ("seed", "a"),
        ("optimizer", "Adam"),
    ],
)
def test_a_setting_out_of_its_range_is_named(data, setting, value):
    with pytest.raises(ValueError, match=f"{setting}.*{value}") as refusal:
        fit(model_for(data), data, **{"epochs": 1, setting: value})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("setting", "value", "hint"),
    [
        ("method", "ogm-ge", "make_method"),
        ("objective", "task", "can be called"),
        ("corruption", "noise", "can be called"),
    ],
)
def test_a_name_in_place_of_an_object_is_refused(data, setting, value, hint):
    with pytest.raises(TypeError, match=f"{setting}: expected .*{hint}.*got str"):
        fit(model_for(data), data, epochs=1, **{setting: value})


def test_a_part_in_place_of_a_data_set_and_a_data_set_in_place_of_a_part(data):
    with pytest.raises(TypeError, match=r"expected MultimodalData, .* got Batch"):
        fit(model_for(data), data.train, epochs=1)
    with pytest.raises(TypeError, match=r"such as data.test, got MultimodalData"):
        predict(model_for(data), data)
    with pytest.raises(TypeError, match=r"expected a Classifier.*got PooledBackbone"):
        fit(model_for(data).backbone, data, epochs=1)
    with pytest.raises(TypeError, match=r"by the label of their variant.*got list"):
        compare([1, 2], "plain")


def test_the_two_parts_of_a_classifier_are_not_exchanged(data):
    backbone, refiner = PooledBackbone(data.dims, 2), VGMR(data.dims)
    with pytest.raises(TypeError, match="pre-fusion module, which has dims, got PooledBackbone"):
        Classifier(backbone, refiner)
    with pytest.raises(TypeError, match="pre-fusion module, which has dims, got Linear"):
        Classifier(nn.Linear(3, 3), backbone)
    with pytest.raises(TypeError, match=r"subclass of vgmr.Backbone, got VGMR"):
        Classifier(refiner, refiner)
    with pytest.raises(TypeError, match=r"Short: expected fuse\(encodings, keep=None, mask=None\), got"):
        Classifier(refiner, Short(data.dims, 2, heeds=True))


def test_a_backbone_that_does_not_heed_keep_is_refused_and_one_that_does_is_not(data):
    deaf, heedful = (model_for(data, Own(data.dims, len(data.classes), heeds)) for heeds in (False, True))
    assert unheeded(deaf, data.train) == list(data.dims)
    with pytest.raises(ValueError, match=r"Own.fuse changes its answer with the encoding of 'text'"):
        fit(deaf, data, epochs=1)
    assert unheeded(heedful, data.train) == []
    loose = model_for(data, Loose(data.dims, len(data.classes), heeds=True))
    assert len(fit(loose, data, epochs=1).train_loss) == 1
    assert len(fit(heedful, data, epochs=1).train_loss) == 1


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_of_the_package_heeds_keep_and_no_chance_is_drawn(data, backbone):
    model = build(Experiment("synthetic", backbone=backbone), data).train()
    before = torch.get_rng_state()
    assert unheeded(model, data.train) == []
    assert torch.equal(torch.get_rng_state(), before)
    assert all(part.training for part in model.modules())


class Narrow(Own):
    def fuse(self, encodings, keep=None, mask=None) -> Tensor:
        return super().fuse(encodings, keep, mask)[:, 1:]


class Flat(Own):
    def fuse(self, encodings, keep=None, mask=None) -> Tensor:
        return super().fuse(encodings, keep, mask)[:, 0]


class Absent(Own):
    def fuse(self, encodings, keep=None, mask=None):
        return None


class Uneven(Own):
    """Widths that differ, and a sum of them."""

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        return super().encode_one(name, x, mask)[:, : 3 if name == "text" else 4]

    def fuse(self, encodings, keep=None, mask=None) -> Tensor:
        return self.out(torch.stack([encodings[name] for name in self.present(keep)]).sum(0))


class Joined(Own):
    """A layer for all modalities at once."""

    def __init__(self, dims: dict[str, int], num_outputs: int, heeds: bool):
        super().__init__(dims, num_outputs, heeds)
        self.out = nn.Linear(4 * len(dims), num_outputs)

    def fuse(self, encodings, keep=None, mask=None) -> Tensor:
        return self.out(torch.cat([encodings[name] for name in self.present(keep)], 1))


class Crossed(Own):
    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.layer[name](x.mean(2))


class Broken(Own):
    def fuse(self, encodings, keep=None, mask=None) -> Tensor:
        raise RuntimeError("of another kind")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Narrow, r"^Narrow.fuse: expected logits of shape \(B, num_outputs\), here \(4, 2\), got \(4, 1\); give"),
        (Flat, r"^Flat.fuse: expected logits of shape .* got \(4,\); give a row for each sample and a column"),
        (Absent, r"^Absent.fuse: expected logits .* got NoneType; "),
        (Uneven, r"^Uneven.fuse fails on \{.*'text': \(4, 3\).*: stack expects .*; expected encodings \(B, 4\)"),
        (
            Joined,
            r"^Joined.fuse with keep=\[.*\] fails on .*shapes cannot be multiplied.*\(4, 2\) of them for any",
        ),
        (Crossed, r"^Crossed.encode fails on .*; expected encode_one from \(B, T, d\) to \(B, 4\) or a sequence"),
    ],
)
def test_shapes_that_cannot_be_trained_are_told_in_one_line(data, kind, said):
    with pytest.raises(ValueError, match=said) as refusal:
        fit(model_for(data, kind(data.dims, len(data.classes), heeds=True)), data, epochs=1)
    assert "\n" not in str(refusal.value)


def test_scores_are_a_column_and_other_errors_stay_as_they_are(data):
    scored = load("synthetic", samples=60, steps=3, labels="regression")
    settings = {"epochs": 1, "objective": Objective(task="regression")}
    with pytest.raises(ValueError, match=r"^Flat.fuse: .*here \(4, 1\), got \(4,\); .*\(B, 1\) for a score$"):
        fit(model_for(scored, Flat(scored.dims, 1, heeds=True)), scored, **settings)
    assert len(fit(model_for(scored, Own(scored.dims, 1, heeds=True)), scored, **settings).train_loss) == 1
    with pytest.raises(RuntimeError, match=r"^of another kind$"):
        fit(model_for(data, Broken(data.dims, len(data.classes), heeds=True)), data, epochs=1)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_of_the_package_has_sound_shapes_and_no_chance_is_drawn(data, backbone, classes):
    model = build(Experiment("synthetic", backbone=backbone), replace(data, classes=("x",) * classes)).train()
    before = torch.get_rng_state()
    assert unheeded(model, data.train) == []
    assert torch.equal(torch.get_rng_state(), before)
    assert all(part.training for part in model.modules())


class Heedful(Own):
    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.layer[name](masked_mean(x, mask))


class Fixed(Own):
    """Reads all steps at once, so many and no other number."""

    failure: type[Exception] | None = None

    def encode_one(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.failure and x.shape[1] != 3:
            raise self.failure
        return self.layer[name](x.transpose(1, 2) @ torch.ones(3))


def test_an_encoder_that_reads_padding_is_warned_of_where_there_is_some(data):
    padded = load("synthetic", like="ave", samples=60, steps=3, padding=0.5)
    own, heedful, fixed = (
        model_for(padded, kind(padded.dims, len(padded.classes), heeds=True)) for kind in (Own, Heedful, Fixed)
    )
    with pytest.warns(UserWarning, match="^Own answers otherwise where padding is cut off.*heed mask") as found:
        assert len(fit(own, padded, epochs=1).train_loss) == 1
    assert len(found) == 1 and found[0].filename == __file__
    for fixed.backbone.failure in (AssertionError, KeyError, TypeError, None):
        assert not reads_padding(fixed, padded.train)
    whole = model_for(data, Own(data.dims, len(data.classes), heeds=True))
    for model, part in ((heedful, padded), (fixed, padded), (whole, data), (model_for(padded), padded)):
        assert not reads_padding(model.train(), part.train)
        assert all(module.training for module in model.modules())


def test_the_objective_is_for_the_labels(data):
    with pytest.raises(ValueError, match=r"labels for classification.*Objective\(task='classification'\)"):
        fit(model_for(data), data, epochs=1, objective=Objective(task="regression"))
    scores = replace(
        data,
        classes=(),
        **{name: replace(part, label=part.label.float()) for name, part in data.parts.items()},
    )
    regressor = Classifier(VGMR(data.dims, 4), PooledBackbone(data.dims, 1, width=4))
    with pytest.raises(ValueError, match=r"Objective\(task='regression'\)"):
        fit(regressor, scores, epochs=1)


@pytest.mark.parametrize("what", ["value_weight", "regulariser_weight", "minimum_deviation", "warmup_epochs"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_of_the_objective_are_not_negative(what, value):
    with pytest.raises(ValueError, match=f"{what} must be a number of at least 0"):
        Objective(**{what: value})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"value_weight": -1}, "value_weight must be"),
        ({"temperature": 0}, "temperature must be"),
        ({"warmup_epochs": -1}, "warmup_epochs must be"),
        ({"removal": "between"}, "removal must be"),
        ({"dropout": 2.0}, "dropout must lie in 0 to 1"),
        ({"amplification": -1.0}, "amplification must lie"),
        ({"retention": 2.0}, "retention must lie"),
        ({"rank": -1}, "rank"),
        ({"sparsity": 1.0}, "sparsity must lie"),
        ({"value_from": "nothing"}, "value_from must be"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": ["cpu"]}, r"device must be text, got \['cpu'\]"),
        ({"learning_rate": "0.1"}, "learning_rate must be"),
        ({"training_noise": {"strength": 1}}, "training_noise: .*strength"),
        ({"training_noise": {"share": 2.0}}, "training_noise: share must lie in 0 to 1"),
        ({"training_corruption": {"kinds": ["nois"]}}, "training_corruption: kinds must be some of"),
        ({"training_corruption": {"share": "half"}}, "training_corruption: "),
    ],
)
def test_an_experiment_that_cannot_be_trained_is_refused_when_it_is_made(options, said):
    with pytest.raises(ValueError, match=said) as refusal:
        Experiment("synthetic", **options)
    assert "\n" not in str(refusal.value)


def test_sound_experiments_are_made_and_draw_no_chance():
    before = torch.get_rng_state()
    for options in (
        {"learning_rate": 0.0, "prefusion_learning_rate": 0.0, "weight_decay": 0},
        {"training_noise": {"share": 0.3, "modalities": ["text"]}, "device": "cuda:0"},
        {"training_corruption": {"kinds": ("noise", "missing"), "share": 0.5, "modalities": ("audio",)}},
        {"value_from": "both", "form": "paper", "value_target": "out-of-fold"},
        {"rank": 0, "norm": "none", "form": "paper"},
    ):
        Experiment("synthetic", **options)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_modules_in_front_and_methods_pass(data):
    model = Classifier(FeatureMLP(data.dims, 3), PooledBackbone(data.dims, len(data.classes), width=4))
    assert len(fit(model, data, epochs=1, method=make_method("ogm-ge")).train_loss) == 1


@pytest.mark.parametrize("seed", [True, 2**64, 1.0])
def test_a_seed_is_a_whole_number_that_generators_take(data, seed):
    with pytest.raises(ValueError, match=r"seed must be a whole number below 2\*\*63"):
        fit(model_for(data), data, epochs=1, seed=seed)
    with pytest.raises(ValueError, match=r"seed must be .*, got"):
        Experiment("synthetic", seed=seed)


def test_a_seed_of_numpy_is_a_seed(data):
    losses = []
    for seed in (np.int64(3), 3):
        torch.manual_seed(0)
        losses.append(fit(model_for(data), data, epochs=1, seed=seed).train_loss)
    assert losses[0] == losses[1]


def test_nothing_to_learn_with_is_said(data):
    with pytest.raises(ValueError, match=r"outside torch.no_grad\(\)"), torch.no_grad():
        fit(model_for(data), data, epochs=1)
    with pytest.raises(ValueError, match="no parameter of the model can learn"):
        fit(model_for(data).requires_grad_(False), data, epochs=1)
    nothing = torch.arange(0)
    for part in ("train", "validation"):
        with pytest.raises(ValueError, match=f"{part}: the part has no samples"):
            fit(model_for(data), replace(data, **{part: data.parts[part].index(nothing)}), epochs=1)
    with pytest.raises(ValueError, match="expected samples and a batch_size of at least 1, got 0 and 256"):
        predict(model_for(data), data.test.index(nothing))
    with pytest.raises(ValueError, match=r"of at least 1, got \d+ and 0"):
        predict(model_for(data), data.test, batch_size=0)


def test_scores_are_one_output():
    scored = load("synthetic", samples=60, steps=3, labels="regression")
    model = model_for(scored, PooledBackbone(scored.dims, len(scored.train), width=4))
    with pytest.raises(ValueError, match=r"has scores, and the model has \d+ outputs; .*num_outputs=1"):
        fit(model, scored, epochs=1, batch_size=len(scored.train), objective=Objective(task="regression"))


def test_a_plus_joins_names_and_is_in_none():
    with pytest.raises(ValueError, match="without a dot or a plus, got 'a\\+b'"):
        VGMR({"a": 2, "b": 2, "a+b": 2})


def test_values_from_outside_have_one_number_for_each_sample_and_modality():
    vgmr, features = VGMR({"a": 2, "b": 3}), {"a": torch.zeros(4, 1, 2), "b": torch.zeros(4, 1, 3)}
    half = torch.full((4,), 0.5)
    assert torch.equal(vgmr(features, value={"a": half, "b": half}).global_value["a"], half)
    for value, said in (
        ({"a": half}, r"for each of \['a', 'b'\], got \['a'\]"),
        (0.5, "got float"),
        ({"a": half, "b": half[:, None]}, r"\(4,\) for 'b', got torch.float32 \(4, 1\)"),
        ({"a": half, "b": 0.5}, "for 'b', got float"),
    ):
        with pytest.raises(ValueError, match=said):
            vgmr(features, value=value)


@pytest.mark.parametrize(
    "x", [torch.tensor(1.0), torch.zeros(4, 1, 2).to_sparse()], ids=["a number", "a sparse tensor"]
)
def test_features_are_dense_and_have_axes(x):
    with pytest.raises(ValueError, match=r"a: expected a dense tensor \(B, T, 2\)"):
        VGMR({"a": 2, "b": 3})({"a": x, "b": torch.zeros(4, 1, 3)})


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ([0, 1, 0, 1], "got list; torch.as_tensor"),
        (np.zeros(4, int), "got ndarray; torch.as_tensor"),
        (torch.zeros(4, dtype=torch.int32), r"got torch.int32; label\.long\(\)"),
        (torch.zeros(4, dtype=torch.bool), "got torch.bool"),
        (torch.zeros(4, dtype=torch.float16), "got torch.float16"),
        (torch.tensor([0, 1, 2, 3]), "classes 0 to 1, got 0 to 3; num_classes of VGMR is 2"),
        (torch.zeros(3, dtype=torch.int64), r"N = 4 .*got \(3,\)"),
        (torch.zeros(4, 1), r"got \(4, 1\)"),
        (torch.tensor([0.0, torch.nan, 1.0, 2.0]), "finite"),
    ],
)
def test_labels_that_anchors_cannot_be_fitted_to_are_refused(label, said):
    vgmr = VGMR.calibrated({"a": 2, "b": 3}, 2)
    with pytest.raises(ValueError, match=said) as refusal:
        vgmr.prepare({"a": torch.randn(4, 1, 2), "b": torch.randn(4, 1, 3)}, None, label)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "setting", ["amplification", "retention", "dropout", "sparsity", "temperature", "value_weight"]
)
def test_a_word_for_a_number_is_refused(setting):
    with pytest.raises(ValueError, match=f"{setting} must .*'x'"):
        Experiment("synthetic", **{setting: "x"})


def test_a_switch_that_is_given_stays_in_every_form():
    for value in (0.25, 0.5, 1.0):
        assert Experiment("synthetic", amplification=value).amplification == value
    one = Experiment("synthetic", norm="layer", retention=0.2)
    assert (one.norm, one.retention, one.amplification, one.value_from) == ("layer", 0.2, 1.0, "anchors")
    paper = Experiment("synthetic", form="paper")
    assert (paper.norm, paper.retention, paper.amplification, paper.value_from) == ("layer", 0.2, 0.5, "summaries")
    assert replace(one, seed=1) == Experiment("synthetic", norm="layer", retention=0.2, seed=1)
    assert replace(paper, form="calibrated") == Experiment("synthetic")


def test_runs_of_scores_are_not_compared_as_classes():
    options = {"data_options": {"samples": 60, "steps": 3, "labels": "regression"}, "epochs": 1}
    runs = {
        label: [train(Experiment("synthetic", prefusion, seed=seed, **options)) for seed in (0, 1)]
        for label, prefusion in (("plain", "none"), ("VGMR", "vgmr"))
    }
    for metric in ("accuracy", "macro_f1"):
        with pytest.raises(ValueError, match=f"scores, no classes: metric must be mae or pearson, got '{metric}'"):
            compare(runs, "plain", metric)
    assert compare(runs, "plain", "mae")["difference"].notna().any()
    with pytest.raises(TypeError, match="the runs of each variant as a list, got Run"):
        compare({"plain": runs["plain"][0], "VGMR": runs["VGMR"][0]}, "plain")
    with pytest.raises(ValueError, match=r"at least two seeds of each variant, got \[0\]"):
        compare({label: each[:1] for label, each in runs.items()}, "plain", "mae")
    with pytest.raises(ValueError, match="at least one run of each variant"):
        compare({"plain": [], "VGMR": []}, "plain")


@pytest.mark.parametrize("name", [n for n, b in BACKBONES.items() if "width" in inspect.signature(b).parameters])
@pytest.mark.parametrize("width", [0, -1, 2.5, "8"])
def test_no_backbone_has_a_width_that_is_no_size(data, name, width):
    with pytest.raises(ValueError, match=f"width.*{width}"):
        BACKBONES[name](data.dims, 2, width=width)


SIZES = [
    (name, option.name)
    for name, kind in BACKBONES.items()
    for option in inspect.signature(kind).parameters.values()
    if type(option.default) is int
]


@pytest.mark.parametrize(("name", "option"), SIZES)
@pytest.mark.parametrize("size", [0, -1, 2.5, True, "8", None])
def test_no_backbone_has_a_size_that_is_none(name, option, size):
    with pytest.raises(ValueError, match=f"{option} must be") as refusal:
        BACKBONES[name]({"text": 4, "audio": 4, "vision": 4}, 2, **{option: size})
    assert repr(size) in str(refusal.value) and "\n" not in str(refusal.value)


def test_heads_share_the_width():
    with pytest.raises(ValueError, match="divisible by num_heads, got 10 and 4"):
        BACKBONES["transformer"]({"a": 2, "b": 3}, 2, width=10, num_heads=4)


def test_several_names_are_no_text(data):
    model = Classifier(VGMR({"a": 2, "b": 3}), PooledBackbone({"a": 2, "b": 3}, 2, width=4)).eval()
    with pytest.raises(ValueError, match=r"keep: expected several names, such as \['ab'\]"):
        model({"a": torch.zeros(2, 1, 2), "b": torch.zeros(2, 1, 3)}, keep="ab")


def test_a_class_in_place_of_an_objective_is_refused(data):
    with pytest.raises(TypeError, match="objective: expected an object that can be called, got type"):
        fit(model_for(data), data, epochs=1, objective=Objective)


@pytest.mark.parametrize("prefusion", [Identity, VGMR])
def test_data_that_do_not_fit_the_model_are_one_line_of_fit(prefusion):
    whole = load("synthetic", samples=40)
    dims = whole.train.dims
    first = next(iter(dims))
    classes = len(whole.classes)
    for named, change, words in (
        (dims, lambda model: model.double(), "expected torch.float64 features"),
        ({**dims, "other": 3}, lambda model: model, "missing: other"),
        ({**dims, first: dims[first] + 1}, lambda model: model, f"{first}: expected features of shape"),
    ):
        model = change(Classifier(prefusion(named), PooledBackbone(named, classes)))
        with pytest.raises(ValueError, match=words):
            fit(model, whole, epochs=1)


def test_the_backbone_is_tried_on_what_the_pre_fusion_module_gives(data):
    class Last(Identity):
        def forward(self, features, mask=None, **settings):
            refined = super().forward(features, mask, **settings)
            return refined._replace(features={name: x[:, -1:] for name, x in refined.features.items()})

    class OneStep(Own):
        def encode_one(self, name, x, mask):
            return self.layer[name](x.squeeze(1))

    backbone = OneStep(data.dims, len(data.classes), heeds=True)
    assert len(fit(Classifier(Last(data.dims), backbone), data, epochs=1).train_loss) == 1


@pytest.mark.parametrize("temperature", ["1", None, float("nan"), 0])
def test_a_temperature_is_a_positive_number(temperature):
    with pytest.raises(ValueError, match=r"temperature must be positive and finite, got"):
        Objective(temperature=temperature)


def test_folds_of_classes_are_no_target_of_a_regression():
    options = {"form": "paper", "value_from": "both", "value_target": "out-of-fold", "epochs": 1}
    scored = {"labels": "regression", "samples": 40, "steps": 2}
    with pytest.raises(ValueError, match='"out-of-fold" is of classes'):
        train(Experiment("synthetic", data_options=scored, **options))


def test_the_confidence_gate_is_no_choice_for_a_regression():
    with pytest.raises(ValueError, match="'confidence' names classes; choose another one for a regression"):
        train(
            Experiment("synthetic", "confidence", data_options={"labels": "regression", "samples": 40, "steps": 2})
        )


def test_a_checkpoint_that_cannot_be_called_is_refused_before_the_work():
    data = load("synthetic", samples=20, steps=2)
    model = Classifier(Identity(data.dims), PooledBackbone(data.dims, len(data.classes)))
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(TypeError, match="checkpoint: expected an object that can be called, got int"):
        fit(model, data, epochs=1, checkpoint=3)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_settings_are_no_runs():
    with pytest.raises(TypeError, match=r"expected runs, as vgmr.run gives them, got Experiment; .*differences"):
        compare({name: [Experiment("digits", "none")] for name in ("plain", "VGMR")}, "plain")


@pytest.mark.parametrize(
    "odd", [torch.rand(9, 9), np.zeros((30, 3)), torch.optim.SGD([torch.zeros(1)]), "x" * 500]
)
def test_whatever_comes_is_told_in_one_short_line(data, odd):
    made = model_for(data)
    settings = ("epochs", "batch_size", "patience", "seed", "learning_rate", "optimizer")
    calls = [partial(fit, made, data, **{setting: odd}) for setting in settings]
    calls += [
        partial(VGMR, {"a": odd, "b": 1}),
        partial(VGMR, data.dims, latent_dim=odd),
        partial(VGMR, data.dims, dropout=odd),
    ]
    calls += [partial(Objective, temperature=odd), partial(Objective, value_weight=odd)]
    for call in calls:
        with pytest.raises(ValueError) as refusal:
            call()
        said = str(refusal.value)
        assert "\n" not in said and len(said) < 250, said


class Failing(Own):
    """Answers no number."""

    def fuse(self, encodings, keep=None, mask=None) -> Tensor:
        return super().fuse(encodings, keep, mask) * torch.nan


def test_an_answer_that_is_no_number_is_said():
    padded = load("synthetic", like="ave", samples=60, steps=3, padding=0.5)
    with pytest.raises(FloatingPointError, match="no longer finite in epoch 0"):
        fit(model_for(padded, Failing(padded.dims, len(padded.classes), heeds=True)), padded, epochs=1)
