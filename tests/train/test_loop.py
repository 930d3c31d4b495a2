"""The loop keeps its promises: exact resume after SIGKILL, two processes as one, clear stops with nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from tests.helpers.train_data import made_arrays
from train import networks
from train.config import Config, TrainingError
from train.loop import Loop
from train.run import build, start
from train.tasks.sync_expert import ExpertConfig

pytestmark = pytest.mark.slow  # whole runs, killed and resumed

ROOT = Path(__file__).parents[2]
TINY = ["width=1", "speakers=1", "windows=8", "save_every=4", "validate_every=6", "warmup=2", "ramp=4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return made_arrays(tmp_path_factory.mktemp("arrays"))


def state(run: Path) -> dict:
    return torch.load(run / "last.pt", weights_only=True)


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def command(task: str, data: Path, run: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "train", task, "--data", str(data), "--run", str(run), "--threads", "1", *words]


def test_killed_and_resumed_ends_bit_equal(data, tmp_path):
    steps = "steps=40"
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    process = subprocess.Popen(command("sync_expert", data, broken, *TINY, steps), cwd=ROOT)
    try:
        while not (broken / "last.pt").exists() and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    finally:
        process.wait()
    assert process.returncode == -signal.SIGKILL
    torch.set_num_threads(1)
    start("sync_expert", data, broken, [], resume=True)
    start("sync_expert", data, alone, [*TINY, steps])
    assert state(alone)["step"] == 40
    assert equal(state(alone), state(broken))
    assert (alone / "best.safetensors").read_bytes() == (broken / "best.safetensors").read_bytes()

    def without_clock(run: Path) -> list[dict]:
        lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
        return [{k: v for k, v in line.items() if not k.endswith(("_s", "_a_second"))} for line in lines]

    assert without_clock(alone) == without_clock(broken)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("wav2lip", ["width=1", "batch=2", "expert=", "quality=0.05", "network=published"]),
        ("wav2lip", ["width=1", "batch=2", "quality=0.05", "hears=true", "opening=4"]),
        ("wav2lip", ["width=1", "batch=2", "expert=", "warp=true"]),
        ("syncnet", ["width=2", "speakers=1", "windows=4"]),
    ],
)
def test_other_tasks_resume_exactly(task, words, data, tmp_path):
    torch.set_num_threads(1)
    words = [*words, "save_every=2", "validate_every=4", "warmup=1"]
    start(task, data, tmp_path / "alone", [*words, "steps=4"])
    start(task, data, tmp_path / "parts", [*words, "steps=4"], minutes=0)  # stops after one step
    assert state(tmp_path / "parts")["step"] == 1
    start(task, data, tmp_path / "parts", [], resume=True)
    a, b = state(tmp_path / "alone"), state(tmp_path / "parts")
    for s in (a, b):  # the early stop validated once more
        s.pop("best"), s.pop("waits")
    assert equal(a, b)


def test_two_processes_hold_the_same_weights(data, tmp_path):
    port = str(20000 + os.getpid() % 20000)
    ranks = [
        subprocess.Popen(
            command("sync_expert", data, tmp_path / "two", *TINY, "steps=3"),
            cwd=ROOT,
            env=os.environ
            | {"RANK": str(r), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "DUMP": str(r)},
        )
        for r in range(2)
    ]
    assert [p.wait(timeout=120) for p in ranks] == [0, 0]
    # The mean gradient of two ranks, made here one after the other, gives the same weights.
    config = Config.load(tmp_path / "two")
    torch.set_num_threads(1)
    task = build(config, data)
    loop = Loop(task, config, tmp_path)
    loss_of = {}
    for step in range(3):
        optimiser = task.optimisers["expert"]
        parameters = [p for g in optimiser.param_groups for p in g["params"]]
        total = [torch.zeros_like(p) for p in parameters]
        buffers = {k: v.clone() for k, v in task.networks["expert"].named_buffers()}
        for rank in (1, 0):  # rank 0 last: its running statistics are the ones that are kept
            for k, v in task.networks["expert"].named_buffers():
                v.copy_(buffers[k])
            batch = task.batch(np.random.default_rng([config.seed, rank, step]), step)
            real_learn = loop.learn
            loop.learn = lambda name, loss: loss_of.setdefault("loss", loss.backward()) or 0.0
            optimiser.zero_grad(set_to_none=True)
            task.networks["expert"].train()
            task.step({k: torch.from_numpy(v) for k, v in batch.items()}, loop)
            loop.learn = real_learn
            loss_of.clear()
            for t, p in zip(total, parameters, strict=True):
                t += 0 if p.grad is None else p.grad / 2
        for t, p in zip(total, parameters, strict=True):
            p.grad = t
        torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        for group in optimiser.param_groups:
            group["lr"] = loop.rate()
        optimiser.step()
        loop.step += 1
    for key, value in state(tmp_path / "two")["networks"]["expert"].items():
        torch.testing.assert_close(value, task.networks["expert"].state_dict()[key], rtol=1e-3, atol=2e-4)


def test_bfloat16_is_used_only_where_the_device_computes_in_it(monkeypatch):
    for has in (False, True):
        monkeypatch.setattr(networks, "has_bf16", lambda device, has=has: has)
        with networks.autocast(torch.device("cpu")):
            assert torch.is_autocast_enabled("cpu") == has
        with networks.autocast(torch.device("cpu"), wanted=False):
            assert not torch.is_autocast_enabled("cpu")


def test_not_a_number_stops_and_keeps_the_last_good_state(data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    start("sync_expert", data, run, [*TINY, "steps=4"])
    before = (run / "last.pt").read_bytes()
    from train.tasks import sync_expert as expert

    monkeypatch.setattr(expert, "contrast", lambda a, f, near, scale: ((a * torch.nan).sum(), torch.tensor(0.0)))
    with pytest.raises(TrainingError, match="resume with a lower lr"):
        start("sync_expert", data, run, ["steps=8"], resume=True)
    assert (run / "last.pt").read_bytes() == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError(
            "[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"
        ),  # torch.save on a full disk
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk_stops_and_keeps_the_last_good_state(data, tmp_path, monkeypatch, error):
    run = tmp_path / "run"
    start("sync_expert", data, run, [*TINY, "steps=4"])
    before = (run / "last.pt").read_bytes()

    def full(state, path):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="make room and resume"):
        start("sync_expert", data, run, ["steps=8"], resume=True)
    assert (run / "last.pt").read_bytes() == before
    assert not list(run.glob(".*"))


def test_wrong_words_are_sentences(data, tmp_path):
    with pytest.raises(TrainingError, match="no setting 'stps'"):
        start("sync_expert", data, tmp_path / "run", ["stps=4"])
    with pytest.raises(TrainingError, match="lr wants float"):
        start("sync_expert", data, tmp_path / "run", ["lr=fast"])
    with pytest.raises(TrainingError, match="no last.pt"):
        run = tmp_path / "empty"
        run.mkdir()
        ExpertConfig().save(run)
        start("sync_expert", data, run, [], resume=True)


@pytest.mark.parametrize(
    "word, said",
    [
        ("windows=30", "multiple of 4"),
        ("window=2", "one of 1, 3, 5"),
        ("recipe=contrast", "contrastive, bce"),
        ("network=publishd", "published"),
        ("bf16=on", "wants bool"),
        ("validate_every=0", "1 or more"),
    ],
)
def test_settings_no_run_can_begin_with(data, tmp_path, word, said):
    with pytest.raises(TrainingError, match=said):
        start("sync_expert", data, tmp_path / "run", [word])
    assert not (tmp_path / "run").exists()


def test_resuming_as_something_else_is_a_sentence_and_harms_nothing(data, tmp_path):
    run = tmp_path / "run"
    start("sync_expert", data, run, [*TINY, "steps=4"])
    kept = (run / "config.json").read_text()
    with pytest.raises(TrainingError, match="other networks"):
        start("sync_expert", data, run, ["width=2"], resume=True)
    with pytest.raises(TrainingError, match="train sync_expert"):
        start("wav2lip", data, run, [], resume=True)
    with pytest.raises(TrainingError, match="holds no run"):
        start("sync_expert", data, tmp_path / "elsewhere", [], resume=True)
    assert (run / "config.json").read_text() == kept
    assert start("sync_expert", data, run, ["steps=5"], resume=True)


def test_patience_ends_a_run(data, tmp_path):
    start("sync_expert", data, tmp_path / "run", [*TINY, "steps=60", "lr=0", "validate_every=2", "patience=2"])
    step = state(tmp_path / "run")["step"]  # running means still move at lr 0, so the best may not be the first
    assert 6 <= step < 60 and step % 2 == 0
