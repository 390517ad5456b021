"""The same recipe on other stores: S3 as a real server speaks it, and memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from curate.dataset import Dataset
from curate.funnel import funnel
from curate.query import query
from schemas.configs import IngestConfig
from tests.flows.conftest import Whole
from tests.flows.contents import by_pair, contents, different, shards
from tests.flows.small_web import run_all


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket, which the usual AWS variables lead to."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = f"curate-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    yield name
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def assert_same_as_on_disk(data: Dataset, local: Dataset) -> None:
    """Every row, every shard, and what SQL says."""
    assert by_pair(data) == by_pair(local)
    assert shards(data)
    assert different(shards(data), shards(local)) == []
    assert funnel(data) == funnel(local)
    sql = "SELECT uid, keep, reason, scores_image_stats__sharpness FROM pairs ORDER BY uid"
    assert query(data, sql).equals(query(local, sql))


def test_a_dataset_in_a_bucket_has_the_rows_of_one_on_disk(
    whole: Whole, untrained: Dataset, bucket: str
):
    """`root: s3://...`: the same rows, shards and answers; a second run finds nothing to do; and
    a query reads no other file of the bucket.
    """
    list_ = IngestConfig(path=str(whole.list), batch="first", source="small", part_rows=30)
    config = whole.recipe(f"s3://{bucket}/set", trained=False, ingest=(list_,))
    data = run_all(config)
    assert_same_as_on_disk(data, untrained)
    assert run_all(config).at == data.at
    data.fs.pipe_file(f"{bucket}/other/secret.csv", b"a\n1\n")
    with pytest.raises(ValueError, match="disabled by configuration"):
        query(data, f"SELECT * FROM 's3://{bucket}/other/secret.csv'")


@pytest.mark.slow  # some thousand requests
def test_a_dataset_in_a_bucket_is_byte_for_byte_the_one_on_disk(whole: Whole, bucket: str):
    """Models and clusters among it: parts, artifacts, tars and shards."""
    data = run_all(whole.recipe(f"s3://{bucket}/set"))
    assert different(contents(data), contents(whole.data)) == []


def test_a_dataset_in_memory_is_the_one_on_disk(whole: Whole):
    """`root: memory://...`: for a notebook, and for tests."""
    data = run_all(whole.recipe(f"memory://{uuid.uuid4().hex}"))
    assert different(contents(data), contents(whole.data)) == []
    assert_same_as_on_disk(data, whole.data)
