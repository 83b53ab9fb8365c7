"""The reading site: static pages of the README and the committed notebooks; nothing is executed for it."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from vgmr.machine.files import try_place, user_path
from vgmr.notebook import publish
from vgmr.notebook.publish import KERNEL
from vgmr.notebook.run import tags

BUILT = ".buildinfo"  # in every folder that Sphinx wrote
LEDGER = "16_claims"  # the front page, once it is there
WIDGET = "application/vnd.jupyter.widget-view+json"
SHOWN = {"image/png", "text/html", "text/latex", "text/markdown", "text/plain"}
SLIDERS = "Here stand sliders and a picture that follows them, where a kernel runs.\n"
STYLE = """.cell_output table { font-size: 0.75em }
.cell_output th, .cell_output td { padding: 0.2em 0.4em; vertical-align: top; white-space: normal }
article pre { font-size: 0.77em }
article .cell_output pre { white-space: pre-wrap; overflow-wrap: anywhere }
article h1, article h2, article h3, article p, article li { overflow-wrap: anywhere }
"""
FORMULA = "display: flex; align-items: center; margin: 1em 0; overflow-x: auto"
SETTINGS: dict[str, Any] = {
    "project": "vgmr",
    "author": "",
    "extensions": ["myst_nb", "vgmr.notebook.site"],
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {"navbar_persistent": [], "navbar_center": [], "navbar_end": []},
    "html_title": "vgmr",
    "html_show_copyright": False,
    "html_context": {"default_mode": "light"},
    "html_static_path": ["_static"],
    "html_css_files": ["site.css"],
    "html_copy_source": False,
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "myst_enable_extensions": ["dollarmath", "amsmath"],
    "myst_heading_anchors": 3,
    "html_math_renderer": "mathml",
}


def mathml(formula: str, block: bool) -> str:
    """A LaTeX formula as MathML, which browsers show without any script; `\\tag{n}` stands at the right.

    Raises:
        ValueError: something in the formula has no MathML.
    """
    from docutils.utils.math import MathError
    from docutils.utils.math.latex2mathml import tex2mathml

    tag = re.search(r"\\tag\{(.+?)\}", formula)
    formula = formula.replace(tag[0], "") if tag else formula
    formula = re.sub(r"\\([bB]igg?[lr]?|textstyle)(?![a-zA-Z])", "", formula)  # brackets grow by themselves
    formula = re.sub(r"\\([dt]?frac)(\d)(\d)", r"\\\1{\2}{\3}", formula)
    number = f"<span>({tag[1]})</span>" if tag else ""
    try:
        shown = str(tex2mathml(formula, as_block=block))
    except MathError as error:
        raise ValueError(f"formula {formula!r} cannot become MathML: {error}") from None
    return f'<div style="{FORMULA}">{shown}{number}</div>' if block else shown


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls: formulas become MathML."""
    from docutils.nodes import SkipNode

    def visit(translator: Any, node: Any, block: bool) -> None:
        translator.body.append(mathml(node.astext(), block))
        raise SkipNode

    inline, alone = partial(visit, block=False), partial(visit, block=True)
    app.add_html_math_renderer("mathml", (inline, None), (alone, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def linked(text: str, folder: str) -> str:
    """Text of a file in `folder`, its links pointing to pages, copied pictures or the repository."""

    def target(found: re.Match[str]) -> str:
        path = Path(found[1])
        if path.suffix == ".ipynb":
            return f"]({'index' if path.stem == LEDGER else path.stem}.ipynb)"
        if path.name == publish.GLOSSARY:
            return f"]({path.name})"
        if path.suffix == ".png":
            return f"](pictures/{path.name})"
        place = (Path(folder) / path).as_posix()
        return f"]({publish.repository()}/blob/main/{place})"

    return re.sub(r"\]\((?!https?://|#)([^)\s]+)\)", target, text)


def page(path: Path) -> Any:
    """A committed notebook as the site shows it: no image from elsewhere, figures with their alt text."""
    book = nbformat.read(path, as_version=4)
    book.cells = [cell for cell in book.cells if "colab" not in tags(cell)]
    for cell in book.cells:
        if cell.cell_type == "markdown":
            text = cell.source.replace(f"![Open in Colab]({publish.BADGE})", "Open in Colab")
            cell.source = linked(text, "notebooks")
            continue
        if "widget" in tags(cell):
            cell.outputs = [nbformat.v4.new_output("stream", text=SLIDERS)]
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]  # progress bars
        for output in cell.outputs:
            data = output.get("data", {})
            for kind in set(data) - SHOWN:
                del data[kind]
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return book


def front(readme: str, pages: list[str]) -> Any:
    """The first page: what this is, the ledger of claims if there is one, and the way to all other pages."""
    cells = [nbformat.v4.new_markdown_cell(readme.split("\n## ")[0])]
    ledger = publish.FOLDER / f"{LEDGER}.ipynb"
    if ledger.exists():
        for cell in page(ledger).cells:
            if cell.cell_type == "markdown":
                cell.source = re.sub(r"^(#+ )", r"#\1", cell.source, flags=re.M)
            else:
                cell.metadata["tags"] = [*tags(cell), "hide-input"]
            cells.append(cell)
    listed = "\n".join(pages)
    toctree = f"```{{toctree}}\n:hidden:\n:caption: Notebooks\n\n{listed}\n```"
    words = "Words used <glossary>\n" if (publish.FOLDER / publish.GLOSSARY).exists() else ""
    about = f"```{{toctree}}\n:hidden:\n:caption: About\n\n{words}The repository <readme>\n```"
    cells += [nbformat.v4.new_markdown_cell(toctree), nbformat.v4.new_markdown_cell(about)]
    for number, cell in enumerate(cells):
        cell["id"] = f"front-{number:03d}"
    return nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)


