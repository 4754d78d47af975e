"""The report's page in a real browser: Chromium reads the verdict, in light and dark, and lays it out without overflow.

Needs `chromium` on the path; the tox environment `browser` runs it, and others leave it out by name.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import dev
import pytest
from conformance_examples import passing, report

from twinspike_conformance.report import page
from twinspike_conformance.report.record import Report

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=2000",
)  # fmt: skip


def _browse(path: Path, profile: Path, *flags: str) -> str:
    """What the browser made of a page: its document after loading."""
    program = dev.find_browser()
    assert program, "chromium is not on the path: install it, or leave these tests out with --without browser"
    command = [program, *FLAGS, f"--user-data-dir={profile}", *flags, "--dump-dom", path.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=120).stdout


RUNS = {"fail": [report()], "pass": [passing(), passing(backend="jax")]}


@pytest.mark.parametrize("verdict", RUNS)
def test_a_browser_reads_the_verdict(verdict: str, tmp_path: Path) -> None:
    shown = _browse(page(RUNS[verdict], tmp_path / "report.html"), tmp_path / "profile")
    found = re.search(r'<h1 id="verdict" data-verdict="(\w+)">(.*?)</h1>', shown)
    assert found is not None
    assert found.group(1) == verdict
    assert ("does not conform" if verdict == "fail" else "All 2 runs conform") in found.group(2)


PROBE = """<script>
const box = document.scrollingElement, style = getComputedStyle(document.body);
document.documentElement.dataset.wide = box.scrollWidth - box.clientWidth;
document.documentElement.dataset.ground = style.backgroundColor;
</script></body>"""
"""Asks the browser for what only it knows; the page itself forbids scripts, so its policy is lifted for the question."""


def _probed(reports: list[Report], path: Path) -> Path:
    text = page(reports, path).read_text(encoding="utf-8").replace("</body>", PROBE)
    free, policies = re.subn('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert policies == 1
    path.write_text(free, encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [500, 1280])
def test_no_part_of_the_page_is_wider_than_the_window(width: int, tmp_path: Path) -> None:
    many = [report(), passing(precision="f64"), passing(backend="jax"), passing(compiled=True)]
    shown = _browse(_probed(many, tmp_path / "r.html"), tmp_path / "profile", f"--window-size={width},900")
    assert 'data-wide="0"' in shown


def test_the_page_follows_light_and_dark(tmp_path: Path) -> None:
    path = _probed([passing()], tmp_path / "r.html")
    light = _browse(path, tmp_path / "profile", "--blink-settings=preferredColorScheme=1")
    dark = _browse(path, tmp_path / "profile", "--blink-settings=preferredColorScheme=0")
    assert 'data-ground="rgb(250, 249, 246)"' in light
    assert 'data-ground="rgb(20, 22, 27)"' in dark


def test_the_page_runs_no_script(tmp_path: Path) -> None:
    path = page([passing()], tmp_path / "r.html")
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    assert "data-ground" not in _browse(path, tmp_path / "profile")
