#!/bin/sh
# Arrays for every recipe beside this one, from a manifest of clips: sh scripts/recipes/data.sh MANIFEST.csv OUT
# On two cores with AVX512: 1,885 clips in 11 minutes beside light work, 40 beside three other jobs.
set -eu
PY=${PY:-.venv/bin/python}
$PY -m train preprocess "$1" "$2/clips" --workers 2 --splits teach tune val test
$PY -m train unpack "$2/clips" "$2/arrays"
$PY -m train correct --data "$2/arrays" --expert expert-lab --zero grid
