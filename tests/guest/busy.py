# SPDX-License-Identifier: GPL-2.0-or-later
"""A load in the guest, for as long as something is done to its disk."""

# Shell: writes files, forgets what is cached and compares, round by round.
# /tmp/rounds has their number; after "touch /tmp/stop", /tmp/end says "right",
# or "wrong" as soon as a byte is.
LOAD = '''
    rm -f /tmp/stop /tmp/end; echo 0 > /tmp/rounds;
    (n=0; while [ ! -e /tmp/stop ]; do
        for f in f4 f5 f6; do
            dd if=/payload/$f of=/mnt/busy-$f bs=64k conv=fsync status=none &&
            echo 3 > /proc/sys/vm/drop_caches && cmp /payload/$f /mnt/busy-$f
            || { echo wrong > /tmp/end; exit; };
        done;
        n=$((n + 1)); echo $n > /tmp/new; mv /tmp/new /tmp/rounds;
    done; echo right > /tmp/end) < /dev/null > /tmp/load 2>&1 &
'''
