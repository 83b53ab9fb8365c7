"""What stands in several files of the repository agrees."""

import json
import re
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement

from vgmr import studies
from vgmr.comparison import contrasts, differences
from vgmr.experiment import Run
from vgmr.notebook import publish
from vgmr.records.kept import read, records_folder, tabled
from vgmr.records.keys import settings
from vgmr.settings import Experiment
from vgmr.statistics.intervals import holm
from vgmr.statistics.verdicts import judged
from vgmr.studies import ADOPTED, FORM, calibration, systems

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements() -> dict[str, Requirement]:
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    return {Requirement(line).name.lower(): Requirement(line) for line in lines}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {name.lower(): version for name, version in (line.split("==") for line in lines if "==" in line)}


def test_every_requirement_is_pinned_to_a_version_it_allows():
    pinned = pins()
    for name, requirement in requirements().items():
        if name == "torchvision":  # comes with the torch build that a machine has, and only extraction needs it
            continue
        version = pinned[name]
        assert requirement.specifier.contains(version), f"{requirement} but constraints.txt pins {version}"


def test_torch_is_the_tested_build():
    assert pins()["torch"] == "2.13.0"


def test_environment_file_takes_its_versions_from_the_one_place():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, section = environment["dependencies"]
    assert pip == "pip"
    assert Requirement(python.replace("=", "==", 1)).specifier.contains("3.11")
    assert section["pip"] == ["-c constraints.txt", "-e .[notebooks,video,text,words,audio,cluster,site,test]"]
    for extra in re.findall(r"\[(.+)\]", section["pip"][1])[0].split(","):
        assert extra in PROJECT["optional-dependencies"]


def test_the_light_part_depends_only_on_what_hosted_notebooks_have():
    """Lower bounds only, so that installing the package moves nothing that is there."""
    for line in PROJECT["dependencies"]:
        assert {operator.operator for operator in Requirement(line).specifier} == {">="}, line


def test_readme_names_the_two_commands_and_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert "make run" in text and "make test" in text
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"`make (\w+)`", text):
        assert target in targets
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)#]+)\)", prose):
        assert link.startswith("https://") or (ROOT / link).exists(), link


MLP, GATE = "parameter-matched MLP", "value-free gate"
PAIRS = [(ADOPTED, "plain"), (ADOPTED, MLP), (ADOPTED, GATE), (FORM, GATE), (GATE, "plain")]


def advice() -> str:
    """The section "Should you use it?" of the README."""
    return (ROOT / "README.md").read_text().split("\n## Should you use it?\n")[1].split("\n## ")[0]


def kept(name: str, plan: Mapping[object, Sequence[Experiment]]) -> dict[object, list[Run]]:
    """The runs of a plan as the record holds them; the data themselves need not be here."""
    rows = {json.dumps(settings(run.experiment)): run for run in read(records_folder() / f"{name}.jsonl")}
    return {label: [rows[json.dumps(settings(one))] for one in group] for label, group in plan.items()}


def standing(dataset: str) -> dict[object, list[Run]]:
    common = studies.study(dataset)
    chosen = studies.choose(f"{dataset}-pooled", studies.VARIANTS, common)
    plan = studies.standing(common, chosen, (), studies.SEEDS[dataset], dataset in studies.FOLDED)
    return kept(f"training-{dataset}", plan)


def told(runs: Mapping[object, list[Run]], pairs: Sequence[tuple[str, str]] = PAIRS) -> pd.DataFrame:
    """Differences in points and verdicts, by the two that are compared."""
    found = judged(contrasts(runs, pairs)).set_index(["label", "against"])
    return found.assign(points=100 * found["difference"])


@pytest.fixture(scope="module")
def trained() -> dict[str, pd.DataFrame]:
    """What the records say of `PAIRS`, by notebook, for those that train and test on the data as they are."""
    partners = {"04": "mosi-words", "06": "utd-mhad", "07": "avdigits", "08": "cremad-ratings"}
    found = {number: told(standing(dataset)) for number, dataset in partners.items()}
    for dataset, backbone in studies.CONTROLLED:
        runs = kept(f"09-controlled-{dataset}", studies.controls(dataset, backbone))
        found[f"09, {dataset}"] = told(runs)
    return found


@pytest.fixture(scope="module")
def corrupted() -> pd.DataFrame:
    """What the record of notebook 17 says: the calibrated form less each rival, by data set, kind and rival."""
    numbers = calibration.one_by_one(tabled("17-calibration", calibration.parameters(), pytest.fail))
    numbers = numbers[(numbers["trained_on"] == "corruption") & (numbers["measure"] == "accuracy")]
    found = differences(numbers, ["dataset", "kind"], baseline=ADOPTED)
    turned = {"difference": -found["difference"], "low": -found["high"], "high": -found["low"]}
    found = judged(found.assign(**turned)).set_index(["dataset", "kind", "label"]).sort_index()
    return found.assign(points=100 * found["difference"])


def reached(points: Sequence[float], digits: int) -> str:
    return f"by {min(points):.{digits}f} to {max(points):.{digits}f} points"


