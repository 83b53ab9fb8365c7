"""The measurement of cost: what is counted is asserted, what is timed only has to be there."""

import json

import pytest
import torch

from vgmr.analysis import cost as bench
from vgmr.data import load
from vgmr.experiment import build
from vgmr.inference import predict, subset_logits
from vgmr.prefusion import count_parameters
from vgmr.refiner import VGMR
from vgmr.settings import Experiment

SMALL = {"backbone_options": {"width": 8, "num_layers": 1, "num_heads": 2, "feedforward_dim": 8}, "latent_dim": 4}


@pytest.fixture(scope="module")
def data():
    return load("synthetic", like="mosei", samples=8)


@pytest.fixture(scope="module")
def result():
    """All that is counted, at the real size, for the plain model and VGMR; every time is one second."""

    def one_second(models, *_):
        names = [f"{what} {variant}" for what in ("fit", "infer") for variant in models]
        names += ["infer vgmr folded", "bare vgmr", "loop vgmr", "contributions", "evaluation", "removal"]
        names.append("fit none again")
        return {name: [1.0] for name in names}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "_measure", one_second)
        return bench.bench(rounds=1, steps=1, progress=False, variants=("none", "vgmr"))


def test_keys(result):
    shares = {"loop_overhead", "contribution_share", "removal_share", "itself"}
    assert set(result) == {"device", "setting", "rows"} | shares
    assert result["device"] == "CPU, 1 thread"
    assert [row["variant"] for row in result["rows"]] == ["none", "vgmr", "vgmr folded"]
    always = {"variant", "parameters", "extra_parameters", "flops", "inference_ratio", "inference_flop_ratio"}
    always |= {"extra_parameters_paper", "inference_ratio_paper", "inference_seconds_per_batch"}
    trained = {"training_flops", "training_ratio", "training_flop_ratio", "training_ratio_paper"}
    trained |= {"training_seconds_per_epoch", "low", "high"}
    for row in result["rows"]:
        assert set(row) == (always if row["variant"] == "vgmr folded" else always | trained)
    assert json.loads(json.dumps(result)) == result


def test_flops_of_the_plain_model_by_hand(result):
    """A pass multiplies 32 x 50 tokens of three modalities by each map of each layer: 6.02 GFLOP.

    The products of attention, two of 50 x 50 x 128 per sample, layer and modality, would be 0.37 more; in training
    they count, and forward and backward together are 18.8.
    """
    tokens = 32 * 50
    maps = 2 * tokens * (128 * (768 + 74 + 35) + 3 * 3 * 128 * (3 * 128 + 128 + 2 * 512))
    attention = 2 * 32 * 3 * 3 * 2 * 50 * 50 * 128
    assert maps == pytest.approx(6.02e9, rel=0.01) and attention == pytest.approx(0.37e9, rel=0.01)
    plain = result["rows"][0]
    assert maps <= plain["flops"] <= 1.001 * (maps + attention)
    assert plain["training_flops"] == pytest.approx(18.81e9, rel=0.01)


def test_flop_ratios_of_vgmr(result):
    """1.3 in training, factorised; literally, with a pass per modality left out, it would be 2.4."""
    plain, refined, folded = result["rows"]
    assert plain["training_flop_ratio"] == plain["inference_flop_ratio"] == 1
    assert 1.30 < refined["training_flop_ratio"] < 1.36
    assert 1.36 < folded["inference_flop_ratio"] < refined["inference_flop_ratio"] < 1.46


def test_parameters_are_those_of_the_paper(result):
    """0.72 M plain, 2.32 M more for VGMR (Table 7)."""
    plain, refined, _ = result["rows"]
    assert plain["parameters"] == 714_882 and plain["extra_parameters"] == 0
    assert refined["extra_parameters"] == pytest.approx(refined["extra_parameters_paper"], rel=0.01)
    assert refined["extra_parameters_paper"] == 2.32e6


def test_ratios_of_the_paper(result):
    """Table 7: 10.01 against 4.26 s per epoch, 3.87 against 1.17 ms per batch."""
    refined = result["rows"][1]
    assert refined["training_ratio_paper"] == pytest.approx(2.35, abs=0.005)
    assert refined["inference_ratio_paper"] == pytest.approx(3.31, abs=0.005)


