"""Where files lie and how they are written: paths that users give, cache, repository, whole files, locks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

PLACES = ("VGMR_DATA", "VGMR_CACHE")  # environment variables that hold a path
SPACE = 2**20  # bytes that must be free where a file is to be written
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


def user_path(given: str | Path) -> Path:
    """The absolute path that a user means: `~` is the home folder, all else counts from the working directory.

    Raises:
        ValueError: nothing, an address such as `s3://bucket`, a drive where there are none, or the home of a user
            that does not exist.
    """
    text = str(given)
    if not text.strip():
        raise ValueError("expected a path, got an empty one")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text) or (os.name != "nt" and re.match(r"[A-Za-z]:\\", text)):
        raise ValueError(f"expected a path on this machine, got the address {text!r}")
    try:
        return Path(os.path.abspath(Path(text).expanduser()))
    except RuntimeError:
        raise ValueError(f"expected a path, got {text!r}, the home of a user that does not exist here") from None


def place(variable: str) -> Path | None:
    """The path in an environment variable, one of `PLACES`, or None where it is unset; see `user_path`."""
    given = os.environ.get(variable)
    if not given:
        return None
    try:
        return user_path(given)
    except ValueError as error:
        raise ValueError(f"environment variable {variable}: {error}") from None


def settle_places() -> None:
    """Make the paths in `PLACES` absolute, so that processes in other folders mean the same ones."""
    for variable in PLACES:
        if (path := place(variable)) is not None:
            os.environ[variable] = str(path)


def cache_folder() -> Path:
    """$VGMR_CACHE, else vgmr in the user's cache folder; ValueError where there is neither."""
    if (given := place("VGMR_CACHE")) is not None:
        return given
    try:
        return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vgmr"
    except ValueError as error:
        raise ValueError(f"no folder for the cache ({error}); set VGMR_CACHE to one") from None


@cache
def repository() -> Path | None:
    """The root of the repository: where this package lies in a checkout, else the next one above the working
    directory; None where there is neither."""
    starts = [Path(__file__).resolve().parents[2], Path.cwd(), *Path.cwd().parents]
    return next((folder for folder in starts if (folder / "notebooks" / "records").is_dir()), None)


def in_repository(path: str) -> Path:
    """A path in the repository, such as `notebooks/records`, whatever the working directory; where there is no
    repository, the path's last part in the working directory."""
    root = repository()
    return Path.cwd() / Path(path).name if root is None else root / path


def write(path: Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, under a temporary name in the same folder, then move into place.

    A link stays, and the file that it names is written.

    Raises:
        OSError: it cannot be written, with the path, or the place is no ordinary file, such as /dev/null, which
            stays.
    """
    _refuse_special(path)
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            error.filename = str(path)
        raise


def _refuse_special(path: Path) -> None:
    """A device or a pipe would make way for the file that is moved into its place."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file")
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is a device or a pipe; expected the name of a file")


@contextlib.contextmanager
def whole_folder(folder: Path, read: Callable[[Path], object]) -> Iterator[Path]:
    """A temporary folder that is moved to `folder` at the end of the block; of a failed block nothing stays.

    Args:
        read: raises ValueError where what stands in the place already, say from another process, is no good; that
            makes way, else it stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    temporary.mkdir()  # with the modes that the process gives; those of mkdtemp let nobody else in
    try:
        yield temporary
        while True:
            try:
                os.rename(temporary, folder)
                return
            except OSError:
                if not folder.exists():
                    raise
            with contextlib.suppress(ValueError):
                read(folder)
                return
            rubbish = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(folder, rubbish / "old")
            finally:
                shutil.rmtree(rubbish, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def writable(folder: Path) -> str | None:
    """Why nothing can be written below `folder`, in one line, or None if something can; leaves no trace."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"?" * 4096)
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror or error})"
    return None


def try_place(path: Path) -> None:
    """Write where the file `path` will be, and take it away again.

    Raises:
        OSError: it cannot be, with the folder and the reason.
    """
    _refuse_special(path)
    probe = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("wb") as file:
                file.write(bytes(SPACE))
        finally:
            probe.unlink(missing_ok=True)
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(f"{path} is write-protected")
    except (FileExistsError, NotADirectoryError):
        there = next(above for above in path.parents if above.exists())
        raise NotADirectoryError(f"{there} is a file; expected a folder for {path.name}") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"{path} cannot be written: {reason}; give another place") from None


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the file `path` as a lock, alone among all processes; it is free again when its holder ends.

    Where the file system knows no locks, a warning names the folder and the lock is one of this machine only.

    Args:
        wait: for another holder; otherwise a TimeoutError is raised at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path, fallback_to_soft=False)  # a soft lock outlives a killed holder
    except TypeError:  # older than filelock 4
        lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"the file system of {path.parent} knows no locks: run one driver at a time, on this machine",
            stacklevel=3,
        )
        name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]
        lock = FileLock(Path(tempfile.gettempdir()) / f"vgmr-{name}.lock")
        lock.acquire(timeout=-1 if wait else 0)
    try:
        yield
    finally:
        lock.release()


def peak_memory() -> float:
    """The most memory that this process ever held, in MiB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@cache
def environment() -> dict[str, str]:
    """Versions, machine and commit, for the record of a run; "-dirty" marks a changed package."""
    commit, root = "unknown", repository()
    if root is not None:
        with contextlib.suppress(OSError):
            git = partial(subprocess.run, cwd=root, capture_output=True, encoding="utf-8", errors="replace")
            if head := git(["git", "rev-parse", "--short=7", "HEAD"]).stdout.strip():
                commit = head + ("-dirty" if git(["git", "status", "--porcelain", "vgmr"]).stdout.strip() else "")
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "machine": platform.machine(),
        "commit": commit,
    }
