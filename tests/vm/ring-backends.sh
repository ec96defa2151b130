#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# In the VM: ring-test (the first argument) on one backend after the other.
# With a second argument only that backend, with a third only those tests.
set -eu

ring=$1 which=${2:-all} only=${3:-*}

# on NAME FILE WORD...: the tests on a backend, if it is wanted
on()
{
    name=$1 file=$2
    shift 2
    # 1: a test has failed, and has said so
    rc=0
    "$ring" "$name" "$file" "$@" "--only=$only" || rc=$?
    [ "$rc" -le 1 ] || echo "not ok $name # it cannot be tried: exit code $rc"
}

want()
{
    [ "$which" = all ] || [ "$which" = "$1" ]
}

# null NAME KEY=VALUE...: a null_blk device; its path
null()
{
    place=/sys/kernel/config/nullb/$1
    mkdir "$place"
    shift
    echo 256 >"$place/size"
    echo 1 >"$place/memory_backed"
    for setting; do
        echo "${setting#*=}" >"$place/${setting%%=*}"
    done
    echo 1 >"$place/power"
    # named by its folder or, in older kernels, by its number
    if [ -b "/dev/${place##*/}" ]; then
        echo "/dev/${place##*/}"
    else
        echo "/dev/nullb$(cat "$place/index")"
    fi
}

mount -t configfs none /sys/kernel/config 2>/dev/null || true
mkdir -p /run/disk

if want null; then
    on null "$(null nullb-a discard=1)" direct discard
fi
if want cached; then
    on cached "$(null nullb-b discard=1 queue_mode=0)" discard
fi
if want null-4k; then
    on null-4k "$(null nullb-c discard=1 blocksize=4096)" direct discard
fi
if want slow; then
    # completions come 40 ms later, from a timer
    [ "$only" != '*' ] || slow_only='[dflmk]*'
    disk=$(null nullb-d irqmode=2 completion_nsec=40000000 discard=1)
    only=${slow_only:-$only} on slow "$disk" direct discard
fi
if want delay && ! command -v dmsetup >/dev/null; then
    echo "skip delay # no dmsetup; apt-get install dmsetup"
elif want delay; then
    # reads and writes come 200 ms late, and the last MiB is bad
    disk=$(null nullb-f size=64)
    printf '%s\n' "0 129024 delay $disk 0 200" "129024 2048 error" |
        DM_DISABLE_UDEV=1 dmsetup create vblk-delay
    slow_only='[fil][oa]*[krg]'
    [ "$only" = '*' ] || slow_only=$only
    only=$slow_only on delay /dev/mapper/vblk-delay direct
    DM_DISABLE_UDEV=1 dmsetup remove vblk-delay
fi
if want loop || want file-tmpfs; then
    truncate -s 256M /run/disk/image
fi
if want loop; then
    on loop "$(losetup -f --show /run/disk/image)" direct discard
fi
if want file-tmpfs; then
    truncate -s 64M /run/disk/raw
    on file-tmpfs /run/disk/raw discard
fi
if want file-direct || want file-cached; then
    disk=$(null nullb-e size=512)
    mkfs.ext4 -q -F "$disk"
    mkdir -p /run/ext4
    mount -t ext4 "$disk" /run/ext4
    truncate -s 128M /run/ext4/raw
    ! want file-direct || on file-direct /run/ext4/raw direct discard
    ! want file-cached || on file-cached /run/ext4/raw discard
    umount /run/ext4
fi
if want scsi; then
    disk=$(ls -d /sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/target*/*/block/*)
    on scsi "/dev/${disk##*/}" direct
fi
# nothing holds the module, and the kernel says so if it leaves requests
if rmmod vhost_blk; then
    echo "ok module/unload"
else
    echo "not ok module/unload # it is still in use"
fi