def test_every_rival_gets_the_budget_of_vgmr(data):
    sizes = {
        variant: count_parameters(
            build(Experiment("synthetic", variant, "transformer", latent_dim=164), data).prefusion
        )
        for variant in bench.VARIANTS
    }
    assert sizes.pop("none") == 0
    for variant, size in sizes.items():
        assert size == pytest.approx(sizes["vgmr"], rel=0.02), variant


def test_every_round_times_everything(data):
    models = {
        name: build(Experiment("synthetic", name, "transformer", **SMALL), data) for name in ("none", "vgmr")
    }
    folded = build(Experiment("synthetic", "vgmr", "transformer", **SMALL), data).eval()
    assert isinstance(folded.prefusion, VGMR)
    folded.prefusion = folded.prefusion.fold()
    batches = [data.train.index(torch.arange(4)), data.train.index(torch.arange(4, 8))]
    times = bench._measure(models, folded, data, batches, 2, "cpu", False)
    expected = {"fit none", "fit vgmr", "infer none", "infer vgmr", "infer vgmr folded", "bare vgmr", "loop vgmr"}
    assert set(times) == expected | {"contributions", "evaluation", "removal", "fit none again"}
    assert all(len(values) == 2 and min(values) >= 0 for values in times.values())


def test_variants_need_what_the_ratios_are_of():
    with pytest.raises(ValueError, match=r'"none" and "vgmr", got \[\'vgmr\'\]'):
        bench.bench(variants=["vgmr"])


def test_the_removal_table_encodes_once(data):
    """Seven subsets after the whole, each of them the head alone; seven more passes would be the other way."""
    model = build(Experiment("synthetic", "vgmr", "transformer", latent_dim=164), data)
    once = bench._flops(lambda: predict(model, data.train))
    everything = bench._flops(lambda: subset_logits(model, data.train))
    head = 2 * len(data.train) * 3 * 128 * len(data.classes)
    assert everything - once == 7 * head
    assert everything < 1.1 * once


def test_counting_computes_nothing_and_is_what_computing_counts(data):
    model = build(Experiment("synthetic", "vgmr", "transformer", **SMALL), data)
    batch = data.train.index(torch.arange(4))
    with torch.no_grad():
        inference = bench._flops(lambda: model.eval()(batch.features, batch.mask))
    training = bench._flops(lambda: bench._backward(model.train(), batch))
    assert bench._counted(model, batch) == (inference, training)


def test_ratios_are_medians_of_rounds():
    """Round by round 2, 3 and 10: the median is 3, whatever the machine did meanwhile."""
    assert bench._ratio([2.0, 6.0, 10.0], [1.0, 2.0, 1.0]) == 3


def test_attention_counts_in_evaluation_too():
    """Fused kernels hide their products from the counter. Two samples, five steps, width 8."""
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.rand(2, 5, 8)
    with torch.no_grad():
        counted = bench._flops(lambda: layer(x))
    assert torch.backends.mha.get_fastpath_enabled(), "set back"
    maps, attention = 2 * 10 * (8 * 24 + 8 * 8 + 2 * 8 * 16), 2 * 2 * 2 * 5 * 5 * 8
    assert counted == maps + attention


def test_bench_keeps_the_number_of_threads(result):
    assert torch.get_num_threads() == 1


def test_table_and_command(result, monkeypatch, capsys, tmp_path):
    assert list(bench.table(result).index) == ["none", "vgmr", "vgmr folded"]
    asked = {}
    monkeypatch.setattr(bench, "bench", lambda rounds, **options: asked.update(rounds=rounds, **options) or result)
    file = tmp_path / "bench.json"
    assert bench.main(["--rounds", "2", "--json", str(file)]) == 0
    assert asked == {"rounds": 2, "device": "cpu"}
    assert json.loads(file.read_text()) == result
    text = capsys.readouterr().out
    assert text.startswith("CPU, 1 thread; batch 32, 50 steps") and "vgmr folded" in text


@pytest.mark.parametrize("way", ["loop", "scale"])
def test_a_device_that_a_measurement_does_not_take_is_refused(way):
    with pytest.raises(ValueError, match=f"--{way} is measured on the CPU alone; leave --device out"):
        bench.main([f"--{way}", "--device", "cuda"])


