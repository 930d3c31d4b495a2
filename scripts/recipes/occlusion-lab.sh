#!/bin/sh
# occlusion-lab, which finds what lies before a face: sh scripts/recipes/occlusion-lab.sh ARRAYS OUT (arrays of data.sh).
# As run on 2026-12-01: 154 clips of 61 people, two to six of each; one thread beside other work, 60 to 140 faces a
# second. The first part drew fewer fingers and letters and none of the own skin; the second was stopped at step 4,500.
set -eu
PY=${PY:-.venv/bin/python}
common="--data $1 --threads 1"
$PY -m train occlusion $common --run "$2/first" steps=1500 warmup=50 validate_every=150 save_every=75
$PY -m train occlusion $common --run "$2/occlusion" steps=5000 start="$2/first/best.safetensors" warmup=50 \
  validate_every=250 save_every=125
$PY -m train export "$2/occlusion" --data "$1" --name occlusion-lab --form bf16
