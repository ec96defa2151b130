#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# PID 1 of the test guest. It takes one shell line after another from the
# runner over a virtio-serial port, runs each in a subshell and sends back what
# the line printed, closed by "@end NUMBER STATUS".

export PATH=/bin:/host
/bin/busybox --install -s /bin
# Debian's busybox runs its own applet rather than a program on the path
dd() { /host/dd "$@"; }
fstrim() { /host/fstrim "$@"; }
blkdiscard() { /host/blkdiscard "$@"; }

mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp

while read -r module; do
    insmod "/modules/$module" || echo "agent: $module does not load"
done < /modules/early

# --- what the runner's lines may call -------------------------------------

# load the disk's driver and the file system, wait for the disk to appear
load_disk() {
    while read -r module; do
        insmod "/modules/$module" || return 1
    done < /modules/late
    wait_for 10 test -b /dev/vda
}

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
    tries=$(($1 * 10))
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

has_size() {
    [ "$(cat /sys/block/vda/size)" = "$1" ]
}

# beyond NUMBER FILE: the file's last line is a greater number
beyond() {
    [ "$(tail -n 1 "$2")" -gt "$1" ]
}

# The page cache must not answer for the disk.
forget() {
    sync
    echo 3 > /proc/sys/vm/drop_caches
}

# region OFFSET BYTES: the disk's own bytes, past the page cache
region() {
    dd if=/dev/vda bs=512 skip=$(($1 / 512)) count=$(($2 / 512)) \
       iflag=direct status=none
}

# feature BIT: 0 or 1, as negotiated
feature() {
    cut -c$(($1 + 1)) /sys/block/vda/device/features
}

# --- the loop --------------------------------------------------------------

# The node is there a moment before it can be opened, and a failed exec would
# end this shell, which is PID 1.
can_open() {
    (exec 4<> /dev/vport0p1) 2> /dev/null
}
wait_for 20 can_open || {
    echo "agent: no virtio-serial port"
    poweroff -f
}
exec 3<> /dev/vport0p1
ready="@ready $(uname -r) $(cat /proc/sys/kernel/random/boot_id)"
echo "$ready" >&3
# Until the port's host side is known to be open, a read ends at once, and what
# was written may be lost: the runner knows the same line when it comes again.
gone=0 heard=
while [ "$gone" -lt 100 ]; do
    if ! read -r number line <&3; then
        gone=$((gone + 1))
        sleep 0.1
        [ -n "$heard" ] || echo "$ready" >&3
        continue
    fi
    gone=0 heard=1
    (eval "$line") >&3 2>&1 < /dev/null 3>&-
    echo "@end $number $?" >&3
done
echo "agent: the runner went away"
poweroff -f
