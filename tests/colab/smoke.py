"""The quickstart as in Colab: a clean environment with the lowest versions that the package allows.

What Colab has comes first: the dependencies at their lower bounds and a kernel. Then the notebook, alone in an
empty folder, fetches and installs the package by its own first cell, with this checkout's last commit in place of
the hosted repository. Nothing that was there may have moved, and the compared cells must print what the committed
notebook shows.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOK = ROOT / "notebooks/01_quickstart.ipynb"
KERNEL = ["ipykernel==6.29", "ipython==7.34"]  # of Colab's list, googlecolab/backend-info


def lowest() -> list[str]:
    """Every dependency at its lower bound; torch in the build that constraints.txt names."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    bounds = [line.replace(">=", "==") for line in PROJECT["dependencies"] if not line.startswith("torch>=")]
    return [torch, *bounds, *KERNEL]


def installed(python: Path) -> dict[str, str]:
    """Version by package."""
    listed = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    return dict(line.split("==") for line in listed.splitlines() if "==" in line)


def make(folder: Path) -> Path:
    """A virtual environment as Colab's, in which `google.colab` is imported from the start; its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-qq", *lowest()], check=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "google/colab").mkdir(parents=True)
    (packages / "google/colab/__init__.py").touch()
    (packages / "colab.pth").write_text("import google.colab\n")
    return python


def execute(python: Path, folder: Path) -> nbformat.NotebookNode:
    """The committed notebook, executed in an empty folder by the interpreter given."""
    kernel, empty = folder / "kernels/colab", folder / "content"
    kernel.mkdir(parents=True)
    empty.mkdir()
    environment = {
        "PYTHONPATH": "",
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": PROJECT["urls"]["Repository"],
    }
    command = [str(python), "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "colab", "env": environment}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    os.environ["JUPYTER_PATH"] = str(folder)
    book = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": empty}}
    return NotebookClient(book, kernel_name="colab", timeout=300, resources=resources).execute()


def compared(book: nbformat.NotebookNode) -> list[str]:
    """What the cells print that a test compares."""
    cells = [cell for cell in book.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]


def main() -> None:
    """Make, execute, compare; prints what each took."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        python = make(Path(name) / "environment")
        before = installed(python)
        print(f"environment of {len(before)} packages, {time.monotonic() - start:.0f} s")
        start = time.monotonic()
        book = execute(python, Path(name))
        print(f"quickstart, {time.monotonic() - start:.0f} s")
        after = installed(python)
    moved = {package: (version, after.get(package)) for package, version in before.items()}
    moved = {package: versions for package, versions in moved.items() if versions[0] != versions[1]}
    assert not moved, f"installing the package moved {moved}"
    new = set(after) - set(before)
    assert new <= {"vgmr"}, f"installing the package brought {sorted(new)}"
    for found, committed in zip(compared(book), compared(nbformat.read(NOTEBOOK, as_version=4)), strict=True):
        assert found == committed, f"expected:\n{committed}\ngot:\n{found}"
    print("the quickstart runs at the lower bounds, nothing moved, the compared cells agree")


if __name__ == "__main__":
    main()
