"""Committed notebooks, kept clean by machine: generated cells, executed from top to bottom, nothing stray."""

from __future__ import annotations

import argparse
import ast
import base64
import inspect
import io
import os
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from vgmr.machine.files import try_place, write
from vgmr.notebook.run import FOLDER, Kernel, find_notebook, in_thread, notebooks, ran, tags

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
GLOSSARY = "glossary.md"  # beside the notebooks
# hosted notebooks come without the files beside them, so the whole repository is fetched
INSTALL = """import sys
from pathlib import Path

if "google.colab" in sys.modules and not Path("records").exists():
    !git clone -q --depth 1 {repository}
    %cd -q {name}/notebooks
    %pip install -q ..
"""
MAXIMUM_BYTES = 1_000_000
WIDEST = 88  # columns of code, so that no page scrolls sideways
LONGEST = 200  # words of a text cell
CELL_PATIENCE = 600  # seconds
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


class Problem(str):
    """What is off in a notebook, a line, and its `remedy`: "build", "clean", or "hand" and then build."""

    remedy: str

    def __new__(cls, line: str, remedy: str = "build") -> Problem:
        one = super().__new__(cls, line)
        one.remedy = remedy
        return one


def repository() -> str:
    """The repository's address, the one setting in pyproject.toml."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Repository"]).rstrip("/")


def read(path: Path) -> Any:
    """A notebook from its file; ValueError with the path for a file that is none."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # damaged ones surface as whatever they lead to
        line = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: not a notebook of format 4 ({line})") from None


def title(path: Path) -> str:
    """The text of a notebook's H1."""
    for cell in read(path).cells:
        for line in cell.source.splitlines():
            if cell.cell_type == "markdown" and line.startswith("# "):
                return str(line[2:].strip())
    raise ValueError(f"{path}: no H1 heading; begin with a markdown cell '# Title'")


def generated(path: Path) -> dict[str, str]:
    """The sources of the cells that stand alike in all notebooks, by tag; ValueError where it is none of them."""
    slug = repository().removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{slug}/blob/main/notebooks/{path.name}"
    install = INSTALL.format(repository=repository(), name=slug.split("/")[-1]).strip()
    order = notebooks()
    if path not in order:
        raise ValueError(f"{path}: expected one of {FOLDER.resolve()}, named such as 01_name.ipynb; move it there")
    position = order.index(path)
    neighbours = (("Before", order[:position][-1:]), ("Next", order[position + 1 :][:1]))
    links = [f"{word}: [{title(other)}]({other.name})" for word, found in neighbours for other in found]
    return {
        "badge": f"[![Open in Colab]({BADGE})]({link}) · [Words used in the notebooks]({GLOSSARY})",
        "colab": install,
        "navigation": " · ".join(links) or f"[All notebooks]({repository()})",
    }


def renewed(path: Path) -> Any:
    """The notebook with generated cells renewed."""
    book = read(path)
    for tag, source in generated(path).items():
        for cell in book.cells:
            if tag in tags(cell):
                cell.source = source
    return book


def prepared(path: Path) -> Any:
    """The notebook with generated cells renewed, ids 1..n, and all outputs and stray metadata gone."""
    book = renewed(path)
    for cell in book.cells:
        cell.metadata = {"tags": tags(cell)} if tags(cell) else {}
    missing = {"badge", "colab", "navigation"} - {tag for cell in book.cells for tag in tags(cell)}
    if missing:
        raise ValueError(f"{path}: no cell is tagged {', '.join(sorted(missing))}; tag an empty one for each")
    for number, cell in enumerate(book.cells, 1):
        cell["id"] = f"cell-{number:03d}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    book.metadata = {**KERNEL, "language_info": {"name": "python"}}
    book.nbformat_minor = 5
    return book


