#!/bin/sh
# lipgan-lab: sh scripts/recipes/lipgan-lab.sh ARRAYS OUT (arrays of data.sh). As run on 2026-12-01: one thread with AMX
# beside other work, about 17 faces a second, 84 minutes in all. The second part brought nothing by itself: docs/log.md.
set -eu
PY=${PY:-.venv/bin/python}
run="--data $1 --run $2/lipgan --threads 1"
$PY -m train lipgan $run batch=24 heard=40 mouth=4 opening=3 steps=1200 lr=0.0006 warmup=50 save_every=100
$PY -m train lipgan $run --resume steps=1900 lr=0.0008 shapes=0.5
$PY -m train lipgan $run --resume steps=3601 lr=0.001 shapes=0.2 moves=3 mouth=6 validate_every=400
$PY -m train export "$2/lipgan" --data "$1" --name lipgan-lab --form bf16