def test_seeds_in_one_pass_over_seeds_one_by_one(monkeypatch):
    """Work is counted instead of timed: a pass of three seeds, said to cost as much as two of one, is 2/3."""
    clock = [0.0]

    def taking(spent):
        def train(loop, _):
            clock[0] += spent

        return train

    def seconds(work, _):
        before = clock[0]
        work()
        return clock[0] - before

    monkeypatch.setattr(bench.Alone, "train", taking(1.0))
    monkeypatch.setattr(bench.Together, "train", taking(2.0))
    monkeypatch.setattr(bench, "_seconds", seconds)
    result = bench.bench_seeds(3, rounds=2, steps=1, shapes=["uci-mfeat"])
    assert json.loads(json.dumps(result)) == result
    names = [row["model"] for row in result["rows"]]
    assert names == [f"uci-mfeat {b} {p}" for b in ("pooled", "transformer") for p in ("none", "vgmr")]
    for row in result["rows"]:
        assert row["ratio"] == row["low"] == row["high"] == pytest.approx(2 / 3)
        assert row["training_flops"] > 0 and row["in_one_pass"] is False
    assert result["itself"] == 1
    assert list(bench.table(result).columns) == ["seeds", "ms of one step", "ratio", "from", "to", "in one pass"]


def test_models_that_are_said_to_pay():
    """What the measurements say: pooled models on vectors and short sequences, no Transformer on sequences."""
    paying = set()
    for shape, given in bench.SEED_MODELS.items():
        data = bench.made_data(given, 4, 2, 10)
        for backbone in ("pooled", "transformer"):
            model = build(Experiment("synthetic", "vgmr", backbone), data)
            if bench.pays_together(model, data, 10):
                paying.add((shape, backbone))
    assert paying == {("uci-mfeat", "pooled"), ("uci-mfeat", "transformer"), ("utd-mhad", "pooled")}


def test_the_bare_model_of_the_loop_is_the_model_of_fit():
    data = bench.made_data(bench.SEED_MODELS["mosi"], 3, 2, 2)
    model = build(Experiment("synthetic", "none"), data).eval()
    bare = bench._Shallow(bench.SEED_MODELS["mosi"], 2).eval()
    ours, theirs = list(model.parameters()), list(bare.parameters())
    assert [x.shape for x in ours] == [x.shape for x in theirs]
    names = sorted(bench.SEED_MODELS["mosi"])
    assert names != list(bench.SEED_MODELS["mosi"]), "the head joins them by name"
    bare.encoders = torch.nn.ModuleDict({name: bare.encoders[name] for name in names})
    state = dict(
        zip(bare.state_dict(), [v for n in names for v in model.backbone.encoder[n].parameters()], strict=False)
    )
    bare.load_state_dict({**state, **{f"head.{n}": v for n, v in model.backbone.head.linear.named_parameters()}})
    expected = model(data.train.features, data.train.mask).logits
    torch.testing.assert_close(bare(data.train.features), expected)


def test_on_a_gpu_steps_stand_beside_their_graph(monkeypatch, data):
    """The capture itself needs one (tests/test_cuda.py); here a made one, and the clock of both ways."""
    replayed = []

    class Made(bench.Replayed):
        def __call__(self, batch):
            replayed.append(batch)
            return self.step(batch)

    monkeypatch.setattr(bench, "Replayed", Made)
    model = build(Experiment("synthetic", "none"), data)
    before = [x.clone() for x in model.parameters()]
    ways = bench._eager_and_graph("none", model, [data.train] * 3)
    assert list(ways) == ["eager none", "graph none"]
    assert len(replayed) > bench.WARM, "captured before the clock runs"
    del replayed[:]
    for take in ways.values():
        take()
    assert len(replayed) == 3
    assert all(torch.equal(x, y) for x, y in zip(before, model.parameters(), strict=True)), "copies take the steps"
    times = {f"{way} vgmr": [1.0] for way in ("infer", "fit", "graph")} | {"eager vgmr": [4.0]}
    times |= {"fit none": [1.0], "infer none": [1.0], "graph none": [0.5]}
    flops = {"vgmr": (1, 1), "none": (1, 1)}
    row = bench._row("vgmr", {"none": model, "vgmr": model}, flops, times)
    assert row["graph_ratio"] == 0.25 and row["graph_training_ratio"] == 2
    shown = bench.table({"rows": [row]})
    assert shown["as a graph, to one by one"].tolist() == [0.25]
    assert shown["training as a graph"].tolist() == [2]


