#!/usr/bin/env bash
# What a GPU is asked for, on a bare machine that is lent for a quarter of an hour, without network: Python 3.12, torch
# 2.11, and whatever other wheels are carried along. Stages, each with a time limit of its own; each writes what it has
# as soon as it has it, and none can spoil another. A summary ends it, with status 1 if a stage failed.
#
#   scripts/on_gpu.sh pack                   here, with network: fetch the wheels that such a machine lacks into .whl/
#   scripts/on_gpu.sh tests bench            there: the tests that CUDA concerns (2 minutes), the benchmarks (3 minutes)
#   scripts/on_gpu.sh gather                 there: keep the data files that came along, for a call that brings the rest
#   scripts/on_gpu.sh published              there: rows of published length, of the comparison, side by side
#   scripts/on_gpu.sh curve                  there: Fashion-MNIST's generators for the curve of accuracy against seconds
#   scripts/on_gpu.sh headline               there: train, tune, sample and judge on CIFAR-100, in one call
#   TOY=1 scripts/on_gpu.sh ...              the same at the size of a toy, on a CPU
#
# Results go to OUT (default runs/gpu_results), one log per stage; what is worth keeping is copied to results/ by hand,
# benchmarks.json as results/benchmarks/MACHINE.json. Data: the folders of DATA (default .gpu/), mnist, fashion-mnist and
# cifar100, as far as they came along; where a call carries 64 MiB at most, `gather` keeps those of earlier calls in HELD.
# Processes on one card take turns: beside nine others the headline's training took 200 s for 1573 steps. Stages that run
# in the background, each with an OUT and WORK of its own, want to be done before it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=${OUT:-runs/gpu_results} DATA=${DATA:-.gpu} WHEELS=${WHEELS:-.whl} HELD=${HELD:-/tmp/held} WORK=${WORK:-runs/gpu}
SITE=${SITE:-/tmp/site}
TOY=${TOY:-}
PYTHON=${PYTHON:-python3}
# Seconds of each stage at most; of the headline's training, its pools' sampling, and its batch.
TESTS_S=${TESTS_S:-120} BENCH_S=${BENCH_S:-180} LAST_S=${LAST_S:-560}
TRAIN_S=${TRAIN_S:-240} BUDGET=${BUDGET:-30s} BATCH=${BATCH:-128}
# What such a machine lacks of our dependencies, and theirs.
LACKING="diffusers importlib_metadata tyro docstring-parser typeguard omegaconf datasets dill multiprocess torch-fidelity
    kornia kornia-rs msgspec"
# Of the comparison: cells whose name holds one of these, by so many processes on one card.
COMPARISON=${COMPARISON:-published}
ROWS=${ROWS:-Random/mnist Herding/mnist K-Center/mnist Random/fashion_mnist Herding/fashion_mnist K-Center/fashion_mnist}
WORKERS=${WORKERS:-6}
# The generators: PRESET-STEPS-BATCH-RATE; the tuning has a quarter of the steps.
GENERATORS=${GENERATORS:-tiny-14000-64-0.003}

gendd() { "$PYTHON" -m core_dd.cli "$@"; }

pack() {  # fetch wheels, one version of each, for Python 3.12 on x86-64 Linux; and our own, which says our version
    local platforms=() glibc
    for glibc in 39 35 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
    rm -rf "$WHEELS"
    # shellcheck disable=SC2086
    "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$WHEELS" $LACKING || return
    "$PYTHON" -m pip wheel --quiet --no-deps -w "$WHEELS" .
}

