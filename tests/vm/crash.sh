#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# In the VM: kill QEMU while it writes to a disk with a volatile cache, cut the
# disk's power, and look for what a flush promised.
#     crash.sh VBLK_CRASH QEMU KILLS CASE...     CASE: ENGINE/NAME
set -euo pipefail
bin=$1 qemu=$2 kills=$3
shift 3

mount -t configfs none /sys/kernel/config 2>/dev/null || true
place=/sys/kernel/config/nullb/vblk-crash
mkdir "$place"
echo 64 >"$place/size"
echo 4096 >"$place/blocksize"
echo 1 >"$place/memory_backed"
echo 1 >"$place/discard"
# more than is ever written, so that nothing becomes durable by itself
echo 48 >"$place/cache_size"
echo 1 >"$place/power"
disk=/dev/vblk-crash
[ -b "$disk" ] || disk=/dev/nullb$(cat "$place/index")

for case in "$@"; do
    # an emulated processor is slow, and what is flushed is not at risk
    options=(--window=1000 --flush-one-in=50) rc=0 log=/run/tmp/${case//\//-}
    [[ $case != *direct* ]] || options+=(--direct)
    [[ $case != *through* ]] || options+=(--through)
    [[ $case != *packed* ]] || options+=(--packed)
    timeout -k 5 300 "$bin" --qemu="$qemu" --disk="$disk" \
        --power="$place/power" --engine="${case%%/*}" --kills="$kills" \
        "${options[@]}" >"$log" 2>&1 || rc=$?
    if [ $rc -eq 0 ]; then
        echo "ok $case"
        sed 's/^/# /' "$log"
    else
        echo "not ok $case # $(grep -m 1 ^error "$log" || tail -n 1 "$log"), code $rc"
        tail -n 5 "$log" | sed 's/^/# /'
    fi
done
