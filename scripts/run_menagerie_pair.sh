#!/usr/bin/env bash
# Make a picture of one prompt and several seeds, each with SJC and below it with D-SDS, on the embedded model.
#   scripts/run_menagerie_pair.sh OUT.png ["a smiling cat"] ["0,1,2"]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
if wants_help "$@"; then show_help; exit; fi
need_environment
out=${1:?the picture needs a name: OUT.png} prompt=${2:-a smiling cat} seeds=${3:-0,1,2}
root="runs/pair-${prompt// /-}-${seeds//,/-}"
mkdir -p "$(dirname "$out")"
for preset in sjc dsds; do
  python run_sjc.py --model menagerie --prompt "$prompt" --seeds "$seeds" --pack 3 --preset "$preset" --run_root "$root"
done
python scripts/suite_sheet.py "$out" "$root" --prompts "$prompt" --seeds ${seeds//,/ } --pixels 128 --below