def test_every_figure_of_the_advice_is_that_of_the_records(trained, corrupted):
    rivals = ["plain", MLP, GATE]
    of_digits, of_movements = trained["09, uci-mfeat"]["points"], trained["09, utd-mhad"]["points"]
    movements = corrupted.loc["utd-mhad"]["points"]
    faulty = [movements[kind, rival] for kind in ("conflict", "noise") for rival in rivals]
    hosts = kept("18-systems-uci-mfeat", systems.plugged("uci-mfeat"))
    names = list(dict.fromkeys(host for host, _ in hosts))
    gains = [told({label: hosts[host, label] for label in (ADOPTED, "plain")}, PAIRS[:1]) for host in names]
    gains = holm(pd.concat(gains))
    firm = ((gains["p_holm"] < 0.05) & (gains["difference"] > 0)).sum()
    steps = systems.costs("uci-mfeat").set_index(["variant", "host"])
    times = steps.loc[ADOPTED, "step"]
    alone = steps.loc["plain", "host_step"]
    assert times.corr(alone, method="spearman") < -0.9 and times.idxmin() in alone.nlargest(2)  # less the heavier
    assert trained["09, utd-mhad"].loc[(ADOPTED, MLP), "p_holm"] > 0.05
    phrases = [
        reached([of_digits[ADOPTED, rival] for rival in rivals], 1) + " of accuracy",
        f"it beats these three {reached(faulty, 0)};",
        f"{firm} of {len(names)} fusion systems gain by it",
        f"the MLP is better by {-of_movements[ADOPTED, MLP]:.1f} points, though not after Holm's correction.",
        f"on untouched movements too, by {movements['clean', GATE]:.1f} points",
        f"takes {times.min():.1f} to {times.max():.1f} times as long",
    ]
    rest = re.sub(r"\[\d\d\]\(notebooks/[^)]*\)", "", advice())
    for phrase in phrases:
        assert rest.count(phrase) == 1, f"the records say {phrase!r}"
        rest = rest.replace(phrase, "")
    assert not re.search(r"\d", rest), f"figures that no record was asked for: {rest}"


def test_the_first_page_has_what_twenty_seeds_say_of_the_paper_s_form():
    assert studies.SEEDS["digit-views"] == 20
    row = told(standing("digit-views"), [(FORM, "plain")]).iloc[0]
    assert row["verdict"] == "held"
    said = f"the paper's form gains {row['points']:.1f} points"
    assert f"With twenty seeds {said}, and its interval leaves out zero too" in (ROOT / "README.md").read_text()


def test_the_advice_follows_from_the_records(trained, corrupted):
    verdict = {place: found["verdict"] for place, found in trained.items()}
    seventeen = corrupted["verdict"]
    for rival in ("plain", MLP, GATE):
        assert verdict["09, uci-mfeat"][ADOPTED, rival] == "held"
        assert seventeen["utd-mhad", "conflict", rival] == seventeen["utd-mhad", "noise", rival] == "held"
    assert seventeen["utd-mhad", "missing", GATE] == "undecided"
    for place in ("04", "06", "07", "08", "09, utd-mhad"):
        assert verdict[place][ADOPTED, GATE] == "undecided"
        beats_plain = "held" if place in ("04", "06", "07") else "undecided"
        assert verdict[place][GATE, "plain"] == beats_plain
        worse = "contradicted" if place in ("04", "06", "09, utd-mhad") else "undecided"
        assert verdict[place][FORM, GATE] == worse
    assert verdict["09, utd-mhad"][ADOPTED, MLP] == "contradicted"
    assert verdict["09, uci-mfeat"][FORM, GATE] == "undecided"
    assert seventeen["utd-mhad", "clean", GATE] == "held"
    assert seventeen["avdigits", "clean", GATE] == seventeen["avdigits", "conflict", GATE] == "contradicted"
    numbers = calibration.one_by_one(tabled("17-calibration", calibration.parameters(), pytest.fail))
    asked = {"dataset": "avdigits", "kind": "conflict", "label": ADOPTED, "trained_on": "corruption"}
    sees = numbers[(numbers[list(asked)] == pd.Series(asked)).all(axis=1)].groupby("measure")["value"].mean()
    assert sees["sample"] > 0.9 and abs(sees["value"] - 0.5) < 0.05  # that they conflict, and not which is wrong


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_links_lead_somewhere(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#]+)\)", cell.source):
                assert link.startswith("https://") or (path.parent / link).exists(), link


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_committed_notebooks_are_clean(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert publish.problems(Path("notebooks") / path.name) == []


def test_readme_lists_every_notebook():
    text = (ROOT / "README.md").read_text()
    for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        assert f"notebooks/{path.name}" in text


def test_no_tracked_file_is_large_or_names_this_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    here = str(ROOT)
    for name in filter(None, tracked):
        path = ROOT / name
        assert path.stat().st_size < 1_000_000, name
        if len(here) > 5:
            assert here.encode() not in path.read_bytes(), name
