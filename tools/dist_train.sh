#!/usr/bin/env bash
# Trains in several processes: one per GPU, or on CPUs if there is none.
#
#   tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
#
# On several machines, run it on each with NNODES (number of machines), NODE_RANK (index of this
# machine, from 0) and MASTER_ADDR (address of the first) set. PORT is a free port on the first one.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [options of train.py]" >&2
    exit 2
fi
config=$1
processes=$2
shift 2

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$processes" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