def _parsed(source: str) -> ast.Module:
    """The code of a cell; nothing where it is not Python, such as lines for the shell."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module([], [])


def functions(source: str) -> dict[str, str]:
    """Source of the functions that code defines, by name."""
    found = [node for node in ast.walk(_parsed(source)) if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.unparse(node) for node in found}


def described(source: str, heading: str, defined: Mapping[str, str]) -> str:
    """Alt text of the figures of a cell: the heading above it, and what is drawn.

    That is what each function of `vgmr.plots` says of itself, else the labels in the code of the cell and
    of the functions, `defined` in earlier cells, that it calls.
    """
    from vgmr import plots

    called = {node.id for node in ast.walk(_parsed(source)) if isinstance(node, ast.Name)}
    texts = [source, *(text for name, text in defined.items() if name in called)]
    nodes = [node for text in texts for node in ast.walk(_parsed(text))]
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    names = [node.attr for node in attributes if ast.unparse(node.value) in ("plots", "diagrams")]
    found = [getattr(plots, name, None) for name in dict.fromkeys(names)]
    drawing = [one for one in found if inspect.isfunction(one) and one.__module__ != plots.look.__module__]
    sentences = [inspect.getdoc(one) or "" for one in drawing]
    shown = [sentence.splitlines()[0].split("; array")[0].rstrip(".") for sentence in sentences if sentence]
    places = [node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "loc"]
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and node not in places]
    labels = dict.fromkeys(
        text.strip(" :,") for text in map(str, strings) if " " in text.strip() and not text.endswith(".")
    )
    rest = ". ".join(shown).replace("`", "") or (f"labelled {', '.join(labels)}" if labels else "figure")
    return f"{heading.rstrip(':.')}: {rest}."


def palette(png: str) -> str:
    """A base64 PNG in 256 colours where that is smaller, as for nearly every figure."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        if picture.mode == "P":
            return png
        few = io.BytesIO()
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(few, "PNG", optimize=True)
    smaller = base64.b64encode(few.getvalue()).decode()
    return smaller if len(smaller) < len(png) else png


def cleaned(book: Any) -> Any:
    """An executed notebook without timings and widget state, its figures small and with alt text."""
    book.metadata = {name: value for name, value in book.metadata.items() if name == "kernelspec"}
    book.metadata["language_info"] = {"name": "python"}
    heading = "Figure"
    defined: dict[str, str] = {}
    for cell in book.cells:
        cell.metadata = {"tags": tags(cell)} if tags(cell) else {}
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.M) or [heading])[-1]
        elif "colab" not in tags(cell):
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = palette(output.data["image/png"])
                    output.metadata = {"image/png": {"alt": described(cell.source, heading, defined)}}
            defined |= functions(cell.source)
    return book


