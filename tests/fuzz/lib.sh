# SPDX-License-Identifier: GPL-2.0-or-later
#
# Whole devices for the fuzzer, and for what is replayed of it; sourced by bash.

# fuzz_devices TOP: their names.
fuzz_devices()
{
    sed -n 's/^\([a-z0-9-]*\): .*/\1/p' "$1/tests/fuzz/devices"
}

# The made-up disk of tests/fakehost, zoned or with an age.
fuzz_fake_disk()
{
    local dir=$1 name=$2

    mkdir -p "$dir"/{queue,device,fault,host/health_descriptor}
    echo 512 >"$dir/queue/physical_block_size"
    echo 512 >"$dir/queue/logical_block_size"
    echo 0x01 >"$dir/device/pre_eol_info"
    echo '0x02 0x03' >"$dir/device/life_time"
    case $name in
    *zoned*)
        echo host-managed >"$dir/queue/zoned"
        echo 128 >"$dir/queue/chunk_sectors"
        echo 512 >"$dir/queue/nr_zones"
        printf '0 0 conv 0\n7 7 seq 96\n' >"$dir/zones"
        echo 4 >"$dir/queue/max_open_zones"
        echo 6 >"$dir/queue/max_active_zones"
        echo 65536 >"$dir/queue/zone_append_max_bytes" ;;
    esac
}

# fuzz_host TOP BUILD NAME DIR: make in DIR what device NAME needs.  Sets
# QEMU_FUZZ_ARGS, and fuzz_env to what the emulator must find in its environment.
fuzz_host()
{
    local top=$1 build=$2 name=$3 dir=$4 line

    line=$(sed -n "s,^$name: ,,p" "$top/tests/fuzz/devices")
    mkdir -p "$dir"
    truncate -s 32M "$dir/disk"
    # In a hole QEMU can't tell how direct I/O must be aligned.
    dd if=/dev/zero of="$dir/disk" bs=64K count=1 conv=notrunc status=none
    export QEMU_FUZZ_ARGS=${line//@DISK@/$dir/disk}
    fuzz_env=()
    case $line in
    *driver=host_device*)
        fuzz_fake_disk "$dir/host" "$name"
        fuzz_env+=("FAKEHOST_PATH=$dir/disk" "FAKEHOST_SYSFS=$dir/host") ;;
    *vhost-blk*)
        touch "$dir/vhost"
        fuzz_env+=("FAKEHOST_VHOST=$dir/vhost") ;;
    esac
    [ "${#fuzz_env[@]}" -eq 0 ] ||
        fuzz_env+=("LD_PRELOAD=$build/tests/qtest/virtio-blk/fakehost.so")
}
