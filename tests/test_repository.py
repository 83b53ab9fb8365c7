"""What stands in several files of the repository agrees."""

import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from vgmr.notebook import publish

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
