#!/usr/bin/env bash
# A virtual environment with the tested set of requirements.txt and cogit itself. Running it again
# does only what is missing: nothing, unless requirements, sources or options changed.
#
#   scripts/setup.sh [--venv DIR] [--python PYTHON] [--extras NAMES] [--force] [--dry-run]
#
# --venv      folder of the environment (.venv of this checkout)
# --python    the interpreter to make it with (python3), at least 3.11
# --extras    extras of cogit, with commas: test, datasets (none)
# --force     install again although nothing changed
# --dry-run   say what would be done, and do nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv python=python3 extras='' force=0 dry=0

fail() {
  echo "error: [setup] $*" >&2
  exit 2
}

while (($#)); do
  case $1 in
    --venv | --python | --extras)
      (($# > 1)) || fail "expected a value after $1, got none"
      declare "${1#--}=$2"
      shift
      ;;
    --force) force=1 ;;
    --dry-run) dry=1 ;;
    -h | --help)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) fail "expected --venv, --python, --extras, --force or --dry-run, got $1" ;;
  esac
  shift
done

run() {
  if ((dry)); then
    printf 'would run:'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# What an installed environment was made of: every file that the package is built from.
state() {
  {
    echo "extras=$extras"
    find requirements.txt pyproject.toml CMakeLists.txt README.md LICENSE cmake csrc python/cogit \
      vendor -type f ! -name '*.pyc' ! -name '*.so' ! -path 'python/cogit/_llama/*' -print0 |
      LC_ALL=C sort -z | xargs -0 sha256sum
  } | sha256sum | cut -d ' ' -f 1
}

[[ $extras =~ ^[a-z,]*$ ]] || fail "expected names of extras with commas, got $extras"
[[ -n $venv ]] || fail "expected a folder as --venv, got none"
command -v "$python" >/dev/null || fail "expected an interpreter, got $python, which is not found"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "expected Python 3.11 or later, got $("$python" -V 2>&1); name another with --python"
if [[ -e $venv && ! -f $venv/pyvenv.cfg ]]; then
  fail "expected a virtual environment or a new folder, got $venv; choose another with --venv"
fi

mark=$venv/.cogit-setup
wanted=$(state)
if [[ -f $venv/pyvenv.cfg && -x $venv/bin/python ]]; then
  echo "environment  $venv is there"
else
  run "$python" -m venv "$venv"
fi
if ((!force)) && [[ -f $mark && $(<"$mark") == "$wanted" ]]; then
  echo "packages     nothing changed since they were installed"
else
  # Without the mark an interrupted install is done again.
  run rm -f "$mark"
  run "$venv/bin/python" -m pip install -r requirements.txt ".${extras:+[$extras]}"
  ((dry)) || printf '%s\n' "$wanted" >"$mark"
fi
run "$venv/bin/cogit" --version