def build(path: Path) -> None:
    """Execute a notebook at its defaults and write it clean; a failure leaves the file as it was.

    Raises:
        ValueError: a cell is not Python.
        RuntimeError: a cell failed or took too long, with the cell.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    unfinished = path.with_name(f"unfinished-{path.name}")
    kernel = Kernel()
    try:
        nbformat.write(prepared(path), unfinished)
        command = [sys.executable, "-m", "ruff", "format", "-q", str(unfinished)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode:
            raise ValueError(f"{path} cannot be formatted: {done.stderr.strip()}")
        book = nbformat.read(unfinished, as_version=4)
        resources = {"metadata": {"path": str(path.parent)}}
        with kernel:
            options = {"timeout": CELL_PATIENCE, "kernel_name": "python3", **kernel.options()}
            NotebookClient(book, resources=resources, **options).execute()
        if why := ran(book):
            raise RuntimeError(f"{path.stem} {why}")
        nbformat.write(cleaned(book), unfinished)
        os.replace(unfinished, path)
    except CellExecutionError as error:
        raise RuntimeError(f"{path.stem} failed in cell {kernel.cell}: {error.ename}: {error.evalue}") from error
    except CellTimeoutError as error:
        raise RuntimeError(f"{path.stem} failed in cell {kernel.cell}: not done in {CELL_PATIENCE} s") from error
    finally:
        unfinished.unlink(missing_ok=True)


def python_blocks(text: str) -> list[str]:
    """The code of the blocks ```python ... ``` of a Markdown text."""
    return re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)


def unseen_tables(source: str) -> list[str]:
    """Names of captioned tables in a cell that are not its last expression, so that nobody sees them."""
    before = _parsed(source).body[:-1]
    calls = [line.value for line in before if isinstance(line, ast.Expr) and isinstance(line.value, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "table"]
    captioned = [
        call for call in made if len(call.args) > 2 or any(word.arg == "caption" for word in call.keywords)
    ]
    return [ast.unparse(call.args[1]).strip("'") for call in captioned]


def problems(path: Path) -> list[Problem]:
    """What is off in a committed notebook, a line each."""
    book = read(path)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    found: list[Problem] = []

    def note(line: str, remedy: str = "build") -> None:
        found.append(Problem(line, remedy))

    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        note("not executed from top to bottom")
    outputs = [output for cell in code for output in cell.outputs]
    if any(output.output_type == "error" for output in outputs):
        note("a traceback in its outputs")
    if any(output.get("name") == "stderr" for output in outputs):
        note("stderr in its outputs")
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    if not all(output.metadata.get("image/png", {}).get("alt") for output in figures):
        note("a figure without alt text")
    if set(book.metadata) != {"kernelspec", "language_info"}:
        note(f"stray metadata: {sorted(set(book.metadata) - {'kernelspec', 'language_info'})}")
    if any(set(cell.metadata) - {"tags"} for cell in book.cells):
        note("stray cell metadata")
    ids = [f"cell-{number:03d}" for number in range(1, len(book.cells) + 1)]
    if [cell.get("id") for cell in book.cells] != ids:
        note("cell ids are not cell-001 to the last")
    if path.stat().st_size > MAXIMUM_BYTES:
        note(f"{path.stat().st_size} bytes, more than {MAXIMUM_BYTES}", "hand")
    lines = [len(cell.source.splitlines()) for cell in code]
    if not code:
        note("no cell of code", "hand")
    elif statistics.median(lines) > 7 or max(lines) > 40:
        note(f"code cells of {statistics.median(lines)} lines in the median, {max(lines)} at most", "hand")
    texts = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    sources = [cell.source for cell in code] + [block for text in texts for block in python_blocks(text)]
    if wide := [line for source in sources for line in source.splitlines() if len(line) > WIDEST]:
        note(f"{len(wide)} lines of code are wider than {WIDEST} columns, such as {wide[0].strip()!r}", "hand")
    if long := [text for text in texts if len(text.split()) > LONGEST]:
        words, start = len(long[0].split()), " ".join(long[0].split()[:6])
        note(f"a text cell has {words} words, more than {LONGEST}: {start!r}", "hand")
    if hidden := [name for cell in code for name in unseen_tables(cell.source)]:
        note(f"the table {hidden[0]!r} is made and not shown; end its cell with it", "hand")
    tagged = [tag for cell in book.cells for tag in tags(cell)]
    if tagged.count("parameters") != 1:
        note("needs exactly one cell tagged parameters", "hand")
    if tagged.count("nbval-check-output") < 3:
        note("fewer than three cells tagged nbval-check-output; tag those that give the same each time", "hand")
    for tag, source in generated(path).items():
        if not any(tag in tags(cell) and cell.source == source for cell in book.cells):
            note(f"generated cell {tag} is missing or stale", "clean")
    for cell in code:
        if "parameters" in tags(cell):
            lines_of_text = cell.source.splitlines()
            try:
                body = ast.parse(cell.source).body
            except SyntaxError as error:
                note(f"the cell tagged parameters is not Python: {error.msg}, line {error.lineno}", "hand")
                continue
            for line in body:
                if not isinstance(line, ast.AnnAssign) or "#" not in lines_of_text[(line.end_lineno or 1) - 1]:
                    wanted = "write NAME: TYPE = VALUE  # what it is"
                    note(f"parameter without type or comment: {ast.unparse(line)}; {wanted}", "hand")
    return found


def _shown(path: Path, tag: str, kind: str, wanted: str) -> str:
    """The first output of a MIME type in the notebook's cells with a tag; ValueError says what is `wanted`."""
    cells = [cell for cell in read(path).cells if tag in tags(cell)]
    found = [output.data[kind] for cell in cells for output in cell.outputs if kind in output.get("data", {})]
    if not found:
        raise ValueError(f"{path}: no cell tagged {tag} {wanted}; execute the notebook")
    return str(found[0])


