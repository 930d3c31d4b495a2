#!/bin/sh
# lipgan-lab: sh scripts/recipes/lipgan-lab.sh ARRAYS OUT (arrays of data.sh). Not yet run to an end that is
# worth shipping: docs/training.md.
set -eu
PY=${PY:-.venv/bin/python}
$PY -m train lipgan --data "$1" --run "$2/lipgan" --threads 2 --minutes "${MINUTES:-18}" \
  steps=6000 lr=0.0006 warmup=50 validate_every=400 save_every=100
$PY -m train export "$2/lipgan" --data "$1" --name lipgan-lab --form bf16
