#!/bin/sh
# wav2lip-warp-lab as it was made on 2026-11-30: sh scripts/recipes/wav2lip-warp-lab.sh ARRAYS OUT START
# START: the trial's weights (40,000 faces from wav2lip-gan-lab), its choice sharpened twice and own colours held back:
# output_block.1.{weight,bias}[11:] times 2, the last bias less 1. Phases ended at steps 300, 450 and at the end; between
# them it was seen that more kinds of faces, and a price on painting, are needed. --minutes are those of two idle cores.
set -eu
PY=${PY:-.venv/bin/python}
run="$PY -m train wav2lip --data $1 --run $2/warp --threads 2"
$run --minutes 12 warp=true "start=$3" steps=1700 lr=0.0005 warmup=40 sync=0.08 sync_over=1 lips=0.05 quality=0.08 hears=true \
  matching=0.08 opening=4 aug_strength=0.5 misc=0.25 ramp=150 validate_every=250 save_every=50
$run --minutes 6 --resume mixing=0.005 misc=0.7 aug_strength=0.6
$run --minutes 55 --resume mixing=0.004 paint=0.04
$PY -m train export "$2/warp" --data "$1" --name wav2lip-warp-lab --form int8
