#!/bin/sh
# Builds the tunnels that adit is measured beside, into target/peers/bin.
# A peer that is already there in the wanted version is left alone, so this
# script is safe to run before every comparison.
#
# Usage: loadtest/peers.sh [directory]      (default: target/peers)
set -eu

rathole_version=0.5.0

root=$(cd "$(dirname "$0")/.." && pwd)
peers=${1:-"$root/target/peers"}
mkdir -p "$peers"
peers=$(cd "$peers" && pwd)

install_rathole() {
    # The stamp is written last: half a build is never taken for a peer.
    stamp="$peers/rathole-$rathole_version.built"
    if [ -e "$stamp" ] && [ -x "$peers/bin/rathole" ]; then
        return 0
    fi
    rm -f "$stamp"
    # Without --locked on purpose: the published lock file pins time 0.3.29,
    # which does not compile on current Rust. TLS and noise stay out: the
    # comparison runs both tunnels in the clear.
    #
    # From the peers' own directory, so that this workspace's toolchain file
    # and cargo settings neither help nor hinder the peer.
    (
        cd "$peers"
        CARGO_TARGET_DIR="$peers/build" cargo install rathole \
            --version "$rathole_version" \
            --no-default-features --features server,client \
            --root "$peers" --force
    )
    : >"$stamp"
}

install_rathole
echo "peers ready in $peers/bin" >&2
