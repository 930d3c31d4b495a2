"""The paper's ablation at our scale: window 1, 3, 5 x expert frozen or fine-tuned on generated faces.

`python -m train ablation --data DATA --out DIR --faces 30000 [NAME=VALUE ...]`. Each arm trains as many faces
from the same start; experts of each window see the same number of windows. Sync is evaluated on the people that choose.
Resumable: an arm whose result is there is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lipsync.renamed import current_names

from . import networks
from .config import Config
from .data.arrays import open_arrays
from .evaluate import evaluate_generator
from .metrics import interval
from .run import start
from .tasks.wav2lip import FRAMES, GeneratorConfig

# Of before 2026-12, still read in arms that are done.
OLD_FIGURES = {
    "moves": "motion_speech",
    "rests": "motion_silence",
    "moves_truth": "motion_truth",
    "sharp": "sharpness_ratio",
}
WINDOWS = (1, 3, 5)  # faces that an expert sees at once


def ablation(
    data: Path,
    out: Path,
    faces: int,
    windows: int,
    evaluator: str,
    expert: str,
    generator: str,
    settings: Sequence[str] = (),
) -> list[dict]:
    """Run what is missing, return and print one row an arm; out/table.md holds the table.

    expert    what every expert starts from, or empty; a shorter window takes its last face for those left out
    generator what every generator starts from
    settings  NAME=VALUE words for every generator, beside what tells the arms apart
    """
    rows, usual = [], GeneratorConfig.with_settings(settings)
    a_step = usual.batch * FRAMES + usual.singles
    for window in WINDOWS:
        teacher = out / f"expert-{window}"
        if not (teacher / "done.json").exists():
            steps = max(1, windows // 128)
            found = start(
                "sync_expert",
                data,
                teacher,
                [f"window={window}", f"steps={steps}", f"start={expert}"],
                (teacher / "last.pt").exists(),
            )
            (teacher / "done.json").write_text(json.dumps(found))
        accuracy = json.loads((teacher / "done.json").read_text())["sync_accuracy"]
        for frozen in (True, False):
            arm = out / f"window-{window}-{'frozen' if frozen else 'tuned'}"
            if not (arm / "done.json").exists():
                words = [
                    *settings,
                    f"expert={teacher / 'best.safetensors'}",
                    f"frozen={frozen}",
                    f"start={generator}",
                    f"steps={max(1, faces // a_step)}",
                ]
                start("wav2lip", data, arm, words, (arm / "last.pt").exists())
                network = networks.generator(Config.load(arm))
                network.load_state_dict(networks.weights(str(arm / "best.safetensors")))
                tune = open_arrays(data, ["tune"])
                found = evaluate_generator(network.eval(), evaluator, tune, range(len(tune.clips)))
                (arm / "done.json").write_text(json.dumps(found))
            rows.append(
                {"window": window, "expert": "frozen" if frozen else "fine-tuned", "expert_accuracy": accuracy}
                | current_names(json.loads((arm / "done.json").read_text()), OLD_FIGURES, "figure")
            )
    lines = [
        "| window | expert | sync accuracy, expert | motion under speech (people's) | PSNR | sync accuracy, evaluator "
        "| evaluator within 1 frame (95 % interval) | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        low, high = interval(round(r["within_1"] * r["clips"]), r["clips"])
        motion = f"{r['motion_speech']:.2f} ({r['motion_truth']:.2f})"
        lines.append(
            f"| {r['window']} | {r['expert']} | {r['expert_accuracy']:.1%} | {motion} "
            f"| {r['psnr']:.1f} dB | {r['output_apart']:.1%} | {r['within_1']:.1%} ({low:.1%} to {high:.1%}) "
            f"| {r['clips']} |"
        )
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return rows
