"""Debian's Chromium, headless, driven by Playwright; tests that need it are skipped where there is none."""

import contextlib
import shutil

import pytest

# Without the switches against background networking it looks up its maker's hosts at every start.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def chromium():
    """A browser; skips the test where Playwright or a Chromium is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install --group browser")
    path = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on this machine (Debian: apt install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Tab:
    """A page that is open, with everything it complained about and asked for."""

    def __init__(self, browser, path, width, scheme="light"):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.evaluate("Promise.all(drawn).then(() => 1)")

    def too_wide(self):
        """Elements that reach beyond the window, of those that are drawn."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll("body *")].filter((each) => {
              const box = each.getBoundingClientRect();
              return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1)
                && !each.closest("thead") && !each.closest("svg *");
            }).map((each) =>
              `${each.tagName} ${each.id} ${each.className} ${each.textContent.slice(0, 40)}`)"""
        )
