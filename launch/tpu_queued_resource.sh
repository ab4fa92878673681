#!/usr/bin/env bash
# A run on a Cloud TPU slice: asks for it, waits, starts aya on all of its hosts. Fill in: the capitals below, the command.
#
# Every host finds its place by the TPU's own metadata. RUN_DIR must be on storage that all hosts mount: Filestore, as here. A
# slice that was taken away (--spot) is asked for again by deleting it and starting this script again; the same
# command goes on from the last checkpoint. Delete with: gcloud compute tpus queued-resources delete NAME --force
set -euo pipefail

NAME=aya
PROJECT=my-project
ZONE=us-central2-b
TYPE=v4-128
SOFTWARE=tpu-ubuntu2204-base
FILESTORE=10.0.0.2:/shared
REPOSITORY=https://github.com/ORGANISATION/aya_jax.git

gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --project="$PROJECT" --zone="$ZONE" \
  --accelerator-type="$TYPE" --runtime-version="$SOFTWARE" --spot
until gcloud compute tpus queued-resources describe "$NAME" --project="$PROJECT" --zone="$ZONE" \
  --format='value(state.state)' | grep -q ACTIVE; do sleep 30; done

everywhere() {
  gcloud compute tpus tpu-vm ssh "$NAME" --project="$PROJECT" --zone="$ZONE" --worker=all --command="$1"
}

everywhere "sudo mkdir -p /shared && sudo mount $FILESTORE /shared && git clone $REPOSITORY aya_jax &&
  cd aya_jax && python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[tpu]'"
everywhere "cd aya_jax && .venv/bin/aya train gin/train/pretrain.gin gin/models/test.gin gin/mixtures/text_and_code.gin \
  gin/hardware/tpu.gin --gin.RUN_DIR=/shared/runs/first --gin.STORE_DIR=/shared/stores --gin.STEPS=1000"
