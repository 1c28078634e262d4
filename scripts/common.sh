# Shared by scripts/demo and scripts/test: a virtual environment in .venv with the locked packages.
# usage: prepare_environment LOCK EXTRA   (LOCK: a requirements file; EXTRA: "" or "[test]")
sha256() { # of standard input; some macOS have shasum alone
  if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi
}

prepare_environment() {
  local lock=$1 extra=$2 stamp new
  local python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "Python 3.11 or later is needed; set PYTHON to one (found: $("$python" --version 2>&1))." >&2
    exit 2
  }
  stamp=$(cat "$lock" pyproject.toml | sha256 | cut -c1-16)
  if [ ! -x .venv/bin/python ]; then
    new=yes
    if [ -e .venv ] || [ -L .venv ]; then new=no; fi
    "$python" -m venv .venv || {
      # What is half made would pass for an environment the next time.
      if [ "$new" = yes ]; then rm -rf .venv; fi
      echo "The virtual environment .venv could not be made with $python." >&2
      echo "On Debian and Ubuntu install the package python3-venv, then run the same command again." >&2
      exit 2
    }
  fi
  if [ "$(cat ".venv/.installed$extra" 2>/dev/null)" != "$stamp" ]; then
    .venv/bin/python -c 'import pip' 2>/dev/null || {
      echo "There is no pip in .venv: remove the folder .venv and run the same command again." >&2
      echo "On Debian and Ubuntu the package python3-venv is needed as well." >&2
      exit 2
    }
    echo "Installing the locked packages into .venv (several GB; a few minutes the first time) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    # setuptools comes from the lock, so the build needs no index of its own.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    echo "$stamp" >".venv/.installed$extra"
  fi
}
