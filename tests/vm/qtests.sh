#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# In the VM: our qtests with vhost-blk devices, on the real /dev/vhost-blk, over
# files ("requests", "life") and disks; live migration to and from them
# ("migrate"); what QEMU says where the kernel's side is missing ("errors", which
# must come last: the module is gone then); and those of zones on a zoned disk.
# One line a test; those of a disk are named after it.  VBLK_PATIENCE says how
# many times longer than elsewhere a test may take.
#     qtests.sh BUILD_DIR requests|life|DISK|zoned|migrate|errors,...
set -euo pipefail

LOG_DIR=/run/tmp/log BUILD_DIR=$1 VBLK_JOBS=$(nproc)
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/leaks.sh"
# a load takes a minute where the emulated CPUs are emulated on a busy host
export VBLK_PATIENCE=${VBLK_PATIENCE:-5}
limit=$((VBLK_PATIENCE * 70))
export VBLK_VHOST=1 TMPDIR=/run/tmp VBLK_JOBS
export VBLK_BAD_SECTOR=130000
export QTEST_QEMU_BINARY=$QEMU QTEST_QEMU_IMG=$BUILD_DIR/qemu-img
cd "$BUILD_DIR"
suite=tests/qtest/virtio-blk/virtio-blk-test-suite

# What a kernel has to prove that the fake one cannot; the load of the longer
# ones goes through emulated CPUs twice, so each is here in one layout only.
requests='^/virtio-blk/request/.*/modern-split$|/vhost/sandbox$'
requests+='|/vhost/(choice|wrong/(version|queues|not-vhost))/'
requests+='|/historic/(haiku/(probe|io)|linux3/(probe|flush-and-serial))/transitional-msix$'
life='/life/vhost/[^/]*/(main|legacy)$'
life+='|/life/vhost/(slow-flips|bitmap-load)/mapping$|/life/vhost/move/.*/mapping$'
life+='|/life/drain/(mirror|io-throttle)/iothread$'
# not with blkdebug or a throttle group: those are for userspace
life+='|/life/(reset|ring-reset|stop)/(loop|kick|registers|no-pause|idle)/iothread$'
disk='/life/vhost/(started|stats|cache)/mapping$'
# not on each disk: what has little to do with its kind
null_too='|/life/vhost/move/vhost-to-vhost/mapping$'
ram_too='|/life/vhost/slow-flips/mapping$'
bad='/life/vhost/bad-disk/'

# What the kernel is not told of, or does otherwise; see tests/parts/vhost.
otherwise='/slow-flips/main|/choice/direct|/bad-disk/'

# null NAME ATTRIBUTE=VALUE...: make a null_blk; its path
null()
{
    local place=/sys/kernel/config/nullb/$1 setting

    mountpoint -q /sys/kernel/config ||
        mount -t configfs none /sys/kernel/config
    mkdir "$place"
    for setting in memory_backed=1 "${@:2}" power=1; do
        echo "${setting#*=}" >"$place/${setting%%=*}"
    done
    if [ -b "/dev/${place##*/}" ]; then
        echo "/dev/${place##*/}"
    else
        echo "/dev/nullb$(cat "$place/index")"
    fi
}

# device NAME: set it up; its path
device()
{
    case $1 in
    ram) echo /dev/ram0 ;;
    null) null vblk size=64 discard=1 ;;
    zoned)
        # sizes in MiB
        null vblk-zoned size=72 zoned=1 zone_size=8 zone_capacity=6 \
            zone_nr_conv=1 zone_max_open=4 zone_max_active=6 ;;
    loop)
        truncate -s 64M /run/tmp/loop.img
        losetup --show -f /run/tmp/loop.img ;;
    scsi)
        echo "/dev/$(ls /sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/target*/*/block)" ;;
    bad)
        # the last MiB of 64
        printf '%s\n' '0 129024 linear /dev/ram0 0' '129024 2048 error' |
            DM_DISABLE_UDEV=1 dmsetup create vblk-bad
        echo /dev/mapper/vblk-bad ;;
    esac
}

# refused NAME WORDS COMMAND...: QEMU must not start, and say so in one line
refused()
{
    local name=$1 words=$2 rc=0 log=$LOG_DIR/errors-$1.log

    shift 2
    timeout -k 5 60 "$@" "$QEMU" -nodefaults -display none -accel qtest \
        -blockdev driver=null-co,node-name=disk0,read-zeroes=on \
        -device vhost-blk-pci,drive=disk0 >"$log" 2>&1 </dev/null || rc=$?
    if [ "$rc" -eq 1 ] && [ "$(wc -l <"$log")" -eq 1 ] &&
        grep -qE "$words" "$log"; then
        result "errors/$name" 0
    else
        result "errors/$name" 1 "exit code $rc: $(head -c 300 "$log")"
    fi
}

errors()
{
    local major minor

    # a user that no udev rule lets in
    chmod 600 /dev/vhost-blk
    refused no-permission 'no permission to open /dev/vhost-blk.*udev rule' \
        setpriv --reuid=65534 --regid=65534 --clear-groups
    read -r major minor <<<"$(stat -c '%Hr %Lr' /dev/vhost-blk)"

    # the module stays while somebody has it open
    exec 9<>/dev/vhost-blk
    if rmmod vhost_blk 2>/dev/null; then
        result errors/in-use 1 "rmmod takes a module that is in use"
    else
        result errors/in-use 0
    fi
    exec 9>&-
    rmmod vhost_blk
    refused missing '/dev/vhost-blk is not there; load the kernel module.*modprobe vhost_blk'
    # as a container has it, whose nodes do not go with the module
    mknod /dev/vhost-blk c "$major" "$minor"
    refused removed 'no driver behind it any more.*modprobe vhost_blk'
    rm /dev/vhost-blk
    insmod "$VHOST_BLK_KO"
    VBLK_JOBS=1 glib_tests loaded-again $limit "$suite" '/life/vhost/started/main'
}

for name in ${2//,/ }; do
    case $name in
    requests) glib_tests file $limit "$suite" "$requests" "$otherwise" ;;
    life) glib_tests file $limit "$suite" "$life" "$otherwise" ;;
    migrate)
        "$top/tests/migration/run" --only='*vhost*' --jobs="$VBLK_JOBS" \
            --logs="$LOG_DIR/migrate" ;;
    errors) errors ;;
    zoned)
        VBLK_ZONED=$(device zoned)
        # the tests name vhost-blk where they want it; they share the disk
        (
            export VBLK_ZONED VBLK_JOBS=1
            unset VBLK_VHOST
            glib_tests zoned $limit "$suite" '/zoned-host/'
        ) ;;
    *)
        VBLK_DISK=$(device "$name")
        export VBLK_DISK
        # one after the other: they share the disk
        case $name in
        null) which=$disk$null_too ;;
        ram) which=$disk$ram_too ;;
        bad) which=$bad ;;
        *) which=$disk ;;
        esac
        VBLK_JOBS=1 glib_tests "$name" $limit "$suite" "$which"
        unset VBLK_DISK ;;
    esac
done
leaks 'vhost|vblk|qemu'
for log in "$LOG_DIR"/*.log; do
    ! grep -qE '^(not ok|Bail out|\*\*)' "$log" || { echo "# $log"; tail -n 8 "$log" | cut -c1-300 | sed 's/^/# /'; }
done
