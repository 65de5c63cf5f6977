#!/usr/bin/env bash
# Make an object for every prompt of a suite, preset and seed. The same command goes on where it stopped.
#   scripts/run_prompts.sh --suite dsds70 --presets sjc,dsds-preserved,dsds --seeds 0,1,2 --model sd15
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need_environment
exec python -m sjc_debiased.sweep "$@"
