"""Text is UTF-8 whatever the locale: every call in the package that opens text says so."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vgmr"
FILES = sorted(PACKAGE.rglob("*.py"))
TEXT = {"read_text", "write_text"}
OPENERS = {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile", "TextIOWrapper"}
OTHERS = {"Image", "wave", "av", "zipfile", "h5py", "image_module", "content", "self"}  # open no text
RUNNERS = {"run", "Popen", "check_output"}


def without_encoding(source: str) -> list[int]:
    """Lines of calls that read or write text in the encoding of the locale."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        given = {word.arg: word.value for word in node.keywords}
        modes = [part.value for part in [*node.args[:2], given.get("mode")] if isinstance(part, ast.Constant)]
        binary = any(isinstance(mode, str) and "b" in mode and len(mode) <= 3 for mode in modes)
        opens = name in OPENERS and owner not in OTHERS and not (name.endswith("TemporaryFile") and not modes)
        runs = owner == "subprocess" and name in RUNNERS and ("text" in given or "universal_newlines" in given)
        encoded = isinstance(value := given.get("encoding"), ast.Constant) and value.value == "utf-8"
        if not encoded and (name in TEXT or runs or (opens and not binary)):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_text_file_is_utf_8(path):
    assert without_encoding(path.read_text(encoding="utf-8")) == []


def test_these_tests_would_notice():
    for line in ("p.read_text()", "p.write_text(x)", "open(p)", "p.open('w')", "os.fdopen(n, 'r')"):
        assert without_encoding(line) == [1], line
    assert without_encoding("p.read_text(encoding='latin-1')") == [1]
    assert without_encoding("subprocess.run(c, text=True)") == [1]
    for line in ("p.open('rb')", "open(p, 'wb')", "open(p, encoding='utf-8')", "Image.open(p)"):
        assert without_encoding(line) == [], line
