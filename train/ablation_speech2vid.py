"""Speech2Vid's ablations: skips, stills, upsampling, content loss, sharpening; one table.

`python -m train ablation-speech2vid --data DATA --out DIR --faces 20000 [NAME=VALUE ...]`. Each arm is trained on the
same number of faces from the same seed and measured on the people that choose: pixel error (MSE), identity (cosine of
a face network to the true frame), retrieval (does the sync expert find the own sound among those of all windows?).
Resumable: an arm whose result is there is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lipsync.geometry import crop_face
from lipsync.models.speech2vid import Speech2VidContextModel, Speech2VidModel
from lipsync.networks.sharpener import Sharpener

from . import networks
from .config import Config
from .data.arrays import Arrays, no_augmentation
from .inference import lower_windows, mels_of, model_alignments, model_references, model_windows, pasted
from .run import corrected, start
from .tasks.speech2vid import RULE, SIZE_PX, Speech2VidConfig

ARMS: dict[str, list[str]] = {
    "as published": [],
    "without skips": ["skips=false"],
    "one still": ["stills=1"],
    "transposed convolution": ["transposed=true"],
    "L1 alone": ["content=0"],
    "content loss alone": ["pixels=0", "content=1"],
    "context": ["context=true"],
}
SHARPENED = "as published, sharpened"
CLIPS = 24
RETRIEVED = 50  # windows among which each looks for its own sound


def ablation(data: Path, out: Path, faces: int, sharpener: str = "", settings: Sequence[str] = ()) -> list[dict]:
    """Run what is missing, return and print one row an arm; out/table.md holds the table.

    sharpener  a trained one, name or file: "as published" is measured with it too
    """
    tune = corrected(data, ["tune"])
    clips = list(range(0, len(tune.clips), max(1, len(tune.clips) // CLIPS)))
    rows = []
    for arm, words in ARMS.items():
        run = out / arm.replace(" ", "-")
        steps = max(1, faces // Speech2VidConfig.with_settings([*settings, *words]).batch)
        if not (run / "done.json").exists():
            start("speech2vid", data, run, [*settings, *words, f"steps={steps}"], (run / "last.pt").exists())
            config = Config.load(run)
            network = config.model.network(**task_dimensions(config))
            network.load_state_dict(networks.weights(str(run / "best.safetensors")))
            found = {arm: measured(config, network.eval(), tune, clips)}
            if arm == "as published" and sharpener:
                found[SHARPENED] = measured(config, network, tune, clips, trained_sharpener(sharpener))
            (run / "done.json").write_text(json.dumps(found))
        for name, figures in json.loads((run / "done.json").read_text()).items():
            rows.append({"arm": name} | figures)
    lines = [
        "| arm | pixel error, MSE | identity, cosine | own sound found (chance 2 %) | clips |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(f"| {r['arm']} | {r['mse']:.1f} | {r['identity']:.3f} | {r['retrieval']:.1%} | {r['clips']} |")
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return rows


def task_dimensions(config: Speech2VidConfig) -> dict:
    """The network's dimensions of a run."""
    from .tasks.speech2vid import Speech2VidTask

    return Speech2VidTask.architecture(config)[1]


def trained_sharpener(source: str) -> Sharpener:
    """A sharpener from a registered name or a file; its size is read from its tensors."""
    state = networks.weights(source)
    layers = [k for k in state if k.endswith(".weight")]
    network = Sharpener(state[layers[0]].shape[0], len(layers))
    network.load_state_dict(state)
    return network.eval()


def measured(
    config: Speech2VidConfig,
    network: torch.nn.Module,
    arrays: Arrays,
    clips: Sequence[int],
    sharpener: Sharpener | None = None,
) -> dict[str, float]:
    """Pixel error, identity and retrieval of a generator on some clips under their own voice."""
    kind = Speech2VidContextModel if config.context else Speech2VidModel
    model = kind.around(network, RULE)
    model.roles = ("still",) * config.stills
    face, expert, augment = networks.trained_face_embedding(), networks.trained_expert("expert-lab"), no_augmentation()
    errors, cosines, windows, sounds = [], [], [], []
    for i in clips:
        places = model_alignments(model, arrays, i)
        truth = np.stack([crop_face(f, a, SIZE_PX) for f, a in zip(arrays.frames(i), places, strict=True)])
        made = model.generate(
            truth, model_references(model, arrays, i, truth), model_windows(model, arrays, i, len(truth))
        )
        if sharpener is not None:
            with torch.inference_mode():
                planes = torch.from_numpy(made.transpose(0, 3, 1, 2).astype(np.float32) / 255)
                made = (sharpener(planes).clamp(0, 1) * 255 + 0.5).byte().numpy().transpose(0, 2, 3, 1)
        errors.append(float(((made.astype(np.float32) - truth) ** 2).mean()))
        a, b = (_embedded(face, x[::5]) for x in (truth, made))
        cosines.append(float((a * b).sum(1).mean()))
        shown = np.stack([augment(f) for f in pasted(model, arrays, i, made)])
        with torch.inference_mode():
            seen = expert.face(torch.from_numpy(lower_windows(shown, expert.window))).numpy()
            said = expert.audio(torch.from_numpy(mels_of(arrays, i, len(shown) - 4, 0, gated=False)[:, None])).numpy()
        windows.append(seen[:: max(1, len(seen) // 4)])
        sounds.append(said[:: max(1, len(said) // 4)])
    seen, said = np.concatenate(windows), np.concatenate(sounds)
    hits = []
    for k in range(len(seen)):
        others = np.random.default_rng(k).permutation(np.delete(np.arange(len(said)), k))[: RETRIEVED - 1]
        hits.append(float(seen[k] @ said[k] > (said[others] @ seen[k]).max()))
    return {
        "mse": float(np.mean(errors)),
        "identity": float(np.mean(cosines)),
        "retrieval": float(np.mean(hits)),
        "clips": len(clips),
    }


def _embedded(face: torch.nn.Module, pictures: np.ndarray) -> np.ndarray:
    """Unit embeddings (T, D) of aligned faces (T, S, S, 3)."""
    import cv2

    large = np.stack([cv2.resize(p, (150, 150), interpolation=cv2.INTER_CUBIC) for p in pictures])
    found = face.embed(large)
    return found / np.linalg.norm(found, axis=1, keepdims=True)
