#!/usr/bin/env bash
# The long reliability tests (docs/reliability.md), about an hour on two cores. The fuzzing needs `pip install atheris`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
if wants_help "$@"; then show_help; exit; fi
need_environment
if ! python -c 'import atheris' 2>/dev/null; then
  echo "run_fault_tests.sh needs atheris for its last part. It is not installed. Install it: pip install atheris" >&2
  exit 2
fi
python tests/faults/crash.py --trials 120
python tests/faults/stress.py bits
python tests/faults/stress.py memory
python tests/faults/fuzz.py --seconds 700
