#!/usr/bin/env bash
# Remakes results/fashion_mnist: random and DM at ipc 1 and 10 on the real Fashion-MNIST, judged by the dm protocol.
# The dm protocol is whole (5 classifiers, 1001 passes each). DM is not: ITERATIONS of the published 20000, so its
# rows are marked smoke and not ranked. About half an hour on 2 CPU cores; finished steps are not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA=${DATA:-idx:/usr/share/datasets/fashion-mnist}
ITERATIONS=${ITERATIONS:-200}
WORK=${WORK:-runs/fashion_mnist}
OUT=results/fashion_mnist
export PATH="$PWD/.venv/bin:$PATH"

once() {  # once FILE COMMAND...: run it unless FILE is there
    local file=$1
    shift
    [ -e "$file" ] || { echo "\$ $*"; "$@"; }
}

for ipc in 1 10; do
    random=$WORK/random-ipc$ipc dm=$WORK/dm-ipc$ipc
    once "$random/distilled.safetensors" gendd coreset --data "$DATA" --name random --ipc $ipc --out "$random/distilled.safetensors"
    once "$random/scores.json" gendd evaluate --data "$DATA" --set "$random" --protocol dm --name "random ipc $ipc"
    once "$dm/distilled.safetensors" gendd distill --data "$DATA" --method dm --ipc $ipc --iterations "$ITERATIONS" \
        --checkpoint_every 50 --out "$dm"
    once "$dm/scores.json" gendd evaluate --data "$DATA" --set "$dm" --protocol dm --name "DM ipc $ipc, $ITERATIONS iterations" --smoke
done
mkdir -p "$OUT"
for name in random-ipc1 random-ipc10 dm-ipc1 dm-ipc10; do
    cp "$WORK/$name/scores.json" "$OUT/$name.json"
done
rm -rf "$OUT/report"
gendd report "$WORK" --title "Fashion-MNIST: random and DM" --out "$OUT/report"
