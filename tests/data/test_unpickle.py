"""The restricted unpickler: what documented files hold comes through, everything else is refused unrun."""

import bz2
import gzip
import lzma
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest
import torch

from vgmr.data.gated.unpickle import read_pickle

ARRAYS = {
    "float64": np.arange(6.0).reshape(2, 3),
    "big-endian": np.arange(6.0).reshape(2, 3).astype(">f8"),
    "float16": np.array([1.5, np.nan, -np.inf], np.float16),
    "fortran": np.asfortranarray(np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)),
    "transposed": np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    "strided": np.arange(20)[::2],
    "text": np.array(["ab", "", "ÄÖ"]),
    "big-endian text": np.array(["ab", "xyz"]).astype(">U3"),
    "bytes": np.array([b"v1", b"video2"]),
    "objects": np.array(["a", b"b", None, 3], object),
    "booleans": np.array([True, False]),
    "empty": np.zeros((0, 4)),
    "no dimension": np.array(2.5),
}


def write(tmp_path, content):
    path = tmp_path / "file.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_through_in_every_protocol(tmp_path, name, protocol):
    array = ARRAYS[name]
    read = read_pickle(write(tmp_path, pickle.dumps({"x": array}, protocol=protocol)))["x"]
    assert isinstance(read, np.ndarray)
    assert read.shape == array.shape
    assert read.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_and_numbers_come_through_in_every_protocol(tmp_path, protocol):
    content = {
        "list": [1, 2.5, None, True, "text", b"bytes \xff", 10**30],
        "tuple": ((), (1,), (1, 2, 3, 4)),
        "set": {1, 2},
        "frozen": frozenset({"a"}),
        "ordered": OrderedDict(a=1, b=[2]),
        "scalars": [np.float64(2.5), np.int64(-3), np.str_("ab"), np.str_(""), np.bool_(True), np.bytes_(b"x")],
    }
    read = read_pickle(write(tmp_path, pickle.dumps(content, protocol=protocol)))
    assert read == content
    assert type(read["scalars"][0]) is np.float64


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_module_paths_of_numpy_1_and_2_read_the_same(tmp_path, protocol):
    content = {"array": np.arange(3.0), "scalar": np.float32(1.5)}
    raw = pickle.dumps(content, protocol=protocol)
    new, old = b"numpy._core", b"numpy.core"
    assert new in raw
    if protocol < 4:
        renamed = raw.replace(new, old)
    else:  # short strings carry their length, and frames theirs
        pieces = raw.split(new)
        renamed = bytearray(pieces[0])
        for piece in pieces[1:]:
            renamed[-1] -= 1
            renamed += old + piece
        if renamed[2:3] == b"\x95":
            renamed[3:11] = struct.pack("<Q", len(renamed) - 11)
        renamed = bytes(renamed)
    for version in (raw, renamed):
        read = read_pickle(write(tmp_path, version))
        np.testing.assert_array_equal(read["array"], [0.0, 1.0, 2.0])
        assert read["scalar"] == np.float32(1.5)


def test_python_2_pickle_with_string_buffers_reads(tmp_path):
    """Python 2 wrote byte strings as SHORT_BINSTRING, both as array contents and as dictionary keys."""
    values = np.array([1.0, -2.0])
    raw = (
        b"\x80\x02}U\x05audio"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10" + values.tobytes() + b"tbs."
    )
    np.testing.assert_array_equal(read_pickle(write(tmp_path, raw))["audio"], values)


