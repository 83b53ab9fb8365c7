"""JupyterLab on the loopback address, driven in a real browser."""

import ast
import json
import os
import secrets
import shutil
import socket
import subprocess
import symtable
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import nbformat
from playwright.sync_api import sync_playwright

from vgmr.notebook import publish

ARTEFACTS = Path(os.environ.get("VGMR_ARTEFACTS", Path(__file__).parent / "artefacts"))
EMPTY = "<svg xmlns='http://www.w3.org/2000/svg'/>"
HERE = ("127.0.0.1", None)  # data: and blob: addresses have no host
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells stay in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
READY = """name => {
  const shown = window.jupyterapp?.shell?.currentWidget;
  const session = shown?.sessionContext, kernel = session?.session?.kernel;
  const connected = kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
  return shown?.context?.path === name && session?.isReady && connected;
}"""
INFO = "async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.info; }"
RUN_ALL = "() => { void window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
PIXELS = """image => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext('2d').drawImage(image, 0, 0);
  return image.complete && image.naturalWidth ? canvas.toDataURL() : '';
}"""
FAILED = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"
IMPORTS = (ast.Import, ast.ImportFrom)
DONE = "every cell has run"


def chromium() -> str | None:
    """The path of a Chromium, if this machine has one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def browser_context():
    """A fresh browser window that can reach nothing but this machine."""
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=options)
        try:
            yield browser.new_context(viewport={"width": 1300, "height": 1000})
        finally:
            browser.close()


def elsewhere(address: str) -> bool:
    """Whether an address is on another machine; the one such picture in a notebook is its Colab badge."""
    return urlparse(address).hostname not in HERE and address != publish.BADGE


def watched(page) -> tuple[list[str], list[str]]:
    """Two lists that fill while a page lives: its errors, and addresses outside this machine that it asked for."""
    errors, outside = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.route(publish.BADGE, lambda route: route.fulfill(content_type="image/svg+xml", body=EMPTY))
    page.on("request", lambda sent: outside.append(sent.url) if elsewhere(sent.url) else None)
    return errors, outside


@contextmanager
def server(folder: Path, home: Path):
    """JupyterLab over `folder` with settings of its own under `home`; yields its address and token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, address = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    places = ["JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"]
    places += ["JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"]
    environment = os.environ | {place: str(home / place.lower()) for place in places}
    for name, values in SETTINGS.items():
        path = home / "jupyterlab_settings_dir/@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
        )
    try:
        wait_for_server(f"{address}/api/status?token={token}", process, home / "server.log")
        yield address, token
    finally:
        process.terminate()  # ends its kernels as well
        process.wait(30)


def wait_for_server(address: str, process: subprocess.Popen, log: Path, patience: float = 90) -> None:
    """Until the server answers; its log is in the error if it does not."""
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not answer within {patience:.0f} s:\n{log.read_text()[-2000:]}")


