#!/bin/sh
# Runs each fuzz target for FUZZ_SECONDS (10) and fails on a finding. New inputs go to $1/<target> (a path from the root
# of the repository); the committed seeds and regressions are only read. Needs a nightly toolchain, and installs
# cargo-fuzz from crates.io if it is missing. Where either cannot be had, it says so and succeeds, unless FUZZ_REQUIRED
# is set.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
corpus=$root/$1
: "${CARGO:=cargo}" "${FUZZ_SECONDS:=10}"

skip() {
    echo "FUZZING IS SKIPPED: $1"
    [ -z "${FUZZ_REQUIRED:-}" ] || { echo "FUZZ_REQUIRED is set, so this is a failure." >&2; exit 1; }
    exit 0
}

# Only looks: rustup must not install a toolchain by itself.
RUSTUP_AUTO_INSTALL=0 $CARGO +nightly --version >/dev/null 2>&1 ||
    skip "there is no nightly toolchain (rustup toolchain install nightly --profile minimal)"
$CARGO +nightly fuzz --version >/dev/null 2>&1 || $CARGO install cargo-fuzz --locked ||
    skip "cargo-fuzz is missing and cannot be installed"

cd "$root/stomp/fuzz"
targets=$($CARGO +nightly fuzz list)
for target in $targets; do
    mkdir -p "$corpus/$target"
    set -- "$corpus/$target" "seeds/$target"
    [ ! -d "regressions/$target" ] || set -- "$@" "regressions/$target"
    echo "fuzzing $target for $FUZZ_SECONDS s"
    $CARGO +nightly fuzz run "$target" "$@" -- -max_total_time="$FUZZ_SECONDS" -verbosity=0 -print_final_stats=1
done
