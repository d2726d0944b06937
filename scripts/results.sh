#!/usr/bin/env bash
# Remakes results/NAME on real data: every set named in SETS at every ipc of IPCS, judged by one protocol, and the
# report beside the papers' rows. A distillation runs ITERATIONS of its published length, so its rows are marked smoke and
# not ranked; so is every row when EPOCHS shortens the protocol. Finished steps are not done again,
# and a distillation that was killed goes on.
#
#   scripts/results.sh fashion_mnist idx:/usr/share/datasets/fashion-mnist
#   EPOCHS=100 RUNS=3 scripts/results.sh cifar10 parquet:../shared/data/cifar10
set -euo pipefail
NAME=${1:?usage: scripts/results.sh NAME DATA, e.g. fashion_mnist idx:/usr/share/datasets/fashion-mnist}
DATA=${2:?usage: scripts/results.sh NAME DATA, e.g. fashion_mnist idx:/usr/share/datasets/fashion-mnist}
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
IPCS=${IPCS:-1 10}
SETS=${SETS:-random dm}
ITERATIONS=${ITERATIONS:-200}
PROTOCOL=${PROTOCOL:-dm}
WORK=${WORK:-runs/$NAME}
OUT=results/$NAME
judge=(gendd evaluate --data "$DATA" --protocol "$PROTOCOL" ${EPOCHS:+--epochs "$EPOCHS"} ${RUNS:+--runs "$RUNS"})

mkdir -p "$OUT"
for ipc in $IPCS; do
    for set in $SETS; do
        folder=$WORK/$set-ipc$ipc
        if [ -e "matching_dd/methods/$set.py" ]; then
            once "$folder/distilled.safetensors" gendd distill --data "$DATA" --method "$set" --ipc "$ipc" \
                --iterations "$ITERATIONS" --checkpoint_every 50 --out "$folder" $(resume "$folder/config.yaml")
            once "$folder/scores.json" "${judge[@]}" --set "$folder" --name "$set ipc $ipc, $ITERATIONS iterations" --smoke
        else
            once "$folder/distilled.safetensors" gendd coreset --data "$DATA" --name "$set" --ipc "$ipc" \
                --out "$folder/distilled.safetensors"
            once "$folder/scores.json" "${judge[@]}" --set "$folder" --name "$set real ipc $ipc"
        fi
        cp "$folder/scores.json" "$OUT/$set-ipc$ipc.json"
    done
done
rm -rf "$OUT/report"
gendd report "$WORK" --title "$NAME: $SETS" --out "$OUT/report"
