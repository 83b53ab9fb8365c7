"""How the package is built: floors, no circles, documented, light to import, free of places on one machine."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vgmr"
FLOORS = [
    "paper.figures",
    "machine.files",
    "machine.work",
    "machine.devices",
    "records.code",
    "data",
    "corruption",
    "refining.inputs",
    "refining.refinement",
    "refining.evidence",
    "refining.maps",
    "refiner",
    "refining.chunks",
    "fusion",
    "prefusion",
    "backbones",
    "classifier",
    "systems",
    "contributions",
    "objective",
    "inference",
    "balancing",
    "loop.history",
    "loop.steps",
    "loop.graphs",
    "loop.lists",
    "loop.alone",
    "loop.seeds",
    "loop.refusals",
    "training",
    "statistics.intervals",
    "statistics.answers",
    "evaluation",
    "comparison",
    "statistics.verdicts",
    "settings",
    "experiment",
    "records.keys",
    "runs",
    "records.kept",
    "analysis",
    "studies",
    "plots",
    "notebook.given",
    "notebook.lesson",
    "notebook.run",
    "paper",
    "notebook",
    "cli",
]
DOORS = {"vgmr", "vgmr.__main__"}
ROOMS = {
    "vgmr.loop",
    "vgmr.machine",
    "vgmr.records",
    "vgmr.refining",
    "vgmr.statistics",
}  # folders on several floors


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(name: str, source: str) -> set[str]:
    """Modules of the package that `source` imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "vgmr"}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative import"
            if node.module and node.module.split(".")[0] == "vgmr":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.add(inner if inner in FILES else node.module)
    return found - {name}


IMPORTS = {name: imports(name, path.read_text()) for name, path in FILES.items()}


def floor(name: str) -> int:
    """The front door stands as high as what it shows; nothing may go through the back door."""
    if name == "vgmr":
        return max(floor(other) for other in IMPORTS[name])
    if name == "vgmr.__main__":
        return len(FLOORS)
    if name in ROOMS:
        return 0
    parts = name.split(".")[1:]
    return next(FLOORS.index(here) for n in range(len(parts), 0, -1) if (here := ".".join(parts[:n])) in FLOORS)


def upward(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{name} imports {other}"
        for name, others in graph.items()
        if name not in DOORS
        for other in others
        if floor(other) > floor(name)
    ]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some circle, as a path, or nothing."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in graph.get(name, ()):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in graph if (found := visit(name, []))), [])


def test_every_module_has_a_floor():
    heads = {name: name.split(".")[1:] for name in set(FILES) - DOORS - ROOMS}
    unknown = [name for name, parts in heads.items() if not {parts[0], ".".join(parts[:2])} & set(FLOORS)]
    assert not unknown, "say where they belong"
    assert all(len(ast.parse(FILES[name].read_text()).body) == 1 for name in ROOMS), "nothing but a docstring"


def test_no_import_goes_up():
    assert upward(IMPORTS) == []


def test_no_circle():
    assert circle(IMPORTS) == []


def test_batch_rests_on_nothing():
    """The two types come before everything else, the front door of the data included."""
    assert IMPORTS["vgmr.data.types"] == set()
    assert IMPORTS["vgmr.data"] == {"vgmr.data.types"}


LIFTED = (
    "refining.inputs",
    "refining.refinement",
    "refining.evidence",
    "refining.maps",
    "refiner",
    "prefusion",
    "backbones",
    "classifier",
    "systems",
)


