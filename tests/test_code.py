"""The key of a result knows the code that it rests on, and no other."""

import ast
import dataclasses

import pytest

from vgmr.balancing import METHODS
from vgmr.prefusion import FeatureMLP
from vgmr.records import code, keys
from vgmr.refiner import VGMR
from vgmr.settings import Experiment
from vgmr.training import fit

EXPERIMENTS = {
    "plain": Experiment("digits", "none"),
    "VGMR": Experiment("digits", "vgmr"),
    "transformer": Experiment("digits", "vgmr", "transformer"),
    "mlp": Experiment("digits", "mlp"),
    "ogm-ge": Experiment("digits", "none", method="ogm-ge"),
    "noise": Experiment("digits", "none", training_noise={"share": 0.5}),
}


@pytest.fixture
def changed(monkeypatch):
    """The experiments whose key changes when `old` in a module's source becomes `new`."""

    def digests():
        keys._code.cache_clear()
        return {name: keys.code_of(one) for name, one in EXPERIMENTS.items()}

    before = digests()

    def change(module: str, old: str, new: str) -> set[str]:
        source = code.SOURCES[module]
        assert old in source, f"{module}: {old}"
        with monkeypatch.context() as patch:
            patch.setitem(code.SOURCES, module, source.replace(old, new, 1))
            after = digests()
        digests()
        return {name for name in EXPERIMENTS if before[name] != after[name]}

    yield change
    digests()


def test_what_says_but_does_nothing_makes_nothing_stale(changed):
    assert changed("vgmr.training", '"""Train and leave the model', '"""Fit and leave the model') == set()
    assert changed("vgmr.refiner", "# Eq. (4)", "# the others") == set()
    assert changed("vgmr.fusion.base", "must be at least 1, got", "must be one or more, got") == set()
    assert changed("vgmr.loop.history", "\nclass History", "\n\n\n\nclass History") == set()


def test_what_moves_makes_nothing_stale(monkeypatch):
    """A definition in another module, imported from there, is the same code."""
    text = code.SOURCES["vgmr.loop.steps"]
    start, end = text.index("def prepare("), text.index("def corrupted(")
    before = code.digest([fit])
    with monkeypatch.context() as patch:
        head = (
            "from typing import Any\nfrom vgmr.classifier import Classifier\nfrom vgmr.data.types import Batch\n"
        )
        patch.setitem(code.SOURCES, "vgmr.elsewhere", head + text[start:end])
        moved = "from vgmr.elsewhere import prepare\n" + text[:start] + text[end:]
        patch.setitem(code.SOURCES, "vgmr.loop.steps", moved)
        assert "vgmr.elsewhere.prepare" in code.reached([fit]) and code.digest([fit]) == before
        patch.setitem(code.SOURCES, "vgmr.elsewhere", head + text[start:end].replace("is not None", "is None"))
        assert code.digest([fit]) != before


def test_what_only_refuses_makes_nothing_stale(changed):
    before = "    objective = Objective() if objective is None else objective\n    task"
    refusal = "    if epochs > 10**6:\n        raise ValueError(f'{epochs} epochs')\n"
    assert changed("vgmr.training", before, refusal + before) == set()
    loop = "    for model in models:\n        if model is None:\n            raise TypeError('no model')\n"
    assert changed("vgmr.training", before, loop + before) == set()
    assert changed("vgmr.loop.refusals", "if each.task != task", "if not each.task == task") == set()


def test_a_check_is_a_refusal(changed):
    """A call of `check_...` that gives nothing: neither its being there nor what it refuses counts."""
    place = "        self.position = nn.Parameter(0.02 * torch"
    assert changed("vgmr.backbones", place, f'        check_sizes("x", num_layers=num_layers)\n{place}') == set()
    assert changed("vgmr.fusion.base", "if width % num_heads:", "if width % num_heads or width > 10**6:") == set()
    assert changed("vgmr.backbones", place, f"        width = check_sizes(width)\n{place}") == {"transformer"}
    assert changed("vgmr.backbones", place, f"        check_sizes(width=(width := 3))\n{place}") == {"transformer"}


CHANGES = {"append", "extend", "insert", "update", "setdefault", "add", "remove", "pop", "clear", "train", "eval"}


def does(function: ast.FunctionDef) -> list[str]:
    """What a function does beside refusing, as far as its own text tells."""
    found = []
    for part in ast.walk(function):
        stored = isinstance(part, ast.Attribute | ast.Subscript) and not isinstance(part.ctx, ast.Load)
        given = isinstance(part, ast.Return | ast.Yield | ast.YieldFrom) and part.value is not None
        called = part.func if isinstance(part, ast.Call) else None
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        draws = name in CHANGES or name.endswith(("_", "seed")) or name.startswith("rand")
        if stored or given or draws or isinstance(part, ast.Global | ast.Nonlocal):
            found.append(ast.unparse(part))
    return found


