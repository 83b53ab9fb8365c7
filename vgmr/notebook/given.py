"""What users give in files and on the command line: strict YAML and JSON, plain values of annotated types.

Nothing heavy is imported here, so that what is wrong is said at once.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import types
import typing
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD = "application/vnd.vgmr.record+json"  # MIME type of what a notebook records
TABLES = "VGMR_TABLES"  # environment variable of a kernel: the folder for what `lesson.table` writes
LONGEST = 1_000_000  # values in a file, with all that its anchors repeat
DEEPEST = 50
LARGEST = 10_000_000  # bytes of a file
DIGITS = 1000  # of a whole number
DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
SCIENTIFIC = re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
OTHER_BASES = re.compile(r"[-+]?0(o[0-7_]+|x[0-9a-fA-F_]+|b[01_]+)")
PLAIN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map", "merge")
NEVER_NEGATIVE = re.compile(
    r"(^|_)(rates?|epochs|seeds?|jobs|rounds|size|width|dim|layers|heads|share|ratio|conflict|margin)$"
)
MOST = {"conflict": 1}
LEAST = {"seeds": 2} | dict.fromkeys(("draws", "epochs", "jobs", "batch_size", "sample_size", "halvings"), 1)


def fits(value: Any, annotation: Any) -> bool:
    """Whether `value` is of the annotated type; an int is a float, None only where the type says so.

    Knows plain classes, `|`, `Literal`, and lists, tuples and dicts of such: `tuple[int, str]` has two entries,
    `tuple[int, ...]` any number.
    """
    if annotation is Any:
        return True
    if annotation is None:
        return value is None
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, choice) for choice in inner)
    if origin is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if origin is tuple and inner[-1:] != (Ellipsis,):
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin in (list, tuple):
        return isinstance(value, origin) and all(fits(item, inner[0]) for item in value)
    if annotation in (int, float):
        return isinstance(value, int | annotation) and not isinstance(value, bool)
    return isinstance(value, annotation)


def described(annotation: Any) -> str:
    """A type as one writes it."""
    return str(annotation) if typing.get_args(annotation) else getattr(annotation, "__name__", str(annotation))


def read_file(path: Path, kind: type, expected: str) -> Any:
    """The content of a YAML or JSON file in UTF-8; an empty one is an empty `kind`.

    Nothing is read by surprise: a key given twice, a number of another base, such as 010, a date, a set, and
    yes or no in place of true or false are refused.

    Args:
        kind: list or dict.
        expected: what the content should be, for the message.

    Raises:
        ValueError: one line with the file, the line in it and what to write.
        OSError: the file cannot be read.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a YAML or JSON file with {expected}")
    text = _text(path)
    try:
        content = _json(path, text) if path.suffix.lower() == ".json" else _yaml(path, text)
    except RecursionError:
        raise ValueError(f"{path}: nested more than {DEEPEST} deep") from None
    content = kind() if content is None else content
    if not isinstance(content, kind):
        raise ValueError(f"{path}, line 1: expected {expected}, got a {type(content).__name__}")
    return content


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST:,} bytes; expected a file with parameters")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path}, line 1: the file is UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _json(path: Path, text: str) -> Any:
    import yaml

    def constant(name: str) -> Any:
        raise ValueError(f"{path}: {name} is no number of JSON; write a finite one")

    def whole(digits: str) -> int:
        if len(digits) > DIGITS:
            raise ValueError(f"{path}: a number of more than {DIGITS:,} digits")
        return int(digits)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if doubled := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"{path}: {_short(doubled[0])} is given twice; keep one of them")
        return dict(pairs)

    # JSON is YAML, which knows the lines, but not all JSON is; a tab is only between values
    with contextlib.suppress(yaml.YAMLError):
        _check(path, yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader), {}, (), as_json=True)
    try:
        return json.loads(text or "null", parse_constant=constant, parse_int=whole, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None


def _yaml(path: Path, text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """With 1e-3 as a number, as in YAML 1.2 and in JSON."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", SCIENTIFIC, list("-+.0123456789"))
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(path, node, {}, ())
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"{path}, line {line}: character #x{error.character:04x} is not text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; indent with spaces, not with tabs" if "'\\t'" in str(error.problem) else ""
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{where}: not YAML: {error.problem or error.context}{hint}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _check(path: Path, node: Any, sizes: dict[int, int], above: tuple[int, ...], as_json: bool = False) -> int:
    """How many values a node stands for; ValueError for one that is not plain, given twice or endless."""
    import yaml

    def refuse(at: Any, why: str) -> None:
        raise ValueError(f"{path}, line {at.start_mark.line + 1}: {why}")

    if node is None:
        return 0
    if id(node) in above:
        refuse(node, "an anchor that holds itself has no end; write it out")
    if len(above) > DEEPEST:
        refuse(node, f"nested more than {DEEPEST} deep")
    if id(node) in sizes:
        return sizes[id(node)]
    inner: list[Any] = []
    if isinstance(node, yaml.ScalarNode):
        if not as_json and (why := _surprise(node)):
            refuse(node, why)
    elif node.tag.rpartition(":")[2] not in PLAIN_TAGS:
        refuse(node, f"{_kind(node.tag)} is no value of JSON; write a list or lines 'name: value'")
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            merged = key.tag.endswith(":merge")
            if not isinstance(key, yaml.ScalarNode) or not (merged or key.tag.endswith(":str")):
                refuse(key, f'a name must be text; write it in quotes, such as "{_short(key.value)}"')
            if key.value in lines and not merged:
                refuse(key, f"{key.value} is given twice, first in line {lines[key.value]}; keep one of them")
            lines[key.value] = key.start_mark.line + 1
            inner.append(value)
    else:
        inner = node.value
    sizes[id(node)] = 1 + sum(_check(path, each, sizes, (*above, id(node)), as_json) for each in inner)
    if sizes[id(node)] > LONGEST:
        refuse(node, f"more than {LONGEST:,} values; write a smaller file")
    return sizes[id(node)]


def _surprise(node: Any) -> str:
    """Why a scalar would not be read as most people mean it, and what to write; empty if it would."""
    text, kind = node.value, node.tag.rpartition(":")[2]
    if node.style is not None and kind == "str":
        return ""
    if kind not in PLAIN_TAGS:
        return f'{_kind(node.tag)} is no value of JSON; write it in quotes, such as "{_short(text)}"'
    if kind == "bool" and text.lower() not in ("true", "false"):
        return f'{text} would be read as true or false; write true, false or "{text}"'
    if (kind == "int" and not DECIMAL.fullmatch(text)) or (kind == "str" and OTHER_BASES.fullmatch(text)):
        return f'{text} is no decimal number; write it as one, or "{text}" for text'
    if kind == "int" and len(text) > DIGITS:
        return f"a number of more than {DIGITS:,} digits"
    if kind == "float" and not (FLOAT.fullmatch(text) and math.isfinite(float(text))):
        return f'{text} is no finite decimal number; write it as one, or "{text}" for text'
    return ""


def _kind(tag: str) -> str:
    name = tag.rpartition(":")[2]
    return {"timestamp": "a date", "set": "a set", "binary": "binary data"}.get(name, f"the tag {tag}")


def _short(value: Any) -> str:
    return value if isinstance(value, str) and len(value) < 40 else "text"


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def trouble(value: Any, name: str = "", depth: int = 0) -> str:
    """Why a value is none of JSON, or is too small or too large where `name` says so; empty if it is fine.

    `seeds` are at least two, which an interval over them needs.
    """
    if depth > DEEPEST:
        return f"nested more than {DEEPEST} deep"
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"the name {shown(key)} is not text"
            if why := trouble(key, "", depth + 1) or trouble(item, key, depth + 1):
                return why
        return ""
    if isinstance(value, list | tuple):
        return next((why for item in value if (why := trouble(item, name, depth + 1))), "")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"{shown(value)} is not valid text (UTF-8)"
        return ""
    if value is None or isinstance(value, bool):
        return ""
    if not isinstance(value, int | float):
        return f"a {type(value).__name__} is no value of JSON"
    if isinstance(value, int) and abs(value) >= 10**DIGITS:
        return f"a number of more than {DIGITS:,} digits"
    if isinstance(value, float) and not math.isfinite(value):
        return f"expected a finite number, got {value}"
    if value < LEAST.get(name, value):
        return f"{name} must be at least {LEAST[name]}, got {value}"
    if value > MOST.get(name, value):
        return f"{name} must be at most {MOST[name]}, got {value}"
    if value < 0 and NEVER_NEGATIVE.search(name):
        return f"{name} must not be negative, got {value}"
    return ""
