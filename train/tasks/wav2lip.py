"""The generator: a masked face, a reference and a sound to a face that says it, taught by a frozen expert.

Loss: L1, weighted to the mouth; L1 between the picture's gradients, since plain L1 answers doubt with blur; the
expert's contrast (which of these sounds do these lips say?), by schedule; L1 between the expert's maps of the made and
of the true lips: pixels say what a mouth looks like, these say what it is doing; with `quality` > 0 a discriminator of
lower halves, which may hear.
- The reference comes from the same clip, at least `FAR` frames from the window, often the one that the engine would
  choose: like in pose, mouth closed. It cannot leak the answer.
- The face box does not follow the jaw (lipsync.faces), so neither can the crop.
- Rest is learnt: windows of silence, and pictures of closed mouths under digital silence.
- Sound is heard as LipSyncModel.audio_features gives it (silence between words), and in half of the windows as it is.
Source: arXiv 2008.10010; protocol.md section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lipsync.detail import mouth_of, unlike
from lipsync.faces.landmarks import INNER_LIPS
from lipsync.faces.references import ABOVE, reference_cost, role_costs
from lipsync.geometry import top_half
from lipsync.networks.compact import CompactQuality
from lipsync.networks.warp import REFERENCES
from lipsync.networks.wav2lip import Conv, Quality

from .. import networks
from ..config import Config
from ..data.arrays import (
    SILENCE,
    Arrays,
    Augmentation,
    augment_mel,
    column,
    draw_augmentation,
    mel_window,
    no_augmentation,
)
from ..data.sampling import speaker_weights
from ..data.shards import face_card
from ..inference import generated_figures, lip_gaps, lip_widths
from ..loop import Loop
from ..networks import MEL_START
from .base import Task

FRAMES = 5
FAR = 6  # frames between the window and its reference
CLOSED = 0.014  # lip gap in box sides below which a mouth counts as closed: a third of all frames
MISSING = 0.05  # share of windows in which a warping generator has one picture for all roles
TURNED = 1.5  # pixels of a stored crop by which what lies one distance of the eyes behind them is out of place
LOST = 0.95  # most of the frames that are not looked through where references are `found`
WHOLE = np.ones((96, 96), np.float32)
OTHER_CLIPS = 3  # of the speaker, in which a warping generator's references are looked for too
FINE_TUNED = 0.1  # rate of an expert that goes on learning, against the generator's
OTHERS = 4  # wrong sounds of the same clip that the expert's contrast sees beside those of the batch


@dataclass(frozen=True)
class GeneratorConfig(Config):
    """Of a Wav2Lip generator, or its warping form."""

    task: str = "wav2lip"
    lr: float = 6e-4
    aug_strength: float = 0.4
    network: str = "compact"  # the discriminator: compact or published
    batch: int = 4  # windows of five faces
    singles: int = 16  # faces beside them, each of another clip
    expert: str = "expert-lab"  # the frozen sync expert: registered name or file; empty: none
    frozen: bool = True  # False: the expert goes on learning on generated faces (the paper's ablation)
    sync: float = 0.02  # weight of the expert's loss, by schedule
    sync_from: int = 0  # step at which the weight begins to rise
    sync_over: int = 300  # steps over which it rises
    warp: bool = False  # moves the pixels of four references (lipsync.networks.warp) instead of painting alone
    found: float = 0.0  # warp: share of windows whose references show about the true mouth, as in the second pass
    folds: float = 0.06  # warp: weight of the L1 between neighbouring displacements
    mixing: float = 0.002  # warp: weight of the entropy of the choice between references: mixed ones are blurred
    paint: float = 0.0  # warp: weight of the share of own colours at the mouth, which references show truer
    lips: float = 0.0  # weight of the L1 between the expert's maps of the made and of the true lips
    edges: float = 1.0  # weight of the L1 between gradients of the picture, against blur
    quality: float = 0.0  # weight of the quality discriminator; 0 is Wav2Lip, 0.07 the published GAN
    hears: bool = False  # the compact discriminator hears the sound too: a face must fit it
    matching: float = 0.0  # weight of the L1 between the discriminator's maps of the made and of the true face
    mouth: float = 2.0  # how much more a pixel of the mouth counts than one of the cheek
    opening: float = 0.0  # how much more often an open mouth is drawn: most frames are nearly closed
    silence: float = 0.1  # share of windows that are taken where nobody speaks

    choices: ClassVar = {"network": ("compact", "published")}
    at_least_1: ClassVar = (*Config.at_least_1, "batch")


class GeneratorTask(Task):
    """Trains a generator, and the discriminator where there is one."""

    Config = GeneratorConfig
    kept, measure, unit = "generator", "choice", "faces"

    @staticmethod
    def architecture(config: GeneratorConfig) -> tuple[str, dict]:
        return "wav2lip-warp" if config.warp else "wav2lip", {"width": config.width}

    @staticmethod
    def card(config: GeneratorConfig) -> dict:
        seen = "four references: at rest, widest open, widest, narrowest" if config.warp else "reference second"
        face = f"(B,{15 if config.warp else 6},96,96) BGR 0..1, masked target (rows 48.. = 0) first, then {seen}"
        mel = "(B,1,80,16), protocol.md section 1"
        return {"input": {"mel": mel, "mel_start_frames": MEL_START, "face": face}, "crop": face_card()}

    def __init__(self, config: GeneratorConfig, teach: Arrays, tune: Arrays) -> None:
        networks.set_seed(config)
        self.config, self.teach, self.tune = config, teach, tune
        self.networks = {"generator": networks.load_initial_weights(networks.generator(config), config)}
        generator = self.networks["generator"]
        betas = (0.5, 0.999) if config.quality else (0.9, 0.999)
        self.optimisers = {"generator": torch.optim.Adam(generator.parameters(), config.lr, betas)}
        self.expert = networks.trained_expert(config.expert) if config.expert else None
        if config.quality:
            self.networks["quality"] = networks.discriminator(config, self.expert)
            self.optimisers["quality"] = torch.optim.Adam(self.networks["quality"].parameters(), config.lr, betas)
        if self.expert is not None and not config.frozen:
            self.networks["expert"] = self.expert.requires_grad_(True)
            self.optimisers["expert"] = torch.optim.Adam(
                [{"params": list(self.expert.parameters()), "scale": FINE_TUNED}], config.lr
            )
        self.weights = speaker_weights(teach, {"misc": config.misc})
        self.gaps: dict[int, np.ndarray] = {}
        self.uppers: dict[int, np.ndarray] = {}
        self.mouths: dict[int, np.ndarray] = {}
        self.per_step = config.batch * FRAMES + config.singles

    # --- batches ----------------------------------------------------------------------------------------------

    def batch(self, rng: np.random.Generator, step: int) -> dict[str, np.ndarray]:
        """`batch` windows of five frames, whose sync can be heard, then `singles` faces of as many other clips.

        The five look nearly alike: of what a face looks like, one from elsewhere says more than four of the same.

        returns  N = 5 batch + singles faces: target, reference (N, 3, 96, 96) uint8 BGR; mel (N, 80, 16) float32; mouth
                 (N, 2) float32, its place in the crop, pixels; of the windows alone: sounds (B, 1 + OTHERS, 80, 16)
                 float32, the window's own and wrong ones; spoken (B,)
        """
        c, names = self.config, self.weights[0]
        parts: dict[str, list] = {k: [] for k in ("target", "reference", "mel", "mouth", "sounds", "spoken")}
        for k, s in enumerate(rng.choice(len(names), c.batch + c.singles, p=self.weights[1])):
            ids = self.teach.speakers[names[s]]
            lengths = np.array([self.teach.clips[i].frames for i in ids], float)
            self._window(int(rng.choice(ids, p=lengths / lengths.sum())), rng, parts, FRAMES if k < c.batch else 1)
        faces = {k: np.concatenate(parts[k]) for k in ("target", "reference", "mel", "mouth")}
        return faces | {k: np.stack(parts[k]) for k in ("sounds", "spoken")}

    def _window(self, i: int, rng: np.random.Generator, parts: dict[str, list], frames: int) -> None:
        clip, gaps = self.teach.clips[i], self._gap(i)
        quiet = rng.random() < self.config.silence
        wide = np.convolve(gaps, np.ones(frames) / frames, "valid")
        often = 1 + self.config.opening * wide / max(wide.mean(), 1e-6)
        at = int(rng.choice(len(often), p=often / often.sum()))
        times = np.arange(at, at + frames)
        closed = np.flatnonzero(gaps < CLOSED)
        still = quiet and len(closed) >= frames
        if still:  # closed mouths under digital silence
            times = np.sort(rng.choice(closed, frames, replace=False))
        elif quiet and not self.teach.speech(i).all():  # a real pause
            pause = np.flatnonzero(~self.teach.speech(i)[: clip.frames - frames + 1])
            if len(pause):
                at = int(rng.choice(pause))
                times = np.arange(at, at + frames)
        far = np.flatnonzero((np.arange(clip.frames) < times[0] - FAR) | (np.arange(clip.frames) > times[-1] + FAR))
        far = far if len(far) else np.setdiff1d(np.arange(clip.frames), times)
        middle = int(times[len(times) // 2])
        references = self._references(i, middle, far, rng)
        augment = draw_augmentation(rng, self.config.aug_strength, patches=False, degrade=False)
        pictures = self.teach.frames(i)
        parts["target"].append(np.stack([bgr_planes(augment(pictures[t], rng)) for t in times]))
        seen = [bgr_planes(self._looked_at(augment, (i, middle), place, rng)) for place in references]
        parts["reference"].append(np.stack([np.concatenate(seen)] * frames))
        heard = augment_mel(self.teach.mel(i, gated=bool(rng.random() < 0.5)), rng, 0.7)
        mel = np.stack([mel_window(heard, column(clip, int(t) + MEL_START)) for t in times])
        parts["mel"].append(np.full_like(mel, SILENCE) if still else mel)
        mouth = augment.place(self.teach.landmarks(i)[times][:, INNER_LIPS].mean((0, 1))).astype(np.float32)
        parts["mouth"].append(np.stack([mouth] * frames))
        if frames == 1:
            return
        plain = self.teach.mel(i)
        wrong = np.flatnonzero(np.abs(np.arange(clip.frames - frames + 1) - at) >= 3)
        picked = [at, *rng.choice(wrong, OTHERS, replace=len(wrong) < OTHERS)]
        parts["sounds"].append(np.stack([mel_window(plain, column(clip, int(t))) for t in picked]))
        parts["spoken"].append(not still and bool(self.teach.speech(i)[times].all()))

    def _looked_at(
        self, augment: Augmentation, at: tuple[int, int], reference: tuple[int, int], rng: np.random.Generator
    ) -> np.ndarray:
        """A reference, (96, 96, 3), beside the frame `at`, each a clip and a frame of it, in the look of `augment`: not
        cut from the very same place, and, for a warping generator, brought onto the frame as well as the engine can."""
        clip, k = reference
        if self.config.warp:
            seen, others = (self.teach.landmarks(c)[t] for c, t in (at, reference))
            augment = augment.onto(seen, others, rng.normal(0, TURNED, 2))
        return augment.moved(rng.normal(0, 0.8, 2))(self.teach.frames(clip)[k], rng)

    def _references(self, i: int, frame: int, far: np.ndarray, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Clips and frames that the generator sees beside frame `frame` of clip i: of the frames `far`.

        A warping one is shown frames of other clips of the speaker too, in half of the draws: a clip of a second has no
        open mouth to move, a video that is to be dubbed has.
        """
        if not self.config.warp:
            return [(i, self._reference(i, frame, far, rng))]
        if rng.random() < MISSING:  # a still, a clip too short: one picture for all roles
            return [(i, self._reference(i, frame, far, rng))] * REFERENCES
        places = [(i, far)]
        others = [k for k in self.teach.speakers[self.teach.clips[i].speaker] if k != i]
        if others and rng.random() < 0.5:
            picked = rng.choice(others, min(OTHER_CLIPS, len(others)), replace=False).tolist()
            places += [(k, np.arange(self.teach.clips[k].frames)) for k in picked]
        apart = [
            np.abs(self._upper(k)[at].astype(np.float32) - self._upper(i)[frame]).mean((1, 2, 3)) for k, at in places
        ]
        all_places = [(k, int(t)) for k, at in places for t in at]
        if self.config.found and rng.random() < self.config.found:
            mouths = np.concatenate([self._mouth(k)[at] for k, at in places]).astype(np.float32)
            cost = unlike(mouths, self._mouth(i)[frame].astype(np.float32), WHOLE) + ABOVE * np.concatenate(apart)
            cost[rng.random(len(cost)) < rng.uniform(0, LOST)] += 1e3  # the engine does not know the true mouth
            best = cost.argsort()[:REFERENCES]
            return [all_places[k] for k in np.resize(best, REFERENCES)]
        gaps = [self._gap(k)[at] for k, at in places]
        widths = [lip_widths(self.teach, k)[at] for k, at in places]
        costs = role_costs(*(np.concatenate(x) for x in (apart, gaps, widths)))
        return [all_places[int(cost.argmin())] for cost in costs]

    def _reference(self, i: int, frame: int, far: np.ndarray, rng: np.random.Generator) -> int:
        """One of the frames `far`: as the engine chooses (40 %), the widest mouth (25 %: a portrait may only ever
        smile), the most closed (15 %), any (20 %)."""
        gaps, draw = self._gap(i)[far], rng.random()
        if draw < 0.4:
            uppers = self._upper(i)
            return int(far[reference_cost(uppers[far], uppers[frame].astype(np.float32), gaps).argmin()])
        if draw < 0.8:
            return int(far[gaps.argmax() if draw < 0.65 else gaps.argmin()])
        return int(rng.choice(far))

    def _upper(self, i: int) -> np.ndarray:
        """(T, 12, 24, 3) uint8: a clip's frames above the mouth, coarse."""
        if i not in self.uppers:
            augment = no_augmentation()
            self.uppers[i] = np.stack([top_half(augment(f)) for f in self.teach.frames(i)]).round().astype(np.uint8)
        return self.uppers[i]

    def _mouth(self, i: int) -> np.ndarray:
        """(T, 3, 512) uint8: a clip's frames below the middle, coarse (`mouth_of`)."""
        if i not in self.mouths:
            augment = no_augmentation()
            self.mouths[i] = np.stack([mouth_of(augment(f)) for f in self.teach.frames(i)]).round().astype(np.uint8)
        return self.mouths[i]

    def _gap(self, i: int) -> np.ndarray:
        if i not in self.gaps:
            self.gaps[i] = lip_gaps(self.teach, i)
        return self.gaps[i]

    # --- steps ------------------------------------------------------------------------------------------------

    def step(self, batch: dict[str, Tensor], loop: Loop) -> dict[str, float]:
        """One update of the generator, and of the discriminator where there is one."""
        c = self.config
        target, reference = batch["target"].float() / 255, batch["reference"].float() / 255  # (N, 3, 96, 96)
        masked = target.clone()
        masked[:, :, 48:] = 0
        face = torch.cat((masked, reference), 1).contiguous(memory_format=torch.channels_last)
        with loop.autocast():
            made = self.networks["generator"](batch["mel"][:, None], face).float()
        weight = mouth_weight(batch["mouth"], c.mouth)
        l1 = weighted_l1(made, target, weight)
        edge = edge_difference(made[:, :, 48:], target[:, :, 48:], weight[:, :, 48:])
        loss = l1 + c.edges * edge
        numbers = {"l1": float(l1.detach()), "edge": float(edge.detach())}
        if c.warp:
            folds, mixing, painted = flow_penalties(self.networks["generator"].maps, mouth_weight(batch["mouth"], 1.0))
            loss = loss + c.folds * folds + c.mixing * mixing + c.paint * painted
            penalties = {"folds": folds, "mixing": mixing, "painted": painted}
            numbers |= {name: float(value.detach()) for name, value in penalties.items()}
        share = c.sync * min(1.0, max(0.0, (loop.step - c.sync_from) / max(c.sync_over, 1)))
        if self.expert is not None and (share > 0 or c.lips):
            self.expert.to(made.device)
            spoken = c.batch * FRAMES  # of the windows
            sync, sync_acc, lips = self._sync(made[:spoken], target[:spoken], batch, loop)
            loss = loss + share * sync + c.lips * lips
            numbers |= {
                "sync": float(sync.detach()),
                "sync_acc": sync_acc,
                "sync_weight": share,
                "lips": float(lips.detach()),
            }
        quality, said = self.networks.get("quality"), None
        if quality is not None:
            quality.requires_grad_(False)
            said = self.expert.eval().to(made.device).audio(batch["mel"][:, None]).detach() if c.hears else None
            with loop.autocast():
                seen, answer = verdict(quality, made, said)
                with torch.no_grad():
                    truth, _ = verdict(quality, target, said)
            g_adv = functional.softplus(-answer).mean()
            feature_matching = matched(seen, truth)
            ramp = min(1.0, loop.step / max(c.ramp, 1))  # it must have learnt to see first
            loss = loss + ramp * (c.quality * g_adv + c.matching * feature_matching)
            numbers |= {"g_adv": float(g_adv.detach()), "feature_matching": float(feature_matching.detach())}
        numbers["norm"] = loop.learn("generator", loss)
        if quality is not None:
            quality.requires_grad_(True)
            with loop.autocast():
                maps, on_real = verdict(quality, target, said)
                _, on_fake = verdict(quality, made.detach(), said)
            d_loss = (functional.softplus(-on_real).mean() + functional.softplus(on_fake).mean()) / 2
            numbers |= {"d_loss": float(d_loss.detach()), "d_acc": _share(on_real, on_fake)}
            if c.hears:  # the same face under another clip's sound: as in LipGAN, that is false too
                on_wrong = quality.judge(maps[-1], said.roll(FRAMES, 0))
                d_loss = d_loss + functional.softplus(on_wrong - on_real).mean() / 2
                numbers |= {"d_audio": _share(on_real, on_wrong)}
            loop.learn("quality", d_loss)
        if "expert" in self.networks:
            spoken = c.batch * FRAMES
            numbers["unmasked"] = self._teach_expert(made[:spoken].detach(), target[:spoken], batch, loop)
        return numbers

    def _sync(self, made: Tensor, target: Tensor, batch: dict[str, Tensor], loop: Loop) -> tuple[Tensor, float, Tensor]:
        """What the expert says of made faces (B 5, 3, 96, 96).

        returns  contrast of each window's lips with its own sound, wrong sounds of its clip, and the other windows'
                 sounds; share of windows whose own sound beats the wrong ones of its clip; how unlike its maps of made
                 and of true lips are (`matched`)
        """
        n, count = self.expert.window, len(batch["sounds"])
        self.expert.eval()
        with loop.autocast():
            lips, seen = face_maps(self.expert, _lips(made, count, n))  # (B, D)
            with torch.no_grad():
                _, truth = face_maps(self.expert, _lips(target, count, n))
            sounds = self.expert.audio(batch["sounds"].flatten(0, 1)[:, None]).float()
        sounds = sounds.view(len(lips), 1 + OTHERS, -1)
        own = torch.einsum("bd,bkd->bk", lips, sounds)  # the true one first
        across = (lips @ sounds[:, 0].T).masked_fill(torch.eye(len(lips), dtype=torch.bool, device=lips.device), -1e4)
        logits = 15 * torch.cat((own, across), 1)
        each = functional.cross_entropy(
            logits, torch.zeros(len(lips), dtype=torch.long, device=lips.device), reduction="none"
        )
        spoken = batch["spoken"].float()
        right = ((own.argmax(1) == 0).float() * spoken).sum() / spoken.sum().clamp(min=1)
        return (each * spoken).sum() / spoken.sum().clamp(min=1), float(right), matched(seen, truth)

    def _teach_expert(self, made: Tensor, real: Tensor, batch: dict[str, Tensor], loop: Loop) -> float:
        """The ablation's arm: the expert goes on learning, with generated faces as false ones beside real faces under
        wrong sounds, as LipGAN's discriminator does. Its normalisation stays as trained: made and real faces go through
        it apart, and in few. Returns the share of windows whose real face fits better than the made one."""
        n, count = self.expert.window, len(batch["sounds"])
        self.expert.eval()
        with loop.autocast():
            sounds = self.expert.audio(batch["sounds"][:, :2].flatten(0, 1)[:, None]).float().unflatten(0, (count, 2))
            seen, drawn = (self.expert.face(_lips(f, count, n)).float() for f in (real, made))
        true, wrong, fake = (
            (face * sound).sum(1).clamp(1e-6, 1 - 1e-6)
            for face, sound in ((seen, sounds[:, 0]), (seen, sounds[:, 1]), (drawn, sounds[:, 0]))
        )
        loop.learn("expert", -(true.log() + ((1 - wrong).log() + (1 - fake).log()) / 2).mean() / 2)
        return float((true > fake).float().mean())

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """On speakers never trained on: likeness of the lower half to the truth, and sync under a foreign voice."""
        n = len(self.tune.clips)
        figures = generated_figures(network, self.expert, self.tune, range(0, n, -(-n // 16)))
        sharp = min(figures["sharpness_ratio"], 1.0)
        return figures | {"choice": figures["psnr"] + 10 * figures.get("sync_accuracy", 0.0) + 5 * sharp}


def flow_penalties(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of a warping generator's maps (B, 16, 96, 96): mean L1 between neighbouring displacements, mean entropy of the
    choice between references in the lower half, and the share of the mouth that is painted, not moved.

    weight  (B, 1, 96, 96), `mouth_weight` with 1 for more
    """
    flow, weights = maps[:, 3 : 3 + 2 * REFERENCES], maps[:, 3 + 2 * REFERENCES :, 48:]
    folds = 2 * (flow.diff(dim=2).abs().mean() + flow.diff(dim=3).abs().mean())
    mixing = -(weights * (weights + 1e-6).log()).sum(1).mean()
    mouth = weight[:, 0, 48:] - 1
    return folds, mixing, (weights[:, -1] * mouth).sum() / mouth.sum()


def bgr_planes(picture: np.ndarray) -> np.ndarray:
    """(96, 96, 3) RGB -> (3, 96, 96) BGR."""
    return np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1))


def verdict(
    quality: Quality | CompactQuality, faces: Tensor, said: Tensor | None = None
) -> tuple[list[Tensor], Tensor]:
    """The discriminator's maps, and its answers before any sigmoid, whose gradient never dies.

    faces    (B, 3, 96, 96)
    said     for one that hears: (B, D), the expert's embeddings of the faces' sounds
    returns  maps of its blocks (of the published one: the first five); answers (B, 1 or 18)
    """
    if isinstance(quality, CompactQuality):
        return quality(faces, said)
    maps, x = [], faces[:, :, 48:]
    for block in quality.face_encoder_blocks:
        x = block(x)
        maps.append(x)
    last = quality.binary_pred[0]
    with torch.autocast(x.device.type, enabled=False):
        return maps[:5], functional.linear(x.flatten(1).float(), last.weight.flatten(1), last.bias)


def _share(real: Tensor, false: Tensor) -> float:
    return float((real.mean(1) > false.mean(1)).float().mean())


def face_maps(expert: torch.nn.Module, window: Tensor) -> tuple[Tensor, list[Tensor]]:
    """An expert's embedding (B, D) float32 of a window of lower halves, and the maps of all its layers on the way."""
    maps: list[Tensor] = []
    layers = [m for m in expert.face_encoder if isinstance(m, Conv)]
    hooks = [layer.register_forward_hook(lambda _, __, out: maps.append(out)) for layer in layers]
    try:
        return expert.face(window).float(), maps
    finally:
        for hook in hooks:
            hook.remove()


def matched(made: list[Tensor], truth: list[Tensor]) -> Tensor:
    """Mean over maps of the L1 between them, each against the truth's own mean size: 0 where the faces are the same.

    Where L1 on pixels answers doubt with blur, this asks for the textures by which the discriminator tells real faces
    (Wang et al., arXiv 1711.11585, section 3.3).
    """
    each = [
        (a.float() - b.float()).abs().mean() / b.float().abs().mean().clamp(min=1e-4)
        for a, b in zip(made, truth, strict=True)
    ]
    return torch.stack(each).mean()


def _lips(faces: Tensor, count: int, window: int) -> Tensor:
    """(count 5, 3, 96, 96) -> lower halves of the first `window` frames, (count, 3 window, 48, 96)."""
    halves = faces.view(count, FRAMES, 3, 96, 96)[:, :window, :, 48:]
    return halves.reshape(count, 3 * window, 48, 96).contiguous(memory_format=torch.channels_last)


def mouth_weight(mouth: Tensor, more: float, size_px: int = 96, above: float = 0.1) -> Tensor:
    """(B, 2) places of mouths, pixels -> (B, 1, S, S) weights: `above` in the upper half (0.1: it is copied), 1 in the
    lower, 1 + more at the mouth."""
    at = torch.arange(float(size_px), device=mouth.device)
    y, x = torch.meshgrid(at, at, indexing="ij")
    unit, lower = size_px / 96, y >= size_px // 2
    far = ((x - mouth[:, 0, None, None]) / (18 * unit)) ** 2 + ((y - mouth[:, 1, None, None]) / (13 * unit)) ** 2
    return (torch.where(lower, 1.0, above) + more * torch.exp(-far) * lower)[:, None]


def weighted_l1(made: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over pixels and colours of the L1 between (B, 3, S, S), by weights (B, 1, S, S)."""
    return ((made - target).abs() * weight).sum() / (3 * weight.sum())


def edge_difference(made: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted L1 between neighbouring differences, rows and columns."""
    total = torch.zeros((), device=made.device)
    for axis in (2, 3):
        w = weight.narrow(axis, 1, weight.shape[axis] - 1)
        total = total + weighted_l1(made.diff(dim=axis), target.diff(dim=axis), w)
    return total