@pytest.mark.parametrize("name", [*LIFTED, *(n[5:] for n in FILES if n.startswith("vgmr.fusion."))])
def test_the_model_can_be_lifted_out(name):
    """It knows nothing of data, training, files or notebooks."""
    allowed = {f"vgmr.{other}" for other in LIFTED} | {other for other in FILES if other.startswith("vgmr.fusion")}
    assert IMPORTS[f"vgmr.{name}"] <= allowed
    tree = ast.parse(FILES[f"vgmr.{name}"].read_text())
    outside = {
        node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    outside |= {
        a.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    }
    assert outside <= {"torch", "vgmr", *sys.stdlib_module_names}


def test_training_does_not_see_the_metrics_of_the_test_part():
    reached, todo = set(), ["vgmr.training"]
    while todo:
        name = todo.pop()
        reached.add(name)
        todo += IMPORTS[name] - reached
    assert "vgmr.evaluation" not in reached and "vgmr.data.types" in reached


def test_these_tests_would_notice():
    names = {name: set(others) for name, others in IMPORTS.items()}
    assert upward({**names, "vgmr.refiner": {"vgmr.training"}}) == ["vgmr.refiner imports vgmr.training"]
    assert upward({**names, "vgmr.backbones": {"vgmr"}}) == ["vgmr.backbones imports vgmr"]
    assert upward({**names, "vgmr.cli": {"vgmr.__main__"}}) == ["vgmr.cli imports vgmr.__main__"]
    ring = {**names, "vgmr.data.types": {"vgmr.data.views"}}
    assert set(circle(ring)) == {"vgmr.data.types", "vgmr.data.views"}
    inside = "def f():\n    from vgmr import training\n    import vgmr.data.types"
    assert imports("x", inside) == {"vgmr.training", "vgmr.data.types"}


SHARED = 10  # lines of code in a row that two files may have in common


def repeated(sources: dict[str, str], lines: int) -> list[str]:
    """Runs of more than `lines` lines of code that stand in two places; blank ones do not count."""
    seen: dict[tuple[str, ...], str] = {}
    found = []
    for name, source in sources.items():
        code = [(number, line.strip()) for number, line in enumerate(source.splitlines(), 1) if line.strip()]
        for start in range(len(code) - lines):
            window = tuple(line for _, line in code[start : start + lines + 1])
            place = f"{name}:{code[start][0]}"
            if window in seen:
                found.append(f"{seen[window]} ~ {place}")
            seen.setdefault(window, place)
    return found


def test_nothing_is_written_twice():
    sources = {name: path.read_text() for name, path in FILES.items()}
    assert repeated(sources, SHARED) == []
    assert repeated({**sources, "copy": sources["vgmr.refiner"]}, SHARED) != []


@pytest.mark.parametrize("name", [name for name in FILES if name != "vgmr.__main__"])
def test_what_is_public_is_documented(name):
    tree = ast.parse(FILES[name].read_text())
    assert ast.get_docstring(tree), "the module itself"
    kinds = (ast.FunctionDef, ast.ClassDef)
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node)
        if [ast.unparse(decorator) for decorator in node.decorator_list] != ["overload"]
    ]
    assert not silent


def test_importing_the_package_loads_nothing_heavy():
    heavy = [
        "torch",
        "numpy",
        "pandas",
        "matplotlib",
        "seaborn",
        "sklearn",
        "scipy",
        "ipywidgets",
        "IPython",
        "joblib",
        "h5py",
    ]
    code = f"import sys, vgmr; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""


def test_what_the_front_door_shows_is_there():
    import vgmr

    nodes = [node for node in ast.walk(ast.parse(FILES["vgmr"].read_text())) if isinstance(node, ast.ImportFrom)]
    typed = {a.asname: node.module for node in nodes if node.module.startswith("vgmr.") for a in node.names}
    assert typed == vgmr._PLACES and set(vgmr.__all__) <= set(dir(vgmr))
    for name in vgmr.__all__:
        assert getattr(vgmr, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'vgmr' has no attribute 'VGRM'; there are: VGMR, Backbone"):
        _ = vgmr.VGRM


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    suffixes = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".ipynb", ".cff", ""}
    paths = [ROOT / name for name in listed]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


FOLDERS = "|".join(("work", "root", "home", "Users", "mnt", "tmp", "scratch"))
PLACE = re.compile(rf"(?<![\w.~/$}}:\]])/(?:{FOLDERS})/\w")
REGISTRY = re.compile(r"(?:\bpypi|pythonhosted|anaconda|npmjs)\.(?:org|com)|--(?:extra-)?index-url|--find-links")


@pytest.mark.parametrize("path", tracked(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_a_place_on_a_machine_or_a_registry(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = PLACE.search(line) or (path != Path(__file__) and REGISTRY.search(line))
        assert not found, f"line {number}: {line.strip()[:200]}"


def test_places_would_be_noticed():
    for text in ("root = '{}home/someone/data'", "see {}tmp/x", "cd {}work/main"):
        assert PLACE.search(text.format("/"))
    assert not PLACE.search("https://host.org/home/page") and not PLACE.search("notebooks/home/x")


# The command


def test_the_command_lists_what_there_is(capsys):
    from vgmr.cli import COMMANDS, main

    assert main(["--help"]) == main(["-h"]) == 0
    assert main([]) == 2
    text = capsys.readouterr().out
    assert all(f"  {name}" in text and purpose in text for name, (_, purpose) in COMMANDS.items())
    for place, _ in COMMANDS.values():
        module, _, function = place.partition(":")
        names = [getattr(node, "name", None) for node in ast.parse(FILES[module].read_text()).body]
        assert function in names, place


def test_an_unknown_command_is_refused(capsys):
    from vgmr.cli import main

    assert main(["fly"]) == 2
    assert capsys.readouterr().err == "unknown command 'fly'\n"


def test_errors_of_a_command_are_one_line(capsys, tmp_path, monkeypatch):
    from vgmr.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["run", "99"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("vgmr run: no notebook '99'; there are: none in") and error.count("\n") == 1


CORE = "refiner objective prefusion backbones inference training experiment runs comparison evaluation"


def test_the_core_is_read_in_an_evening():
    assert sum(len(FILES[f"vgmr.{name}"].read_text().splitlines()) for name in CORE.split()) <= 2000
