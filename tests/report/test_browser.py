"""Our pages in a real browser: they draw, their controls act, and nothing is fetched from a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from m2unet.report.cohort_page import CohortCase
from m2unet.workflows.cohort_page import write_cohort_page

from .browser import printed_pages, probe
from .conftest import WrittenCase

# Counts pixels of the canvas in a 2-D copy: how many are lit, how many coloured, and how many look like one colour.
PIXELS = """
  const root = document.documentElement;
  await wait(() => root.dataset.state);
  if (root.dataset.state !== "ready") return { state: root.dataset.state, text: document.body.innerText };
  const viewer = window.m2unetViewer;
  viewer.opts.crosshairWidth = 0;
  viewer.opts.isOrientationTextVisible = false;
  const count = () => {
    viewer.drawScene();
    const copy = document.createElement("canvas");
    copy.width = viewer.canvas.width;
    copy.height = viewer.canvas.height;
    const pen = copy.getContext("2d");
    pen.drawImage(viewer.canvas, 0, 0);
    const data = pen.getImageData(0, 0, copy.width, copy.height).data;
    const found = { lit: 0, coloured: 0, yellow: 0, blue: 0, sum: 0 };
    for (let i = 0; i < data.length; i += 4) {
      const [r, g, b] = [data[i], data[i + 1], data[i + 2]];
      found.sum += r + g + b;
      if (r + g + b > 60) found.lit += 1;
      if (Math.max(r, g, b) - Math.min(r, g, b) > 24) found.coloured += 1;
      if (r > b + 40 && g > b + 40) found.yellow += 1;
      if (b > r + 24) found.blue += 1;
    }
    return found;
  };
  const press = (id) => document.getElementById(id).click();
  const set = (id, value) => {
    document.getElementById(id).value = value;
    document.getElementById(id).dispatchEvent(new Event("input"));
  };
"""


def offline(found: dict[str, Any]) -> bool:
    """Whether a page neither asked a network for anything nor tried what its own policy forbids."""
    return found["requested"] == [] and found["refused"] == []


def test_a_page_that_asks_a_network_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><head><title>x</title></head><body></body>")
    script = (
        'try { await fetch("http://pictures.invalid/a.png"); } catch (error) { return { failed: true }; } return {};'
    )
    found = probe(page, script, tmp_path / "profile")
    assert found["failed"] and found["requested"] == ["http://pictures.invalid/a.png"]
    policy = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'">"""
    page.write_text(f"<!doctype html><head>{policy}<title>x</title></head><body></body>")
    found = probe(page, script, tmp_path / "second")
    assert found["failed"] and found["requested"] == [] and found["refused"] == ["http://pictures.invalid/a.png"]


def test_the_view_draws_and_its_layers_toggle_offline(written: WrittenCase, tmp_path: Path) -> None:
    script = (
        PIXELS
        + """
      const found = { state: root.dataset.state, first: count() };
      found.readout = document.getElementById("readout").textContent;
      found.names = root.dataset.layers;
      press("outline");
      found.filled = count();
      document.querySelector('[data-layer="lobes"][data-code="5"]').click();
      found.without_lll = count();
      document.querySelector('[data-layer="lobes"][data-code="5"]').click();
      set("strength-lobes", 80);
      found.strong = count();
      press("show-lobes");
      found.without_lobes = count();
      press("show-opacity");
      found.plain = count();
      found.plain_names = root.dataset.layers;
      document.querySelector('[data-low="-160"]').click();
      found.soft_tissue = count();
      press("show-lobes");
      press("show-opacity");
      document.querySelector('[data-view="axial"]').click();
      found.axial = count();
      return found;
    """
    )
    found = probe(written.folder / "viewer.html", script, tmp_path / "profile")
    assert found["state"] == "ready" and offline(found)
    assert found["names"] == "ct lobes opacity" and found["plain_names"] == "ct"
    first, filled = found["first"], found["filled"]
    assert first["lit"] > 10_000 and first["coloured"] > 3_000 and first["yellow"] > 100
    assert "ground glass" in found["readout"] and "HU" in found["readout"]
    assert filled["sum"] != first["sum"]  # outlines are gone
    assert found["without_lll"]["blue"] < 0.9 * filled["blue"]
    assert found["strong"]["sum"] != filled["sum"] and found["strong"]["coloured"] >= filled["coloured"]
    assert 100 < found["without_lobes"]["coloured"] < 0.5 * filled["coloured"]
    assert found["plain"]["coloured"] == 0 and found["plain"]["lit"] > 10_000
    assert found["soft_tissue"]["sum"] < found["plain"]["sum"]
    assert found["axial"]["coloured"] > 3_000 and found["axial"]["sum"] != first["sum"]


