#!/usr/bin/env bash
# The reliability tests in full (docs/reliability.md has the counts of the last time).
set -euo pipefail
cd "$(dirname "$0")/.."
python tests/faults/crash.py --trials 120
