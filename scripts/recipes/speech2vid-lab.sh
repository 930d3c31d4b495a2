#!/bin/sh
# speech2vid-lab, speech2vid-context-lab and their sharpener: sh scripts/recipes/speech2vid-lab.sh ARRAYS OUT (arrays of
# data.sh). As run on 2026-12-01: one thread with AMX beside other work, about 20 faces a second; the parts were stopped
# at steps 1,904, 1,000 and 2,200, and 288.
set -eu
PY=${PY:-.venv/bin/python}
common="heard=40 mouth=4 opening=3 lr=0.0008 warmup=50 validate_every=325 save_every=100"
$PY -m train speech2vid --data "$1" --run "$2/s2v" --threads 1 --minutes 38 steps=1950 $common
context="--data $1 --run $2/s2vc --threads 1"
$PY -m train speech2vid $context --minutes 20 context=true width=18 steps=1450 $common
$PY -m train speech2vid $context --resume --minutes 22 steps=2200 shapes=0.3 mouth=8
$PY -m train sharpener --data "$1" --run "$2/sharp" --threads 1 --minutes 3 steps=700 warmup=20 validate_every=150 \
  save_every=100
$PY -m train export "$2/sharp" --data "$1" --name speech2vid-sharpener-lab --form bf16
$PY -m train export "$2/s2v" --data "$1" --name speech2vid-lab --form bf16 --part sharpener=speech2vid-sharpener-lab
$PY -m train export "$2/s2vc" --data "$1" --name speech2vid-context-lab --form bf16 \
  --part sharpener=speech2vid-sharpener-lab