def test_a_check_does_nothing_but_refuse():
    """Else what it does would be missing in the keys; what is told to it changes nothing either."""
    trees = [ast.parse(source) for source in code.SOURCES.values()]
    every = [part for tree in trees for part in ast.walk(tree)]
    checks = [part for part in every if isinstance(part, ast.Expr) and code._refuses(part)]
    called = {part.value.func.id for part in checks}
    assert {"check_sizes", "check_labels", "check_shares"} <= called
    defined = [part for part in every if isinstance(part, ast.FunctionDef) and part.name in called]
    assert {part.name for part in defined} == called
    assert {part.name: does(part) for part in defined if does(part)} == {}
    for check in checks:
        told = [*check.value.args, *(one.value for one in check.value.keywords)]
        inside = {ast.unparse(part.func) for one in told for part in ast.walk(one) if isinstance(part, ast.Call)}
        asks = {name for name in inside if not name.endswith((".items", ".values"))}
        assert asks <= {"type", "len", "getattr", "next", "iter"}, ast.unparse(check)


def test_what_refuses_and_does_something_makes_all_stale(changed):
    before = "    objective = Objective() if objective is None else objective\n    task"
    for does in (
        "    if epochs > 10**6:\n        raise ValueError(epochs)\n    else:\n        epochs = 3\n",
        "    if epochs > 10**6:\n        epochs = 3\n        raise ValueError(epochs)\n",
        "    if (epochs := 3) > 4:\n        raise ValueError(epochs)\n",
    ):
        assert changed("vgmr.training", before, does + before) == set(EXPERIMENTS)


def test_what_is_added_makes_nothing_stale(changed):
    new = "def unheard_of():\n    pass\n\n\ndef fit("
    assert changed("vgmr.training", "def fit(", new) == set()
    assert (
        changed("vgmr.prefusion", "class FeatureMLP", "class Another(Identity):\n    pass\n\n\nclass FeatureMLP")
        == set()
    )
    assert changed("vgmr.balancing", '"none": Balancing', '"unheard": Balancing,\n    "none": Balancing') == set()
    assert changed("vgmr.data", '"digits": "digits"', '"unheard": "digits",\n    "digits": "digits"') == set()


def test_what_is_used_by_all_makes_all_stale(changed):
    assert changed(
        "vgmr.training",
        "history.best_epoch = (score, steps.state(place)), epoch",
        "history.best_epoch = (score, 0), 0",
    ) == set(EXPERIMENTS)
    assert changed("vgmr.evaluation", "counts.diagonal().sum() /", "2 * counts.diagonal().sum() /") == set(
        EXPERIMENTS
    )
    assert changed("vgmr.data.digits", "def load_digits(", "LIMIT = 3\n\n\ndef load_digits(") == set()


def test_what_is_used_by_some_makes_these_stale(changed):
    gated = {"VGMR", "transformer", "mlp"}  # an MLP gets its width from VGMR's size
    assert changed("vgmr.refiner", "(1 - strength)", "(1 - 2 * strength)") == gated
    assert changed("vgmr.prefusion", "nn.GELU(), nn.Dropout(dropout)", "nn.ReLU(), nn.Dropout(dropout)") == {"mlp"}
    assert changed("vgmr.balancing.ogm_ge", "class OGMGE(Balancing):", "class OGMGE(Balancing):\n    one = 1") == {
        "ogm-ge"
    }
    assert changed("vgmr.corruption", "(1 - weight) * x + weight * drawn", "x + weight * drawn") == {"noise"}
    transformer = changed("vgmr.backbones", "0.02 * torch.randn(max_length", "0.03 * torch.randn(max_length")
    assert transformer == {"transformer"}


def test_what_is_reached_is_what_runs():
    found = code.reached([fit, VGMR, FeatureMLP, METHODS["agm"]])
    for name in (
        "vgmr.training.fit",
        "vgmr.loop.steps.mini_batches",
        "vgmr.inference.predict",
        "vgmr.refining.maps.ModalityMaps",
        "vgmr.data.types.Batch",
        "vgmr.balancing.base.Balancing",
        "vgmr.contributions.contributions",
    ):
        assert name in found
    assert not any(name.startswith(("vgmr.plots", "vgmr.notebook", "vgmr.comparison")) for name in found)
    for source in found.values():
        ast.parse(source)


def test_every_field_of_an_experiment_has_a_meaning_where_a_row_says_nothing():
    assert set(keys.SILENT) == {field.name for field in dataclasses.fields(Experiment) if field.name != "dataset"}
