"""`vgmr records`: trains what the repository keeps, resumes from it, and says whether it is still true."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vgmr import studies
from vgmr.experiment import Run
from vgmr.machine.files import environment
from vgmr.records.kept import MISSING, confirm, in_passes, keep, read, records_folder, table_fault
from vgmr.records.keys import fingerprint, key
from vgmr.runs import groups, run_all
from vgmr.settings import Experiment
from vgmr.studies.search import Unsearched, where_none_is_kept

DRAFT = "draft"  # in a row's environment: recorded from a tree with changes
DIRTY = "-dirty"
TOLERANCE = 0.005  # share of test samples whose prediction may change when a row is trained again


@dataclass
class Plan:
    """One record: what it should hold, and what it does.

    Attributes:
        wanted: experiments by the key that their rows must bear.
        rows: sound rows of the record by key.
        others: rows under other keys or of other passes: stale, or no longer wanted.
        absent: data sets that are not on this machine, whose rows are kept as they are.
        unsearched: the search that has to come first, in a sentence; nothing else is known then.
    """

    name: str
    path: Path
    wanted: dict[str, Experiment]
    rows: dict[str, Run]
    others: list[Run]
    absent: list[str]
    unsearched: str = ""

    @property
    def missing(self) -> list[Experiment]:
        """What is to be trained, in order: all that is trained in one pass with a row that is not there."""
        return [
            one
            for members in groups(self.wanted.items())
            if any(key not in self.rows for key, _ in members)
            for _, one in members
        ]

    def seconds(self) -> float | None:
        """Processor time that the missing trainings will take, from recorded ones; None where there are none."""
        known = [row.seconds for row in [*self.rows.values(), *self.others]]
        return len(self.missing) * statistics.fmean(known) if known else None

    def write(self) -> None:
        """The record as far as it goes, in the order of the plan; with loss curves where a notebook draws them."""
        elsewhere = [row for row in self.others if row.experiment.dataset in self.absent]
        curves = self.name.startswith("training-")
        keep(self.path, [*(self.rows[key] for key in self.wanted if key in self.rows), *elsewhere], curves)


def plan(name: str, make: Callable[[], Mapping[Any, Sequence[Experiment]]]) -> Plan:
    """What a record lacks of the experiments that `make` lists; data sets that are not here are left alone."""
    path = records_folder() / f"{name}.jsonl"
    with warnings.catch_warnings(record=True) as damage:
        warnings.simplefilter("always")
        found = read(path)
    for warning in damage:
        print(f"{warning.message}", file=sys.stderr)
    try:
        experiments = make()
    except Unsearched as error:
        return Plan(name, path, {}, {}, found, [], str(error))
    except FileNotFoundError:  # its data decide what is trained, and are not here
        return Plan(name, path, {}, {}, found, sorted({row.experiment.dataset for row in found}) or ["all of it"])
    wanted, absent = {}, []
    for one in [one for group in experiments.values() for one in group]:
        data = fingerprint(one)
        if data is None:
            absent.append(one.dataset)
        else:
            wanted[key(one, data)] = one
    passes = in_passes(wanted.items())
    rows, others = {}, []
    for row in found:  # seeds of a pass share their dropout: in another pass a seed comes out otherwise
        if row.key in wanted and row.history.together in ([], passes[row.key]):
            rows[row.key] = row
        else:
            others.append(row)
    return Plan(name, path, wanted, rows, others, sorted(set(absent)))


def duration(seconds: float | None) -> str:
    """A time for reading."""
    if seconds is None:
        return "unknown time"
    minutes = seconds / 60
    return (
        f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    )


def show(plans: Sequence[Plan], jobs: int) -> None:
    """Print what is there and what will be trained."""
    for one in plans:
        if one.unsearched:
            print(f"{one.name}: {one.unsearched}; learning rates are to be searched first")
            continue
        line = f"{one.name}: {len(one.rows)} of {len(one.wanted)} there"
        if one.missing:
            spent = one.seconds()
            line += f", {len(one.missing)} to train, {duration(None if spent is None else spent / jobs)}"
        if one.absent:
            line += f"; left alone, data not here: {', '.join(one.absent)}"
        print(line)
    missing, known = sum(len(one.missing) for one in plans), [one.seconds() for one in plans if one.missing]
    total = sum(part for part in known if part is not None) / jobs
    unsearched = any(one.unsearched for one in plans)
    beyond = " and what is unknown" if None in known or unsearched else ""
    print(
        f"{missing} trainings to do, about {duration(total)}{beyond}"
        if missing or unsearched
        else "nothing to train"
    )


def faults(plans: Sequence[Plan]) -> list[str]:
    """What is wrong with the records as they stand, one line each: rows missing, stale, or from a changed tree."""
    found = []
    for one in plans:
        if one.unsearched:
            found.append(f"{one.name}: {one.unsearched}; run vgmr records")
        if one.missing and not one.absent:
            found.append(f"{one.name}: {len(one.missing)} rows are missing or stale; run vgmr records")
        if one.others and not one.absent:
            found.append(f"{one.name}: {len(one.others)} rows under other code, data, settings or pass of seeds")
        drafts = [
            row
            for row in [*one.rows.values(), *one.others]
            if DRAFT in row.environment or row.environment.get("commit", DIRTY).endswith(DIRTY)
        ]
        if drafts:
            found.append(f"{one.name}: {len(drafts)} rows are drafts, from a tree with changes")
    return found


def train(plans: Sequence[Plan], jobs: int, draft: bool) -> None:
    """Train what is missing; every row is written as it comes, so that a stopped call goes on from there.

    A search that is not kept comes first, and is kept.
    """
    for one in plans:
        if one.unsearched:
            with where_none_is_kept("keep"):
                one = plan(one.name, studies.planned()[one.name])
        if not one.missing:
            if one.others and not one.absent:
                one.write()
            continue
        started, count = time.perf_counter(), len(one.missing)

        def arrived(fresh: Run, one: Plan = one) -> None:
            marked = {**fresh.environment, DRAFT: "yes"} if draft else fresh.environment
            one.rows.setdefault(fresh.key, replace(fresh, environment=marked))
            one.write()

        run_all(one.missing, jobs, each=arrived, cached=False)
        print(f"{one.name}: {count} trained in {duration(time.perf_counter() - started)}")


def tables(names: Sequence[str]) -> dict[str, str]:
    """What is wrong with kept tables, by name; those that are sound are left out."""
    found = {name: table_fault(records_folder() / f"{name}.csv") for name in names}
    return {name: fault for name, fault in found.items() if fault}


def make_tables(names: Sequence[str]) -> None:
    """Make tables anew, each by the notebook that its number names, which also completes its rows of trainings."""
    for number in dict.fromkeys(name[:2] for name in names):
        started = time.perf_counter()
        command = [sys.executable, "-m", "vgmr", "run", number, "-p", "again=True"]
        if subprocess.run(command).returncode:
            raise RuntimeError(f"notebook {number} failed, see above; its tables are left as they were")
        print(f"notebook {number}: its tables made in {duration(time.perf_counter() - started)}")


def confirmed(plans: Sequence[Plan], jobs: int) -> list[str]:
    """One pass of each record trained again: a line for each that gives other predictions."""
    found = []
    for one in plans:
        if one.rows:
            group = [one.rows[key] for key, _ in groups(one.wanted.items())[0] if key in one.rows]  # one pass
            changed = float(confirm(group, jobs)["changed"].max())
            print(f"{one.name}: {changed:.2%} of the predictions changed")
            if not changed <= TOLERANCE:
                then = group[0].environment.get("instructions", "unknown")
                now = torch.backends.cpu.get_cpu_capability()
                found.append(
                    f"{one.name}: {changed:.2%} of the predictions changed, at most {TOLERANCE:.1%} may; another "
                    f"kind of processor ({then} then, {now} now) rounds otherwise, and long trainings "
                    "drift apart by it"
                )
    return found


def main(arguments: list[str]) -> int:
    """`vgmr records [NAME ...] [--check | --confirm | --plan] [--draft] [--jobs N]`."""
    parser = argparse.ArgumentParser("vgmr records", description="train what the repository keeps, or check it")
    parser.add_argument("names", nargs="*", metavar="NAME", help="records; by default all that are kept")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--check", action="store_true", help="fail on rows that are missing, stale or drafts")
    ways.add_argument("--confirm", action="store_true", help="train one row of each record again and compare")
    ways.add_argument("--plan", action="store_true", help="only say what would be trained")
    parser.add_argument("--draft", action="store_true", help="train from a tree with changes; every row says so")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {options.jobs}")
    known = studies.planned()
    there = [*known, *studies.TABLES]
    unknown = sorted(set(options.names) - set(there))
    if unknown:
        raise ValueError(f"unknown record {', '.join(unknown)}; there are: {', '.join(there)}")
    with where_none_is_kept("refuse"):
        plans = [plan(name, make) for name, make in known.items() if name in (options.names or known)]
    kept = [name for name in studies.TABLES if name in (options.names or there)]
    lacking = tables(kept)
    show(plans, options.jobs)
    # what is there but of other code takes hours in all, and is made anew where it is asked for by name
    due = [name for name, fault in lacking.items() if name in options.names or fault == MISSING]
    if kept:
        print(f"tables: {len(kept) - len(lacking)} of {len(kept)} as they should be")
        for name, fault in lacking.items():
            print(f"  {name}: {fault}" + ("" if name in due else f"; made anew by vgmr records {name}"))
    if options.check or options.confirm:
        wrong = faults(plans) if options.check else confirmed(plans, options.jobs)
        if options.check:
            wrong += [f"{name}: {fault}; run vgmr records {name}" for name, fault in lacking.items()]
        print("\n".join(wrong), file=sys.stderr, end="\n" * bool(wrong))
        return int(bool(wrong))
    dirty = environment()["commit"].endswith(DIRTY)
    if (due or any(one.missing or one.unsearched for one in plans)) and not options.plan:
        if dirty and not options.draft:
            raise ValueError("the package has changes that are not committed; commit them, or record with --draft")
        train(plans, options.jobs, options.draft)
        make_tables(due)
        for name, fault in (left := tables(due)).items():
            print(f"{name}: {fault}", file=sys.stderr)
        return int(bool(left))
    return 0