def build(output: Path) -> int:
    """Write the site to `output`, where an earlier one makes way; warnings are errors. Returns the exit status.

    Raises:
        ValueError: there is something else in `output`.
        OSError: it cannot be written.
    """
    if output.is_dir() and any(output.iterdir()) and not (output / BUILT).is_file():
        raise ValueError(f"{output} holds something else than a site; give a folder that is new or empty")
    from sphinx.application import Sphinx

    try_place(output / "index.html")
    with tempfile.TemporaryDirectory() as name:
        source, trees, pages = (Path(name) / folder for folder in ("source", "trees", "pages"))
        (source / "pictures").mkdir(parents=True)
        (source / "_static").mkdir()
        (source / "_static/site.css").write_text(STYLE, encoding="utf-8")
        for picture in (publish.FOLDER / "records").glob("*.png"):
            shutil.copy(picture, source / "pictures")
        others = [path for path in publish.notebooks() if path.stem != LEDGER]
        for path in others:
            nbformat.write(page(path), source / path.name)
        readme = linked(Path("README.md").read_text(encoding="utf-8"), "")
        nbformat.write(front(readme, [path.stem for path in others]), source / "index.ipynb")
        (source / "readme.md").write_text(readme, encoding="utf-8")
        if (glossary := publish.FOLDER / publish.GLOSSARY).exists():
            words = linked(glossary.read_text(encoding="utf-8"), "notebooks")
            (source / publish.GLOSSARY).write_text(words, encoding="utf-8")
        site = Sphinx(source, None, pages, trees, "html", SETTINGS, status=None, warningiserror=True)
        site.build()
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(pages, output)
    print(f"{len(list(output.glob('*.html')))} pages in {output}; begin with {output / 'index.html'}")
    return int(site.statuscode)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("vgmr.notebook.site", description="build the reading site")
    parser.add_argument("output", nargs="?", default="build/site", help="folder; default build/site")
    try:
        sys.exit(build(user_path(parser.parse_args().output)))
    except (ValueError, OSError) as error:
        sys.exit(f"vgmr.notebook.site: {error}")
