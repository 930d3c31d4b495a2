#!/bin/sh
# All systems with the same number of faces, 52,800, from nothing: sh scripts/recipes/equal.sh ARRAYS OUT (arrays of
# data.sh). As run on 2026-12-01, but for the exports of speech2vid and wav2lip-gan: two hours and twenty minutes on two
# threads with AMX beside other work.
# speech2vid-context-lab is shipped with so many; speech2vid-lab goes on from its 45,696; Wav2Lip's two part at half, so
# that only the discriminator comes between them. With LIPSYNC_WEIGHTS=OUT/weights the names below are systems.
set -eu
PY=${PY:-.venv/bin/python}
data=$1 out=$2
train() { # TASK RUN [NAME=VALUE ...]
  task=$1 run=$2
  shift 2
  $PY -m train "$task" --data "$data" --run "$out/$run" --threads 1 "$@" warmup=50 save_every=100
}
export_as() { # RUN NAME FORM [--part ...]
  run=$1 name=$2 form=$3
  shift 3
  $PY -m train export "$out/$run" --data "$data" --folder "$out/weights" --name "$name" --form "$form" "$@"
}
teacher="mouth=4 opening=3 sync=0.05 lips=0.05"
(
  train lipgan lipgan batch=24 steps=2200 lr=0.0008 shapes=0.2 mouth=5 opening=3 moves=3 validate_every=400
  train speech2vid speech2vid start=speech2vid-lab steps=296 lr=0.0002 mouth=4 opening=3 validate_every=148
) &
train wav2lip half steps=733 lr=0.001 sync_from=150 sync_over=300 $teacher validate_every=366
train wav2lip wav2lip "start=$out/half/best.safetensors" steps=733 lr=0.0006 sync_over=1 $teacher validate_every=244
train wav2lip wav2lip-gan "start=$out/half/best.safetensors" steps=733 lr=0.0006 sync_over=1 $teacher \
  quality=0.12 matching=0.05 hears=true ramp=150 validate_every=244
wait
export_as lipgan lipgan-equal bf16
export_as speech2vid speech2vid-equal bf16 --part sharpener=speech2vid-sharpener-lab
export_as wav2lip wav2lip-equal int8
export_as wav2lip-gan wav2lip-gan-equal int8
