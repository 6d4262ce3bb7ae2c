"""The book in a browser: built once a session, served from a subfolder of this machine, opened in
headless Chromium that cannot leave it.
"""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # whatever a page asks of another machine fails
FOLDER = "some/where"  # a site at the root of its server hides addresses that begin with a slash


@dataclass
class Visit:
    """A page that was opened, the seconds until it first showed its contents, and what went wrong
    on it so far.
    """

    page: Page
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """How the build of the book ended, and the folder of its pages, which lies in `FOLDER` of
    another.
    """
    out = tmp_path_factory.mktemp("book")
    run = build_book(out)
    html = out / "server" / FOLDER
    if run.returncode == 0:
        html.parent.mkdir(parents=True)
        (out / "_build" / "html").rename(html)
    return run, html


def build_book(out: Path, *options: str) -> subprocess.CompletedProcess:
    """Run Jupyter Book as `make book` does, into `out`/_build/html."""
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        "-W",
        "-n",
        "--keep-going",
        *options,
        "--path-output",
        str(out),
        str(ROOT),
    ]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def book(build) -> Path:
    """The folder of the built pages."""
    run, html = build
    assert run.returncode == 0, (
        "the book does not build; see test_the_book_builds_without_a_warning"
    )
    return html


@pytest.fixture(scope="session")
def site(book):
    """The address of the built book on a server of this machine; it ends in a slash."""
    with serve(str(book)[: -len(FOLDER)]) as address:
        yield f"{address}{FOLDER}/"


@contextmanager
def serve(folder: str | Path):
    """A plain web server of a folder on this machine: its address, which ends in a slash."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Silent, directory=str(folder))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium.

    Where there is none, the tests that want it are skipped, or fail if the variable CI is set.
    """
    found = shutil.which("chromium")
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "no Chromium here to look at the book with; on Debian: apt-get install chromium"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser.new_context()
        browser.close()


@contextmanager
def visit(chromium: BrowserContext, address: str, below: str):
    """Open `address` and give the `Visit` once mathematics is drawn.

    Asking for whatever does not lie `below` (the start of an address) is a problem.
    """
    seen = Visit(chromium.new_page())
    seen.page.on(
        "request",
        lambda request: (
            request.url.startswith((below, "data:", "blob:"))
            or seen.problems.append(f"asks for {request.url}")
        ),
    )
    seen.page.on("requestfailed", lambda request: seen.problems.append(f"failed: {request.url}"))
    seen.page.on(
        "response",
        lambda response: (
            response.status >= 400 and seen.problems.append(f"{response.status}: {response.url}")
        ),
    )
    seen.page.on(
        "console",
        lambda message: (
            message.type == "error" and seen.problems.append(f"console: {message.text}")
        ),
    )
    seen.page.on("pageerror", lambda error: seen.problems.append(f"script: {error}"))
    seen.page.goto(address)
    seen.page.add_style_tag(
        content="* { transition: none !important; }"
    )  # colours half way from one theme to the other are nobody's
    seen.page.evaluate("window.MathJax?.startup?.promise")
    seen.seconds = (
        seen.page.evaluate(
            "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Infinity"
        )
        / 1000
    )
    yield seen
    seen.page.close()
