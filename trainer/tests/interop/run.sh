#!/usr/bin/env bash
# SAEs of other tools (`just interop-saes`): makes the reference vectors in trainer/tests/fixtures/formats again, reads
# them, and lets each tool open the SAEs that refract converts and trains. Needs Python 3.11 and 3 GB for its packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

built=${CARGO_TARGET_DIR:-target}/release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3.11 -m venv .venv-saes
.venv-saes/bin/pip install -r trainer/tests/interop/requirements.txt
.venv-saes/bin/python trainer/tests/interop/formats.py make
git status --short trainer/tests/fixtures/formats
cargo test --release --workspace --test formats
cargo build --release --workspace
cargo build --release --workspace --example encode
.venv-saes/bin/python trainer/tests/interop/formats.py check "$built/refract" "$work"

# SAEs trained by refract on a tiny model, one of each architecture that SAELens has.
"$built/refract" harvest --model tests/fixtures/tiny/llama --corpus data/corpora/speeches.jsonl \
    --hook-point blocks.1.hook_resid_post --out "$work/acts" --ctx-len 32 --tokens 4096
compare() { .venv-saes/bin/python trainer/tests/interop/saelens.py "$@"; }
x=$work/x.safetensors
ours=$work/ours.safetensors
for arch in topk batch-topk matryoshka relu jumprelu gated; do
    sae=$work/$arch
    "$built/refract" train --activations "$work/acts" --arch "$arch" --out "$sae" \
        --d-sae 64 --k 4 --batch 256 --tokens 65536
    compare --make-x "$sae" "$x"
    "$built/examples/encode" "$sae" "$x" "$ours"
    compare "$sae" "$x" "$ours"
done
