"""What a download did, in words."""

from __future__ import annotations

from curate.traffic import traffic_markdown, traffic_table

CAME = {
    "rows": 1000,
    "successes": 900,
    "bytes": 5_000_000,
    "seconds": 2.0,
    "errors": {"HTTP Error 404: Not Found": 80, "evil | `\x1b[31m": 20},
    "slowest_hosts": [{"host": "slow.example", "requests": 12, "failures": 3, "mean_seconds": 2.5}],
    "parts_without_images": list(range(10)),
}


def test_people_see_rates_errors_slow_hosts_and_barren_parts():
    """The commonest error comes first, shares are of all rows, control characters are written."""
    lines = traffic_table(CAME).splitlines()
    assert lines[0] == "1,000 rows in 2.0 s: 500 rows/s, 2.5 MB/s, 90.0% came"
    assert lines[1].split(maxsplit=2) == ["80", "8.0%", "HTTP Error 404: Not Found"]
    assert lines[2].endswith("evil | `\\x1b[31m")
    assert lines[5].split() == ["slow.example", "12", "3", "2.50"]
    assert lines[-1].endswith("00000006, 00000007 and 2 more")


def test_prefect_gets_the_same_as_tables():
    """Strangers' words stand in code spans that they cannot leave."""
    text = traffic_markdown(CAME)
    assert "| `HTTP Error 404: Not Found` | 80 | 8.0% |" in text
    assert "| `evil \\| '\\x1b[31m` | 20 | 2.0% |" in text
    assert "| `slow.example` | 12 | 3 | 2.50 |" in text
    assert "and 2 more" in text


def test_nothing_to_do_is_said():
    """A run without rows has no rates."""
    assert traffic_table(CAME | {"rows": 0}) == "nothing to download"
    assert traffic_markdown(CAME | {"rows": 0}) == "nothing to download"
