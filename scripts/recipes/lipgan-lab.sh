#!/bin/sh
# lipgan-lab: sh scripts/recipes/lipgan-lab.sh ARRAYS OUT (arrays of data.sh). As run on 2026-12-01: one thread with AMX
# beside other work, about 16 faces a second; what a second wind brought is in docs/log.md.
set -eu
PY=${PY:-.venv/bin/python}
$PY -m train lipgan --data "$1" --run "$2/lipgan" --threads 1 --minutes "${MINUTES:-33}" \
  batch=24 heard=40 mouth=4 opening=3 steps=4300 lr=0.0006 warmup=50 validate_every=500 save_every=100
$PY -m train lipgan --data "$1" --run "$2/lipgan" --threads 1 --resume --minutes "${MINUTES:-42}" \
  shapes=0.5 lr=0.0008 steps=2900
$PY -m train export "$2/lipgan" --data "$1" --name lipgan-lab --form bf16
