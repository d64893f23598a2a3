"""Ray Data on a cluster of two nodes on this machine, a worker of which is killed."""

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pydeper
from pydeper import DeperModel, Persona
from pydeper.images import open_image
from pydeper.ray import Describer

# Ray and what it brings leave files and sockets open, and use what is deprecated elsewhere.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

IMAGES, BATCH = 64, 4
OPTIONS: pydeper.DescribeOptions = {"max_new_tokens": 24}


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    resources = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**resources, "include_dashboard": False})
    cluster.add_node(**resources)
    ray.init(address=cluster.address, log_to_driver=False)
    yield ray
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def people() -> dict[str, Persona]:
    return {name: Persona.from_samples(pydeper.demo_samples(name), model="tiny") for name in ("ana", "ben")}


def write_images(folder: Path) -> list[str]:
    scene = np.asarray(open_image(pydeper.demo_image()))
    paths = [str(folder / f"{number:02}.png") for number in range(IMAGES)]
    for number, path in enumerate(paths):
        Image.fromarray(np.roll(scene, number, axis=1)).save(path)
    return paths


def test_every_image_is_described_once_though_a_worker_is_killed(cluster, people, tmp_path):
    ray = cluster
    assert len(ray.nodes()) == 2
    paths = write_images(tmp_path)
    log = tmp_path / "log"
    log.mkdir()

    class Logged(Describer):
        def __call__(self, batch):
            described = super().__call__(batch)
            with (log / str(os.getpid())).open("a") as file:
                file.write(ray.get_runtime_context().get_node_id() + "\n")
            return described

    killed: list[str] = []
    over = threading.Event()

    def kill_one() -> None:
        """Kills a worker as soon as both have described some, on two nodes."""
        while not over.wait(0.02):
            done = {path.name: path.read_text().split() for path in log.iterdir()}
            if len(done) == 2 and all(len(nodes) >= 2 for nodes in done.values()):
                assert len({nodes[0] for nodes in done.values()}) == 2
                killed.append(min(done))
                os.kill(int(killed[0]), signal.SIGKILL)
                return

    killer = threading.Thread(target=kill_one)
    killer.start()
    described = (
        ray.data.from_items([{"image": path} for path in paths], override_num_blocks=IMAGES // BATCH)
        .map_batches(
            Logged,
            fn_constructor_kwargs={"personas": people, "model": "tiny", "options": OPTIONS},
            compute=ray.data.ActorPoolStrategy(size=2),
            num_cpus=1,
            batch_size=BATCH,
        )
        .take_all()
    )
    over.set()
    killer.join()
    assert len(killed) == 1

    counts = Counter((row["image"], row["persona"]) for row in described)
    assert counts == Counter({(path, name): 1 for path in paths for name in people})
    assert {row["error"] for row in described} == {None}
    model = DeperModel.from_pretrained("tiny", threads=1)
    for path in paths[:: IMAGES // 8]:
        texts = {row["persona"]: row["description"] for row in described if row["image"] == path}
        assert [*texts.values()] == model.describe_each(path, [people[name] for name in texts], **OPTIONS)


def test_images_are_read_by_ray_itself(cluster, people, tmp_path):
    """Bytes from `read_binary_files`, which reads ahead; a damaged file among them."""
    paths = write_images(tmp_path)[:3]
    Path(paths[1]).write_bytes(b"no image")
    described = (
        cluster.data.read_binary_files(paths, include_paths=True)
        .map_batches(
            Describer,
            fn_constructor_kwargs={"personas": people, "model": "tiny", "image": "bytes", "options": OPTIONS},
            compute=cluster.data.ActorPoolStrategy(size=1),
            num_cpus=1,
        )
        .take_all()
    )
    assert Counter(Path(row["path"]).name for row in described) == {"00.png": 2, "01.png": 2, "02.png": 2}
    for row in described:
        assert {*row} == {"path", "persona", "description", "error"}
        assert (row["description"] is None) == (row["error"] is not None) == (Path(row["path"]).name == "01.png")
