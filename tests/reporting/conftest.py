"""Fixtures that open pages in a browser."""

import shutil

import pytest


@pytest.fixture(scope="session")
def chromium():
    """Debian's headless Chromium; the test is skipped without it."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--mute-audio"]
        browser = started.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """A function that opens a page; it must log nothing and request nothing from outside."""
    contexts, events = [], []

    def open_page(path, *, width=1200, scheme="light"):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: events.append(message.text))
        page.on("pageerror", lambda error: events.append(str(error)))
        page.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
        page.on("requestfailed", lambda request: events.append(f"failed: {request.url[:80]}"))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else events.append(r.url[:80]))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not events