def test_the_view_says_so_when_its_data_are_gone(written: WrittenCase, tmp_path: Path) -> None:
    page = tmp_path / "case" / "viewer.html"
    page.parent.mkdir()
    page.write_bytes((written.folder / "viewer.html").read_bytes())
    script = """
      await wait(() => document.documentElement.dataset.state);
      const box = document.getElementById("trouble");
      return { state: document.documentElement.dataset.state, text: box.textContent, shown: !box.hidden };
    """
    found = probe(page, script, tmp_path / "profile")
    assert found["state"] == "failed" and found["shown"] and "niivue.umd.js" in found["text"]


@pytest.fixture
def cohort(written: WrittenCase) -> Path:
    milder = written.document.severity.model_copy(update={"probability": 0.1})
    cases = [
        CohortCase(written.folder.name, written.document),
        CohortCase("b", None, "the scan cannot be read"),
        CohortCase("c", written.document.model_copy(update={"severity": milder, "files": {}})),
    ]
    write_cohort_page(written.folder.parent, cases)
    return written.folder.parent / "cohort.html"


def test_the_cohort_page_sorts_and_filters_offline(cohort: Path, tmp_path: Path) -> None:
    script = """
      const names = () => Array.from(document.querySelectorAll("#cases tbody tr")).filter((row) => !row.hidden)
        .map((row) => row.cells[1].textContent.trim().split(/\\s*view/)[0]);
      const heads = Array.from(document.querySelectorAll("#cases thead th"));
      const found = { first: names() };
      heads[2].querySelector("button").click();
      found.down = [names(), heads[2].getAttribute("aria-sort")];
      heads[2].querySelector("button").click();
      found.up = [names(), heads[2].getAttribute("aria-sort")];
      heads[1].querySelector("button").click();
      found.by_name = [names(), heads[2].getAttribute("aria-sort")];
      const filter = document.getElementById("filter");
      filter.value = "cannot be READ";
      filter.dispatchEvent(new Event("input"));
      found.filtered = [names(), document.getElementById("shown").textContent];
      const image = document.querySelector("img");
      image.loading = "eager";
      await wait(() => image.complete);
      found.image = image.naturalHeight;
      return found;
    """
    found = probe(cohort, script, tmp_path / "profile")
    assert found["first"] == ["case <1>", "b", "c"]
    assert found["down"] == [["case <1>", "c", "b"], "descending"]
    assert found["up"] == [["c", "case <1>", "b"], "ascending"]  # what has no value stays last
    assert found["by_name"] == [["b", "c", "case <1>"], "none"]
    assert found["filtered"] == [["b"], "1 of 3"]
    assert found["image"] == 160 and offline(found)


def test_the_report_opens_alone(written: WrittenCase, tmp_path: Path) -> None:
    page = tmp_path / "elsewhere" / "report.html"
    page.parent.mkdir()
    text = (written.folder / "report.html").read_text(encoding="utf-8")
    # The page forbids scripts, our probe's too: only this copy allows them.
    page.write_text(text.replace("default-src 'none'; img", "default-src 'none'; script-src 'unsafe-inline'; img"))
    script = """
      const image = document.querySelector("figure img");
      await wait(() => image.complete);
      const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
      return { width: image.naturalWidth, wide, sections: document.querySelectorAll("h2").length };
    """
    found = probe(page, script, tmp_path / "profile", (1200, 900))
    assert found["width"] == 1600 and found["wide"] <= 0 and found["sections"] >= 9
    assert offline(found)


def test_the_report_prints_on_one_page(written: WrittenCase, tmp_path: Path) -> None:
    assert printed_pages(written.folder / "report.html", tmp_path / "report.pdf") == 1
    long = tmp_path / "long.html"
    long.write_text("<!doctype html><head><title>x</title></head><body>" + "<p>line</p>" * 200)
    assert printed_pages(long, tmp_path / "long.pdf") > 1
