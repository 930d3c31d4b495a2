#!/bin/sh
# Not yet run. A GPU's minutes for the mouth: sh scripts/recipes/gpu.sh CLIPS OUT MINUTES
# CLIPS: folder with shards/ (train preprocess). Unpacks them, then trains the full-width warping generator and, after it,
# the sync expert, each for MINUTES from its newest checkpoint, saving every minute; best weights come back as bf16 files.
set -eu
PY=${PY:-python3}
clips=$1 out=$2 minutes=$3
$PY -m train unpack "$clips" "$out/arrays" --splits teach tune
resume() { [ -f "$1/last.pt" ] && echo --resume || true; }
$PY -m train wav2lip --data "$out/arrays" --run "$out/warp-16" --minutes "$minutes" $(resume "$out/warp-16") \
  warp=true width=16 batch=16 singles=64 steps=40000 lr=0.0006 sync=0.08 lips=0.05 quality=0.08 hears=true matching=0.08 \
  opening=4 aug_strength=0.6 misc=0.7 mixing=0.004 paint=0.04 validate_every=500 save_every=200
$PY -m train sync_expert --data "$out/arrays" --run "$out/expert-16" --minutes "$minutes" $(resume "$out/expert-16") \
  width=16 speakers=8 windows=64 steps=20000 validate_every=500 save_every=200
$PY -m train export "$out/warp-16" --data "$out/arrays" --name wav2lip-warp-lab --form int8 --folder "$out"
$PY -m train export "$out/expert-16" --data "$out/arrays" --name expert-16-lab --form int8 --folder "$out"
