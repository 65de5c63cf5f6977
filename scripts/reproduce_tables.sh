#!/usr/bin/env bash
# The paper's tables and figures from one command: sweeps, measurements, tables, figures, report.
#   scripts/reproduce_tables.sh [--model menagerie] [--suite menagerie] [--device cuda] [--seeds 0,1,2] [--pack 4] [...]
#   scripts/reproduce_tables.sh --frameworks [--model M] [--limit 4] [--seeds 0,1,2] [--n_steps N] [--only vsd]
# The second line: Figs. 9, 10, 11 and 15, the paper's other frameworks, each beside its debiased runs, with the score
# alone and with prompts too, and one table of success rate, A-LPIPS and clipped share, in
# results/MODEL-SUITE/frameworks/. More in docs/frameworks.md.
# More options go to run_prompts.sh; presets, prompts and the folder of the runs are set here.
# With Stable Diffusion: scripts/reproduce_tables.sh --model sd15 --suite dsds70
# The same command goes on where it stopped. Results go to results/MODEL-SUITE/ (with --n_steps N to
# results/MODEL-SUITE-Nsteps/), over what is there; labels in results/MODEL-SUITE/labels* are counted in if they are of these
# very objects.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
if wants_help "$@"; then show_help; exit; fi
need_environment
for word in "$@"; do
  if [ "$word" = --frameworks ]; then
    rest=()
    for word in "$@"; do if [ "$word" != --frameworks ]; then rest+=("$word"); fi; done
    python scripts/get_lpips_backbones.py || echo "torchvision's own cache or download will have to do" >&2
    exec python -m sjc_debiased.compare_frameworks ${rest[@]+"${rest[@]}"}
  fi
done
words=()
for word in "$@"; do  # --run-root=X and --run_root X are the same option
  case $word in
    --*=*) body=${word%%=*} body=${body#--}; words+=("--${body//-/_}" "${word#*=}") ;;
    --*) body=${word#--}; words+=("--${body//-/_}") ;;
    *) words+=("$word") ;;
  esac
done
set -- ${words[@]+"${words[@]}"}
model=menagerie suite= steps= rest=() device=()
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=${2:?--model needs a value}; shift 2 ;;
    --suite) suite=${2:?--suite needs a value}; shift 2 ;;
    --n_steps) steps=-${2:?--n_steps needs a value}steps; rest+=("$1" "$2"); shift 2 ;;
    --device) rest+=("$1" "${2:?--device needs a value}"); device=(--device "$2"); shift 2 ;;
    --presets | --limit | --run_root | --plan | --shard)
      echo "reproduce_tables.sh runs whole tables. Received $1. Leave it out, or use scripts/run_prompts.sh." >&2
      exit 2 ;;
    *) rest+=("$1"); shift ;;
  esac
done
case $model in menagerie | menagerie-pixels) embedded=1 ;; *) embedded= ;; esac
if [ -z "$suite" ]; then
  if [ "$embedded" ]; then suite=menagerie; else suite=dsds70; fi
fi
if [ "$model" = auto ]; then
  echo "reproduce_tables.sh needs a model by its name, which its results are called by. Received auto. Leave --model out, or name one." >&2
  exit 2
fi
name="${model//\//-}-$(basename "$suite" .json)$steps"
skip=(--skip success) clip=(--clip laion/CLIP-ViT-B-32-laion2B-s34B-b79K)
if [ "$embedded" ]; then
  skip=() clip=()
  for part in judge clip; do
    if [ ! -e "sjc_debiased/menagerie/weights/$part" ]; then
      echo "The menagerie's $part is not trained: scripts/train_menagerie.sh --stages $part" >&2
      exit 2
    fi
  done
fi
python scripts/get_lpips_backbones.py || echo "torchvision's own cache or download will have to do" >&2
measure=(python -m sjc_debiased.evaluation.measure "runs/$name" ${skip[@]+"${skip[@]}"} ${clip[@]+"${clip[@]}"} ${device[@]+"${device[@]}"})
"${measure[@]}" --check

sweep() {  # 1 means that some runs failed, which the tables survive; refusals and Ctrl-C stop here
  scripts/run_prompts.sh --model "$model" --suite "$suite" --run_root "runs/$name" --alike ${rest[@]+"${rest[@]}"} "$@" || {
    code=$?
    if [ "$code" -ne 1 ]; then exit "$code"; fi
  }
}
sweep --presets sjc,dsds,score-only,prompt-only,dsds-preserved
sweep --presets static-low,static-high --limit 12
"${measure[@]}"
labels=()
for found in "results/$name"/labels*/labels.json; do
  if [ ! -e "$found" ]; then continue; fi
  if python -m sjc_debiased.evaluation.labels check "runs/$name" "${found%/labels.json}"; then
    labels+=("${found%/labels.json}")
  else
    echo "The tables are made without ${found%/labels.json}." >&2
  fi
done
if [ ${#labels[@]} -gt 0 ]; then labels=(--labels "${labels[@]}"); fi
python -m sjc_debiased.evaluation.results "runs/$name" "results/$name" ${labels[@]+"${labels[@]}"}
