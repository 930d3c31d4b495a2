#!/bin/sh
# Not yet run. speech2vid-lab, speech2vid-context-lab and their sharpener: sh scripts/recipes/speech2vid-lab.sh ARRAYS OUT
set -eu
PY=${PY:-.venv/bin/python}
common="steps=4000 lr=0.0008 warmup=50 validate_every=300 save_every=100"
$PY -m train speech2vid --data "$1" --run "$2/s2v" --threads 2 --minutes "${MINUTES:-14}" $common
$PY -m train speech2vid --data "$1" --run "$2/s2vc" --threads 2 --minutes "${MINUTES:-14}" context=true width=18 $common
$PY -m train sharpener --data "$1" --run "$2/sharp" --threads 2 --minutes 4 \
  steps=1500 warmup=20 validate_every=150 save_every=100
$PY -m train export "$2/sharp" --data "$1" --name speech2vid-sharpener-lab --form bf16
$PY -m train export "$2/s2v" --data "$1" --name speech2vid-lab --form bf16 --part sharpener=speech2vid-sharpener-lab
$PY -m train export "$2/s2vc" --data "$1" --name speech2vid-context-lab --form bf16 \
  --part sharpener=speech2vid-sharpener-lab
