"""Paths mean the same from every folder, files appear whole, locks exclude, and nothing needs one system."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from filelock import Timeout

from vgmr.machine import files

ROOT = Path(__file__).parent.parent


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter, from another folder than the repository."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=Path(ROOT.anchor),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


# Paths


def test_a_path_counts_from_home_or_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "someone"))
    assert files.user_path("~/data") == tmp_path / "someone" / "data"
    assert files.user_path("data/../other") == tmp_path / "other"
    assert files.user_path(tmp_path / "x") == tmp_path / "x"
    assert files.user_path("odd name: with colon") == tmp_path / "odd name: with colon"


@pytest.mark.parametrize("given", ["s3://bucket/x", "https://host/x", "file:///x", "gs:/bucket"])
def test_an_address_is_no_path(given):
    with pytest.raises(ValueError, match=r"expected a path on this machine, got the address") as caught:
        files.user_path(given)
    assert str(caught.value).count("\n") == 0 and given in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="there are drives")
def test_a_drive_is_no_path_where_there_are_none():
    with pytest.raises(ValueError, match=r"expected a path on this machine, got the address 'C:"):
        files.user_path("C:\\x")


@pytest.mark.parametrize("given", ["", " ", "~nobody-of-this-name/x"])
def test_what_is_no_path_is_refused(given):
    with pytest.raises(ValueError, match="expected a path, got"):
        files.user_path(given)


def test_places_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VGMR_DATA", "mine")
    monkeypatch.setenv("VGMR_CACHE", "")
    assert files.place("VGMR_DATA") == tmp_path / "mine" and files.place("VGMR_CACHE") is None
    files.settle_places()
    assert os.environ["VGMR_DATA"] == str(tmp_path / "mine") and os.environ["VGMR_CACHE"] == ""
    monkeypatch.setenv("VGMR_DATA", "s3://bucket")
    with pytest.raises(ValueError, match="environment variable VGMR_DATA: expected a path on this machine"):
        files.place("VGMR_DATA")


def test_without_a_home_the_cache_needs_a_place(monkeypatch):
    for name in ("VGMR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where neither HOME nor the user is known
    with pytest.raises(ValueError, match=r"no folder for the cache \(.*\); set VGMR_CACHE to one"):
        files.cache_folder()


@pytest.mark.parametrize("name", ["VGMR_DATA", "root"])
def test_every_reader_of_a_root_refuses_addresses(name, monkeypatch):
    from vgmr.data import load

    monkeypatch.setenv("VGMR_DATA", "s3://bucket" if name == "VGMR_DATA" else "")
    root = "s3://bucket" if name == "root" else None
    for dataset in ("avdigits", "ave", "mosei", "cremad"):
        with pytest.raises(ValueError, match="address 's3://bucket'"):
            load(dataset, root)


def test_the_repository_is_found_from_any_folder():
    done = python(
        "from vgmr.machine import files; print(files.repository()); print(files.in_repository('notebooks/x'))"
    )
    assert done.stdout.split() == [str(ROOT), str(ROOT / "notebooks" / "x")], done.stderr


# Writing


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.txt"
    files.write(path, "größer")
    assert path.read_bytes() == "größer".encode()

    def broken(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(files.os, "replace", broken)
    with pytest.raises(OSError, match="no space left") as error:
        files.write(path, b"half")
    assert error.value.filename == str(path)
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"] and path.read_text("utf-8") == "größer"


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "link").symlink_to("real")
    files.write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_a_device_or_a_pipe_stays_where_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for do in (files.try_place, lambda path: files.write(path, "text")):
        with pytest.raises(OSError, match="pipe is a device or a pipe; expected the name of a file"):
            do(tmp_path / "pipe")
        with pytest.raises(IsADirectoryError, match="is a folder; expected the name of a file"):
            do(tmp_path)
    assert (tmp_path / "pipe").is_fifo() and list(tmp_path.iterdir()) == [tmp_path / "pipe"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt), files.whole_folder(folder, str) as temporary:
        (temporary / "half").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with files.whole_folder(folder, str) as temporary:
        (temporary / "first").touch()
    with files.whole_folder(folder, str) as temporary:
        (temporary / "second").touch()
    assert [p.name for p in folder.iterdir()] == ["first"], "what is sound stays"

    def damaged(_):
        raise ValueError

    with files.whole_folder(folder, damaged) as temporary:
        (temporary / "third").touch()
    assert [p.name for p in folder.iterdir()] == ["third"] and list(tmp_path.iterdir()) == [folder]


def test_a_folder_can_be_read_by_whoever_reads_its_place(tmp_path):
    tmp_path.chmod(0o777)
    before = os.umask(0)
    try:
        for umask in (0o022, 0o077, 0o002):
            os.umask(umask)
            with files.whole_folder(tmp_path / f"kept-{umask}", str):
                pass
            assert (tmp_path / f"kept-{umask}").stat().st_mode & 0o777 == 0o777 & ~umask
    finally:
        os.umask(before)


def test_what_cannot_be_written_is_said_in_one_line(tmp_path):
    assert files.writable(tmp_path / "deep" / "er") is None and list((tmp_path / "deep" / "er").iterdir()) == []
    (tmp_path / "file").touch()
    reason = files.writable(tmp_path / "file" / "below")
    assert reason is not None and str(tmp_path / "file") in reason and "\n" not in reason


# Locks


HOLDER = """
    import sys, time
    from pathlib import Path
    from vgmr.machine.files import locked
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
"""


def test_a_lock_excludes_and_is_free_when_its_holder_is_killed(tmp_path):
    path = tmp_path / "a" / "lock"
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(path)]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, env=environment, **options)
    assert first.stdout.readline() == "held\n"
    with pytest.raises(Timeout):
        files.FileLock(path).acquire(timeout=0)
    first.kill()
    first.communicate()
    with files.locked(path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_without_locks_in_the_file_system_the_folder_is_named(tmp_path, monkeypatch, number):
    acquire = files.FileLock.acquire

    def refuse(self, *given, **named):
        if str(tmp_path / "shared") in self.lock_file:
            raise OSError(number, "no locks")
        return acquire(self, *given, **named)

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.warns(UserWarning, match="shared knows no locks"), files.locked(tmp_path / "shared" / "lock"):
        (lock,) = tmp_path.glob("vgmr-*.lock")
        with pytest.raises(Timeout):
            files.FileLock(lock).acquire(timeout=0)


def test_other_errors_of_a_lock_are_raised(tmp_path, monkeypatch):
    def refuse(self, *given, **named):
        raise OSError(errno.EACCES, "not allowed")

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    with pytest.raises(OSError, match="not allowed"), files.locked(tmp_path / "lock"):
        pass


# Systems


WINDOWS = """
    import sys
    for name in ("fcntl", "resource", "pwd", "grp", "termios"):
        sys.modules[name] = None  # as where there is none
    from importlib import import_module
    from pathlib import Path
    root = Path(sys.argv[0] or ".")
    import vgmr
    package = Path(vgmr.__file__).parent
    for path in sorted(package.rglob("*.py")):
        if path.name != "__main__.py":
            parts = path.relative_to(package.parent).with_suffix("").parts
            import_module(".".join(parts).removesuffix(".__init__"))
    from vgmr.machine.files import peak_memory
    print(peak_memory())
"""


def test_every_module_is_imported_without_unix():
    code = WINDOWS.replace("import sys\n", "import sys\n    import joblib, pooch, papermill, pandas\n", 1)
    done = python(code)
    assert done.returncode == 0 and done.stdout.split()[-1] == "0.0", done.stderr


@pytest.mark.parametrize(("system", "unit"), [("linux", 2**10), ("darwin", 2**20)])
def test_peak_memory_is_in_mib_on_every_system(monkeypatch, system, unit):
    import resource

    monkeypatch.setattr(files.sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: type("Usage", (), {"ru_maxrss": 300 * unit}))
    assert files.peak_memory() == 300


def test_the_environment_names_the_commit():
    found = files.environment()
    assert set(found) == {"python", "torch", "numpy", "machine", "commit"}
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    assert head.startswith(found["commit"].removesuffix("-dirty")) or found["commit"] == "unknown"