class Hostile:
    """Pickles into a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_hostile_calls_are_refused_by_name_and_not_run(tmp_path):
    mark = tmp_path / "ran"
    for function, arguments, name in [
        (os.system, (f"touch {mark}",), "system"),
        (eval, (f"open({str(mark)!r}, 'w')",), "builtins.eval"),
        (exec, (f"open({str(mark)!r}, 'w')",), "builtins.exec"),
        (getattr, (mark, "touch"), "builtins.getattr"),
        (np.load, (str(mark),), "numpy.load"),
    ]:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            raw = pickle.dumps({"train": [Hostile(function, *arguments)]}, protocol=protocol)
            with pytest.raises(ValueError, match=r"refused, nothing was run") as caught:
                read_pickle(write(tmp_path, raw))
            # protocols below 3 write builtins under their old name
            assert name in str(caught.value).replace("__builtin__", "builtins") or "pathlib" in str(caught.value)
            assert "\n" not in str(caught.value)
            assert not mark.exists()


def test_negative_control_the_standard_unpickler_runs_them(tmp_path):
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Hostile(os.system, f"touch {mark}")))
    assert mark.exists()


def test_classes_and_foreign_objects_are_refused(tmp_path):
    for thing in (range(3), 1 + 2j, np.random.default_rng(0), np.array(["2020-01-01"], "M8[D]")):
        with pytest.raises(ValueError, match=r"refused"):
            read_pickle(write(tmp_path, pickle.dumps(thing)))
    with pytest.raises(ValueError, match=r"array type 'V|refused"):
        read_pickle(write(tmp_path, pickle.dumps(np.zeros(2, [("a", "f8")]))))


def test_stand_ins_cannot_be_changed_by_the_pickle(tmp_path):
    for name in ("numpy.core.multiarray\n_reconstruct", "numpy\ndtype", "collections\nOrderedDict"):
        with pytest.raises(ValueError, match=r"tries to change a function"):
            read_pickle(write(tmp_path, b"\x80\x02c" + name.encode() + b"\n}U\x01aK\x01sb."))
    np.testing.assert_array_equal(
        read_pickle(write(tmp_path, pickle.dumps(np.arange(3)))), [0, 1, 2]
    )  # and the next file reads as ever


def test_object_type_with_forged_flags_is_not_passed_on(tmp_path):
    """With its flags cleared, NumPy itself would take raw bytes for the addresses of objects."""
    raw = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08AAAAAAAAtb."
    )
    with pytest.raises(ValueError, match=r"object array of shape \(1,\)"):
        read_pickle(write(tmp_path, raw))


def test_shape_that_does_not_fit_its_bytes_is_refused(tmp_path):
    raw = pickle.dumps(np.arange(4.0), protocol=2)
    assert raw.count(b"K\x04\x85") == 1
    for size in (3, 5, 200):
        forged = raw.replace(b"K\x04\x85", b"K" + bytes([size]) + b"\x85")
        with pytest.raises(ValueError, match=rf"\({size},\).*does not fit its 32 bytes"):
            read_pickle(write(tmp_path, forged))


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("order", ["<", ">"])
def test_characters_that_do_not_exist_are_refused(tmp_path, protocol, order):
    """NumPy would make strings of them that crash later, in `split` or `print`."""
    raw = pickle.dumps(np.array(["abc", "d"]).astype(f"{order}U3"), protocol=protocol)
    bad, good = (np.array(point, f"{order}u4").tobytes() for point in (0x110000, ord("d")))
    assert raw.count(good) == 1
    with pytest.raises(ValueError, match=r"characters that do not exist"):
        read_pickle(write(tmp_path, raw.replace(good, bad)))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_truncation_is_refused(tmp_path, protocol):
    raw = pickle.dumps({"x": np.arange(3.0), "y": [b"ab", "cd"]}, protocol=protocol)
    for size in range(len(raw)):
        with pytest.raises(ValueError, match=r"not a whole, readable pickle"):
            read_pickle(write(tmp_path, raw[:size]))


def test_other_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"Git LFS pointer"):
        read_pickle(write(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"))
    for content in (
        b"<!DOCTYPE html>\n<html>",
        b"PK\x03\x04",
        b"\x8e" + b"\xff" * 8,
        b"\x80\x05B\xff\xff\xff\x7f",
    ):
        with pytest.raises(ValueError, match=r"file\.pkl: ") as caught:
            read_pickle(write(tmp_path, content))
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_pickle(tmp_path / "none.pkl")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(b"x"), "a gzip file"),
        (bz2.compress(b"x"), "a bzip2 file"),
        (lzma.compress(b"x"), "an xz file"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b'{"train": 1}', "JSON"),
    ],
    ids=["gzip", "bzip2", "xz", "zip", "json"],
)
def test_whole_files_of_another_kind_are_named(tmp_path, content, kind):
    with pytest.raises(ValueError, match=f"file.pkl: expected a pickle, got {kind}.*; unpack it") as caught:
        read_pickle(write(tmp_path, content))
    assert "again" not in str(caught.value)


def test_tables_and_tensors_are_refused_with_what_to_do(tmp_path):
    for content in (pd.Series([1.0]), torch.ones(2)):
        with pytest.raises(ValueError, match=r"nothing was run; save tensors and tables as NumPy arrays"):
            read_pickle(write(tmp_path, pickle.dumps(content)))


def test_nested_references_do_not_take_exponential_time(tmp_path):
    content = [1]
    for _ in range(200):
        content = [content, content]
    assert len(read_pickle(write(tmp_path, pickle.dumps(content)))) == 2
