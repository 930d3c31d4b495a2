#!/bin/sh
# lipgan-lab: sh scripts/recipes/lipgan-lab.sh ARRAYS OUT (arrays of data.sh). As run on 2026-12-01: one thread with AMX
# beside other work, about 17 faces a second; the parts were stopped at steps 1,200, 1,900 and 3,601. The second brought
# nothing by itself: docs/log.md.
set -eu
PY=${PY:-.venv/bin/python}
run="--data $1 --run $2/lipgan --threads 1"
$PY -m train lipgan $run --minutes 33 batch=24 heard=40 mouth=4 opening=3 steps=4300 lr=0.0006 warmup=50 \
  validate_every=500 save_every=100
$PY -m train lipgan $run --resume --minutes 16 steps=2900 lr=0.0008 shapes=0.5
$PY -m train lipgan $run --resume --minutes 40 steps=3800 lr=0.001 shapes=0.2 moves=3 mouth=6 validate_every=400
$PY -m train export "$2/lipgan" --data "$1" --name lipgan-lab --form bf16
