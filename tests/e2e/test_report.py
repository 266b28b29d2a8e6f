"""The report in headless Chromium: no errors, no requests, points and tables there, colours switch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import webdriver
from program import Run


@pytest.fixture(scope="module")
def report(scwarp: Run, simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    scwarp("run", simulated, "--report", path, "-r", "0.5,1.0", "--n-top-genes", 500, "--umap-epochs", 100)
    return path


@pytest.fixture(scope="module")
def browser(report: Path) -> Iterator[webdriver.Browser]:
    if missing := webdriver.available():
        pytest.skip(missing)
    browser = webdriver.Browser()
    browser.open(report)
    browser.wait("return document.documentElement.dataset.state !== undefined", 60)
    yield browser
    browser.close()


def points(browser: webdriver.Browser) -> int:
    return int(browser.run("return document.getElementById('plot-map').data.reduce((n, t) => n + t.x.length, 0)"))


def dark_share(browser: webdriver.Browser) -> float:
    """Share of coloured pixels of the map, from what the page has drawn."""
    script = """
      const c = document.createElement('canvas');
      const ctx = c.getContext('2d');
      const url = await Plotly.toImage(document.getElementById('plot-map'), {format: 'png', width: 500, height: 400});
      const image = new Image();
      await new Promise((done) => { image.onload = done; image.src = url; });
      c.width = 500; c.height = 400;
      ctx.drawImage(image, 0, 0);
      const d = ctx.getImageData(0, 0, 350, 400).data;
      let n = 0;
      for (let i = 0; i < d.length; i += 4) n += (d[i] < 225 || d[i + 1] < 225 || d[i + 2] < 225) ? 1 : 0;
      return n / (d.length / 4);
    """
    return float(browser.run(f"return (async () => {{ {script} }})()"))


def test_loads_without_errors_or_requests(browser: webdriver.Browser, report: Path) -> None:
    assert browser.run("return document.documentElement.dataset.state") == "ready"
    errors = [e for e in browser.log("browser") if e["level"] == "SEVERE"]
    assert errors == []
    messages = [json.loads(e["message"])["message"] for e in browser.log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [u for u in urls if not u.startswith(("data:", "blob:"))] == [report.resolve().as_uri()]


def test_shows_every_cell(browser: webdriver.Browser) -> None:
    cells = browser.run("return JSON.parse(document.getElementById('scw-meta').textContent).n")
    assert points(browser) == cells > 600
    assert dark_share(browser) > 0.01


def test_every_section_is_there(browser: webdriver.Browser) -> None:
    shown = browser.run("return [...document.querySelectorAll('main section')].filter(s => !s.hidden).map(s => s.id)")
    assert shown == ["embedding", "clusters", "dots", "markers", "qc", "genes", "pca", "run"]
    for plot in ("plot-clusters", "plot-dots", "plot-genes", "plot-pca"):
        assert browser.run(f"return document.getElementById('{plot}').data.length") > 0, plot
    assert browser.run("return document.querySelectorAll('#qc-plots .plot').length") == 3
    assert browser.run("return document.getElementById('qc-plots').innerText.includes('outside')")
    steps = browser.run("return [...document.querySelectorAll('#steps tbody tr td:first-child')].map(e => e.innerText)")
    assert steps[0] == "read" and "Leiden" in steps
    assert "seed" in browser.run("return document.getElementById('parameters').innerText")


def test_colour_switches(browser: webdriver.Browser) -> None:
    select = "const s = document.getElementById('colour');"
    change = "s.dispatchEvent(new Event('change'));"
    by_text = "s.value = [...s.options].find(o => o.text === arguments[0]).value;"
    for name, traces in (("counts per cell", 1), ("leiden_0.5", None), ("leiden_1.0", None)):
        browser.run(select + by_text + change, name)
        browser.wait(f"return document.getElementById('plot-map').dataset.colour === '{name}'")
        if traces is not None:
            assert browser.run("return document.getElementById('plot-map').data.length") == traces
        else:
            assert browser.run("return document.getElementById('plot-map').data.length") > 1
    gene = browser.run("return document.querySelector('#chips button').textContent")
    browser.run("document.querySelector('#chips button').click()")
    browser.wait(f"return document.getElementById('plot-map').dataset.colour === '{gene}'")
    colours = browser.run("return Array.from(document.getElementById('plot-map').data[0].marker.color)")
    assert min(colours) == 0 and max(colours) > 0.5
    assert colours == sorted(colours)  # high values on top
    browser.run("const g = document.getElementById('gene'); g.value = 'nonsense'; g.dispatchEvent(new Event('change'))")
    assert "Not among" in browser.run("return document.getElementById('gene-note').textContent")
    browser.run("return window.scwChoose('column', 0)")


def test_legend_hides_a_cluster(browser: webdriver.Browser) -> None:
    visible = "return document.getElementById('plot-map').data.filter(t => t.visible !== 'legendonly').length"
    before = browser.run(visible)
    spot = browser.run(
        """document.getElementById('plot-map').scrollIntoView({behavior: 'instant', block: 'center'});
           const r = document.querySelector('#plot-map .legendtoggle').getBoundingClientRect();
           return [r.left + r.width / 2, r.top + r.height / 2]"""
    )
    browser.click(*spot)
    browser.wait(f"{visible} === {before - 1}", 5)
    browser.wait("return true")
    browser.run("return new Promise(done => setTimeout(done, 400))")  # or it would be a double click
    browser.click(*spot)
    browser.wait(f"{visible} === {before}", 5)


def test_hover_names_the_cell(browser: webdriver.Browser) -> None:
    spot = browser.run(
        """const plot = document.getElementById('plot-map'), t = plot.data[0], f = plot._fullLayout;
           plot.scrollIntoView({behavior: 'instant', block: 'center'});
           const box = plot.getBoundingClientRect();
           return [box.left + f.xaxis._offset + f.xaxis.l2p(t.x[0]), box.top + f.yaxis._offset + f.yaxis.l2p(t.y[0])]"""
    )
    browser.move_to(spot[0] - 3, spot[1] - 3)
    browser.move_to(spot[0], spot[1])
    browser.wait("return !document.getElementById('tip').hidden", 10)
    text = browser.run("return document.getElementById('tip').innerText")
    assert text.startswith("CELL") and "leiden" in text and "counts per cell" in text


def test_marker_table(browser: webdriver.Browser) -> None:
    rows = "return [...document.querySelectorAll('#marker-table tbody tr')]"
    rows += ".map(r => [...r.children].map(c => c.innerText))"
    first = browser.run(rows)
    assert len(first) == 25 and len(first[0]) == 9
    browser.run("[...document.querySelectorAll('#marker-table th')][4].click()")
    folds = [float(r[4]) for r in browser.run(rows)]
    assert folds == sorted(folds, reverse=True)
    browser.run("const s = document.getElementById('search'); s.value = 'MK01'; s.dispatchEvent(new Event('input'))")
    found = browser.run(rows)
    assert found and all("MK01" in r[2] for r in found)
    csv = browser.run("return window.scwMarkersCsv()").splitlines()
    assert csv[0].startswith("cluster,rank,gene,score,log2_fold_change") and all("MK01" in line for line in csv[1:])
    browser.run("const s = document.getElementById('search'); s.value = ''; s.dispatchEvent(new Event('input'))")
    browser.run("document.getElementById('next').click()")
    assert browser.run("return document.getElementById('page').innerText").startswith("page 2")


def test_screenshot(browser: webdriver.Browser, tmp_path: Path) -> None:
    """Something is drawn; SCWARP_SCREENSHOTS keeps the picture."""
    target = Path(os.environ.get("SCWARP_SCREENSHOTS", tmp_path))
    browser.run("window.scrollTo(0, 0)")
    browser.screenshot(target / "report.png")
    assert (target / "report.png").stat().st_size > 20_000
