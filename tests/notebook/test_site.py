"""The reading site: every notebook a page, nothing executed, nothing asked of another machine."""

import base64
import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from lab import browser_context, chromium, watched

from vgmr.notebook import publish, site

ROOT = Path(__file__).parents[2]
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]


class Loaded(HTMLParser):
    """Addresses that a browser fetches to show a page, and the images with their alt text."""

    def __init__(self, page: Path):
        super().__init__()
        self.addresses, self.images = [], []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev", "search", "index", "author"):
            self.addresses.append(given.get("href") or "")
        if tag == "img":
            self.images.append((given.get("src", ""), given.get("alt", "")))


def build(folder: Path, output: Path) -> subprocess.CompletedProcess:
    """As `make site` does it, in a process of its own: Sphinx keeps what it was told."""
    command = [sys.executable, "-m", "vgmr.notebook.site", str(output)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site of this repository."""
    output = tmp_path_factory.mktemp("site") / "html"
    done = build(ROOT, output)
    assert done.returncode == 0, done.stderr
    return output


def page(built: Path, name: str) -> Path:
    return built / ("index.html" if name == site.LEDGER else f"{name}.html")


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_is_a_page_with_its_figures(built, name):
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    drawn = [
        base64.b64decode(output.data["image/png"]) for output in outputs if "image/png" in output.get("data", {})
    ]
    images = Loaded(page(built, name)).images
    assert {f"_images/{sha256(figure).hexdigest()}.png" for figure in drawn} <= {source for source, _ in images}
    for source, alt in images:
        assert (built / source).is_file() and len(alt) > 10, (source, alt)


def test_every_notebook_leads_to_the_words_used(built):
    assert "<h1>Words used in the notebooks" in (built / "glossary.html").read_text()
    for name in NAMES:
        assert 'href="glossary.html"' in page(built, name).read_text(), name


def test_no_page_loads_anything_from_elsewhere(built):
    pages = list(built.glob("*.html"))
    assert len(pages) > len(NAMES)
    for path in pages:
        for address in Loaded(path).addresses:
            assert not re.match(r"(https?:)?//", address), f"{path.name}: {address}"
    for style in built.rglob("*.css"):
        assert not re.search(r"(url\(|@import )['\"]?(https?:)?//", style.read_text()), style


def test_a_page_in_the_browser(built):
    """Formulas take room on the page, and nothing but files is read."""
    if not chromium():
        message = "no chromium on this machine; Debian and Ubuntu have it as the package chromium"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with browser_context() as context:
        opened = context.new_page()
        errors, outside = watched(opened)
        opened.goto((built / "03_method_walkthrough.html").as_uri(), timeout=90_000)
        formulas = opened.locator("math")
        sizes = [formula.bounding_box() for formula in formulas.all()[:40]]
        assert formulas.count() > 40 and all(size["width"] > 3 and size["height"] > 5 for size in sizes)
        assert not outside and not errors


@pytest.fixture
def project(tmp_path):
    """Two notebooks, the second of them the ledger."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "README.md").write_text(
        "# name\n\nWhat it is.\n\n## More\n\n[one](notebooks/01_one.ipynb) [law](LICENSE)\n"
    )
    (tmp_path / "notebooks").mkdir()
    badge = f"[![Open in Colab]({publish.BADGE})](https://colab.example/x)"
    for name in ("01_one", site.LEDGER):
        cells = [
            nbformat.v4.new_markdown_cell(f"# Title of {name}"),
            nbformat.v4.new_markdown_cell(badge, metadata={"tags": ["badge"]}),
            nbformat.v4.new_code_cell("%pip install it", metadata={"tags": ["colab"]}),
            nbformat.v4.new_markdown_cell(
                f"## Part\n\n[there]({site.LEDGER}.ipynb) $a_1$\n\n$$\\tfrac12 \\tag{{7}}$$"
            ),
            nbformat.v4.new_code_cell("raise SystemExit('executed')"),
        ]
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata=site.KERNEL), tmp_path / f"notebooks/{name}.ipynb"
        )
    return tmp_path


def test_the_ledger_is_the_front_page(project):
    assert build(project, project / "html").returncode == 0
    front, one = (project / "html" / name for name in ("index.html", "01_one.html"))
    text = front.read_text()
    assert "What it is." in text and f"Title of {site.LEDGER}" in text and "hide" in text
    assert not (project / "html" / f"{site.LEDGER}.html").exists()
    assert 'href="index.html">there</a>' in one.read_text().replace('<span class="std std-doc">', "").replace(
        "</span>", ""
    )
    assert "<math" in one.read_text() and "<span>(7)</span>" in one.read_text()
    assert "%pip" not in one.read_text() and publish.BADGE not in one.read_text()
    assert "Open in Colab" in one.read_text()
    assert 'href="01_one.html"' in (project / "html" / "readme.html").read_text()
    assert "/blob/main/LICENSE" in (project / "html" / "readme.html").read_text()


def test_a_warning_fails_the_build(project):
    path = project / "notebooks/01_one.ipynb"
    book = nbformat.read(path, 4)
    book.cells[3].source = "## Part\n\n[nowhere](#no-such-heading)"
    nbformat.write(book, path)
    done = build(project, project / "html")
    assert done.returncode and "no-such-heading" in done.stderr


def test_what_else_lies_in_the_folder_is_never_lost(project):
    done = build(project, project)
    assert done.returncode == 1 and "holds something else than a site" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert (project / "README.md").exists() and (project / "notebooks/01_one.ipynb").exists()
    assert build(project, project / "html").returncode == 0 and (project / "html" / site.BUILT).exists()
    (project / "html" / "stale.html").touch()
    path = project / "notebooks/01_one.ipynb"
    whole = path.read_bytes()
    path.write_text("{}")  # a build that fails leaves the site that was there
    assert build(project, project / "html").returncode and (project / "html" / "stale.html").exists()
    path.write_bytes(whole)
    assert build(project, project / "html").returncode == 0 and not (project / "html" / "stale.html").exists()


def test_help_builds_nothing(project):
    done = build(project, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: ") and not (project / "--help").exists()


def test_formulas():
    assert site.mathml("x", False).startswith("<math") and "<mi>x</mi>" in site.mathml("x", False)
    assert "<mn>1</mn>" in site.mathml(r"\tfrac12", False) and "<mfrac" in site.mathml(r"\tfrac12", False)
    assert site.mathml(r"\big(x\Big)", True).count("<mo") == 2
    with pytest.raises(ValueError, match=r"formula '\\\\nosuch' cannot become MathML"):
        site.mathml(r"\nosuch", False)