def names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell binds or changes, and names that it takes from earlier cells."""
    top, tree = symtable.symtable(source, "cell", "exec"), ast.parse(source)
    bound = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    changed, inner = set(), list(top.get_children())
    taken = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    while inner:
        table = inner.pop()
        inner += table.get_children()
        taken |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            place = node.value.func  # a method called for what it does, such as `append`
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            place = node
        else:
            place = node.target if isinstance(node, ast.AugAssign) else None
        if place is not None:
            while isinstance(place, ast.Attribute | ast.Subscript):
                place = place.value
            changed |= {place.id} if isinstance(place, ast.Name) else set()
    return bound | changed, (taken - bound) | changed


def explorers(path: Path) -> Any:
    """A notebook of nothing but its explorers and the cells that they rest on."""
    book = nbformat.read(path, 4)
    code = [
        cell for cell in book.cells if cell.cell_type == "code" and "colab" not in cell.metadata.get("tags", [])
    ]
    trees = [node for cell in code for node in ast.walk(ast.parse(cell.source))]
    imported = {alias.asname or alias.name for node in trees if isinstance(node, IMPORTS) for alias in node.names}
    kept, wanted = [], set()
    for cell in reversed(code):
        bound, taken = names(cell.source)
        imports = any(isinstance(node, IMPORTS) for node in ast.parse(cell.source).body)
        if "widget" in cell.metadata.get("tags", []) or imports or (bound - imported) & wanted:
            kept.insert(0, cell)
            wanted |= taken
    book.cells = kept
    return book


def place(book: Any, path: Path) -> Path:
    """Write a notebook without outputs and with a last cell that says that all have run."""
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    book.cells.append(nbformat.v4.new_code_cell(f"print({DONE!r})"))
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


def end_kernels(address: str, token: str) -> None:
    """Shut down every kernel of the server."""
    sessions = f"{address}/api/sessions"
    headers = {"Authorization": f"token {token}"}
    with urllib.request.urlopen(urllib.request.Request(sessions, headers=headers), timeout=30) as answer:
        found = json.load(answer)
    for session in found:
        request = urllib.request.Request(f"{sessions}/{session['id']}", headers=headers, method="DELETE")
        urllib.request.urlopen(request, timeout=30).close()


def run_all(page, address: str, token: str, name: str, patience: float) -> None:
    """Open a notebook, run all its cells and wait for the last."""
    workspace = Path(name).stem  # of its own, or Lab opens the notebooks of earlier calls again
    page.goto(f"{address}/lab/workspaces/{workspace}/tree/{name}?token={token}")
    page.wait_for_function(READY, arg=name, timeout=120_000)
    page.evaluate(INFO)
    page.evaluate(RUN_ALL)
    done, failed = page.locator(".jp-OutputArea-output", has_text=DONE), page.locator(FAILED)
    end = time.monotonic() + patience
    while not done.count():
        assert not failed.count(), f"{name}: {failed.first.inner_text()[-2000:]}"
        assert time.monotonic() < end, f"{name}: not all cells have run within {patience:.0f} s"
        page.wait_for_timeout(200)
    assert not failed.count(), f"{name}: {failed.first.inner_text()[-2000:]}"


def until(page, picture, before: str, complaint: str, patience: float) -> None:
    """Wait until a picture has other pixels than `before`, or fail with the complaint."""
    end = time.monotonic() + patience
    while picture.evaluate(PIXELS) in ("", before):
        assert time.monotonic() < end, f"{complaint} within {patience:.0f} s"
        page.wait_for_timeout(100)


def slide(handle) -> None:
    """One step of a slider."""
    value = handle.get_attribute("aria-valuenow")
    handle.focus()
    handle.press("ArrowLeft" if value == handle.get_attribute("aria-valuemax") else "ArrowRight")


def choose(menu) -> None:
    """The next entry of a drop-down menu."""
    now, count = menu.evaluate("menu => [menu.selectedIndex, menu.options.length]")
    menu.select_option(index=(now + 1) % count)


def moves(box) -> dict[str, Callable[[], None]]:
    """What a reader can do to an explorer, by the name of the control."""
    sliders, menus = box.locator(".noUi-handle").all(), box.locator("select").all()
    found = {f"slider {number}": partial(slide, handle) for number, handle in enumerate(sliders)}
    # with one data set a menu has one entry, and nothing to choose
    several = [menu for menu in menus if menu.evaluate("menu => menu.options.length") > 1]
    return found | {f"menu {number}": partial(choose, menu) for number, menu in enumerate(several)}


def drive(
    context, address: str, token: str, name: str, patience: float = 30, run_patience: float = 600
) -> list[list[str]]:
    """Run a notebook in the browser and move every control of its explorers.

    Returns the lines of numbers of each explorer: at first and after each control. Leaves a screenshot.

    Raises:
        AssertionError: a cell failed; a control left the figure as it was, or all of them the line of numbers; the
            page had an error; or it asked another machine for anything.
    """
    page = context.new_page()
    errors, outside = watched(page)
    try:
        run_all(page, address, token, name, run_patience)
        boxes = page.locator(".widget-vbox", has=page.locator("img.explored"))
        assert boxes.count(), f"{name}: no explorer on the page"
        lines = []
        for box in boxes.all():
            box.scroll_into_view_if_needed()
            seen = [box.locator(".numbers").inner_text()]
            picture, controls = box.locator("img.explored"), moves(box)
            assert controls, f"{name}: an explorer without controls"
            for control, move in controls.items():
                before = picture.evaluate(PIXELS)
                move()
                until(page, picture, before, f"{name}: the figure did not change with {control}", patience)
                seen.append(box.locator(".numbers").inner_text())
            assert not seen[0] or len(set(seen)) > 1, f"{name}: the numbers did not change: {seen}"
            lines.append(seen)
        assert not outside, f"{name}: asked other machines: {outside}"
        assert not errors, f"{name}: errors on the page: {errors}"
        return lines
    finally:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=ARTEFACTS / f"{Path(name).stem}.png")
        page.close()
        end_kernels(address, token)


def sift(context, address: str, token: str, name: str, patience: float = 30) -> int:
    """Run a notebook in the browser and move every menu above its tables; returns how many menus were moved.

    Raises:
        AssertionError: a cell failed, a menu left the table as it was, or there is no such table.
    """
    page = context.new_page()
    errors, _ = watched(page)
    try:
        run_all(page, address, token, name, 600)
        box = page.locator(".widget-vbox", has=page.locator(".widget-html-content table"))
        assert box.count() == 1, f"{name}: no table with menus on the page"
        table, menus = box.locator(".widget-html-content"), box.locator("select").all()
        for number, menu in enumerate(menus):
            before = table.inner_html()
            choose(menu)
            end = time.monotonic() + patience
            while table.inner_html() == before:
                assert time.monotonic() < end, f"{name}: the table did not change with menu {number}"
                page.wait_for_timeout(100)
        assert not errors, f"{name}: errors on the page: {errors}"
        return len(menus)
    finally:
        page.close()
        end_kernels(address, token)
