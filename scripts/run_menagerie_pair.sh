#!/usr/bin/env bash
# Make the README's picture: the same prompt and seed with SJC and with D-SDS, on the embedded model.
#   scripts/run_menagerie_pair.sh ["a smiling cat"] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
prompt=${1:-a smiling cat} seed=${2:-0}
for preset in sjc dsds; do
  python run_sjc.py --model menagerie --prompt "$prompt" --seed "$seed" --preset "$preset"
done
