#!/usr/bin/env bash
# refract and the Python tools in turns on one machine (`just bench-peers`): the training step against SAELens and
# sparsify, then the harvest (f32 and int8) against transformers and SAELens.
#
#   trainer/benches/peers.sh [ROUNDS]      3 rounds unless told otherwise
#
# A machine's speed drifts by 15-20 % within an hour, so compare only numbers of one run, and leave the machine
# otherwise idle. Needs three variables:
#   PEERS_DIR         the folder of the tools' programs: 04_harvest.py, 06_sae_speed.py, ..
#   PEERS_MODELS_DIR  the models and activations that the README in that folder makes
#   PY                the python that the tools are installed in
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

rounds=${1:-3}
fail() {
    printf 'trainer/benches/peers.sh: %s\n' "$*" >&2
    exit 1
}
for name in PEERS_DIR PEERS_MODELS_DIR PY; do
    [[ -n ${!name:-} ]] || fail "set $name: the first lines of this file say to what"
done
for program in 04_harvest.py 06_sae_speed.py 12_llamacpp.py; do
    [[ -f $PEERS_DIR/$program ]] || fail "PEERS_DIR, $PEERS_DIR, has no $program"
done

tool() {
    echo "> $*"
    (cd "$PEERS_DIR" && "$PY" "$@")
}

cargo bench --workspace --bench harvest --bench peers --bench decode --no-run
cargo bench --workspace --bench peers -- "$rounds"
for round in $(seq "$rounds"); do
    echo "=== harvest, round $round of $rounds ==="
    tool 04_harvest.py --impl hf --batch 8 --ctx 256 --tokens 4096
    tool 04_harvest.py --impl hf-parquet --batch 8 --ctx 256 --tokens 8192
    tool 04_harvest.py --impl saelens --batch 8 --ctx 256 --tokens 8192
    cargo bench --workspace --bench harvest -- --only 8x256
    tool 04_harvest.py --impl hf --batch 2 --ctx 1024 --tokens 4096
    cargo bench --workspace --bench harvest -- --only 2x1024
    echo "=== decode, round $round of $rounds ==="
    tool 12_llamacpp.py
    tool 12_llamacpp.py --streams 8
    tool 12_llamacpp.py --prompt-tokens 512 --new 1
    cargo bench --workspace --bench decode -- --compute int8
done
