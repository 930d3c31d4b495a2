#!/bin/sh
# wav2lip-warp-lab as it was made on 2026-11-30 and 12-02: sh scripts/recipes/wav2lip-warp-lab.sh ARRAYS OUT TRIAL
# TRIAL: weights of the trial (40,000 faces from wav2lip-gan-lab). Phases ended at steps 300, 450 and 1,500, the best was
# step 1,000; between them it was seen that more kinds of faces, and a price on painting, are needed. --minutes are those
# of two idle cores. At the end the weight of own colours is brought to 0.6.
# References lay where their boxes put them (commit c271c06); since 2026-12-02 they are brought onto the frame.
# The last phase, for the engine's second pass, is of 2026-12-02: 50 minutes on one thread with AVX512-BF16 beside
# other work, 14 faces a second, begun from the int8 file of the phases before; the best was step 900. By hand, the card's
# input got "mel_start_columns": 1 (docs/training.md).
set -eu
PY=${PY:-.venv/bin/python}
mkdir -p "$2"
change() { # FROM TO, then statements on the tensors `s`
  $PY - "$1" "$2" "$3" <<'END'
import math, sys
from safetensors.torch import load_file, save_file
s = {name: tensor.float() for name, tensor in load_file(sys.argv[1]).items()}
exec(sys.argv[3])
save_file(s, sys.argv[2])
END
}
# A choice twice as sharp, own colours held back.
change "$3" "$2/start.safetensors" \
  'for k in ("weight", "bias"): s["output_block.1." + k][11:] *= 2
s["output_block.1.bias"][-1] -= 1'
run="$PY -m train wav2lip --data $1 --run $2/warp --threads 2"
$run --minutes 12 warp=true "start=$2/start.safetensors" steps=1700 lr=0.0005 warmup=40 sync=0.08 sync_over=1 lips=0.05 \
  quality=0.08 hears=true matching=0.08 opening=4 aug_strength=0.5 misc=0.25 ramp=150 validate_every=250 save_every=50
$run --minutes 6 --resume mixing=0.005 misc=0.7 aug_strength=0.6
$run --minutes 42 --resume mixing=0.004 paint=0.04
change "$2/warp/best.safetensors" "$2/warp/best.safetensors" 's["output_block.1.bias"][-1] += math.log(0.6)'
$PY -m train wav2lip --data "$1" --run "$2/found" --threads 1 warp=true "start=$2/warp/best.safetensors" steps=1000 \
  lr=0.0004 warmup=40 sync=0.08 sync_over=1 lips=0.05 quality=0.08 hears=true matching=0.08 opening=4 aug_strength=0.6 \
  misc=0.7 ramp=100 mixing=0.004 paint=0.04 found=0.6 validate_every=150 save_every=50
$PY -m train export "$2/found" --data "$1" --name wav2lip-warp-lab --form int8
