"""``report.html``: one page, complete, closed and free of references to a network."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lumefield.apps import _report
from lumefield.apps._colours import heat
from lumefield.apps._report import write_report
from lumefield.apps._report_svg import curve, ticks
from lumefield.errors import RunError

VOID = {"meta", "img", "input", "br", "line", "polyline", "path", "i", "th"}


class Outline(HTMLParser):
    """Headings, attributes and whether every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.links += [str(v) for k, v in attrs if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def outline(path: Path) -> Outline:
    parser = Outline()
    parser.feed(path.read_text("utf-8"))
    parser.close()
    assert parser.open == []
    return parser


SECTIONS = [
    "Held-out views",
    "Scores",
    "Training",
    "Cameras",
    "Time",
    "Capture",
    "Settings and versions",
]


def test_the_page_has_every_section_and_refers_to_nothing_outside(run: Path):
    page = write_report(run)
    text = page.read_text("utf-8")
    parsed = outline(page)
    assert parsed.headings == SECTIONS
    assert "http://" not in text
    assert "https://" not in text
    assert len(parsed.links) == 6
    assert all(link.startswith("data:image/jpeg;base64,") for link in parsed.links)
    assert text.count("<svg") == 5
    assert page.stat().st_size < 6_000_000


def test_the_page_tells_the_figures_and_escapes_names(run: Path):
    text = write_report(run).read_text("utf-8")
    for words in ("24.00", "0.800", "1 min 1 s", "img_8.jpg", "a &amp; b", "run &lt;1&gt;"):
        assert words in text
    assert "<photos>" not in text
    assert "<1>" not in text


def test_a_run_with_nothing_but_metrics_still_gives_a_page(tmp_path: Path):
    (tmp_path / "metrics.json").write_text('{"psnr": null, "views": "?", "timings": 3}')
    assert outline(write_report(tmp_path)).headings == SECTIONS


def test_many_large_views_stay_within_the_limit(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_report, "MAX_BYTES", 600_000)
    rng = np.random.default_rng(0)
    views: list[dict[str, Any]] = [
        {"name": f"v{k}.jpg", "psnr": float(k), "ssim": 0.5} for k in range(20)
    ]
    picture = Image.fromarray(rng.integers(0, 255, (300, 400, 3), np.uint8))
    for view in views:
        for suffix in (".png", ".truth.png"):
            picture.save(run / "renders" / f"{view['name'][:-4]}{suffix}")
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "views": views}))
    page = write_report(run)
    text = page.read_text("utf-8")
    assert text.count("<div class=view>") == 12
    assert "12 of 20" in text
    assert page.stat().st_size < 1_000_000
    assert "<h3>v0.jpg" in text
    assert "<h3>v19.jpg" in text


def test_what_cannot_be_read_is_one_clear_line(run: Path, tmp_path: Path):
    with pytest.raises(RunError, match=r"no metrics\.json"):
        write_report(tmp_path)
    Image.new("RGB", (3, 3)).save(run / "renders" / "img_0.png")
    with pytest.raises(RunError, match="differ in size"):
        write_report(run)
    (run / "renders" / "img_0.png").write_text("x")
    with pytest.raises(RunError, match="cannot be read"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3, 17), (5, 5), (0, 0), (1e-9, 3e-9), (0, 1e7), (26.8, 31.2)]
)
def test_ticks_are_few_even_and_cover_the_range(low: float, high: float):
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 9
    assert marks[0] <= low
    assert marks[-1] >= high
    np.testing.assert_allclose(np.diff(marks), marks[1] - marks[0])


def test_curves_take_anything_finite():
    assert "polyline" in curve([1, 2, 3], [1.0, float("nan"), 3.0], mark=2.0, label="x")
    assert "too few" in curve([1], [1.0])
    long = curve(list(range(5000)), [float(k % 7) for k in range(5000)])
    assert len(long) < 20_000


def test_heat_gets_lighter_from_zero_to_one():
    colours = heat(np.linspace(-0.5, 1.5, 200)).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(colours) > -1).all()
    assert colours[0] < 3
    assert colours[-1] > 240