def test_the_loop_by_the_command(monkeypatch, capsys):
    monkeypatch.setattr(bench, "_seconds", lambda work, _: (work(), 1.0)[1])
    monkeypatch.setattr(bench, "fit", lambda *_, epochs: None)
    result = bench.bench_loop(1, train=64, validation=4)
    assert [row["loop"] for row in result["rows"]] == ["bare steps", "fit"]
    assert result["rows"][0]["milliseconds_per_sample"] == pytest.approx(1e3 / 64)
    asked = {}
    for name in ("bench_loop", "bench_seeds"):
        monkeypatch.setattr(bench, name, lambda _name=name, **given: asked.update({_name: given}) or result)
    assert bench.main(["--loop"]) == bench.main(["--seeds", "10", "--rounds", "2"]) == 0
    given = {"rounds": 2, "seeds": 10, "device": "cpu"}
    assert asked == {"bench_loop": {"rounds": 41}, "bench_seeds": given}
    assert "a training adds to its epochs: 1.00 s" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--seeds must be 2 or more, got 1"):
        bench.main(["--seeds", "1"])


@pytest.mark.parametrize(("itself", "warned"), [(1.0, False), (0.98, False), (1.04, True), (0.95, True)])
def test_a_busy_machine_is_noticed(itself, warned):
    said = bench.lines({"itself": itself})
    assert said[0] == f"the same work twice: {itself:.3f}"
    assert (len(said) == 2 and said[1].startswith("warning: the same work differs by more than 3%")) == warned


def test_systems_are_counted_at_the_sizes_of_their_authors(monkeypatch):
    """Sizes and FLOPs at the real setting; every time is one second."""
    counted = ("transformer", "tfn", "lmf", "mult", "pcag")
    monkeypatch.setattr(bench, "BACKBONES", {name: bench.BACKBONES[name] for name in counted})
    monkeypatch.setattr(bench, "_seconds", lambda work, device: 1.0)
    monkeypatch.setattr(bench, "partial", lambda *_: lambda: None)
    result = bench.bench_systems(rounds=1)
    rows = {row["system"]: row for row in result["rows"]}
    sizes = {"tfn": 647_631, "lmf": 508_475, "mult": 1_087_771, "pcag": 232_001}
    assert {name: rows[name]["parameters"] for name in sizes} == sizes
    refiner = count_parameters(VGMR({"text": 768, "audio": 74, "vision": 35}, 164))
    for name in counted:
        assert rows[f"{name} + vgmr"]["parameters"] == rows[name]["parameters"] + refiner
        assert rows[f"{name} + vgmr"]["flops"] > rows[name]["flops"] > 0
    assert rows["transformer"]["training_flop_ratio"] == 1 > rows["mult"]["training_flop_ratio"] > 0.5
    recurrent = 2 * 32 * 50 * 4 * 128 * (768 + 128)  # the products of the LSTM in tfn
    assert recurrent <= rows["tfn"]["flops"] < 1.2 * recurrent
    assert "mult + vgmr" in bench.table(result).index


def test_rounds_are_logarithms_of_seconds_per_step(monkeypatch):
    def made(work, rounds, **_):
        seconds = {"training|grad-blending": 20.0, "training|VGMR, calibrated": 4.0}
        return {name: [seconds.get(name, 2.0)] * rounds for name in work}

    monkeypatch.setattr(bench, "_rounds", made)
    table = bench.bench_rounds(rounds=3, steps=2)
    assert table["value"].tolist() == pytest.approx([0.0] * len(table))  # two seconds for two steps
    assert set(table["what"]) == {"training", "inference", "preparation"}
    assert {"plain", "parameter-matched MLP", "VGMR, calibrated", "agm", "grad-blending"} <= set(table["label"])
    assert not table.duplicated(["what", "label", "seed"]).any()


@pytest.fixture(scope="module")
def counted():
    return bench.count_forms().set_index(["backbone", "form"])


