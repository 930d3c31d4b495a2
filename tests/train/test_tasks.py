"""The contract of training tasks, over all of them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lipsync.checkpoints import registry
from lipsync.faces.landmarks import INNER_LIPS
from tests.helpers.train_data import made_arrays
from train.config import Config, TrainingError
from train.export import export
from train.loop import Loop
from train.run import build, pools, start
from train.tasks import TASKS, config_class, task_class
from train.tasks.speech2vid import aligned

TINY: dict[str, list[str]] = {
    "sync_expert": ["speakers=1", "windows=8"],
    "wav2lip": ["batch=1", "singles=2", "expert="],
    "syncnet": ["speakers=1", "windows=4", "width=2"],
    "lipgan": ["batch=4", "expert=", "width=2", "heard=8", "moves=1"],
    "speech2vid": ["batch=3", "expert=", "content=0.1", "width=2", "heard=8"],
    "sharpener": ["batch=3", "depth=3"],
    "occlusion": ["batch=4"],
}
QUICK = ["steps=2", "warmup=1", "ramp=1", "validate_every=2", "save_every=2", "width=1"]
IMAGES = ("lipgan", "speech2vid", "sharpener")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return made_arrays(tmp_path_factory.mktemp("arrays"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_a_function_of_its_random_numbers(data, name):
    task = build(config_class(name).with_settings([*QUICK, *TINY[name]]), data)
    first, again = (task.batch(np.random.default_rng(3), 0) for _ in range(2))
    assert first.keys() == again.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_two_steps_an_export_and_back(data, tmp_path, name, monkeypatch):
    """Two steps of training end in a checkpoint that the registry takes and gives back with the same tensors."""
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path))
    found = start(name, data, tmp_path / "run", [*QUICK, *TINY[name]])
    assert np.isfinite(found[task_class(name).measure])
    card = export(tmp_path / "run", data, f"tiny-{name}".replace("_", "-"), "bf16", tmp_path)
    assert registry.cards()[card_name(name)].config == card["config"]
    stored = registry.tensors(card_name(name))
    kept = load_file(tmp_path / "run" / "best.safetensors")
    assert stored.keys() == kept.keys()
    for key, value in stored.items():
        torch.testing.assert_close(value, kept[key].to(value.dtype), rtol=1e-2, atol=1e-2)


def card_name(task: str) -> str:
    return f"tiny-{task}".replace("_", "-")


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_one_batch_can_be_learnt_by_heart(data, tmp_path, name):
    settings = [*QUICK, *TINY[name], "width=4", "steps=60", "lr=0.01", "ema_decay=0", "warmup=2"]
    config = config_class(name).with_settings(settings)
    task = build(config, data)
    loop = Loop(task, config, tmp_path)
    batch = {k: torch.from_numpy(v) for k, v in task.batch(np.random.default_rng(0), 0).items()}
    losses = []
    for _ in range(60):
        losses.append(task.step(batch, loop)["l1"])
        loop.step += 1
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3]), losses


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [["context=true"], ["stills=1"], ["skips=false"], ["transposed=true"], ["content=0"]]
)
def test_the_switches_of_speech2vid_train(data, tmp_path, settings):
    config = config_class("speech2vid").with_settings([*QUICK, *TINY["speech2vid"], *settings])
    task = build(config, data)
    batch = {k: torch.from_numpy(v) for k, v in task.batch(np.random.default_rng(0), 0).items()}
    assert np.isfinite(task.step(batch, Loop(task, config, tmp_path))["l1"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lipgan", "speech2vid"])
def test_sound_alone_is_asked_for_the_mouth(data, tmp_path, name):
    """With `heard` the audio encoder learns from windows without a picture; without, the batch is the papers'."""
    plain = build(config_class(name).with_settings([*QUICK, *TINY[name], "heard=0"]), data)
    assert not {"heard", "shape"} & plain.batch(np.random.default_rng(0), 0).keys()
    config = config_class(name).with_settings([*QUICK, *TINY[name], "heard=16", "lr=0.01", "shapes=1", "warmup=1"])
    task = build(config, data)
    batch = {k: torch.from_numpy(v) for k, v in task.batch(np.random.default_rng(0), 0).items()}
    assert batch["heard"].shape == (16, 1, 12, 35) and batch["shape"].shape == (16, 2)
    loop = Loop(task, config, tmp_path)
    asked = [task.step(batch, loop)["shape"] for _ in range(25)]
    assert asked[-1] < 0.7 * asked[0], asked


def test_an_aligned_mouth_lies_where_it_is_said_to(data):
    """Mirrored or not."""
    teach, _ = pools("speech2vid", data)
    (part,) = teach.parts
    part |= {"frames": np.full_like(part["frames"], 200), "points": part["points"].copy()}
    part["frames"][:, 85:96, 87:98] = 0
    part["points"][:, INNER_LIPS] = [[92, 85], [92, 95]]
    seen = set()
    for seed in range(8):
        (face,), (x, y) = aligned(teach, 0, [3], np.random.default_rng(seed))
        assert face[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].max() < 100 < face[60, 56].min()
        seen.add(round(float(x)))
    assert len(seen) == 2


def test_old_names_are_still_read(tmp_path, caplog):
    assert task_class("generator") is task_class("wav2lip") and task_class("judge") is task_class("syncnet")
    config = config_class("expert").with_settings(["base=3", "clip=0.5", "average=0.9", "strength=0.1"])
    assert (config.width, config.max_grad_norm, config.ema_decay, config.aug_strength) == (3, 0.5, 0.9, 0.1)
    assert "base is called width now" in caplog.text
    old = {"task": "generator", "steps": 5, "base": 4, "clip": 2.0, "window": 5, "speakers": 4}
    (tmp_path / "config.json").write_text(json.dumps(old))
    config = Config.load(tmp_path)
    assert (config.task, config.width, config.max_grad_norm, config.steps) == ("wav2lip", 4, 2.0, 5)


def test_an_unknown_task_is_a_sentence():
    with pytest.raises(TrainingError, match="no training task 'diffusion': choose one of sync_expert"):
        task_class("diffusion")


@pytest.mark.slow
def test_the_ablation_of_speech2vid_makes_a_row_an_arm(data, tmp_path, monkeypatch, capsys):
    from train import ablation_speech2vid

    monkeypatch.setattr(ablation_speech2vid, "ARMS", {"as published": [], "one still": ["stills=1"]})
    settings = [*TINY["speech2vid"], "warmup=1", "validate_every=9"]
    rows = ablation_speech2vid.ablation(data, tmp_path / "out", 6, settings=settings)
    assert [r["arm"] for r in rows] == ["as published", "one still"]
    assert all(r["mse"] > 0 and -1 <= r["identity"] <= 1 and 0 <= r["retrieval"] <= 1 for r in rows)
    again = ablation_speech2vid.ablation(data, tmp_path / "out", 6, settings=settings)
    assert again == rows and "| one still |" in capsys.readouterr().out
