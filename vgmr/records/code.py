"""What code a result rests on: the definitions that it reaches, bare of docstrings, messages and refusals."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
SILENT = ("__repr__", "__str__", "extra_repr")  # what is said, not computed


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# read at import, so that a result is filed under the code that made it
SOURCES = {_name(path): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def _refuses(node: ast.stmt) -> bool:
    """Whether a statement can end a training, but change none that ends well.

    That is `if ...: raise`, also in a loop, and `check_...(...)`, called for nothing that it gives.
    """
    if any(isinstance(part, ast.NamedExpr) for part in ast.walk(node)):
        return False
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return isinstance(node.value.func, ast.Name) and node.value.func.id.startswith("check_")
    if not isinstance(node, ast.If | ast.For):
        return False
    return all(isinstance(part, ast.Raise) or _refuses(part) for part in [*node.body, *node.orelse])


class _Bare(ast.NodeTransformer):
    """Without docstrings, without what errors say, and without what only refuses."""

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            del node.body[0]
        for name, inner in ast.iter_fields(node):
            if isinstance(inner, list) and inner and isinstance(inner[0], ast.stmt):
                left = [part for part in inner if getattr(part, "name", "") not in SILENT and not _refuses(part)]
                setattr(node, name, left or [ast.Pass()] * (name == "body"))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and not node.body:
            node.body = [ast.Pass()]
        if isinstance(node, ast.Raise):
            return ast.Raise()
        return self.generic_visit(node)


@cache
def _definitions(source: str) -> tuple[dict[str, ast.stmt], dict[str, tuple[str, str]]]:
    """What source defines at its top, and where the names are from that it imports: (module, name or "")."""
    defined: dict[str, ast.stmt] = {}
    tree = ast.parse(source)
    _Bare().visit(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            inside = [part for target in targets for part in ast.walk(target)]
            defined |= {part.id: node for part in inside if isinstance(part, ast.Name)}
    return defined, dict(_imported(tree))


@cache
def _read(source: str, name: str) -> tuple[str, list[tuple[str, str]]]:
    """A definition's own text, bare, and what it uses: (module, name), the module empty where it is this one."""
    defined, imported = _definitions(source)
    uses = []
    for part in ast.walk(defined[name]):
        if isinstance(part, ast.Name):
            uses.append(imported.get(part.id, ("", part.id)))
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            inner, attribute = imported.get(part.value.id, ("", "-"))
            if not attribute:
                uses.append((inner, part.attr))
    return ast.unparse(defined[name]), uses


def _imported(tree: ast.AST) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vgmr":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                place = (inner, "") if inner in SOURCES else (node.module, alias.name)
                yield alias.asname or alias.name, place


def reached(roots: Iterable[Callable[..., Any]], stops: Iterable[str] = ()) -> dict[str, str]:
    """Source, bare, of all definitions in this package that `roots` use, directly or not, by "module.name".

    Args:
        roots: functions and classes of this package.
        stops: modules, or "module.name", that are not followed.
    """
    found: dict[str, str] = {}
    stopped = set(stops)
    todo = [(root.__module__, root.__qualname__.split(".")[0]) for root in roots]
    while todo:
        module, name = todo.pop()
        full = f"{module}.{name}"
        if full in found or full in stopped or module in stopped or module not in SOURCES:
            continue
        defined, imported = _definitions(SOURCES[module])
        if name not in defined:
            if name in imported:
                todo.append(imported[name])
            continue
        found[full], uses = _read(SOURCES[module], name)
        todo += [(other or module, used) for other, used in uses]
    return found


def digest(roots: Iterable[Callable[..., Any]], stops: Iterable[str] = ()) -> str:
    """SHA-256 of what is `reached`, 16 hexadecimal digits; a definition that only moves to another module changes
    nothing.
    """
    text = "\n".join(sorted(reached(roots, stops).values()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
