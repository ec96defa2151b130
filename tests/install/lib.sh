# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the parts install and packages share; sourced after tests/lib.sh.

# works NAME EMULATOR: it has our device and starts a machine with firmware.
works()
{
    local name=$1 emulator=$2 rc=0

    timeout 60 "$emulator" -device virtio-blk-pci,help >"$LOG_DIR/help" 2>&1 &&
        grep -q 'io-engine=' "$LOG_DIR/help" || rc=1
    result "$name has our virtio-blk" "$rc" "log: $LOG_DIR/help"
    rc=0
    # the option ROM of a network card is firmware, too
    timeout 60 "$emulator" -machine q35 -accel tcg -display none -nodefaults \
        -monitor stdio -device virtio-net-pci \
        -blockdev driver=null-co,node-name=disk0,size=1048576 \
        -device virtio-blk-pci,drive=disk0 >"$LOG_DIR/machine" 2>&1 \
        <<<$'info status\nquit' || rc=$?
    grep -q 'VM status: running' "$LOG_DIR/machine" || rc=1
    result "$name starts a machine" "$rc" "log: $LOG_DIR/machine"
    rc=0
    timeout 120 "$top/tests/install/libvirt.py" "$emulator" \
        >"$LOG_DIR/libvirt" 2>&1 || rc=$?
    result "$name is taken by libvirt" "$rc" "$(tail -n 1 "$LOG_DIR/libvirt")"
}
