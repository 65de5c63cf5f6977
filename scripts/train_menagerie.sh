#!/usr/bin/env bash
# Make the embedded models from nothing: photos, autoencoder, diffusion model, masked language model, CLIP,
# judge, pixel model, report. Resumable: the same command goes on where it stopped. Many hours on two CPU cores.
#   scripts/train_menagerie.sh [--stages diffusion ...] [--work FOLDER] [--out FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
need_environment
exec python -m sjc_debiased.menagerie.train "$@"
