# What the scripts share; they source it from the root of the repository. A script's help is its header.

show_help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "scripts/${0##*/}"
}

wants_help() {
  local word
  for word in "$@"; do
    case $word in -h | --help) return 0 ;; esac
  done
  return 1
}

need_environment() {
  if python -c 'import tyro' 2>/dev/null; then return; fi
  local found
  found=$(command -v python) && found="$found lacks them" || found="There is no command python"
  echo "${0##*/} needs the packages of requirements.txt. $found. Activate the environment that has them" \
    "(\`. .venv/bin/activate\`), or make it: python3 -m venv .venv && . .venv/bin/activate &&" \
    "pip install -r requirements.txt" >&2
  exit 2
}
