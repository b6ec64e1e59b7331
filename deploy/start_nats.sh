#!/bin/sh
# Starts the NATS server of this machine for the journals, unless it runs already.
#   start_nats.sh DIRECTORY OWN_ADDRESS ADDRESS...     the addresses are those of all the servers
# It listens on 4222 for the exchange, 6222 for the other servers and 8222 for monitoring. Nobody starts it again if it
# dies: where one runs a server for longer, systemd should (docs/clusters.md).
set -eu
directory=$1 own=$2
shift 2
mkdir -p "$directory"
if [ -f "$directory/pid" ] && kill -0 "$(cat "$directory/pid")" 2>/dev/null; then
  echo "nats-server runs already (process $(cat "$directory/pid"))"
  exit 0
fi
routes=$(printf ',nats-route://%s:6222' "$@")
NATS_NAME="nats-$own" NATS_STORE="$directory" setsid nohup nats-server \
  --config "$(dirname "$0")/nats-server.conf" --pid "$directory/pid" --log "$directory/log" \
  --addr "$own" --port 4222 --http_port 8222 \
  --cluster_name evenkeel --cluster "nats://$own:6222" --routes "${routes#,}" >/dev/null 2>&1 </dev/null &
echo "started nats-server on $own"
