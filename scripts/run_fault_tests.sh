#!/usr/bin/env bash
# The reliability tests in full.
set -euo pipefail
cd "$(dirname "$0")/.."
python tests/faults/crash.py --trials 120
