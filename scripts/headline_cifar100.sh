#!/usr/bin/env bash
# The headline run: train a U-ViT from scratch on CIFAR-100, tune it into a consistency model, sample both under one scaled
# budget, select, judge, keep the record.
#
# Made for a GPU that is lent in chunks: every call trains for CHUNK seconds at most, CHUNKS calls in all, each going on
# where the last stopped; the call after the last chunk tunes, samples and judges. Nothing finished is done again, and what
# was killed goes on. By default 21 minutes of training in three calls, 5 of tuning, twice 3 of sampling, and some for
# starting, compiling and judging.
#
#   scripts/headline_cifar100.sh            one chunk, or what follows the last one
#   ALL=1 scripts/headline_cifar100.sh      everything at once
#
# At the scale of one CPU core, on Fashion-MNIST, in half an hour:
#   ALL=1 NAME=fashion_mnist_headline DATA=idx:/usr/share/datasets/fashion-mnist \
#     CONFIG=configs/gen/fashion_mnist_cpu.yaml CHUNK=240 CHUNKS=2 BUDGET=60s EVALUATIONS=20 IPC_STEPS=50 POOL_STEPS=60 \
#     RUNS=2 scripts/headline_cifar100.sh
#
# It leaves in OUT (results/NAME), in a folder per set, scores.json (without curves and confusion matrix, which the report
# has) and the pool's grid.jpg; in train/ and tuned/ stats.jsonl, config.yaml and learnt.json (what its samples show of the
# classes); and in model/ the weights in fp16, in files under 16 MiB that UViT.from_pretrained reads as they are; in WORK,
# the report with pictures and curves.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NAME=${NAME:-cifar100_headline}
DATA=${DATA:-cifar100}
CONFIG=${CONFIG:-configs/gen/cifar100_fast.yaml}
CHUNK=${CHUNK:-420} CHUNKS=${CHUNKS:-3}     # seconds of training per call, and calls: 21 minutes, and some for starting
TRAIN=${TRAIN:-}                            # more options of gendd train
TUNE=${TUNE:-"--max_seconds 300 --iterations 6000 --anneal 0.5"} # options of gendd tune
BUDGET=${BUDGET:-180s}                      # of sampling, 2 minutes of which compiling wants; the challenge allows 10
EVALUATIONS=${EVALUATIONS:-25}              # network evaluations per image, and of the tuned model
FEW=${FEW:-2}
SELECTORS=${SELECTORS:-random herding}      # how ipc 10 is chosen from the pool
IPC_STEPS=${IPC_STEPS:-}                    # of each classifier at ipc 10; empty: the whole challenge protocol
POOL_STEPS=${POOL_STEPS:-4000}              # of each classifier on the whole pool: the challenge protocol, cut to this
RUNS=${RUNS:-}                              # classifiers per score; empty: the challenge's 3
TOGETHER=${TOGETHER:-}                      # not empty: judge all sets at once, each in a process of its own
WORK=${WORK:-runs/$NAME} OUT=${OUT:-results/$NAME}

judge() {  # judge FOLDER NAME STEPS: score a set by the challenge protocol, cut to STEPS where given
    once "$1/scores.json" gendd evaluate --data "$DATA" --protocol challenge ${3:+--iterations "$3"} ${RUNS:+--classifiers "$RUNS"} \
        --set "${1/#$WORK\/real/real}" --name "$2" --out "$1/scores.json"
}

# Train, a chunk per call, on all training images: nothing is chosen here, so none are kept aside.
mkdir -p "$WORK"
for chunk in $(seq "$CHUNKS"); do
    [ -e "$WORK/chunk-$chunk" ] && continue
    echo "chunk $chunk of $CHUNKS"
    # shellcheck disable=SC2086
    gendd train --config "$CONFIG" --data "$DATA" --eval_every 0 --eval_ipc 0 --val_fraction 0 \
        --max_seconds $((CHUNK * CHUNKS)) --chunk_seconds "$CHUNK" $TRAIN \
        --out "$WORK/train" $(resume "$WORK/train/config.yaml")
    touch "$WORK/chunk-$chunk"
    [ -n "${ALL:-}" ] || exit 0
