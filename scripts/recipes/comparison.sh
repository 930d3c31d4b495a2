#!/bin/sh
# The papers' systems on one set: sh scripts/recipes/comparison.sh [SET [PAIRS]] (starter, which is in the repository; lab,
# where its clips are; all pairs). Prints the table of docs/comparison.md, the closure at p, b, m, and what the papers print.
set -eu
PY=${PY:-.venv/bin/python}
SET=${1:-starter}
$PY -m resynced run --set "$SET" ${2:+--limit "$2"} --workers "${WORKERS:-2}" --system \
  speech2vid-lab speech2vid-context-lab lipgan-lab wav2lip-lab wav2lip-gan-lab wav2lip-warp-lab
$PY -m resynced leaderboard --set "$SET"
[ "$SET" != starter ] || $PY -m resynced closure --set "$SET"
$PY -m resynced leaderboard --published
