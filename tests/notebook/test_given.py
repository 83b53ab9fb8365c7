"""Parameter and sweep files are read strictly: what people write is what runs, or one line says what to write."""

import json

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from vgmr.notebook.given import read_file, trouble

EXPECTED = "lines 'name: value'"


def refusal(path, content: bytes, kind: type = dict) -> str:
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_file(path, kind, EXPECTED)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    return str(error.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a is given twice, first in line 1"),
        ("o:\n  deep: {b: 1, b: 1}", 2, "b is given twice"),
        ('- x\n- {"a": 1, a: 2}', 2, "a is given twice"),
        ("a: 010", 1, '010 is no decimal number; write it as one, or "010"'),
        ("a: 0x1f", 1, "0x1f is no decimal number"),
        ("a: 0o17", 1, "0o17 is no decimal number"),
        ("a: 0b11", 1, "0b11 is no decimal number"),
        ("a: 1_000", 1, "1_000 is no decimal number"),
        ("a: 1:30", 1, "1:30 is no decimal number"),
        ("a: 1:30.5", 1, "1:30.5 is no finite decimal number"),
        ("a: [1,\n .inf]", 2, ".inf is no finite decimal number"),
        ("a: .NaN", 1, ".NaN is no finite decimal number"),
        ("a: 1e999", 1, "1e999 is no finite"),
        ("a: yes", 1, 'yes would be read as true or false; write true, false or "yes"'),
        ("a: Off", 1, "Off would be read as true or false"),
        ("a: 2024-05-01", 1, 'a date is no value of JSON; write it in quotes, such as "2024-05-01"'),
        ("a: 2024-05-01 10:00:00", 1, "a date is no value"),
        ("a: !!set {b, c}", 1, "a set is no value of JSON; write a list"),
        ("a: !!binary aGk=", 1, "binary data is no value of JSON"),
        ("a: !!omap [b: 1]", 1, "is no value of JSON"),
        ("a: !!python/name:os.system", 1, "is no value of JSON"),
        ("a: !own [b]", 1, "the tag !own is no value of JSON"),
        ("1: a", 1, 'a name must be text; write it in quotes, such as "1"'),
        ("? [a]\n: b", 1, "a name must be text"),
        ("null: b", 1, "a name must be text"),
        ("a: &a [*a]", 1, "an anchor that holds itself"),
        ("a:\n\tb: 1", 2, "indent with spaces, not with tabs"),
        ("a: [1", 1, "not YAML: "),
        ("a: 1\n---\nb: 2", 2, "not YAML: "),
        ("a: *b", 1, "not YAML: found undefined alias 'b'"),
        ("a: b\nc: \x07", 2, "character #x0007 is not text"),
    ],
)
def test_what_would_be_read_by_surprise_is_refused_with_its_line(tmp_path, content, line, said):
    assert said in (told := refusal(tmp_path / "some.yaml", content.encode(), object)), told
    assert told.startswith(f", line {line}: "), told


def test_the_file_must_be_utf_8(tmp_path):
    path = tmp_path / "some.yaml"
    assert refusal(path, "a: 1\n".encode("utf-16")) == ", line 1: the file is UTF-16; save it as UTF-8"
    assert refusal(path, "a: 1\nb: ä\n".encode("latin-1")).startswith(", line 2: byte 0xe4 is not UTF-8; save")
    path.write_bytes("\ufeffa: ü世".encode())
    assert read_file(path, dict, EXPECTED) == {"a": "ü世"}


def test_folders_and_endless_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder; expected a YAML or JSON file"):
        read_file(tmp_path, dict, EXPECTED)
    assert "nested more than" in refusal(tmp_path / "deep.yaml", b"a: " + b"[" * 20_000)
    laughs = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    assert "more than 1,000,000 values" in refusal(tmp_path / "laughs.yaml", laughs.encode())
    assert "expected lines" in refusal(tmp_path / "list.yaml", b"- a")


