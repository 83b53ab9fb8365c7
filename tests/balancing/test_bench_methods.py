"""The table of the methods' costs."""

from vgmr.analysis import cost as bench


def test_every_method_asked_for_has_a_row(monkeypatch):
    wanted = {name: bench.METHODS[name] for name in ("none", "agm", "relearning")}
    monkeypatch.setattr(bench, "METHODS", wanted)
    result = bench.bench_methods(rounds=1, steps=1)
    table = bench.table(result)
    assert list(table.index) == list(wanted)
    assert list(table.columns) == ["training", "training, paper"]
    assert (table["training"] > 0.2).all() and (table["training"] < 5).all()
    assert table.loc["agm", "training, paper"] == 4.157
