"""Artifacts: what a run shows in Prefect's pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.artifacts import create_markdown_artifact

from curate.dataset import Dataset
from curate.funnel import funnel, funnel_markdown
from curate.traffic import traffic_markdown


def show_funnel(data: Dataset) -> None:
    """The funnel of this version, as a table of the flow run."""
    create_markdown_artifact(
        funnel_markdown(funnel(data)), key="funnel", description=f"{data.root}, version {data.at}"
    )


def show_download(data: Dataset, came: Mapping[str, Any]) -> None:
    """What this run's download did: rates, errors, slow hosts, parts without images."""
    create_markdown_artifact(
        traffic_markdown(came), key="download", description=f"{data.root}, version {data.at}"
    )
