# Shared by scripts/demo and scripts/test: a virtual environment in .venv with the locked packages.
# usage: prepare_environment LOCK EXTRA   (LOCK: a requirements file; EXTRA: "" or "[test]")
prepare_environment() {
  local lock=$1 extra=$2 stamp
  local python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "Python 3.11 or later is needed; set PYTHON to one (found: $("$python" --version 2>&1))." >&2
    exit 2
  }
  stamp=$(cat "$lock" pyproject.toml | sha256sum | cut -c1-16)
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  if [ "$(cat ".venv/.installed$extra" 2>/dev/null)" != "$stamp" ]; then
    echo "Installing the locked packages into .venv (several GB; a few minutes the first time) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    # setuptools comes from the lock, so the build needs no index of its own.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    echo "$stamp" >".venv/.installed$extra"
  fi
}
