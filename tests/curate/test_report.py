"""The page shows the dataset's numbers, and nothing in it comes alive in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from curate.dataset import Dataset
from curate.funnel import funnel
from curate.query import connect
from curate.report import metrics_table, report
from curate.reporting.text import printable
from schemas.configs import CurationConfig
from schemas.tables import URLS, uid_of
from tests.gallery import (
    HOSTILE,
    RULES,
    Item,
    add_dedup,
    add_metrics,
    add_rows,
    gallery,
    items,
    shape,
)
from tests.tiny import add_table

TITLE = "Curation report"
ATTACK = "<script>document.title='owned'</script>"


class Page(HTMLParser):
    """Elements with their attributes, and the texts of captions."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.captions: list[str] = []
        self.title = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = (
            "caption" if ("dir", "auto") in attrs else tag if tag in ("title", "i") else ""
        )
        if self._inside == "caption":
            self.captions.append("")

    def handle_endtag(self, tag):
        self._inside = "" if tag in ("p", "title") else self._inside

    def handle_data(self, data):
        if self._inside == "caption":
            self.captions[-1] += data
        if self._inside == "title" and ("body", {}) not in self.elements:
            self.title += data


def in_browser(path: Path) -> Page:
    """The page as chromium has it after loading."""
    chromium = shutil.which("chromium")
    assert chromium, (
        "this test loads the page in a browser: install chromium (Debian: apt-get install chromium)"
    )
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={path.parent}/profile",
    ]
    dumped = subprocess.run(
        [chromium, *flags, "--virtual-time-budget=2000", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return Page(dumped.stdout)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A report whose captions, URLs, errors and metrics were all written by an enemy."""
    folder = tmp_path_factory.mktemp("hostile")
    pairs = [
        Item(
            f"https://{text}.example/{i}/{text}",
            text,
            shape(i) if i % 2 else b"not an image",
            0.2 + 0.2 * (i % 3),
        )
        for i, text in enumerate(HOSTILE * 2)
    ]
    dead = [
        Item(f"https://x.example/dead{i}", text, None, error=text) for i, text in enumerate(HOSTILE)
    ]
    data = gallery(folder / f"set<b>{ATTACK.replace('/', '')}", [*pairs, *dead])
    kept = sorted(i.uid for i in pairs if i.clip_score and i.clip_score > 0.28)
    add_dedup(data, [(kept[0], kept[1], 2.0)], {kept[1]: kept[0]})
    add_metrics(data, [(ATTACK, 0, 1, f'recall"{ATTACK}', 0.5)])
    add_rows(data, "subset_half", [{"uid": uid} for uid in kept])
    add_rows(
        data, "captions_hf", [said(kept[0], i, f"said {text}") for i, text in enumerate(HOSTILE)]
    )
    recipe = CurationConfig(root=ATTACK, rules=RULES)
    return report(data, folder / "report.html", recipe)


def said(uid: str, index: int, text: str) -> dict[str, str]:
    """A row of captions_hf."""
    return {"uid": uid, "caption_id": f"{index:032x}", "caption": text, "origin": "generated"}


def test_nothing_from_the_web_comes_alive(hostile):
    """In the browser the captions are text, no script has run,
    no element or handler of theirs exists.
    """
    page = in_browser(hostile)
    assert page.title == TITLE
    assert {"balance", "captions"} <= {attributes.get("id") for _, attributes in page.elements}
    written = [*HOSTILE, *(f"said {text}" for text in HOSTILE)]
    assert {printable(text) for text in written} <= set(page.captions)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/jpeg;base64,")
        if tag == "a":
            assert str(attributes["href"]).startswith("#")


def test_a_script_would_be_seen_and_the_policy_stops_it(hostile, tmp_path):
    """The same page with a script in it: without the policy the script runs,
    with the policy it does not.
    """
    html = hostile.read_text().replace("</main>", f"{ATTACK}</main>")
    armed = tmp_path / "armed.html"
    armed.write_text(html)
    assert in_browser(armed).title == TITLE
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    armed.write_text(re.sub(policy, "", html))
    assert in_browser(armed).title == "owned"


def test_the_page_is_one_file_that_loads_nothing(hostile):
    """Its policy allows data: images and inline styles only,
    and no byte of it is a control character.
    """
    html = hostile.read_text()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
    assert f'content="{policy} base-uri' in html
    assert not re.search(r"@import|url\(", html)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)


def test_the_page_tells_the_datasets_numbers(tmp_path):
    """Funnel, thresholds, rules, duplicates, training results and tables are on it."""
    pairs = items()
    data = gallery(tmp_path / "set", pairs)
    kept = sorted(
        r["uid"]
        for p in data.parts("decisions_quality")
        for r in data.read("decisions_quality", p).to_pylist()
        if r["keep"]
    )
    add_dedup(data, [(kept[0], kept[1], 2.0)], {kept[1]: kept[0]})
    add_metrics(
        data,
        [("top", seed, step, "r@1", step / 10 + seed / 100) for seed in (0, 1) for step in (1, 5)],
    )
    html = report(data, tmp_path / "out" / "report.html").read_text()
    rows = funnel(data)
    assert f"<h1>{rows[-1].kept} of 40 pairs are in</h1>" in html
    assert ">low_clip: below 0.28<" in html
    assert ">wide: above 900<" in html
    assert "drops urls__caption ~ &#39;^IMG_[0-9]+&#39;" in html
    failed, unknown = _failing(pairs)
    assert (
        f"{failed + unknown} pairs fail it, {unknown} of them because the score is unknown;" in html
    )
    assert "1 copy<" in html
    assert "<b>perceptual, distance 2</b>" in html
    assert "0.505 ± 0.007 (2)" in html
    assert "<code>scores_clip</code>" in html


def _failing(pairs: list[Item]) -> tuple[int, int]:
    """Pairs that low_clip drops for their score, and for want of one."""
    scores = [i.clip_score for i in pairs if i.image is not None]
    return sum(s is not None and s < 0.28 for s in scores), scores.count(None)


def test_the_page_shows_what_a_selection_loses_and_what_was_said(tmp_path):
    """Balance of the subset that is asked for, generated captions beside the originals."""
    pairs = items()
    data = gallery(tmp_path / "set", pairs)
    html = report(data, tmp_path / "before.html").read_text()
    assert 'id="balance"' not in html
    assert 'id="captions"' not in html
    with_image = [i for i in pairs if i.image]
    add_rows(data, "subset_all", [{"uid": i.uid} for i in with_image])
    add_rows(data, "subset_few", [{"uid": i.uid} for i in with_image[:9]])
    add_rows(data, "captions_hf", [said(with_image[0].uid, 0, "a red disc")])
    html = report(data, tmp_path / "after.html", subset="few").read_text()
    assert f"before: {len(with_image)} downloaded pairs" in html
    assert "after: 9 pairs of the subset <code>few</code>" in html
    assert ">pool.example</text>" in html
    assert ">lost most</text>" in html
    assert "1 pair with a generated caption</p>" in html
    assert '<p dir="auto">a red disc</p>' in html
    with pytest.raises(ValueError, match="there are all, few"):
        report(data, tmp_path / "none.html", subset="none")
    assert not (tmp_path / "none.html").exists()


def test_equal_versions_give_equal_bytes(tmp_path):
    """Nothing on the page depends on the clock or on chance."""
    data = gallery(tmp_path / "set", items(20))
    add_rows(data, "subset_half", [{"uid": i.uid} for i in items(20)[::2] if i.image])
    add_rows(data, "captions_hf", [said(i.uid, 0, "said") for i in items(20) if i.image])
    pages = [report(data, tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]


def test_a_dataset_that_was_only_ingested_has_a_page(tmp_path):
    """Sections without their tables are left out; without a list there is an error."""
    data = Dataset(str(tmp_path / "set"))
    with pytest.raises(ValueError, match="ingest a list first"):
        report(data, tmp_path / "report.html")
    urls = [{"uid": uid_of("https://x.example/1", None), "url": "https://x.example/1"}]
    add_table(data, "urls", {0: pa.Table.from_pylist(urls, URLS)}, ())
    html = report(data, tmp_path / "report.html").read_text()
    assert "0 of 1 pairs are in" in html
    assert "not downloaded yet" in html
    assert 'id="rules"' not in html


def test_a_dataset_in_an_object_store_has_a_page(tmp_path):
    """Tables and pictures are read through fsspec; the page itself is a local file."""
    data = gallery(f"memory://{uuid4().hex}/set", items(20))
    assert "data:image/jpeg;base64," in report(data, tmp_path / "report.html").read_text()


def test_metrics_take_each_runs_last_step(tmp_path):
    """Mean and spread over seeds, per subset and metric; one seed has no spread."""
    data = gallery(tmp_path / "set", items(4), ())
    rows = [
        ("a", seed, step, "r@1", value)
        for seed, step, value in ((0, 1, 0.9), (0, 2, 0.1), (1, 2, 0.3))
    ]
    add_metrics(data, [*rows, ("b", 0, 2, "r@1", 0.5), ("b", 0, 2, "r@5", float("nan"))])
    assert metrics_table(connect(data)) == (
        ["a", "b"],
        [("r@1", ["0.200 ± 0.141 (2)", "0.500 (1)"])],
    )