def overview(path: Path) -> bytes:
    """The PNG of the figure in the notebook's cell tagged overview."""
    return base64.b64decode(_shown(path, "overview", "image/png", "has a figure"))


def listed(paths: Sequence[Path]) -> str:
    """A Markdown table of notebooks: number, linked, and title."""
    rows = [f"| [{path.name[:2]}](notebooks/{path.name}) | {title(path)} |" for path in paths]
    return "\n".join(["| notebook | question |", "|---|---|", *rows])


def filled(text: str, name: str, content: str) -> str:
    """`text` with `content` between <!-- NAME --> and <!-- /NAME -->; ValueError where these are missing."""
    head, begin, rest = text.partition(f"<!-- {name} -->")
    _, end, tail = rest.partition(f"<!-- /{name} -->")
    if not end:
        raise ValueError(f"README.md: no <!-- {name} --> followed by <!-- /{name} -->")
    return f"{head}{begin}\n{content}\n{end}{tail}"


def message(path: Path) -> str:
    """The sentence that a notebook's cell tagged message shows as Markdown, without its quotation mark."""
    return _shown(path, "message", "text/markdown", "shows Markdown").removeprefix("> ")


def generated_files() -> dict[Path, bytes]:
    """README.md with what it takes from the notebooks (message, list, the ledger's summary), and its figure."""
    from vgmr.paper import ledger

    text = filled(Path("README.md").read_text(encoding="utf-8"), "notebooks", listed(notebooks()))
    text = filled(text, "message", message(find_notebook("01")))
    text = filled(text, "ledger", ledger.summary(ledger.ledger(ledger.CLAIMS, FOLDER)))
    figure = overview(find_notebook("01"))
    return {Path("README.md"): text.encode(), FOLDER / "records" / "overview.png": figure}


def write_readme() -> None:
    """Renew what README.md takes from the notebooks."""
    for path, content in generated_files().items():
        write(path, content)


def main(arguments: list[str]) -> int:
    """`vgmr notebooks build|clean|check [NAME ...]`, or `readme`; clean executes nothing."""
    parser = argparse.ArgumentParser("vgmr notebooks", description="keep the committed notebooks clean")
    parser.add_argument("action", choices=["build", "clean", "check", "readme"])
    parser.add_argument("names", nargs="*", help="numbers or names; all by default")
    options = parser.parse_args(arguments)
    if options.action == "readme" and options.names:
        raise ValueError(f"readme is of all notebooks, got {' '.join(options.names)}; give no names")
    if options.action == "readme":
        write_readme()
        return 0
    chosen = [find_notebook(name) for name in options.names] or notebooks()
    if not chosen:
        raise ValueError(f"no notebooks in {FOLDER.resolve()}; run this from the repository's folder")
    failed = 0
    mended: dict[str, list[str]] = {"hand": [], "build": [], "clean": []}
    if options.action != "check":
        for path in chosen:
            try_place(path.absolute())
    for path in chosen:
        if options.action == "build":
            print(f"executing {path}", flush=True)
            in_thread(partial(build, path))
        if options.action == "clean":
            write(path, nbformat.writes(cleaned(renewed(path))) + "\n")
        found = problems(path)
        for line in found:
            print(f"{path}: {line}")
        failed += bool(found)
        remedies = {line.remedy for line in found}
        for remedy in remedies - ({"clean"} if "build" in remedies else set()):
            mended[remedy].append(path.name[:2])
    if options.action == "build" and not options.names:
        write_readme()
    if options.action == "check" and not options.names and Path("README.md").exists():
        for path, content in generated_files().items():
            if not path.exists() or path.read_bytes() != content:
                print(f"{path}: is not what the notebooks say now; run vgmr notebooks readme")
                failed += 1
    if mended["hand"]:
        print("mend tags, parameters and cells in the notebook itself, then build it")
    for action in ("build", "clean"):
        if mended[action]:
            print(f"mend with: vgmr notebooks {action} {' '.join(mended[action])}")
    return min(failed, 1)