done

# Tune, sample inside the budget, select ipc 10, judge.
if [ ! -e "$WORK/tuned.finished" ]; then
    # shellcheck disable=SC2086
    gendd tune --init_from "$WORK/train" --data "$DATA" $TUNE --out "$WORK/tuned" $(resume "$WORK/tuned/config.yaml")
    touch "$WORK/tuned.finished"
fi
once "$WORK/pool/summary.txt" gendd sample --model "$WORK/train" --budget "$BUDGET" --steps "$EVALUATIONS" \
    --out "$WORK/pool" $(resume "$WORK/pool")
once "$WORK/few_pool/summary.txt" gendd sample --model "$WORK/tuned" --budget "$BUDGET" --solver consistency --steps "$FEW" \
    --out "$WORK/few_pool" $(resume "$WORK/few_pool")
judges=() sets=(real)
mkdir -p "$WORK/real"
judge "$WORK/real" "whole training set" "$POOL_STEPS" & judges+=($!)
[ -n "$TOGETHER" ] || wait $!
for pool in pool few_pool; do
    sets+=("$pool")
    judge "$WORK/$pool" "$pool, $BUDGET" "$POOL_STEPS" & judges+=($!)
    [ -n "$TOGETHER" ] || wait $!
    for selector in $SELECTORS; do
        name=${pool%pool}$selector
        sets+=("$name")
        once "$WORK/$name/distilled.safetensors" gendd select --data "$DATA" --pool "$WORK/$pool" \
            --selector "$selector" --ipc 10 --out "$WORK/$name/distilled.safetensors"
        judge "$WORK/$name" "$pool, $selector ipc 10" "$IPC_STEPS" & judges+=($!)
        [ -n "$TOGETHER" ] || wait $!
    done
done
for judged in "${judges[@]}"; do wait "$judged"; done

# Keep scores, picture, curves, and the weights: all of it is made in WORK, then takes the place of what was there.
KEPT=$WORK/kept
rm -rf "$KEPT" "$WORK/report"
mkdir -p "$KEPT" "$(dirname "$OUT")"
mkdir "${sets[@]/#/$KEPT/}"
for pool in pool few_pool; do cp "$WORK/$pool/summary.txt" "$KEPT/$pool"; done
for run in train tuned; do
    mkdir "$KEPT/$run"
    cp "$WORK/$run/stats.jsonl" "$WORK/$run/config.yaml" "$KEPT/$run"
    [ ! -e "$WORK/$run/learnt.json" ] || cp "$WORK/$run/learnt.json" "$KEPT/$run"
done
python - "$WORK" "$KEPT" "${sets[@]}" <<'PYTHON'
import json
import shutil
import sys
from pathlib import Path

from PIL import Image

from gen_dd import UViT

work, kept = map(Path, sys.argv[1:3])
for name in sys.argv[3:]:
    score = json.loads((work / name / "scores.json").read_text())
    short = {key: value for key, value in score.items() if key not in ("answers", "curves", "curve_steps", "config")}
    (kept / name / "scores.json").write_text(json.dumps(short))
for name in ("pool", "few_pool"):
    Image.open(work / name / "grid.png").convert("RGB").save(kept / name / "grid.jpg", quality=85)
shutil.copytree(work / "train" / "model", kept / "model", ignore=shutil.ignore_patterns("*.safetensors"))
UViT.from_pretrained(work / "train" / "model").half().save_pretrained(kept / "model", max_shard_size="15MB")
PYTHON
gendd report "${sets[@]/#/$WORK/}" --curves "$WORK/train" --title "$NAME" --out "$WORK/report"
rm -rf "$OUT"
mv "$KEPT" "$OUT"
