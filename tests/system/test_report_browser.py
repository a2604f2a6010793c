"""The report in a real browser: it renders, asks for nothing, and fits a phone."""

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from nasflow.objectives import Objectives
from nasflow.report import write_report
from nasflow.study.storage import memory
from nasflow.study.study import Study
from searchspaces.nb201 import NB201
from searchspaces.task import Task

pytestmark = pytest.mark.system

_FLAGS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip
_WIDTH, _HEIGHT, _PHONE = 1200, 2400, 390
_PROBE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll *, svg *, pre *")
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80));
  const seen = e => { const box = e.getBoundingClientRect(); return box.width > 100 && box.height > 40; };
  document.body.dataset.probe = JSON.stringify({
    width: innerWidth, scroll: document.documentElement.scrollWidth, wide,
    plots: [...document.querySelectorAll("svg.plot")].filter(seen).length,
    cells: [...document.querySelectorAll("svg.cell")].filter(seen).length,
    text: getComputedStyle(document.querySelector("svg.plot text")).fontFamily,
  });
});</script>"""

_COPY = """<script>addEventListener("load", () => {
  document.body.dataset.probe = document.querySelector("iframe").contentDocument.body.dataset.probe;
});</script>"""


class Browser:
    """Headless Chromium with a profile of its own."""

    def __init__(self, program: str, profile: Path) -> None:
        root = ("--no-sandbox",) if os.geteuid() == 0 else ()  # Chromium refuses its sandbox to root
        self._command = (program, *_FLAGS, *root, f"--user-data-dir={profile}")

    def run(self, page: Path, *flags: str) -> tuple[str, str]:
        """Return standard output and what pages wrote on the console."""
        command = [*self._command, *flags, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    return Browser(program, tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a front, trials that miss a bound, a failure, and names that try to break out."""
    space = NB201("small")
    objectives = Objectives(accuracy={"direction": "maximize"}, latency_ms={"direction": "minimize", "at_most": 0.8})
    study = Study(memory(), space, objectives)
    rng = np.random.default_rng(0)
    for slot, row in enumerate(space.sample(30, rng)):
        claim = study.claim(slot, row, "worker")
        assert claim
        if slot == 3:
            study.fail(claim, "<script>document.title='broken'</script>")
            continue
        quality = float(rng.random())
        metrics = {"accuracy": 1 - 0.5 * (1 - quality) ** 2, "latency_ms": 0.1 + quality}
        violations = {"latency_ms": max(0.0, metrics["latency_ms"] / 0.8 - 1)}
        study.finish(claim, {"metrics": metrics, "violations": violations, "provenance": {}, "seconds": 1.0})
    folder = tmp_path_factory.mktemp("report")
    title = "<img src=http://example.invalid/x.png>"
    return write_report(folder, study, space, Task("digits", (1, 8, 8), 10), {"budget": 30}, {}, [], title)


def test_light_and_dark(browser: Browser, page: Path, tmp_path: Path) -> None:
    shades = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        image = tmp_path / f"{scheme}.png"
        size = (f"--screenshot={image}", f"--window-size={_WIDTH},{_HEIGHT}")
        _, console = browser.run(page, *size, f"--blink-settings=preferredColorScheme={number}")
        assert console == ""  # a request would be refused by the page's policy, and told there
        pixels = imread(image)[..., :3]
        assert pixels.shape[:2] == (_HEIGHT, _WIDTH)
        shades[scheme] = float(np.median(pixels))
        assert len(np.unique((pixels[::4, ::4] * 15).astype(int).reshape(-1, 3), axis=0)) > 50
    assert shades["dark"] < 0.2 < 0.8 < shades["light"]


def test_markup_of_others_stays_text(browser: Browser, page: Path) -> None:
    dom, _ = browser.run(page, "--dump-dom")
    assert "<title>&lt;img src=http://example.invalid/x.png&gt;</title>" in dom
    assert "<script" not in dom and "<img" not in dom
    assert dom.count("<article") == dom.count('class="cell"') > 3


@pytest.mark.parametrize("width", [_WIDTH, _PHONE])
def test_layout(browser: Browser, page: Path, tmp_path: Path, width: int) -> None:
    html = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text())  # the page's own policy forbids the probe
    inner = escape(html.replace("</body>", f"{_PROBE}</body>"))
    frame = tmp_path / "frame.html"  # windows are never as narrow as a phone
    frame.write_text(f'<body><iframe srcdoc="{inner}" style="width:{width}px;border:0"></iframe>{_COPY}</body>')
    dom, _ = browser.run(frame, "--dump-dom")
    probe = re.search(r'<body data-probe="([^"]*)"', dom)
    assert probe, "the page's load event never came"
    found = json.loads(unescape(probe[1]))
    assert found["width"] == width
    assert found["scroll"] <= found["width"] and found["wide"] == []
    assert found["plots"] == 4 and found["cells"] > 3
    assert "system-ui" in found["text"]
