"""The book, built once per session, in a headless Chromium that reaches this machine only."""

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
]  # any request to another machine fails
FOLDER = "some/where"  # at a server's root, links that begin with a slash would work by accident


@dataclass
class Visit:
    """An opened page, the seconds to its first contentful paint, and its problems so far."""

    page: Page
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """Build the book; return the finished process and the folder of pages, below `FOLDER`."""
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
    """Return the folder of the built pages."""
    run, html = build
    assert run.returncode == 0, (
        "the book does not build; see test_the_book_builds_without_a_warning"
    )
    return html


@pytest.fixture(scope="session")
def site(book):
    """Yield the address of the built book on a local server; it ends in a slash."""
    with serve(str(book)[: -len(FOLDER)]) as address:
        yield f"{address}{FOLDER}/"


@contextmanager
def serve(folder: str | Path):
    """Serve a folder on this machine; yield the address, which ends in a slash."""

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
    """Yield a context of a headless Chromium.

    Without Chromium its tests are skipped, or fail if the variable CI is set.
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
    """Open `address` and yield the `Visit` once mathematics is typeset.

    A request for anything not `below` (the start of an address) counts as a problem.
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
    )  # or colours could be read in the middle of a change of theme
    seen.page.evaluate("window.MathJax?.startup?.promise")
    seen.seconds = (
        seen.page.evaluate(
            "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Infinity"
        )
        / 1000
    )
    yield seen
    seen.page.close()