def test_plain_values_are_read(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("a: &x [1, -2.5, 1e-3, true, null, 'no', \"010\", text]\nb: {<<: {c: 1}, d: *x}\n")
    values = [1, -2.5, 0.001, True, None, "no", "010", "text"]
    assert read_file(path, dict, EXPECTED) == {"a": values, "b": {"c": 1, "d": values}}
    path.write_text("# nothing\n")
    assert read_file(path, dict, EXPECTED) == {} and read_file(path, list, EXPECTED) == []


def test_json_files_are_json(tmp_path):
    path = tmp_path / "some.json"
    path.write_text('{\n\t"a": 1e-3,\n\t"b": "\\ud83d\\ude00"\n}')
    assert read_file(path, dict, EXPECTED) == {"a": 0.001, "b": "😀"}
    assert "line 2: a is given twice" in refusal(path, b'{"a": 1,\n"a": 2}')
    assert "line 2: not JSON" in refusal(path, b'{"a": 1,\n}')
    assert "NaN is no number of JSON" in refusal(path, b'{"a": NaN}')
    # what YAML cannot read, so that no line is known
    assert "a is given twice" in refusal(path, b'{"a": 1, "b": "\x7f", "a": 2}')
    assert "text is given twice" in refusal(path, b'{"%s": 1, "%s": 2}' % (b"k" * 1200, b"k" * 1200))
    assert "a number of more than 1,000 digits" in refusal(path, b'{"a": %s}' % (b"9" * 5000))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_what_is_written_plainly_comes_back(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("given")
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_file(folder / "a.json", dict, EXPECTED) == content
    (folder / "a.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert read_file(folder / "a.yaml", dict, EXPECTED) == content


ODD = [
    "a",
    "b",
    ": ",
    "- ",
    "\n",
    "  ",
    "\t",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&x ",
    "*x",
    "!!set ",
    "!!int ",
    "!!seq ",
    "|",
]
ODD += [
    "010",
    "1e5",
    "yes",
    "2024-01-01",
    "'",
    '"',
    "#",
    "? ",
    "<<",
    "---",
    "%YAML 1.1",
    "\x00",
    "\xa0",
    "=",
    "!!map ",
]


@given(st.lists(st.sampled_from(ODD), max_size=12).map("".join).map(str.encode) | st.binary(max_size=30))
@example(b"!!int abc")
@example(b"!!float [1]")
@example(b"!!null x")
@example(b"!!timestamp x")
@example(b"<<: 1")
@example(b"a: !!str {b: c}")
def test_any_file_is_plain_values_or_one_line(tmp_path_factory, content):
    for name in ("odd.yaml", "odd.json"):
        path = tmp_path_factory.mktemp("odd") / name
        path.write_bytes(content)
        try:
            found = read_file(path, object, EXPECTED)
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error), error
        else:
            assert found.__class__ is object or not trouble(found)


def test_trouble_names_what_is_no_value_of_json_and_what_is_negative():
    assert trouble({"a": {1, 2}}) == "a set is no value of JSON"
    assert trouble({1: 2}) == "the name 1 is not text"
    assert "not valid text" in trouble(["\udcff"])
    assert trouble(float("inf")) == "expected a finite number, got inf"
    assert trouble([-(16**5000)]) == "a number of more than 1,000 digits" and trouble(10**999) == ""
    for name in ("rate", "learning_rate", "learning_rates", "hidden_size", "latent_dim", "seed", "split_seed"):
        assert trouble(-1, name) == f"{name} must not be negative, got -1"
        assert trouble({name: [-0.5]}) == f"{name} must not be negative, got -0.5"
        assert trouble(1, name) == ""
    assert trouble({"offset": -1, "separate": -1, "reseeded": -3}) == ""
    for name, least in (("seeds", 2), ("draws", 1), ("epochs", 1), ("jobs", 1), ("batch_size", 1)):
        assert trouble(least - 1, name) == f"{name} must be at least {least}, got {least - 1}"
        assert trouble(least, name) == ""
    assert trouble(0, "warm_epochs") == ""
    assert trouble(-0.1, "margin") == "margin must not be negative, got -0.1"
    assert trouble(-1, "conflict") == "conflict must not be negative, got -1"
    assert trouble(7, "conflict") == "conflict must be at most 1, got 7" and trouble(1.0, "conflict") == ""
