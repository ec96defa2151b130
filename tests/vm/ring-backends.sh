#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# In the VM: ring-test (the first argument) on one backend after the other.
# With a second argument only on these (commas between), with a third only those
# tests.
set -eu
. "$(dirname "$0")/leaks.sh"

ring=$1 which=${2:-all} only=${3:-}
here=* not= as=

# The core of vhost takes the locks of all queues for a message of the IOTLB,
# which is more than lockdep counts: it ends with a report of its own.
if [ -e /proc/lockdep ] && [ -z "$only" ]; then
    not=iotlb
    echo "skip iotlb # with lockdep, whose subclasses are fewer than queues"
fi

# some TESTS: the next backend is for these
some()
{
    here=$1
}

# on NAME FILE WORD...: the tests on a backend
on()
{
    name=$1 file=$2
    shift 2
    # 1: a test has failed, and has said so
    rc=0
    # shellcheck disable=SC2086 # "as" is words, or none
    $as "$ring" "$name" "$file" "--only=${only:-$here}" "--not=$not" "$@" || rc=$?
    [ "$rc" -le 1 ] || echo "not ok $name # it cannot be tried: exit code $rc"
    here=*
}

# mapped NAME LINE...: /dev/mapper/vblk-NAME
mapped()
{
    map=vblk-$1
    shift
    printf '%s\n' "$@" | DM_DISABLE_UDEV=1 dmsetup create "$map"
}

unmapped()
{
    DM_DISABLE_UDEV=1 dmsetup remove "vblk-$1"
}

# failing: have allocations of marked tasks fail, where the kernel can do that
failing()
{
    mount -t debugfs none /sys/kernel/debug 2>/dev/null || true
    [ -d /sys/kernel/debug/failslab ] || return 1
    for place in failslab fail_page_alloc; do
        (
            cd "/sys/kernel/debug/$place"
            echo Y >task-filter
            echo N >ignore-gfp-wait
            echo 0 >verbose
            echo -1 >times
            echo 5 >probability
        )
    done
    echo 0 >/sys/kernel/debug/fail_page_alloc/min-order
}

want()
{
    case ,$which, in
    ,all, | *,"$1",*) return 0 ;;
    esac
    return 1
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
    on null "$(null nullb-a discard=1)" direct discard merges
fi
if want cached; then
    on cached "$(null nullb-b discard=1 queue_mode=0)" discard
fi
if want null-4k; then
    on null-4k "$(null nullb-c discard=1 blocksize=4096)" direct discard merges
fi
if want slow; then
    # completions come 40 ms later, from a timer
    disk=$(null nullb-d irqmode=2 completion_nsec=40000000 discard=1)
    some busy-stop,depth,drain,flood,killed,late-log,mem-table,orphan,verify
    on slow "$disk" direct discard late
fi
if want delay; then
    # reads come 200 ms late, writes 400, and the last MiB is bad
    disk=$(null nullb-f size=64)
    mapped delay "0 129024 delay $disk 0 200 $disk 0 400" \
        "129024 2048 error"
    some fork,host-cache,io-error,late-log
    on delay /dev/mapper/vblk-delay direct late late-data bad-end
    some lost
    on delay-cached /dev/mapper/vblk-delay bad-end
    unmapped delay
fi
if want flakey; then
    # a second good, a second bad
    mapped flakey "0 131072 flakey $(null nullb-g size=64) 0 1 1"
    some 'verify*'
    on flakey /dev/mapper/vblk-flakey direct errors --verify=4
    unmapped flakey
fi
if want starved && failing; then
    # allocations of the worker fail, one in twenty
    disk=$(null nullb-i size=64)
    some 'verify*'
    on starved "$disk" direct errors starved --verify=5
    echo 0 >/sys/kernel/debug/failslab/probability
    echo 0 >/sys/kernel/debug/fail_page_alloc/probability
fi
if want zoned; then
    disk=$(null nullb-h zoned=1 zone_size=16)
    some zoned
    on zoned "$disk" direct zoned
fi
if want ram; then
    on ram /dev/ram0 direct
fi
if want loop || want file-tmpfs; then
    truncate -s 256M /run/disk/image
fi
if want loop; then
    on loop "$(losetup -f --show /run/disk/image)" direct discard counts-flushes
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
    # no write is left counted as under way
    if timeout 30 fsfreeze -f /run/ext4; then
        fsfreeze -u /run/ext4
        echo "ok module/freeze"
    else
        echo "not ok module/freeze # the file system cannot be frozen"
    fi
    umount /run/ext4
fi
if want reserved; then
    # 64 MiB, half of it for root, and a user who is not
    disk=$(null nullb-j size=64)
    mkfs.ext4 -q -F -m 50 "$disk"
    mkdir -p /run/full
    mount -t ext4 "$disk" /run/full
    chmod 666 /dev/vhost-blk
    as="setpriv --reuid=65534 --clear-groups"
    for how in direct ''; do
        truncate -s 48M /run/full/raw
        chown nobody /run/full/raw
        some reserved
        on "reserved${how:+-$how}" /run/full/raw reserved $how
        rm /run/full/raw
    done
    as=
    umount /run/full
fi
if want scsi; then
    disk=$(ls -d /sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/target*/*/block/*)
    on scsi "/dev/${disk##*/}" direct discard pulled
fi
leaks 'vhost|vblk|ring-test'
# nothing holds the module, and the kernel says so if it leaves requests
if rmmod vhost_blk; then
    echo "ok module/unload"
else
    echo "not ok module/unload # it is still in use"
fi
if [ -e /dev/vhost-blk ]; then
    echo "not ok module/load-again # /dev/vhost-blk is still there"
elif insmod "$VHOST_BLK_KO" && "$ring" again /dev/null --only=info &&
    rmmod vhost_blk; then
    echo "ok module/load-again"
else
    echo "not ok module/load-again # it does not work again"
fi
