#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# In the VM, with tests/vm/count.c around it: count-runs.sh BENCH QEMU...
# Each load runs twice, with a small and a large count of requests; what counts
# is the difference.  Who serves the disk has CPU 0 for itself, who drives the
# rings has CPU 1.
set -eu

bench=$1
shift
disk=/dev/ram0
small=2000 large=10000

# once NAME LOAD COUNT WORD...
once()
{
    name=$1 load=$2 count=$3
    shift 3
    echo "run $name $load $count"
    "$@" "--load=$load" "--count=$count" --region=64m --batch=32 --warm=0 \
        --time=3 --timeout=60 >/run/tmp/result || echo "failed $name"
}

for load in randread randwrite; do
    for count in $small $large; do
        for registered in off on; do
            name=io_uring
            [ $registered = off ] || name=io_uring/registered
            once $name $load $count taskset -c 0 "$bench" --target=io_uring \
                --file=$disk --direct=on --registered=$registered
        done
        for wait in poll irq; do
            once "vhost/$wait" $load $count taskset -c 1 "$bench" \
                --target=vhost --file=$disk --direct=on --server-cpu=0 \
                --wait=$wait
            for qemu; do
                once "${qemu%%=*}/$wait" $load $count taskset -c 1 "$bench" \
                    "--binary=${qemu#*=}" --wrap='taskset -c 0' --wait=$wait \
                    "--blockdev={\"driver\":\"host_device\",\"filename\":\"$disk\",\"aio\":\"io_uring\",\"cache\":{\"direct\":true},\"node-name\":\"drive0\"}"
            done
        done
    done
done
