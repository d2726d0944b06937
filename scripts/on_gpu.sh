#!/usr/bin/env bash
# What a GPU is asked for, on a bare machine that is lent for a quarter of an hour, without network: Python 3.12, torch
# 2.11, and whatever other wheels are carried along. Stages, each with a time limit of its own; each writes what it has
# as soon as it has it, and none can spoil another. A summary ends it, with status 1 if a stage failed.
#
#   scripts/on_gpu.sh pack                   here, with network: fetch the wheels that such a machine lacks into .whl/
#   scripts/on_gpu.sh tests bench            there: the tests that CUDA concerns (2 minutes), the benchmarks (3 minutes)
#   scripts/on_gpu.sh gather                 there: keep the data files that came along, for a call that brings the rest
#   scripts/on_gpu.sh headline               there: train, sample and judge on CIFAR-100, in one chunk
#   scripts/on_gpu.sh published              there: DM, DataDAM and M3D on CIFAR-10 at full length, side by side
#   TOY=1 scripts/on_gpu.sh ...              the same at the size of a toy, on a CPU
#
# Results go to OUT (default runs/gpu_results), one log per stage; what is worth keeping is copied to results/ by hand,
# benchmarks.json as results/benchmarks/MACHINE.json. Data: the parquet files of DATA (default .gpu/), as many as
# came along; where a call carries 64 MiB at most, `gather` keeps those of earlier calls in HELD.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=${OUT:-runs/gpu_results} DATA=${DATA:-.gpu} WHEELS=${WHEELS:-.whl} HELD=${HELD:-/tmp/held} WORK=${WORK:-runs/gpu}
SITE=${SITE:-/tmp/site}
TOY=${TOY:-}
PYTHON=${PYTHON:-python3}
# Seconds of each stage at most, and of the parts of the last two.
TESTS_S=${TESTS_S:-120} BENCH_S=${BENCH_S:-180} LAST_S=${LAST_S:-420}
TRAIN_S=${TRAIN_S:-240} BUDGET=${BUDGET:-60s}
# What such a machine lacks of our dependencies, and theirs.
LACKING="diffusers importlib_metadata tyro docstring-parser typeguard omegaconf datasets dill multiprocess torch-fidelity
    kornia kornia-rs msgspec"
# DM, DataDAM and M3D: CONFIG-ipcIPC, all at once on one card, since each alone leaves most of it idle.
ROWS=${ROWS:-dm-ipc1 dm-ipc10 datadam_paper-ipc1 datadam_paper-ipc10 m3d-ipc1 m3d-ipc10}

gendd() { "$PYTHON" -m core_dd.cli "$@"; }

pack() {  # fetch wheels, one version of each, for Python 3.12 on x86-64 Linux
    local platforms=() glibc
    for glibc in 39 35 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
    rm -rf "$WHEELS"
    # shellcheck disable=SC2086
    "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$WHEELS" $LACKING
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
    local names="uvit_train uvit_sample evaluator dm_k100 m3d_k100 datadam_k100" repeats=5
    [ -z "$TOY" ] || names=evaluator repeats=1
    for name in ${BENCHMARKS:-$names}; do
        "$PYTHON" -m benchmarks "$name" --warmup 2 --repeats "$repeats" --out "$OUT/benchmarks.json"
    done
}

gather() {  # keep what this call carried
    mkdir -p "$HELD"
    cp -rf "$DATA"/. "$HELD"/ && du -sh "$HELD"/*
}

headline() {  # CIFAR-100: train, sample under a budget, select, judge
    local options="DATA=parquet:$HELD/cifar100 CHUNK=$TRAIN_S POOL_STEPS=${POOL_STEPS:-2000}"
    [ -z "$TOY" ] || options="DATA=digits CONFIG=configs/gen/digits.yaml CHUNK=2 POOL_STEPS=2 IPC_STEPS=2 RUNS=1"
    python() { "$PYTHON" "$@"; } # which the script calls by these names
    export -f python gendd
    # shellcheck disable=SC2086
    env ALL=1 CHUNKS=1 NAME=cifar100_headline BUDGET="$BUDGET" WORK="$WORK/headline" OUT="$OUT/cifar100_headline" $options \
        bash scripts/headline_cifar100.sh
}

published() {  # full-length rows, side by side, each judged by its protocol as soon as it is there
    local row name=cifar10 data=parquet:$HELD/cifar10 shorter="" judged=""
    [ -z "$TOY" ] || {
        name=digits data=digits shorter="--iterations 3 --network convnet1_w8 --batch_real 8"
        judged="--iterations 3 --classifiers 1 --network convnet1_w8"
    }
    for row in $ROWS; do
        (
            folder=$WORK/$row protocol=dm
            case $row in datadam_paper*) protocol=datadam_paper ;; esac
            [ -e "$folder/distilled.safetensors" ] ||
                gendd distill --config "${row%-ipc*}:$name" --ipc "${row##*-ipc}" --data "$data" --out "$folder" \
                    --tracker none $shorter $([ ! -e "$folder/config.yaml" ] || echo --resume)
            gendd evaluate --data "$data" --set "$folder" --protocol "$protocol" --name "$row" $judged
            mkdir -p "$OUT/published/$row"
            cp "$folder"/{scores.json,config.yaml,stats.jsonl,grid.png} "$OUT/published/$row"
        ) >"$OUT/published_$row.log" 2>&1 &
    done
    wait
    grep -H "" /dev/null "$OUT"/published/*/scores.json | grep -E '"(mean|std)"' || true
    for row in $ROWS; do tail -n 2 "$OUT/published_$row.log"; done
    for row in $ROWS; do [ -e "$OUT/published/$row/scores.json" ] || return 1; done
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

[ $# -gt 0 ] || { echo "which stages? One or more of pack, tests, bench, gather, headline, published." >&2; exit 2; }
for name in "$@"; do
    case $name in
    pack | tests | bench | gather | headline | published) ;;
    *)
        echo "unknown stage '$name': choose from pack, tests, bench, gather, headline, published." >&2
        exit 2
        ;;
    esac
done
[ "$1" != pack ] || { pack; exit; }
mkdir -p "$OUT" "$WORK"
prepare
export OUT DATA HELD WORK TOY PYTHON ROWS TRAIN_S BUDGET
summary=() failed=0
for name in "$@"; do
    case $name in tests) limit=$TESTS_S ;; bench) limit=$BENCH_S ;; gather) limit=60 ;; *) limit=$LAST_S ;; esac
    stage "$name" "$limit"
done
printf '\n== summary\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
