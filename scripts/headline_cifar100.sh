#!/usr/bin/env bash
# The headline run: train a U-ViT from scratch on CIFAR-100, sample under a scaled budget, select, judge, keep the record.
#
# Made for a GPU that is lent in chunks: every call trains for CHUNK seconds at most, CHUNKS calls in all, each going on
# where the last stopped; the call after the last chunk samples and judges. Nothing finished is done again.
#
#   scripts/headline_cifar100.sh            one chunk, or what follows the last one
#   ALL=1 scripts/headline_cifar100.sh      everything at once
#
# At the scale of a CPU, on Fashion-MNIST:
#   ALL=1 NAME=fashion_mnist_headline DATA=idx:/usr/share/datasets/fashion-mnist CONFIG=configs/gen/fashion_mnist.yaml \
#     CHUNK=300 CHUNKS=2 BUDGET=60s EVALUATIONS=20 POOL_STEPS=500 scripts/headline_cifar100.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
NAME=${NAME:-cifar100_headline}
DATA=${DATA:-parquet:../shared/data/cifar100}
CONFIG=${CONFIG:-configs/gen/cifar100_fast.yaml}
CHUNK=${CHUNK:-510} CHUNKS=${CHUNKS:-3}     # seconds of training per call, and calls
BUDGET=${BUDGET:-120s}                      # of sampling; the challenge allows 10 minutes
EVALUATIONS=${EVALUATIONS:-25}              # network evaluations per image
POOL_STEPS=${POOL_STEPS:-4000}              # of each classifier on the whole pool: the challenge protocol, cut to this
WORK=${WORK:-runs/$NAME} OUT=results/$NAME
export PATH="$PWD/.venv/bin:$PATH"

once() {  # once FILE COMMAND...: run it unless FILE is there
    local file=$1
    shift
    [ -e "$file" ] || { echo "\$ $*"; "$@"; }
}

# Train, a chunk per call.
mkdir -p "$WORK"
for chunk in $(seq "$CHUNKS"); do
    [ -e "$WORK/chunk-$chunk" ] && continue
    echo "chunk $chunk of $CHUNKS"
    gendd train --config "$CONFIG" --data "$DATA" --max_seconds "$CHUNK" --out "$WORK/train" \
        $([ -e "$WORK/train/config.yaml" ] && echo --resume)
    touch "$WORK/chunk-$chunk"
    [ -n "${ALL:-}" ] || exit 0
done

# Sample inside the budget, select ipc 10.
once "$WORK/pool/grid.png" gendd sample --model "$WORK/train" --budget "$BUDGET" --steps "$EVALUATIONS" --out "$WORK/pool"
for selector in random herding; do
    once "$WORK/$selector/distilled.safetensors" gendd select --data "$DATA" --pool "$WORK/pool" --selector "$selector" \
        --ipc 10 --out "$WORK/$selector/distilled.safetensors"
    once "$WORK/$selector/scores.json" gendd evaluate --data "$DATA" --protocol challenge --set "$WORK/$selector" \
        --name "generated, $selector ipc 10"
done
once "$WORK/pool/scores.json" gendd evaluate --data "$DATA" --protocol challenge --steps "$POOL_STEPS" --set "$WORK/pool" \
    --name "generated pool, $BUDGET; challenge protocol cut to $POOL_STEPS steps"

# Keep scores, pictures, curves, and the weights in fp16, in files under 16 MiB (cat them together again).
rm -rf "$OUT"
mkdir -p "$OUT/model"
for set in random herding pool; do cp "$WORK/$set/scores.json" "$OUT/$set.json"; done
cp "$WORK/pool/grid.png" "$WORK/train/stats.jsonl" "$WORK/train/config.yaml" "$OUT"
python - "$WORK/train/model" "$OUT/model" <<'PYTHON'
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

source, target = map(Path, sys.argv[1:])
shutil.copy(source / "config.json", target)
weights = load_file(next(source.rglob("*.safetensors")))
save_file({name: tensor.half() for name, tensor in weights.items()}, target / "fp16.safetensors")
PYTHON
split --bytes 15M --numeric-suffixes "$OUT/model/fp16.safetensors" "$OUT/model/fp16.safetensors.part-"
rm "$OUT/model/fp16.safetensors"
gendd report "$WORK" --runs "$WORK/train" --title "$NAME" --out "$OUT/report"