prepare() {  # install the carried wheels beside what the machine has, and say what it is
    if compgen -G "$WHEELS/*.whl" >/dev/null && [ ! -e "$SITE/.done" ]; then
        "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" \
            "$WHEELS"/*.whl && touch "$SITE/.done"
    fi
    export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
    [ ! -d "$SITE" ] || export PYTHONPATH="$PYTHONPATH:$SITE"
    "$PYTHON" - <<'PYTHON'
import os, platform, torch
name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print(f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}", flush=True)
PYTHON
}

tests() {  # what only a GPU can show
    GENDD_TEST_CUDA=1 OMP_NUM_THREADS=1 "$PYTHON" -m pytest -n "${WORKERS:-6}" --dist worksteal --tb=short -rfE -vv \
        tests/test_cuda.py
}

bench() {  # ours against plain loops, with the part of the card's peak that is used
    local names="uvit_train uvit_sample evaluator dm_k100 m3d_k100 datadam_k100" repeats=5 status=0
    [ -z "$TOY" ] || names=evaluator repeats=1
    for name in ${BENCHMARKS:-$names}; do
        "$PYTHON" -m benchmarks "$name" --warmup 2 --repeats "$repeats" --out "$OUT/benchmarks.json" || status=$?
    done
    return "$status"
}

gather() {  # keep what this call carried
    mkdir -p "$HELD"
    cp -rf "$DATA"/. "$HELD"/ && du -sh "$HELD"/*
}

headline() {  # CIFAR-100: train, tune, sample under a budget, select, judge
    local data=parquet:$HELD/cifar100 config=configs/gen/cifar100_fast.yaml pool_steps=2000 ipc_steps="" runs=""
    local train="--batch_size $BATCH --warmup 200" tune="--max_seconds 80 --iterations 1500 --anneal 0.5"
    [ -z "$TOY" ] || {
        data=digits config=configs/gen/digits.yaml train="" tune="--config digits --iterations 20"
        TRAIN_S=2 pool_steps=2 ipc_steps=2 runs=1
    }
    python() { "$PYTHON" "$@"; } # which the script calls by these names
    export -f python gendd
    env ALL=1 CHUNKS=1 NAME=cifar100_headline BUDGET="$BUDGET" WORK="$WORK/headline" OUT="$OUT/cifar100_headline" \
        DATA="$data" CONFIG="$config" CHUNK="$TRAIN_S" TRAIN="$train" TUNE="$tune" POOL_STEPS="$pool_steps" \
        IPC_STEPS="$ipc_steps" RUNS="$runs" TOGETHER=1 bash scripts/headline_cifar100.sh
}

published() {  # cells of the comparison, and their scores
    local name data=() folder=$WORK/$COMPARISON
    for name in mnist fashion-mnist; do [ ! -e "$HELD/$name" ] || data+=("${name/-/_}=idx:$HELD/$name"); done
    for name in cifar10 cifar100; do [ ! -e "$HELD/$name" ] || data+=("$name=parquet:$HELD/$name"); done
    [ -z "$TOY" ] || data=()
    # shellcheck disable=SC2086
    gendd compare "$COMPARISON" --only $ROWS --workers "$WORKERS" --out "$folder" --no_figures ${data:+--data "${data[@]}"}
    local status=$?
    (cd "$folder" && tar czf "$OUT/$COMPARISON.tar.gz" --exclude=checkpoint* --exclude=classifier* .)
    return "$status"
}

curve() {  # Fashion-MNIST: train as many steps as a CPU does in an hour, and tune
    local generator preset steps batch rate data=idx:$HELD/fashion-mnist config=fashion_mnist_cpu tuning=fashion_mnist patch="--patch_size 4"
    local trained=() status=0
    [ -z "$TOY" ] || data=digits config=digits tuning=digits patch="--no_compile"
    for generator in $GENERATORS; do
        IFS=- read -r preset steps batch rate <<<"$generator"
        # shellcheck disable=SC2086
        (
            folder=$WORK/curve/$generator
            gendd train --config "$config" --data "$data" --preset "$preset" $patch --iterations "$steps" \
                --max_seconds 100000 --batch_size "$batch" --lr "$rate" --val_fraction 0.1 --tracker none --out "$folder" &&
                tar czf "$OUT/$generator.tar.gz" -C "$folder" --exclude=checkpoints . &&
                gendd tune --init_from "$folder" --config "$tuning" --data "$data" --iterations $((steps / 4)) \
                    --batch_size "$batch" --val_fraction 0.1 --tracker none --out "$folder-tuned" &&
                tar czf "$OUT/$generator-tuned.tar.gz" -C "$folder-tuned" --exclude=checkpoints .
        ) & trained+=($!)
    done
    for generator in "${trained[@]}"; do wait "$generator" || status=1; done
    return "$status"
}

stage() {  # stage NAME SECONDS: run it with a limit, its output to the screen and to a log
    local started=$SECONDS
    timeout --signal=INT --kill-after=10 "$2" bash -c "$(declare -f gendd "$1"); $1" 2>&1 | tee "$OUT/$1.log"
    local status=${PIPESTATUS[0]}
    summary+=("$(printf '%-10s %4d s  %s' "$1" $((SECONDS - started)) "$(verdict "$status" "$2")")")
    [ "$status" -eq 0 ] || failed=1
}

verdict() {  # verdict STATUS LIMIT: what came of a stage
    case $1 in 0) echo passed ;; 124 | 137) echo "ended by its limit of $2 s" ;; *) echo "FAILED with status $1" ;; esac
}

STAGES="pack, tests, bench, gather, published, curve, headline"
[ $# -gt 0 ] || { echo "which stages? One or more of $STAGES." >&2; exit 2; }
for name in "$@"; do
    case $name in
    pack | tests | bench | gather | published | curve | headline) ;;
    *)
        echo "unknown stage '$name': choose from $STAGES." >&2
        exit 2
        ;;
    esac
done
[ "$1" != pack ] || { pack; exit; }
mkdir -p "$OUT" "$WORK"
OUT=$(cd "$OUT" && pwd)
prepare
export OUT DATA HELD WORK TOY PYTHON COMPARISON ROWS WORKERS GENERATORS TRAIN_S BUDGET BATCH
summary=() failed=0
for name in "$@"; do
    case $name in tests) limit=$TESTS_S ;; bench) limit=$BENCH_S ;; gather) limit=60 ;; *) limit=$LAST_S ;; esac
    stage "$name" "$limit"
done
printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
