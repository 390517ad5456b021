"""Artifacts: what a run shows in Prefect's pages."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact

from curate.dataset import Dataset
from curate.funnel import funnel, funnel_markdown


def show_funnel(data: Dataset) -> None:
    """The funnel of this version, as a table of the flow run."""
    create_markdown_artifact(
        funnel_markdown(funnel(data)), key="funnel", description=f"{data.root}, version {data.at}"
    )
