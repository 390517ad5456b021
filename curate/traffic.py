"""Traffic: what a download did, as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curate.reporting.text import in_code, printable

TOP = 8  # errors and hosts that are told


def traffic_table(came: Mapping[str, Any]) -> str:
    """Aligned text: the rates, the commonest errors, the slowest hosts, parts without images."""
    if not came["rows"]:
        return "nothing to download"
    lines = [_headline(came)]
    for error, count in _top(came["errors"]):
        lines.append(f"{count:>12,}  {count / came['rows']:>6.1%}  {printable(error, 90)}")
    if came["slowest_hosts"]:
        lines.append(f"\n{'slowest host':<40}{'requests':>10}{'failures':>10}{'mean s':>8}")
    for host in came["slowest_hosts"][:TOP]:
        lines.append(
            f"{printable(host['host'], 39):<40}{host['requests']:>10,}{host['failures']:>10,}"
            f"{host['mean_seconds']:>8.2f}"
        )
    if came["parts_without_images"]:
        lines.append(f"\nparts without a single image, tried again by the next run: {_parts(came)}")
    return "\n".join(lines)


def traffic_markdown(came: Mapping[str, Any]) -> str:
    """The same for Prefect's pages; strangers' words stand in code spans."""
    if not came["rows"]:
        return "nothing to download"
    lines = [_headline(came), "", "| error | rows | share |", "|---|--:|--:|"]
    for error, count in _top(came["errors"]):
        lines.append(f"| {in_code(error)} | {count:,} | {count / came['rows']:.1%} |")
    lines += ["", "| slowest host | requests | failures | mean s |", "|---|--:|--:|--:|"]
    for host in came["slowest_hosts"][:TOP]:
        lines.append(
            f"| {in_code(host['host'])} | {host['requests']:,} | {host['failures']:,} "
            f"| {host['mean_seconds']:.2f} |"
        )
    if came["parts_without_images"]:
        lines += ["", f"Parts without a single image, tried again by the next run: {_parts(came)}"]
    return "\n".join(lines)


def _headline(came: Mapping[str, Any]) -> str:
    seconds = max(came["seconds"], 1e-9)
    return (
        f"{came['rows']:,} rows in {seconds:,.1f} s: {came['rows'] / seconds:,.0f} rows/s, "
        f"{came['bytes'] / seconds / 1e6:,.1f} MB/s, {came['successes'] / came['rows']:.1%} came"
    )


def _top(errors: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(errors.items(), key=lambda e: (-e[1], e[0]))[:TOP]


def _parts(came: Mapping[str, Any]) -> str:
    parts = came["parts_without_images"]
    named = ", ".join(f"{p:08d}" for p in parts[:TOP])
    return named if len(parts) <= TOP else f"{named} and {len(parts) - TOP} more"
