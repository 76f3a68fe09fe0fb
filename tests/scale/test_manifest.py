from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from maskrcnn.errors import ConfigError
from maskrcnn.scale.manifest import MANIFEST, Manifest, Share, identity

PATHS = tuple(f"{letter}.png" for letter in "abcdefg")
RUN = Manifest(PATHS, 2, {"--model": "m", "--tta": "False"})


def test_tasks_share_the_parts():
    every = RUN.shards(Share())
    assert [shard.file_name for shard in every] == [f"part-0000{number}.parquet" for number in range(4)]
    assert [path for shard in every for path in shard.paths] == list(PATHS)
    tasks = [RUN.shards(Share(index, 3)) for index in range(3)]
    assert [[shard.number for shard in task] for task in tasks] == [[0, 3], [1], [2]]
    assert RUN.shards(Share(5, 8)) == []


def test_a_folder_belongs_to_one_run(tmp_path):
    for _ in range(2):
        RUN.settle(tmp_path)
    assert pq.read_table(tmp_path / MANIFEST).column("path").to_pylist() == list(PATHS)
    for other, difference in (
        (replace(RUN, paths=PATHS[1:]), "with 7 images instead of 6: that run has a.png"),
        (replace(RUN, paths=(*PATHS, "h.png")), "with 7 images instead of 8: that run lacks h.png"),
        (replace(RUN, shard_size=3), "with --shard-size 2 instead of 3"),
        (replace(RUN, settings={"--model": "other", "--tta": "False"}), "with --model m instead of other"),
    ):
        with pytest.raises(ConfigError, match=f"holds parts of another run, {difference}; choose another --out"):
            other.settle(tmp_path)
        assert other.fingerprint != RUN.fingerprint
    content = (tmp_path / MANIFEST).read_bytes()
    (tmp_path / MANIFEST).write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=f"whose {MANIFEST} cannot be read"):
        RUN.settle(tmp_path)
    (tmp_path / MANIFEST).unlink()
    (tmp_path / "part-00000.parquet").touch()
    with pytest.raises(ConfigError, match="holds parts without"):
        RUN.settle(tmp_path)


def test_a_model_is_known_by_its_content(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    first, same, other = (identity(str(tmp_path / name)) for name in "abc")
    assert first == same != other
    assert identity(str(tmp_path)) not in (first, other)
    assert identity("torchvision/mask_rcnn") == "torchvision/mask_rcnn"


def test_the_weights_beside_the_graph_of_openvino_count(tmp_path):
    graph, weights = tmp_path / "model.xml", tmp_path / "model.bin"
    graph.write_text("<net/>")
    seen = {identity(str(graph))}
    for content in (b"1", b"2"):
        weights.write_bytes(content)
        seen.add(identity(str(graph)))
    assert len(seen) == 3