def test_cheap_forms_are_nearly_free_in_flops(counted):
    """The goals: 1.06 times plain's FLOPs in inference and 1.08 in training at the paper's setting."""
    for backbone in ("transformer", "pooled"):
        plain, rows = counted.loc[(backbone, "plain")], counted.loc[backbone]
        assert plain[["inference", "training", "kept"]].tolist() == [1, 1, 1]
        for form, cheaper in bench.CHEAP.items():
            for name, switches in cheaper.items():
                cheap, full = rows.loc[f"{form}, {name}"], rows.loc[f"{form}, full"]
                assert cheap["inference_flops"] <= full["inference_flops"]
                if "rank" in switches:
                    assert cheap["inference_flops"] < full["inference_flops"]
                    assert cheap["parameters"] < full["parameters"]
                    assert backbone == "pooled" or (cheap["inference"] < 1.06 and cheap["training"] < 1.08)
    full = counted.loc[("transformer", "paper, full")]
    assert 1.36 < full["inference"] < 1.46 and 1.30 < full["training"] < 1.36
    pooled = counted.loc["pooled", "kept_kib"]
    assert pooled["paper, rank 0, no LayerNorm"] < pooled["paper, rank 0"], "the mean is taken first"
    assert pooled["calibrated, rank 16, one gate"] < 0.1 * pooled["calibrated, rank 4"], "here as well"


def test_padded_and_full_sequences_are_priced_apart():
    """`fit` drops the masks of full ones, and so does the bench."""
    padded, full = (
        bench.priced_data(name, 8)[0].train.noting_padding() for name in ("pooled", "pooled, no padding")
    )
    assert padded.padded and not full.padded
    padded.check(2)


@pytest.fixture(scope="module")
def forms(counted):
    """Every time is one second, but for the full form's, which is two."""
    with pytest.MonkeyPatch.context() as patch:

        def rounds(work, count, *_):
            return {name: [2.0 if name.endswith("transformer paper, full") else 1.0] * count for name in work}

        patch.setattr(bench, "_rounds", rounds)
        patch.setattr(bench, "count_forms", lambda: counted.reset_index())
        return bench.bench_forms(rounds=1, steps=1, progress=False)


def test_every_form_is_timed_and_plain_twice(forms):
    rows = {row["model"]: row for row in forms["rows"]}
    assert len(rows) == len(forms["rows"]) == len(bench.PRICED) * (len(bench.form_options()) + 1)
    assert (
        rows["paper, full -> transformer"]["training_ratio"] == 2
        and rows["paper, full -> pooled"]["training_low"] == 1
    )
    assert rows["plain, again -> pooled"]["training_ratio"] == forms["itself"] == 1
    assert rows["plain -> pooled"]["milliseconds_per_sample"] == pytest.approx(1e3 / 32)
    assert json.loads(json.dumps(forms)) == forms
    assert "paper, rank 0 -> pooled" in bench.table(forms).index


def test_less_time_than_flops_is_explained(forms):
    """Every form but the full one takes plain's time here, so those with more FLOPs are named."""
    said = bench.lines(forms)[-1]
    assert said.startswith("less time than FLOPs: ") and "calibrated, full -> transformer" in said
    assert "paper, full -> transformer" not in said and "plain" not in said.partition(";")[0]


def test_a_price_is_of_one_sample(data):
    """One sample more does not change what a sample costs, but for what is folded once for a batch."""
    model = build(Experiment("synthetic", "none", "transformer", **SMALL), data)
    four, eight = (bench.price(model, data.train.index(torch.arange(n) % len(data.train))) for n in (4, 8))
    assert four == pytest.approx(eight, rel=1e-2)
    assert four["parameters"] == count_parameters(model)


def test_scale_by_the_command(capsys, monkeypatch):
    monkeypatch.setattr(bench, "SCALED", {"rank 4": {"rank": 4}})
    assert bench.main(["--scale"]) == 0
    text = capsys.readouterr().out
    assert "rank 4, length 5000" in text and "rank 4, modalities 12" in text
    assert "rank 4: flops as length to the power" in text and "rank 4: kept_mib as modalities to the" in text


def test_forms_by_the_command(forms, capsys, monkeypatch):
    monkeypatch.setattr(bench, "bench_forms", lambda **given: forms if given["rounds"] == 2 else None)
    assert bench.main(["--forms", "--rounds", "2"]) == 0
    assert "calibrated, rank 0 -> pooled" in capsys.readouterr().out
