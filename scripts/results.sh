#!/usr/bin/env bash
# Remakes the scores of results/ on real data: every set named in SETS at every ipc of IPCS, judged by one protocol, and,
# in WORK, the report beside the papers' rows. A set is a coreset (random herding k_center medoids) or a method, or a variant of one
# that has published settings, such as datadam_paper: those of configs/matching/SET.yaml for NAME and the ipc are used
# where there are any, else the method's defaults. A row is marked smoke and not ranked if anything shortens it:
#   SMOKE=1        the few iterations of configs/smoke/ that a CPU can do
#   ITERATIONS=N   so many of every method
#   EPOCHS=N       a shorter protocol
# Finished steps are not done again, and a distillation that was killed goes on. MTT and EAD take the experts of EXPERTS;
# SMOKE=1 records two short ones by itself.
#
#   scripts/results.sh fashion_mnist idx:/usr/share/datasets/fashion-mnist
#   SMOKE=1 EPOCHS=60 RUNS=3 SETS="random herding k_center medoids dm m3d datadam_paper" OUT=results/cifar10_methods \
#       scripts/results.sh cifar10 parquet:data/cifar10
set -euo pipefail
NAME=${1:?usage: scripts/results.sh NAME DATA, e.g. fashion_mnist idx:/usr/share/datasets/fashion-mnist}
DATA=${2:?usage: scripts/results.sh NAME DATA, e.g. fashion_mnist idx:/usr/share/datasets/fashion-mnist}
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
IPCS=${IPCS:-1 10}
SETS=${SETS:-random dm}
PROTOCOL=${PROTOCOL:-dm}
OUT=${OUT:-results/$NAME}
WORK=${WORK:-runs/${OUT##*/}}
judge=(gendd evaluate --data "$DATA" --protocol "$PROTOCOL" ${EPOCHS:+--epochs "$EPOCHS"} ${RUNS:+--classifiers "$RUNS"})

record_experts() {  # what MTT and EAD match, where there are none yet
    [ -z "${EXPERTS:-}" ] || return 0
    if [ -z "${SMOKE:-}" ]; then
        echo "$1 matches recorded trajectories: make them by gendd experts, and name their folder in EXPERTS." >&2
        exit 2
    fi
    EXPERTS=$WORK/experts
    gendd experts --data "$DATA" --config configs/smoke/experts.yaml --out "$EXPERTS" $(resume "$EXPERTS/config.yaml")
}

published() {  # whether configs/matching has settings of this set and ipc
    python - "$1" "$NAME" "$2" <<'PYTHON'
import sys
from core_dd.config import read_config
from core_dd.settings import packaged
variant, name, ipc = sys.argv[1:]
files = packaged("matching")
sys.exit(variant not in files or (name, int(ipc)) not in read_config(files[variant]).settings)
PYTHON
}

# Rows of one table are made alike, so a folder goes on with the settings it began with.
mkdir -p "$WORK" "$OUT"
settings="DATA=$DATA PROTOCOL=$PROTOCOL EPOCHS=${EPOCHS:-} RUNS=${RUNS:-} SMOKE=${SMOKE:-} ITERATIONS=${ITERATIONS:-}"
[ -e "$WORK/settings" ] || echo "$settings" >"$WORK/settings"
if [ "$(cat "$WORK/settings")" != "$settings" ]; then
    echo "$WORK was begun with $(cat "$WORK/settings"), now $settings; go on with those, or name another WORK." >&2
    exit 2
fi

for set in $SETS; do
    for ipc in $IPCS; do
        folder=$WORK/$set-ipc$ipc
        method=${set%%_*}
        if [ -e "matching_dd/methods/$method.py" ]; then
            make=(gendd distill --method "$method" --ipc "$ipc")
            if published "$set" "$ipc"; then make+=(--config "$set:$NAME"); fi
            [ -z "${SMOKE:-}" ] || make+=(--config "configs/smoke/$method.yaml")
            make+=(--data "$DATA" ${ITERATIONS:+--iterations "$ITERATIONS"} --out "$folder")
            case $method in
            mtt | ead)
                record_experts "$method"
                make+=(--experts "$EXPERTS")
                ;;
            esac
            once "$folder/distilled.safetensors" "${make[@]}" $(resume "$folder/config.yaml")
            iterations=$(sed -n 's/^iterations: //p' "$folder/config.yaml")
            once "$folder/scores.json" "${judge[@]}" --set "$folder" --name "$set ipc $ipc, $iterations iterations" \
                ${SMOKE:+--smoke} ${ITERATIONS:+--smoke}
        else
            once "$folder/distilled.safetensors" gendd coreset --data "$DATA" --selector "$set" --ipc "$ipc" \
                --classifier "$WORK/classifier.safetensors" --out "$folder/distilled.safetensors"
            once "$folder/scores.json" "${judge[@]}" --set "$folder" --name "$set real ipc $ipc"
        fi
        mkdir -p "$OUT/$set-ipc$ipc"
        cp "$folder/scores.json" "$OUT/$set-ipc$ipc"
    done
done
rm -rf "$WORK/report"
gendd report "$WORK" --title "$NAME: $SETS" --out "$WORK/report"
