"""The funnel accounts for every pair."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.dataset import Dataset
from curate.funnel import FunnelRow, funnel, funnel_markdown, funnel_table
from curate.query import query
from schemas.tables import SAMPLES, URLS, schema_of, uid_of
from tests.gallery import add_dedup, gallery, items
from tests.tiny import add_table

STATES = st.sampled_from(
    ["keep", "drop_a", "drop_b", "unknown low_clip", None]
)  # None: not decided
PAIR = st.tuples(st.sampled_from(["success", "failed_to_download", None]), STATES, STATES, STATES)


def dataset(root: str, pairs: list[tuple[str | None, ...]]) -> Dataset:
    """A dataset whose pairs met these fates at download, quality, dedup and select."""
    data = Dataset(root)
    uids = [uid_of(f"https://x.example/{i}", "c") for i in range(len(pairs))]
    urls = [{"uid": u, "url": f"https://x.example/{i}", "caption": "c"} for i, u in enumerate(uids)]
    add_table(data, "urls", {0: pa.Table.from_pylist(urls, URLS)}, ())
    fates = list(zip(uids, pairs, strict=True))
    samples = [{"uid": u, "status": p[0], "error_message": None} for u, p in fates if p[0]]
    add_table(data, "samples", {0: pa.Table.from_pylist(samples, SAMPLES)}, ())
    for at, stage in enumerate(("quality", "dedup", "select"), start=1):
        decided = [
            {"uid": u, "keep": p[at] == "keep", "reason": None if p[at] == "keep" else p[at]}
            for u, p in fates
            if p[at]
        ]
        table = f"decisions_{stage}"
        add_table(data, table, {0: pa.Table.from_pylist(decided, schema_of(table))}, ())
    return data


def expected(pairs: list[tuple[str | None, ...]]) -> list[FunnelRow]:
    rows, alive = [], pairs
    for at, stage in enumerate(("download", "quality", "dedup", "select")):
        good = ("success",) if at == 0 else ("keep",)
        waits = "not downloaded yet" if at == 0 else f"{stage} not decided yet"
        out = Counter(p[at] or waits for p in alive if p[at] not in good)
        failed = {r: n for r, n in out.items() if at == 0 or r == waits or r.startswith("unknown ")}
        dropped = {r: n for r, n in out.items() if r not in failed}
        kept = [p for p in alive if p[at] in good]
        rows.append(FunnelRow(stage, len(alive), len(kept), dropped, failed))
        alive = kept
    return rows


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pairs=st.lists(PAIR, min_size=1, max_size=30))
def test_every_pair_is_kept_dropped_or_failed_at_each_stage(pairs, tmp_path_factory):
    """in = kept + dropped + failed, what is kept comes in next,
    and the counts are those of a plain loop.
    """
    rows = funnel(dataset(str(tmp_path_factory.mktemp("set")), pairs))
    assert rows == expected(pairs)
    assert rows[0].input == len(pairs)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        assert row.input == row.kept + row.dropped_count + row.failed_count
        assert following is None or following.input == row.kept


def test_the_funnel_agrees_with_the_decisions_view(tmp_path):
    """What the last stage keeps is what `decisions` keeps."""
    data = gallery(tmp_path / "set", items())
    add_dedup(data, [], {})
    kept = query(data, "SELECT count(*) AS n FROM decisions WHERE keep")["n"][0].as_py()
    assert funnel(data)[-1].kept == kept > 0


def test_a_list_that_was_only_ingested_waits_for_its_download(tmp_path):
    """Without samples all pairs are accounted for as not downloaded yet;
    without urls there is no funnel.
    """
    data = Dataset(str(tmp_path / "set"))
    with pytest.raises(ValueError, match=r"no table 'urls'; it has none: ingest a list first"):
        funnel(data)
    urls = [{"uid": uid_of("https://x.example/1", None), "url": "https://x.example/1"}]
    add_table(data, "urls", {0: pa.Table.from_pylist(urls, URLS)}, ())
    assert funnel(data) == [FunnelRow("download", 1, 0, {}, {"not downloaded yet": 1})]


def test_error_messages_without_end_are_summed_up(tmp_path):
    """A dozen messages are named, URLs in them are one, the others are counted together."""
    data = Dataset(str(tmp_path / "set"))
    messages = [f"cannot connect to https://host{i}.example/{i}" for i in range(30)]
    messages += [f"error {i}" for i in range(50)]
    uids = [uid_of(f"https://x.example/{i}", None) for i in range(len(messages))]
    urls = [{"uid": u, "url": "https://x.example"} for u in uids]
    rows = [
        {"uid": u, "status": "failed_to_download", "error_message": m}
        for u, m in zip(uids, messages, strict=True)
    ]
    add_table(data, "urls", {0: pa.Table.from_pylist(urls, URLS)}, ())
    add_table(data, "samples", {0: pa.Table.from_pylist(rows, SAMPLES)}, ())
    failed = funnel(data)[0].failed
    assert len(failed) == 13
    assert failed["failed_to_download: cannot connect to (url)"] == 30
    assert failed["other reasons"] == 80 - 30 - 11


def test_the_table_is_aligned():
    """A reason's count stands under the total that it is part of."""
    rows = [
        FunnelRow("download", 1200, 1000, {}, {"failed_to_download: HTTP Error 404": 200}),
        FunnelRow("quality", 1000, 1000),
    ]
    lines = funnel_table(rows).splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["stage", "in", "kept", "dropped", "failed"],
        ["download", "1,200", "1,000", "0", "200"],
    ]
    assert lines[2].split() == ["200", "failed_to_download:", "HTTP", "Error", "404"]
    ends = (lines[0].index("failed") + 6, lines[1].rindex("200") + 3, lines[2].index("200") + 3)
    assert len(set(ends)) == 1


def test_control_characters_in_reasons_are_written_out(tmp_path):
    """An error message with a terminal escape is counted under its printable form."""
    pairs = items(9)
    failing = [i for i in pairs if i.image is None]
    data = gallery(
        tmp_path / "set", [*pairs[:-1], type(failing[0])("u", "c", None, error="\x1b[2J|`<b>")], ()
    )
    assert funnel(data)[0].failed == {r"failed_to_download: \x1b[2J|`<b>": 1}
    assert r"`failed_to_download: \x1b[2J\|'<b>` 1" in funnel_markdown(funnel(data))


def test_the_markdown_has_a_row_per_stage():
    """Counts per stage with the reasons in code spans."""
    text = funnel_markdown([FunnelRow("quality", 10, 7, {"low_clip": 2}, {"unknown low_clip": 1})])
    assert (
        text.splitlines()[-1] == "| quality | 10 | 7 | 2 | 1 | `low_clip` 2, `unknown low_clip` 1 |"
    )
