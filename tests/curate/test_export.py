"""Export: what the field's readers see, and that neither parts, kills nor reruns change a byte."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.export import export
from schemas.configs import ExportConfig
from schemas.tables import draw
from tests.pools import add_subset, exported, pool, squares


def files(folder: str) -> dict[str, bytes]:
    """Name -> bytes of everything in a folder."""
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def members(folder: str) -> list[tuple[str, bytes]]:
    """All tar members in order."""
    found = []
    for path in sorted(Path(folder).glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [(m.name, tar.extractfile(m).read()) for m in tar]
    return found


def keys(folder: str) -> list[str]:
    return [name.split(".")[0] for name, _ in members(folder) if name.endswith(".txt")]


def test_each_sample_is_image_text_and_json_with_the_stored_bytes(tmp_path):
    """Members come in threes under the uid, and the image has the dataset's bytes."""
    made = squares(7)
    found = members(exported(tmp_path, made, shard_rows=3))
    by_uid = {s.uid: s for s in made}
    for (image, pixels), (text, caption), (meta, record) in zip(*[iter(found)] * 3, strict=True):
        uid, suffix = image.split(".")
        square = by_uid.pop(uid)
        assert pixels == square.encoded
        assert suffix == ("jpg", "png", "webp")[square.number % 3]
        assert (text, caption.decode()) == (f"{uid}.txt", square.caption)
        known = json.loads(record)
        assert meta == f"{uid}.json"
        assert known["uid"] == uid
        assert known["url"] == square.url
        assert known["captions"] == [{"text": square.caption, "weight": 1.0}]
        assert (known["width"], known["original_width"]) == (40, 80)
    assert not by_uid


def test_sizes_and_sidecars_count_what_the_tars_hold(tmp_path):
    """sizes.json, the parquet sidecars and the tars agree; no other file is visible."""
    out = exported(tmp_path, squares(7), shard_rows=3)
    sizes = json.loads(Path(out, "sizes.json").read_text())
    assert sizes == {"00000000.tar": 3, "00000001.tar": 3, "00000002.tar": 1}
    visible = {n for n in files(out) if not n.startswith(".")}
    assert visible == {*sizes, *(t.replace("tar", "parquet") for t in sizes), "sizes.json"}
    sidecar = pa.concat_tables(pq.read_table(p) for p in sorted(Path(out).glob("*.parquet")))
    assert sidecar["key"].to_pylist() == keys(out)
    assert set(sidecar["status"].to_pylist()) == {"success"}


def test_pairs_lie_in_the_order_of_their_draw(tmp_path):
    """The order is a hash of seed and pair, so that a streaming reader sees a mix."""
    made = squares(20)
    out = exported(tmp_path, made, seed=3)
    assert keys(out) == sorted((s.uid for s in made), key=lambda uid: draw(3, uid))


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.integers(1, 5), rows=st.integers(1, 9))
def test_how_the_dataset_is_split_changes_no_byte(tmp_path_factory, parts, rows):
    """Shards are the same for every number of parts of the dataset."""
    made, found = squares(8), []
    for n in (1, parts):
        data = pool(tmp_path_factory.mktemp("root"), made, parts=n)
        add_subset(data, "all", made)
        out = files(export(data, ExportConfig(subset="all", shard_rows=rows)))
        found.append({k: v for k, v in out.items() if k != ".curate"})
    assert found[0] == found[1]


def test_a_killed_export_goes_on_to_the_same_bytes(tmp_path):
    """Missing shards are written again, whole ones are left alone, leftovers are removed."""
    made = squares(9)
    data = pool(tmp_path / "root", made)
    add_subset(data, "all", made)
    config = ExportConfig(subset="all", shard_rows=2)
    out = Path(export(data, config))
    before = files(str(out))
    for name in ("00000001.tar", "00000003.parquet", "sizes.json"):
        (out / name).unlink()
    (out / "00000001.tar.77.tmp").write_bytes(b"half")
    kept = (out / "00000002.tar").stat().st_mtime_ns
    assert export(data, config) == str(out)
    assert files(str(out)) == before
    assert (out / "00000002.tar").stat().st_mtime_ns == kept


def test_a_finished_export_is_not_touched(tmp_path):
    """A second call writes nothing."""
    made = squares(5)
    data = pool(tmp_path / "root", made)
    add_subset(data, "all", made)
    config = ExportConfig(subset="all", shard_rows=2)
    out = export(data, config)
    times = {p: p.stat().st_mtime_ns for p in Path(data.root).rglob("*")}
    assert export(data, config) == out
    assert {p: p.stat().st_mtime_ns for p in Path(data.root).rglob("*")} == times


def test_a_changed_subset_replaces_our_shards_only(tmp_path):
    """Shards of the older state go, and a file that somebody put there stays."""
    made = squares(9)
    data = pool(tmp_path / "root", made)
    add_subset(data, "all", made)
    config = ExportConfig(subset="all", shard_rows=2)
    out = Path(export(data, config))
    (out / "notes.md").write_text("mine")
    add_subset(data, "all", made[:3])
    export(data, config)
    assert sorted(p.name for p in out.glob("*.tar")) == ["00000000.tar", "00000001.tar"]
    assert sorted(keys(str(out))) == sorted(s.uid for s in made[:3])
    assert (out / "notes.md").read_text() == "mine"


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    """A folder with files that no export wrote is named, with the remedy, and left as it is."""
    made = squares(3)
    data = pool(tmp_path / "root", made)
    add_subset(data, "all", made)
    other = tmp_path / "other"
    other.mkdir()
    (other / "00000.tar").write_bytes(b"img2dataset's")
    with pytest.raises(ValueError, match=r"holds '00000.tar'.*another `out`"):
        export(data, ExportConfig(subset="all", out=str(other)))
    assert files(str(other)) == {"00000.tar": b"img2dataset's"}


