"""What the repository keeps: searches with their best inside, trainings that were long enough, clean commits."""

import json
import statistics
from collections import defaultdict
from dataclasses import replace

import pytest

from vgmr import runs, studies
from vgmr.files import in_repository
from vgmr.studies.search import SEARCHED

QUICK = ("forms", "uci-mfeat-plugged", "utd-mhad-plugged")  # few rates by design: `vgmr.studies.forms`, `systems`
SEARCHES = sorted(path for path in in_repository(SEARCHED).glob("*.json") if path.stem not in QUICK)
RECORDS = sorted(runs.records_folder().glob("*.jsonl"))


def at_the_edge(search: dict) -> list[str]:
    """Variants whose best rate is the lowest or the highest that was tried."""
    return [
        name
        for name, scores in search["validation_accuracy"].items()
        if search["learning_rate"][name] in (min(map(float, scores)), max(map(float, scores)))
    ]


def too_short(rows: list[runs.Run]) -> list[str]:
    """Studies (all that is alike but seed, split and fold) whose median best epoch lies in the last fifth."""
    shares = defaultdict(list)
    for row in rows:
        same = replace(row.experiment, seed=0, fold=None, data_options={})
        shares[same].append((row.history.best_epoch + 1) / row.experiment.epochs)
    return [f"{one}: {statistics.median(of):.2f}" for one, of in shares.items() if statistics.median(of) > 0.8]


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_the_best_rate_of_a_kept_search_lies_inside(path):
    search = json.loads(path.read_text(encoding="utf-8"))
    assert at_the_edge(search) == [] and search["warnings"] == []


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_kept_trainings_were_long_enough_and_come_from_clean_commits(path):
    rows = runs.read(path)
    assert rows and too_short(rows) == []
    assert not [row.key for row in rows if row.environment["commit"].endswith("-dirty")]
    assert len({row.key for row in rows}) == len(rows)
    assert path.stat().st_size < 1_000_000


def test_what_is_planned_is_kept():
    assert {path.stem for path in RECORDS} == set(studies.planned())


def test_these_tests_would_notice():
    search = json.loads(SEARCHES[0].read_text(encoding="utf-8"))
    name = next(iter(search["learning_rate"]))
    search["learning_rate"][name] = max(map(float, search["validation_accuracy"][name]))
    assert at_the_edge(search) == [name]
    rows = runs.read(RECORDS[-1])[:1]
    last = replace(rows[0].history, best_epoch=rows[0].experiment.epochs - 1)
    assert len(too_short([replace(rows[0], history=last)])) == 1
