# SPDX-License-Identifier: GPL-2.0-or-later
#
# In the VM, sourced: what a debug kernel finds lost.

# leaks WORDS: a line "ok module/leaks" or "not ok ..." where the kernel can
# tell; WORDS is a pattern of who may have lost it.
leaks()
{
    mount -t debugfs none /sys/kernel/debug 2>/dev/null || true
    [ -w /sys/kernel/debug/kmemleak ] || return 0
    # a block counts as lost when two scans find no pointer to it
    for _ in 1 2; do
        sleep 6
        echo scan >/sys/kernel/debug/kmemleak
    done
    cat /sys/kernel/debug/kmemleak >/run/tmp/leaks
    if grep -qE "$1" /run/tmp/leaks; then
        cat /run/tmp/leaks >&2
        echo "not ok module/leaks # memory is lost"
    else
        echo "ok module/leaks"
    fi
}
