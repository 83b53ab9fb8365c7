import hashlib
import io
import stat
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vgmr.data import utd_mhad
from vgmr.data.fetch import Source, download, download_folder, locate, problems
from vgmr.machine.files import cache_folder, write

CONTENT = {"a.csv": b"1,2\n", "sub/b.csv": b"3,4\n" * 1000}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VGMR_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def server():
    """Serves `server.answers`: path -> list of (body, stated length); the last answer repeats."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.lstrip("/")
            server.asked.append(path)
            answers = server.answers.get(path)
            if answers is None:
                self.send_error(404)
                return
            body, length = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.asked = {path: [(body, len(body))] for path, body in CONTENT.items()}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def source(server=None, archive=False):
    base = f"http://127.0.0.1:{server.server_port}" if server else ""
    return Source(
        "made",
        folder="made-folder",
        page="https://example.org/made",
        licence="none",
        files={path: (len(body), hashlib.sha256(body).hexdigest()) for path, body in CONTENT.items()},
        addresses={path: f"{base}/{path}" for path in CONTENT} if server and not archive else {},
        archive=f"{base}/made.zip" if archive else None,
    )


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return buffer.getvalue()


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_download_brings_the_published_files_and_asks_only_once(server, cache):
    copy = locate(source(server))
    assert copy.folder == cache / "data" / "made-folder"
    assert {path: copy.read(path) for path in copy.digests} == CONTENT
    assert files_in(cache) == {"data/made-folder/a.csv", "data/made-folder/sub/b.csv"}
    locate(source(server))
    assert sorted(server.asked) == sorted(CONTENT)


def test_a_cut_off_download_goes_on_with_what_is_missing(server, cache):
    write(cache / "data" / "made-folder" / "a.csv", CONTENT["a.csv"])
    locate(source(server))
    assert server.asked == ["sub/b.csv"]


def test_a_corrupted_file_is_refused_and_leaves_nothing_behind(server, cache):
    server.answers["sub/b.csv"] = [(b"3,5\n" * 1000, 4000)]
    with pytest.raises(ValueError, match=r"sub/b\.csv: what came is not the published file") as error:
        locate(source(server))
    assert "\n" not in str(error.value)
    assert files_in(cache) == {"data/made-folder/a.csv"}


def test_a_cut_connection_is_tried_again(server):
    body = CONTENT["sub/b.csv"]
    server.answers["sub/b.csv"] = [(body[:100], len(body)), (body, len(body))]
    assert locate(source(server)).read("sub/b.csv") == body
    assert server.asked.count("sub/b.csv") == 2


def test_a_connection_that_stays_cut_ends_in_one_line_and_leaves_nothing_behind(server, cache):
    server.answers["a.csv"] = [(b"1", 4)]
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded from .*VGMR_DATA") as error:
        locate(source(server))
    assert "\n" not in str(error.value)
    assert files_in(cache) == set()


def test_a_misspelt_folder_of_data_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("VGMR_DATA", str(tmp_path / "misspelt"))
    with pytest.raises(
        FileNotFoundError, match=rf"VGMR_DATA names \({tmp_path}/misspelt, which is not there\), or"
    ):
        locate(source())
    (tmp_path / "misspelt").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"VGMR_DATA names \({tmp_path}/misspelt\), or"):
        locate(source())


def test_a_missing_address_ends_in_one_line(server):
    del server.answers["a.csv"]
    with pytest.raises(FileNotFoundError, match="404"):
        locate(source(server))


def test_nobody_listening_ends_in_one_line(server):
    made = replace(source(server), addresses=dict.fromkeys(CONTENT, "http://127.0.0.1:9/x"))
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded.*expected a\.csv and 1 more files"):
        locate(made)


def test_two_downloads_at_once_do_no_harm(server):
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: download(source(server)), range(4)))
    assert len(set(folders)) == 1 and problems(source(server), folders[0], content=True) == {}
    assert files_in(folders[0]) == set(CONTENT)


def test_archive_gives_the_files_on_the_list_and_no_others(server, cache):
    body = zipped([*((f"made-123/{path}", body) for path, body in CONTENT.items()), ("made-123/setup.py", b"x")])
    server.answers["made.zip"] = [(body, len(body))]
    copy = locate(source(server, archive=True))
    assert {path: copy.read(path) for path in copy.digests} == CONTENT
    assert files_in(cache) == {f"data/made-folder/{path}" for path in CONTENT}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("made-1/a.csv", b"1,2\n"), ("made-1/../../x", b"bad")], "unsafe name"),
        ([("../x", b"bad")], "unsafe name"),
        ([("/etc/x", b"bad")], "unsafe name"),
        ([("made-1\\..\\..\\x", b"bad")], "unsafe name"),
        ([("C:/x", b"bad")], "unsafe name"),
        (
            [(link("made-1/a.csv"), b"/etc/passwd"), ("made-1/sub/b.csv", CONTENT["sub/b.csv"])],
            r"a\.csv is a link",
        ),
        ([("made-1/a.csv", b"9,9\n"), ("made-1/sub/b.csv", CONTENT["sub/b.csv"])], "not the published file"),
        ([("made-1/a.csv", b"1,2\n" * 10_000), ("made-1/sub/b.csv", b"")], "not the published file"),
        ([("made-1/sub/b.csv", CONTENT["sub/b.csv"])], r"does not hold a\.csv"),
    ],
)
def test_hostile_or_wrong_archives_are_refused(server, cache, tmp_path, members, message):
    body = zipped(members)
    server.answers["made.zip"] = [(body, len(body))]
    with pytest.raises(ValueError, match=message):
        locate(source(server, archive=True))
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_damaged_archive_is_refused(server, tmp_path, cut):
    body = zipped([(f"made-1/{path}", body) for path, body in CONTENT.items()])[:cut]
    server.answers["made.zip"] = [(body, len(body))]
    with pytest.raises(ValueError, match="no intact zip archive"):
        locate(source(server, archive=True))
    assert files_in(tmp_path) == set()


def test_a_source_without_licence_is_never_downloaded():
    with pytest.raises(
        FileNotFoundError, match=r"not downloaded; expected a\.csv .* from https://example\.org/made"
    ):
        locate(source())
    assert not utd_mhad.SOURCE.addresses and utd_mhad.SOURCE.archive is None


@pytest.mark.parametrize("inner", ["", "made-folder"])
def test_root_is_the_folder_or_the_one_above(tmp_path, inner):
    for path, body in CONTENT.items():
        write(tmp_path / "here" / inner / path, body)
    assert locate(source(), tmp_path / "here").folder == tmp_path / "here" / inner


def test_environment_goes_before_the_cache(tmp_path, monkeypatch, server):
    for path, body in CONTENT.items():
        write(tmp_path / "data" / "made-folder" / path, body)
    monkeypatch.setenv("VGMR_DATA", str(tmp_path / "data"))
    assert locate(source(server)).folder == tmp_path / "data" / "made-folder"
    assert server.asked == []


def test_an_explicit_root_without_files_is_refused_and_nothing_is_downloaded(tmp_path, server):
    with pytest.raises(FileNotFoundError, match="no files of made in"):
        locate(source(server), tmp_path)
    assert server.asked == []


def test_partial_and_changed_copies(tmp_path):
    write(tmp_path / "sub/b.csv", CONTENT["sub/b.csv"])
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files are not as published \(first: a\.csv, missing\)"):
        locate(source(), tmp_path)
    partial = locate(source(), tmp_path, allow_partial=True)
    assert partial.partial and list(partial.digests) == ["sub/b.csv"]
    write(tmp_path / "a.csv", b"1")
    with pytest.raises(ValueError, match="1 bytes, expected 4"):
        locate(source(), tmp_path)
    write(tmp_path / "a.csv", b"9,9\n")
    assert problems(source(), tmp_path) == {}
    assert problems(source(), tmp_path, content=True) == {"a.csv": "content differs from the published file"}
    with pytest.raises(ValueError, match=r"a\.csv: SHA-256"):
        locate(source(), tmp_path).read("a.csv")
    changed = locate(source(), tmp_path, allow_partial=True)
    assert changed.partial and changed.read("a.csv") == b"9,9\n"
    write(tmp_path / "a.csv", CONTENT["a.csv"])
    assert not locate(source(), tmp_path, allow_partial=True).partial


def test_write_leaves_nothing_behind_when_it_fails(tmp_path):
    (tmp_path / "taken" / "x").mkdir(parents=True)
    with pytest.raises(OSError):
        write(tmp_path / "taken", b"1")
    assert files_in(tmp_path) == set()


def test_cache_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("VGMR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "vgmr"
    assert download_folder(source()) == tmp_path / "xdg" / "vgmr" / "data" / "made-folder"
