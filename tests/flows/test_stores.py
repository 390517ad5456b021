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
from tests.flows.conftest import Whole
from tests.flows.contents import by_pair, contents, different, shards
from tests.flows.small_web import run_all


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on loopback that the usual AWS variables lead to."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        fsspec.filesystem("s3").mkdir("curate-bucket")
        yield "s3://curate-bucket"
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()


def assert_same_as_on_disk(data: Dataset, local: Dataset) -> None:
    """Every row, every shard, what SQL says, and that a second run has nothing to do."""
    assert different(contents(data), contents(local)) == []
    assert by_pair(data) == by_pair(local)
    assert shards(data)
    assert funnel(data) == funnel(local)
    sql = "SELECT uid, keep, reason, scores_image_stats__sharpness FROM pairs ORDER BY uid"
    assert query(data, sql).equals(query(local, sql))


def test_a_dataset_in_a_bucket_is_the_one_on_disk(whole: Whole, bucket: str):
    """`root: s3://...`: the same bytes under the same names; a version is put once or not at all."""
    config = whole.recipe(f"{bucket}/set")
    data = run_all(config)
    assert_same_as_on_disk(data, whole.data)
    assert run_all(config).at == data.at == whole.data.at


def test_a_query_of_a_bucket_stays_in_its_dataset(whole: Whole, untrained: Dataset, bucket: str):
    """Another file of the same bucket is refused."""
    data = run_all(whole.recipe(f"{bucket}/set", trained=False))
    assert query(data, "SELECT count(*) AS n FROM urls")["n"].to_pylist() == [48]
    data.fs.pipe_file("curate-bucket/other/secret.csv", b"a\n1\n")
    with pytest.raises(ValueError, match="(?i)permission|access|disabled"):
        query(data, "SELECT * FROM 's3://curate-bucket/other/secret.csv'")


def test_a_dataset_in_memory_is_the_one_on_disk(whole: Whole):
    """`root: memory://...`: for a notebook, and for tests."""
    data = run_all(whole.recipe(f"memory://{uuid.uuid4().hex}"))
    assert_same_as_on_disk(data, whole.data)