def test_a_weight_repeats_a_pair_under_numbered_keys(tmp_path):
    """Weight 3 gives uid-0, uid-1 and uid-2; a weight below 2 gives the plain uid."""
    made = squares(4)
    data = pool(tmp_path / "root", made)
    add_subset(data, "all", made, weights={made[1].uid: 3.0, made[2].uid: 1.9})
    found = keys(export(data, ExportConfig(subset="all")))
    repeated = {f"{made[1].uid}-{j}" for j in range(3)}
    assert set(found) == repeated | {made[0].uid, made[2].uid, made[3].uid}
    assert len(found) == 6


def test_the_text_is_the_caption_of_the_highest_weight(tmp_path):
    """Of equal weights the first; all variants stay in the JSON for readers that mix them."""
    made = squares(2)
    variants = {made[0].uid: [("old", 0.2), ("new", 0.8), ("newer", 0.8)], made[1].uid: []}
    data = pool(tmp_path / "root", made)
    add_subset(data, "all", made, captions=variants)
    found = dict(members(export(data, ExportConfig(subset="all"))))
    assert found[f"{made[0].uid}.txt"] == b"new"
    texts = [c["text"] for c in json.loads(found[f"{made[0].uid}.json"])["captions"]]
    assert texts == ["old", "new", "newer"]
    assert found[f"{made[1].uid}.txt"].decode() == made[1].caption


def test_a_subset_that_is_not_there_or_empty_is_named(tmp_path):
    """The error lists the tables that there are, or says that nothing was selected."""
    data = pool(tmp_path / "root", squares(3))
    with pytest.raises(ValueError, match=r"no table 'subset_all'; it has samples, urls"):
        export(data, ExportConfig(subset="all"))
    add_subset(data, "none", [])
    with pytest.raises(ValueError, match=r"subset 'none' .* has no pair"):
        export(data, ExportConfig(subset="none"))


def test_a_pair_without_an_image_is_named(tmp_path):
    """A subset made from another version is refused rather than written with holes."""
    made = squares(4)
    data = pool(tmp_path / "root", made[:3])
    add_subset(data, "all", made)
    with pytest.raises(ValueError, match=f"pair {made[3].uid} has no downloaded image"):
        export(data, ExportConfig(subset="all"))


def test_export_works_on_an_object_store():
    """Root and shards may lie under any fsspec URL."""
    import fsspec

    made = squares(3)
    data = pool("memory://export-test", made)
    add_subset(data, "all", made)
    out = export(data, ExportConfig(subset="all", shard_rows=2))
    fs = fsspec.filesystem("memory")
    names = sorted(p.rsplit("/", 1)[-1] for p in fs.ls(out.removeprefix("memory:/"), detail=False))
    assert [n for n in names if n.endswith(".tar")] == ["00000000.tar", "00000001.tar"]


# ------------------------------------------------------------------------------- other readers


def test_open_clip_reads_the_shards_as_they_are(tmp_path, monkeypatch):
    """open_clip's own loader takes the number of samples from sizes.json and sees every caption.

    Its training path cannot read the end markers of webdataset >= 0.2.96, whatever the shards:
    they are switched off, as in the versions that it pins.
    """
    from open_clip_train import data as loader

    expander = partial(loader.tar_file_expander, eof_value=None)
    monkeypatch.setattr(loader, "tar_file_expander", expander)
    made = squares(8)
    out = exported(tmp_path, made, shard_rows=4)
    args = argparse.Namespace(
        train_data=f"{out}/{{00000000..00000001}}.tar",
        val_data=f"{out}/{{00000000..00000001}}.tar",
        train_num_samples=None,
        val_num_samples=8,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        batch_size=4,
        workers=0,
        world_size=1,
        seed=0,
    )
    seen = []
    for is_train in (True, False):
        info = loader.get_wds_dataset(
            args, lambda im: im.size[0], is_train, tokenizer=lambda t: [t]
        )
        assert info.dataloader.num_samples == 8
        seen.append(sorted(text for _, texts in info.dataloader for text in texts))
    assert seen[0] == seen[1] == sorted(s.caption for s in made)


def test_webdataset_reads_the_shards(tmp_path):
    """The webdataset that is installed groups each sample under its uid and decodes its image."""
    import webdataset as wds

    made = squares(5)
    out = exported(tmp_path, made, shard_rows=10)
    source = wds.WebDataset(f"{out}/00000000.tar", shardshuffle=False)
    found = {s["__key__"]: s for s in source}
    assert set(found) == {s.uid for s in made}
    for square in made:
        sample = found[square.uid]
        assert sample["txt"].decode() == square.caption
        assert json.loads(sample["json"])["uid"] == square.uid


def test_the_sidecar_is_readable_by_img2dataset_conventions(tmp_path):
    """pandas finds key, caption, url and status in it, as in img2dataset's own parquet files."""
    import pandas as pd

    made = squares(4)
    out = exported(tmp_path, made)
    frame = pd.read_parquet(io.BytesIO(Path(out, "00000000.parquet").read_bytes()))
    wanted = {"key", "caption", "url", "status", "width", "original_height", "sha256", "exif"}
    assert wanted <= set(frame.columns)
    assert sorted(frame["url"]) == sorted(s.url for s in made)
