#!/usr/bin/env bash
# One run in several processes on this machine. Fill in: PROCESSES, and the command at the end.
#
#   bash launch/local.sh                        with GPUs, each process takes an equal share of them
#   DEVICES=2 bash launch/local.sh              without, two emulated CPU devices to a process: a rehearsal
#
# Ctrl-C, or a SIGTERM to this script or to any of the processes, saves and ends all of them; the same command goes on.
set -euo pipefail

PROCESSES=${PROCESSES:-2}
PORT=${PORT:-12345}
GPUS=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)

if [ "$GPUS" -eq 0 ]; then
  export JAX_PLATFORMS=cpu XLA_FLAGS="--xla_force_host_platform_device_count=${DEVICES:-1}"
fi

pids=()
for ((i = 0; i < PROCESSES; i++)); do
  if [ "$GPUS" -gt 0 ]; then
    share=$((GPUS / PROCESSES))
    export CUDA_VISIBLE_DEVICES=$(seq --separator=, $((i * share)) $(((i + 1) * share - 1)))
  fi
  aya train gin/train/pretrain.gin gin/models/test.gin gin/mixtures/text_and_code.gin \
    --gin.RUN_DIR="${RUN_DIR:-runs/local}" --gin.STORE_DIR="${STORE_DIR:-stores}" "$@" \
    --coordinator_address="127.0.0.1:$PORT" --process_index="$i" --process_count="$PROCESSES" &
  pids+=($!)
done

end=""
trap 'end=1; kill -TERM "${pids[@]}" 2>/dev/null || true' INT TERM
all() { code=0; for pid in "${pids[@]}"; do wait "$pid" || code=$?; done; }
all
[ -z "$end" ] || all # a signal cuts the first waiting short
exit "$code"
