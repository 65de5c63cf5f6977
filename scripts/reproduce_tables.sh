#!/usr/bin/env bash
# The paper's tables and figures from one command: sweeps, measurements, tables, figures, report.
#   scripts/reproduce_tables.sh [--model menagerie] [more options of run_prompts.sh, such as --pack 4]
# With Stable Diffusion: scripts/reproduce_tables.sh --model sd15 --suite dsds70
# The same command goes on where it stopped. Results go to results/MODEL/.
set -euo pipefail
cd "$(dirname "$0")/.."
model=menagerie suite= rest=()
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=$2; shift 2 ;;
    --suite) suite=$2; shift 2 ;;
    *) rest+=("$1"); shift ;;
  esac
done
if [ -z "$suite" ]; then
  if [ "$model" = menagerie ]; then suite=menagerie; else suite=dsds70; fi
fi
runs="runs/tables-${model//\//-}"
skip=(--skip success)
clip=(--clip openai/clip-vit-base-patch32)
if [ "$model" = menagerie ]; then skip=() clip=(); fi
common=(--model "$model" --suite "$suite" --run_root "$runs" "${rest[@]}")
failed=0
scripts/run_prompts.sh "${common[@]}" --presets sjc,dsds-preserved,dsds || failed=1
scripts/run_prompts.sh "${common[@]}" --presets score-only,prompt-only,static-low,static-high --limit 6 || failed=1
python scripts/get_lpips_backbones.py
python -m sjc_debiased.evaluation.measure "$runs" "${skip[@]}" "${clip[@]}"
python -m sjc_debiased.evaluation.results "$runs" "results/${model//\//-}"
exit "$failed"
