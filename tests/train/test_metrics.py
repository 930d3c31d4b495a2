"""Measures find what was put in; losses want what they should; a run becomes a checkpoint and a page."""

import json
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import softplus

from lipsync.checkpoints import registry as checkpoints
from lipsync.faces.tracking import Track
from lipsync.models import lipgan
from lipsync.networks.compact import CompactQuality
from lipsync.networks.wav2lip import Wav2Lip
from tests.helpers.train_data import KINDS, made_arrays
from train import evaluate, inference, metrics, networks, report
from train.__main__ import main
from train.ablation import ablation
from train.config import Config, TrainingError
from train.data.arrays import feature_window, no_augmentation, open_arrays
from train.data.sync_correction import correct, peak, sureness
from train.doctor import look
from train.export import export
from train.run import pools, start
from train.tasks.sync_expert import ExpertConfig, contrast, published
from train.tasks.syncnet import SyncNetConfig, draw_occlusion, lip_embedding, occluded
from train.tasks.wav2lip import (
    FAR,
    GeneratorConfig,
    GeneratorTask,
    bgr_planes,
    edge_difference,
    face_maps,
    matched,
    mouth_weight,
    verdict,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return made_arrays(tmp_path_factory.mktemp("arrays"))


def unit(rng, *shape) -> np.ndarray:
    x = rng.standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("shift", [-4, 0, 3])
def test_a_known_shift_is_found(shift):
    rng = np.random.default_rng(0)
    audio = unit(rng, 40, 16)
    face = np.roll(audio, -shift, axis=0)  # face t is sound t + shift
    assert metrics.offset_curve(audio, face).argmax() - metrics.MOST == shift


def test_told_apart_is_perfect_for_twins_and_half_for_strangers():
    rng = np.random.default_rng(0)
    audio = unit(rng, 60, 16)
    assert metrics.sync_accuracy(audio, audio)[0] == 1
    assert abs(metrics.sync_accuracy(audio, unit(rng, 60, 16))[0] - 0.5) < 0.1


def test_interval_is_wilsons():
    low, high = metrics.interval(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert metrics.interval(0, 0) == (0.0, 1.0)


def test_the_face_that_moves_with_the_sound_is_found(monkeypatch):
    """A stand-in expert reads loudness and brightness: the face that brightens with the sound speaks."""
    rng = np.random.default_rng(0)
    loud = np.repeat(rng.random(16), 3)[:40]
    frames = [np.zeros((100, 200, 3), np.uint8) for _ in loud]
    for t, level in enumerate(loud):
        frames[t][:, :100] = round(200 * level)
        frames[t][:, 100:] = round(200 * loud[(t + 17) % 40])
    waveform = np.repeat(loud, 640).astype(np.float32) * rng.standard_normal(40 * 640).astype(np.float32) * 0.3

    class Reader:
        window = 5

        def audio(self, mel):
            return self.steps(mel.mean(2)[:, 0].unfold(1, 3, 3).mean(2)[:, :5])

        def face(self, window):
            return self.steps(window.unflatten(1, (5, 3)).mean((2, 3, 4)))

        def steps(self, levels):
            return torch.nn.functional.normalize(levels - levels.mean(1, keepdim=True) + 1e-6)

    monkeypatch.setattr("train.networks.trained_expert", lambda name: Reader())
    boxes = [np.tile(np.array([x, 10, x + 80, 90], np.float32), (40, 1)) for x in (10, 110)]
    tracks = [Track(k, 0, 0, b, np.zeros((40, 25, 2), np.float32), np.ones(40, bool)) for k, b in enumerate(boxes)]
    found = [metrics.track_sync("stand-in", t, frames, waveform, Fraction(25)) for t in tracks]
    assert found[0] > found[1] + 0.1


def test_contrast_rewards_pairs_and_forgives_near_ones():
    eye = torch.eye(4)[None]
    none = torch.zeros(1, 4, 4, dtype=torch.bool)
    good, right = contrast(eye, eye, none, torch.tensor(20.0))
    assert good < 0.01 and right == 1
    twins = torch.stack([eye[0, 0], eye[0, 0], eye[0, 2], eye[0, 3]])[None]
    near = none.clone()
    near[0, 0, 1] = near[0, 1, 0] = True
    assert contrast(twins, twins, none, torch.tensor(20.0))[0] > 0.3
    assert contrast(twins, twins, near, torch.tensor(20.0))[0] < 0.01


def test_published_recipe_is_ln2_at_a_coin_and_less_in_sync():
    torch.manual_seed(0)
    near = torch.zeros(2, 8, 8, dtype=torch.bool)
    same = torch.full((2, 8, 4), 0.5)  # cosine 1 for all: no better than guessing
    guess, _ = published(same, same, near, torch.tensor(1.0))
    knows, right = published(torch.eye(8).expand(2, 8, 8), torch.eye(8).expand(2, 8, 8), near, torch.tensor(1.0))
    assert knows < np.log(2) < guess and right == 1


def test_edges_tell_blur_where_l1_does_not():
    target = torch.zeros(1, 3, 48, 96)
    target[..., ::2] = 1
    flat, weight = torch.full_like(target, 0.5), torch.ones(1, 1, 48, 96)
    assert (flat - target).abs().mean() == 0.5
    assert edge_difference(flat, target, weight) > 0.4
    assert edge_difference(target, target, weight) == 0


def test_weights_stand_at_the_mouth():
    weight = mouth_weight(torch.tensor([[48.0, 70.0]]), 3.0)[0, 0]
    assert weight[70, 48] == pytest.approx(4) and weight[10, 48] == pytest.approx(0.1)
    assert weight[90, 4] < 1.1


@pytest.mark.slow
@pytest.mark.parametrize(("warp", "found"), [(False, 0.0), (True, 0.0), (True, 1.0)])
def test_the_reference_cannot_be_the_answer(data, warp, found):
    teach, tune = pools("wav2lip", data)
    config = GeneratorConfig(width=1, batch=1, singles=0, expert="", silence=0.0, warp=warp, found=found)
    task = GeneratorTask(config, teach, tune)
    for part in teach.parts:  # a picture's colour is the number of its frame and clip
        count = len(part["frames"])
        colours = np.zeros((count, 1, 1, 3), np.uint8)
        colours[..., 2] = 9 * (np.arange(count) % 26)[:, None, None]
        colours[..., 1] = 9 * (np.arange(count) // 26)[:, None, None]
        part["frames"] = np.broadcast_to(colours, part["frames"].shape)
    from train.tasks import wav2lip as generator

    plain, others = generator.draw_augmentation, 0
    generator.draw_augmentation = lambda *a, **k: generator_plain()
    try:
        for step in range(20):
            batch = task.batch(np.random.default_rng(step), step)
            times, clips = (batch["target"][:, k, 0, 0].astype(int) // 9 for k in (0, 1))
            references, theirs = (batch["reference"][:, k::3, 0, 0].astype(int) // 9 for k in (0, 1))
            assert references.shape[1] == (4 if warp else 1)
            away = np.abs(times[:, None] - references)
            same = clips[:, None] == theirs
            assert (away[same] > FAR).all()
            others += int((~same).sum())
    finally:
        generator.draw_augmentation = plain
    assert (others > 0) == warp  # a warping one also sees other clips of the speaker


@pytest.mark.slow
def test_found_references_show_about_the_true_mouth(data):
    """Clearly nearer to it than those by role."""
    teach, tune = pools("wav2lip", data)
    far = {}
    for found in (0.0, 1.0):
        task = GeneratorTask(GeneratorConfig(width=1, expert="", warp=True, found=found), teach, tune)
        rng, apart = np.random.default_rng(3), []
        for _ in range(40):
            i = int(rng.integers(len(teach.clips)))
            frame = int(rng.integers(teach.clips[i].frames))
            away = np.flatnonzero(np.abs(np.arange(teach.clips[i].frames) - frame) > FAR)
            truth = task._mouth(i)[frame].astype(float)
            shown = task._references(i, frame, away, rng)
            assert len(shown) == 4
            apart.append(np.mean([np.abs(task._mouth(k)[t] - truth).mean() for k, t in shown]))
        far[found] = np.mean(apart)
    assert far[1.0] < 0.9 * far[0.0]


def generator_plain():
    from train.data.arrays import no_augmentation

    return no_augmentation()


@pytest.mark.slow
def test_silence_is_asked_for(data):
    teach, tune = pools("wav2lip", data)
    task = GeneratorTask(GeneratorConfig(width=1, batch=4, singles=4, expert="", silence=1.0), teach, tune)
    batch = task.batch(np.random.default_rng(0), 0)
    rest = (batch["mel"] == -4).all((1, 2))
    windows = rest[:20].reshape(4, 5).all(1)
    assert rest[20:].any() and windows.any() and not batch["spoken"][windows].any()


@pytest.mark.slow
def test_the_experts_maps_are_alike_for_equal_lips_alone():
    torch.manual_seed(0)
    expert = networks.expert(ExpertConfig(width=1)).eval()
    window = torch.rand(2, 15, 48, 96)
    lips, maps = face_maps(expert, window)
    torch.testing.assert_close(lips, expert.face(window))
    assert matched(maps, face_maps(expert, window)[1]) == 0
    assert matched(maps, face_maps(expert, window.flip(3))[1]) > 0


def test_a_cover_leaves_the_mouth():
    points = np.full((10, 25, 2), 80.0)
    frames = np.random.default_rng(0).integers(0, 256, (5, 160, 160, 3), np.uint8)
    seen = [draw_occlusion(points, np.random.default_rng(k), 1.0) for k in range(20)]
    assert any(c is None for c in seen)
    occlusion = next(c for c in seen if c is not None)
    out = occluded(frames, occlusion)
    np.testing.assert_array_equal(out[:, 65:105, 55:105], frames[:, 65:105, 55:105])
    assert (out[:, :5] == occlusion[1]).all() and occluded(frames, None) is frames


def test_judge_shortcut_is_syncnets_own_arithmetic():
    torch.manual_seed(0)
    network = networks.evaluator(SyncNetConfig(width=2)).eval()
    small = torch.randint(0, 256, (2, 3, 5, 112, 112), dtype=torch.uint8)
    flat = small.float().flatten(1, 2)
    big = torch.nn.functional.interpolate(flat, size=(224, 224), mode="bilinear").unflatten(1, (3, 5))
    with torch.no_grad():
        torch.testing.assert_close(lip_embedding(network, small), network.lip(big), rtol=1e-4, atol=1e-4)


def test_no_person_learns_and_chooses(data):
    for task in ("sync_expert", "syncnet"):
        learn, choose = pools(task, data)
        assert learn.clips and choose.clips and not set(learn.speakers) & set(choose.speakers)


@pytest.mark.parametrize("people", [1, 2, 4])
def test_a_judge_of_few_people(tmp_path, monkeypatch, people):
    monkeypatch.setitem(KINDS, "judge", people)
    folder = made_arrays(tmp_path / "few")
    if people == 1:
        with pytest.raises(TrainingError, match="has one speaker"):
            pools("syncnet", folder)
    else:
        learn, choose = pools("syncnet", folder)
        assert (len(learn.speakers), len(choose.speakers)) == (people - 1, 1)


@pytest.mark.slow
def test_who_both_learns_and_chooses_is_named(tmp_path, capsys):
    folder = made_arrays(tmp_path / "arrays")
    rows = (folder / "tune" / "clips.json").read_text().replace('"tune0"', '"teach0"')
    (folder / "tune" / "clips.json").write_text(rows)
    start("sync_expert", folder, tmp_path / "run", ["width=1", "speakers=1", "windows=8", "steps=1"])
    assert "teach0 both learn and choose" in capsys.readouterr().err


@pytest.mark.slow
def test_checkpoints_of_the_wrong_kind_are_sentences(data):
    loads = (networks.trained_expert, "wav2lip-lab", "expert"), (networks.trained_evaluator, "expert-lab", "evaluator")
    for load, wrong, kind in (*loads, (networks.trained_generator, "expert-lab", "generator")):
        with pytest.raises(TrainingError, match=f"{wrong} holds no {kind}"):
            load(wrong)
    with pytest.raises(TrainingError, match="name one"):
        evaluate.evaluate(data, ["tune"], "", generators=["wav2lip-lab"])
    assert networks.trained_generator("wav2lip-lab").mel_start == -1


@pytest.mark.slow
def test_lipgans_discriminator_is_asked_what_the_expert_is_asked(data, tmp_path):
    run = tmp_path / "run"
    start("lipgan", data, run, ["batch=4", "expert=", "width=2", "heard=8", "steps=1"])
    network, arrays = networks.trained_discriminator(run), open_arrays(data, ["tune"])
    audio, face = evaluate.embed_by_discriminator(network, arrays, 0)
    assert len(audio) == len(face) == arrays.clips[0].frames - 4
    clip, at = arrays.clips[0], 7  # the window from frame 5 on
    heard = feature_window(arrays.feature(0, "mfcc12"), "mfcc12", clip, at, lipgan.COLUMNS, lipgan.START)
    picture = bgr_planes(no_augmentation()(arrays.frames(0)[at]))
    with torch.no_grad():
        distance = network(torch.from_numpy(heard)[None, None], torch.from_numpy(picture)[None].float() / 255)
    assert ((audio[5] - face[5]) ** 2).sum() ** 0.5 == pytest.approx(float(distance), abs=1e-4)
    found = evaluate.evaluate(data, ["tune"], "", discriminator=run)
    assert all(0 <= group["discriminator"]["sync_accuracy"] <= 1 for group in found.values())
    with pytest.raises(TrainingError, match="holds no discriminator of LipGAN"):
        evaluate.evaluate(data, ["tune"], "", discriminator=tmp_path)


def test_correction_shifts_late_speakers_and_drops_what_has_no_sync(data, monkeypatch):
    rng = np.random.default_rng(0)
    speakers = sorted(open_arrays(data, ["tune", "teach"]).speakers)
    late = {speaker: 2 * (k % 2) for k, speaker in enumerate(speakers)}

    def embed(network, arrays, i, frames):
        audio = unit(rng, 22, 8)
        if arrays.clips[i].speaker == speakers[-1]:
            return audio, unit(rng, 22, 8)  # another's sound
        return audio, np.roll(audio, -late[arrays.clips[i].speaker], axis=0)

    monkeypatch.setattr("train.data.sync_correction.networks.weights", lambda name: {})
    net = type("Net", (), {"window": 5})()
    monkeypatch.setattr("train.data.sync_correction.networks.trained_expert", lambda name: net)
    monkeypatch.setattr("train.data.sync_correction.embed_clip", embed)
    says = correct(data, "any", ["tune", "teach"])
    fixes = json.loads((data / "corrections.json").read_text())
    fixed = open_arrays(data, ["tune", "teach"], drop=set(fixes["drop"]), offsets=fixes["offsets"])
    assert says["made"]["dropped"] == len(fixes["drop"]) > 0 and speakers[-1] not in fixed.speakers
    assert {s: late[s] for s in fixed.speakers} == {s: fixed.clips[i[0]].offset for s, i in fixed.speakers.items()}
    zero = correct(data, "any", ["tune", "teach"], zero="made", write=False)
    assert np.median(list(zero["made"]["offsets"].values())) == 0
    (data / "corrections.json").unlink()
    with pytest.raises(TrainingError, match="'grid'.*groups here are made"):
        correct(data, "any", ["tune", "teach"], zero="grid")
    assert not (data / "corrections.json").exists()
    assert sureness(np.sin(np.arange(21))) < 0.1 < sureness(np.eye(21)[10])
    curve = -((np.arange(21) - metrics.MOST - 1.5) ** 2.0)
    assert peak(curve) == pytest.approx(1.5)


def test_doctor_names_what_is_wrong(data):
    facts = look(open_arrays(data, ["teach"]))
    assert facts["speakers"] == 4 and any("4 speakers" in w for w in facts["warnings"])
    assert not any("hardly moves" in w for w in facts["warnings"])


def test_image_measures():
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    assert inference.psnr(faces, faces) > 90 and inference.ssim(faces, faces) == pytest.approx(1)
    other = faces.copy()
    other[:, :48] = 0  # the upper half is not asked
    assert inference.psnr(faces, other) > 90
    soft = np.full_like(faces, 128)
    assert inference.sharpness(soft) == 0 < inference.sharpness(faces)
    assert inference.movement(np.repeat(faces[:1], 3, 0)) == 0


def test_put_back_changes_the_lower_half_alone(data):
    arrays = open_arrays(data, ["tune"])
    stored = arrays.frames(0)[:2]
    white = np.full((2, 96, 96, 3), 255, np.uint8)
    changed = (evaluate.put_back(stored, white) != stored).any((0, 3))
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert rows.min() > 60 and rows.max() < 125 and columns.min() > 26 and columns.max() < 134


@pytest.mark.slow
@pytest.mark.parametrize("window", [5, 3])
def test_a_run_becomes_a_page_and_a_registered_checkpoint(data, tmp_path, monkeypatch, window):
    torch.set_num_threads(1)
    run = tmp_path / "run"
    start("sync_expert", data, run, ["width=1", f"window={window}", "speakers=1", "windows=8", "steps=2", "warmup=1"])
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "lo')  # a run is writing this line now
    page = report.report(run, data, clips=2).read_text()
    assert "In sync against off sync" in page and "&quot;width&quot;: 1" in page
    monkeypatch.setenv("LIPSYNC_WEIGHTS", str(tmp_path / "weights"))
    card = export(run, data, "tiny-expert", "int8", tmp_path / "weights")
    stored = checkpoints.cards()["tiny-expert"]
    assert stored.facts["data"]["learnt from"]["speakers"] == 4 and stored.licence == "research use only"
    assert set(card["metrics"]) == {"chosen on", "as stored"}
    assert networks.trained_expert("tiny-expert").window == window
    again = replace(Config.load(run), start="tiny-expert")  # fine-tuning starts from what is registered
    assert networks.load_initial_weights(networks.expert(again), again) is not None


@pytest.mark.slow
def test_a_warping_generator_begins_as_the_one_it_starts_from(data, tmp_path):
    """Its own colours are those of the other; it sees the first reference as that one saw its only one."""
    torch.manual_seed(0)
    old = networks.generator(GeneratorConfig(width=2)).eval()
    save_file(old.state_dict(), tmp_path / "old.safetensors")
    config = GeneratorConfig(width=2, warp=True, start=str(tmp_path / "old.safetensors"))
    new = networks.load_initial_weights(networks.generator(config), config).eval()
    mel, face = torch.randn(2, 1, 80, 16), torch.rand(2, 15, 96, 96)
    with torch.no_grad():
        made = new(mel, face)
        torch.testing.assert_close(new.maps[:, :3], old(mel, face[:, :6]))
    assert made.shape == (2, 3, 96, 96) and new.maps[:, -1].mean() > 0.2
    with pytest.raises(TrainingError, match="does not fit"):
        networks.load_initial_weights(networks.generator(GeneratorConfig(width=1, warp=True)), config)


@pytest.mark.slow
@pytest.mark.parametrize("warp", [False, True])
def test_generator_sheet_and_figures(data, tmp_path, warp):
    torch.manual_seed(0)
    arrays = open_arrays(data, ["tune"])
    network = networks.generator(GeneratorConfig(width=1, warp=warp)).eval()
    sheet = report.sample_sheet(network, arrays, [0], columns=4)
    assert sheet.shape == (5 * 96 + 6, 4 * 96, 3)
    people = report.contact_sheet([network], arrays, people=1, columns=4)
    assert people.shape == (2 * 96 + 6, 4 * 96, 3)
    untouched, made = people[:96], people[96:192]
    assert (untouched[:48] == made[:48]).all() and (untouched[48:] != made[48:]).any()
    save_file(network.state_dict(), tmp_path / "tiny.safetensors")
    words = ["--data", str(data), "--splits", "tune", "--generators", str(tmp_path / "tiny.safetensors")]
    assert main(["sheet", str(tmp_path / "sheet.png"), *words]) == 0
    height, width, _ = cv2.imread(str(tmp_path / "sheet.png")).shape
    assert (height, width) == (len(arrays.speakers) * (2 * 96 + 6), 14 * 96)
    figures = inference.generated_figures(network, None, arrays, [0])
    assert set(figures) == {"psnr", "ssim", "sharpness_ratio", "motion_speech", "motion_silence"}


@pytest.mark.slow
def test_the_ablation_is_one_table_and_goes_on_where_it_stopped(data, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    save_file(Wav2Lip(1).state_dict(), tmp_path / "start.safetensors")
    words = dict(
        faces=12,
        windows=128,
        evaluator="syncnet-lab",
        expert="",
        generator=str(tmp_path / "start.safetensors"),
        settings=["width=1", "batch=2", "singles=2"],
    )
    monkeypatch.setattr("train.ablation.WINDOWS", (3,))
    rows = ablation(data, tmp_path / "out", **words)
    assert [(r["window"], r["expert"]) for r in rows] == [(3, "frozen"), (3, "fine-tuned")]
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.count("\n") == 4 and table in capsys.readouterr().out and "n |" in table
    taught = networks.weights(str(tmp_path / "out" / "expert-3" / "best.safetensors"))
    for arm, same in (("frozen", True), ("tuned", False)):  # one arm's teacher is as it was, the other's has learnt
        state = torch.load(tmp_path / "out" / f"window-3-{arm}" / "last.pt", weights_only=True)["networks"]
        teacher = state.get("expert", taught)
        assert torch.equal(teacher[networks.FIRST], taught[networks.FIRST]) == same, arm
        means = [k for k in taught if k.endswith("running_mean")]
        assert means and all(torch.equal(teacher[k], taught[k]) for k in means), arm  # its normalisation stays
    monkeypatch.setattr("train.ablation.start", lambda *_: pytest.fail("an arm was run again"))
    assert ablation(data, tmp_path / "out", **words) == rows


def test_an_expert_starts_from_one_of_a_longer_window():
    """Shown one face, it says what the other says of that face five times over."""
    whole = networks.load_initial_weights(networks.expert(ExpertConfig()), ExpertConfig(start="expert-lab")).eval()
    config = ExpertConfig(window=1, start="expert-lab")
    short = networks.load_initial_weights(networks.expert(config), config).eval()
    face = torch.rand(2, 3, 48, 96)
    assert torch.allclose(short.face(face), whole.face(face.repeat(1, 5, 1, 1)), atol=1e-5)


@pytest.mark.slow
def test_the_discriminator_learns_to_see_and_to_hear():
    """Real faces are brighter than made ones; of the real ones, those with the first sound are brighter still."""
    torch.manual_seed(0)
    quality = CompactQuality(width=2, sound=4)
    said = torch.eye(4)[torch.tensor([0, 1] * 4)]
    real = torch.rand(8, 3, 96, 96) * 0.1 + 0.5 + 0.3 * said[:, :1, None, None]
    made = torch.rand(8, 3, 96, 96) * 0.1 + 0.2
    assert torch.equal(verdict(quality, real, said)[1], verdict(quality, real, said.roll(1, 0))[1])  # deaf at first
    optimiser = torch.optim.Adam(quality.parameters(), 3e-3)
    for _ in range(40):
        maps, on_real = verdict(quality, real, said)
        on_wrong, on_made = quality.judge(maps[-1], said.roll(1, 0)), verdict(quality, made, said)[1]
        loss = softplus(-on_real).mean() + softplus(on_made).mean() + softplus(on_wrong - on_real).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert on_real.shape == (8, 18) and on_real.min() > 0 > on_made.max()
    assert (on_real.mean(1) > on_wrong.mean(1)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("network", "patches"), [("compact", 18), ("published", 1)])
def test_either_discriminator_answers(data, network, patches):
    config = GeneratorConfig(width=1, quality=0.1, network=network, expert="")
    quality = GeneratorTask(config, *pools("wav2lip", data)).networks["quality"]
    maps, answer = verdict(quality, torch.rand(2, 3, 96, 96))
    assert len(maps) > 3 and answer.shape == (2, patches)


@pytest.mark.parametrize(
    ("network", "sentence"), [("compact", "needs an expert's ear"), ("published", "hears nothing")]
)
def test_hearing_needs_an_ear(data, network, sentence):
    config = GeneratorConfig(width=1, quality=0.1, hears=True, network=network, expert="")
    with pytest.raises(TrainingError, match=sentence):
        GeneratorTask(config, *pools("wav2lip", data))
