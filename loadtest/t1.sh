#!/bin/sh
# T1: CPU of the edge for a beacon accepted, stamped, batched, published and receipted by a real RabbitMQ, divided by the
# CPU of nginx (empty_gif, one worker, no log) for a request. Alternating rounds in one run; see loadtest/README.md.
#
#   sh loadtest/t1.sh [arguments of `loadtest http`, such as --rate 20000 or --json FILE]
#   PIN=1 sh loadtest/t1.sh    binds the load to the first cores, the edge's workers and nginx to the last
#
# Everything runs on this machine: leave it alone meanwhile. Figures: the median of the rounds, with smallest and largest.
set -eu
cd "$(dirname "$0")/.."

# PROFILE=dist measures the edge as it is packaged (fat link-time optimisation; takes minutes to build).
profile=${PROFILE:-release}
cargo build --profile "$profile" --locked -p beacon-edge
cargo build --release --locked -p loadtest
cargo build --release --locked -p rabbitmq-node --example node
edge_target=${CARGO_TARGET_DIR:-target}/$profile
target=${CARGO_TARGET_DIR:-target}/release

work=$(mktemp -d)
edge=
node=
finish() {
    [ -z "$edge" ] || kill -TERM "$edge" 2>/dev/null || true
    [ -z "$edge" ] || wait "$edge" 2>/dev/null || true
    # The node ends when its standard input does.
    exec 9>&- || true
    [ -z "$node" ] || wait "$node" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

mkfifo "$work/hold"
"$target/examples/node" beacons <"$work/hold" >"$work/node" &
node=$!
exec 9>"$work/hold"
tries=0
until [ -s "$work/node" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || { echo "t1: RabbitMQ did not start" >&2; exit 1; }
    sleep 0.1
done
read -r url pid version <"$work/node"
echo "RabbitMQ $version, process $pid"

export BEACON_EDGE__HTTP__LISTEN=127.0.0.1:0 BEACON_EDGE__ADMIN__LISTEN=127.0.0.1:0
export BEACON_EDGE__HTTP__WORKERS="${WORKERS:-1}"
# Both sides or neither; an edge that does not know the key refuses to start, so it is not set otherwise.
if [ -n "${PIN:-}" ]; then
    export BEACON_EDGE__HTTP__PIN_WORKERS=true
    set -- --pin "$@"
fi
export BEACON_EDGE__DESTINATIONS__MAIN__BROKERS="[\"$url\"]"
export BEACON_EDGE__DESTINATIONS__MAIN__DESTINATION=/amq/queue/beacons
"$edge_target/beacon-edge" 2>"$work/log" 9>&- &
edge=$!
tries=0
until grep -q ' serves ' "$work/log"; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
http=$(sed -n 's/.* serves .*http=\([^ ]*\).*/\1/p' "$work/log")
admin=$(sed -n 's/.* serves .*admin=\([^ ]*\).*/\1/p' "$work/log")

"$target/loadtest" http "http://$http/b.gif" --pid "edge=$edge" --pid "rabbitmq=$pid" --reference nginx "$@"

echo
echo "The edge's account:"
if command -v curl >/dev/null; then
    curl -s "http://$admin/metrics" | grep -E '^beacon_edge_(beacons|batches)_.*_total' | grep -v ' 0$'
fi
