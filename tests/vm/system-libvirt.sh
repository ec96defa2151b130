#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# In the VM: Debian's libvirtd for the whole system (udev, AppArmor, cgroups, a
# user of QEMU's own) starts the documentation's domain of disks that the kernel
# serves, with the documentation's lines and not without them.
#     system-libvirt.sh PACKAGES FOLDER
# PACKAGES are unpacked; FOLDER is made by tests/libvirt/system.
set -euo pipefail

trap 'echo "line $LINENO ended with code $?"' ERR
LOG_DIR=/run/tmp/log
. "$(dirname "$0")/../lib.sh"
packages=/run/packages folder=/run/given module=/run/vhost_blk.ko
images=/var/lib/libvirt/images
acl=/etc/libvirt/qemu.conf
abstraction=/etc/apparmor.d/local/abstractions/libvirt-qemu
daemon_rules=/etc/apparmor.d/local/usr.sbin.libvirtd
export LIBVIRT_DEFAULT_URI=qemu:///system
# udevadm takes a PID 1 with another root for the sign of a chroot
export SYSTEMD_IGNORE_CHROOT=1

# What the packages and their scripts leave behind on a Debian.  The root file
# system cannot be written: all of it goes on top.
installed()
{
    local place

    mkdir -p /run/etc $packages $folder /run/sbin /run/udev
    cp -a "$1/." $packages
    cp -a "$2/." $folder
    cp "$VHOST_BLK_KO" $module
    # from here on this tree may be out of sight
    for place in /var/lib /var/cache /var/log /usr/local; do
        mount -t tmpfs none $place
    done
    cp -a /etc/. $packages/etc/. /run/etc
    mount --bind /run/etc /etc
    mount --bind $packages/lib/udev /lib/udev
    # the one folder where libvirt looks for the parser
    cp /usr/sbin/libvirtd $packages/sbin/apparmor_parser /run/sbin
    cp /usr/sbin/mkfs.ext4 /run/mkfs.ext4
    ln -s "$(readlink -f /usr/sbin/rmmod)" /run/sbin/rmmod
    ln -s "$(readlink -f /usr/sbin/insmod)" /run/sbin/insmod
    mount --bind /run/sbin /usr/sbin
    sed -i "s,=/usr/share/apparmor,=$packages/usr/share/apparmor," \
        /etc/apparmor/parser.conf

    sed -i '/^\(kvm\|libvirt\|libvirt-qemu\):/d' /etc/group /etc/passwd
    printf '%s\n' kvm:x:60990: libvirt:x:60991: libvirt-qemu:x:64055:libvirt-qemu \
        >>/etc/group
    echo "libvirt-qemu:x:64055:60990::/var/lib/libvirt:/usr/sbin/nologin" \
        >>/etc/passwd
    mkdir -p -m 711 $images /var/log/libvirt/qemu
    mkdir -p -m 750 /var/lib/libvirt/qemu /var/cache/libvirt/qemu
    chown libvirt-qemu:libvirt-qemu /var/{lib,cache}/libvirt/qemu
    mkdir -p /etc/apparmor.d/local/abstractions
    touch $daemon_rules $abstraction \
        /etc/apparmor.d/local/usr.lib.libvirt.virt-aa-helper

    cp -a $folder/installed/usr/local/. /usr/local
    # no virtlogd here
    echo 'stdio_handler = "file"' >>$acl
    cp $acl /run/plain.conf
    mount -t securityfs none /sys/kernel/security
    mount -t cgroup2 none /sys/fs/cgroup
    hostname vm
    echo '127.0.0.1 vm' >>/etc/hosts
}

# A disk's file system that takes direct I/O, on it two disks that boot to a halt.
disks()
{
    local number

    /run/mkfs.ext4 -q -F /dev/ram0
    mount -t ext4 /dev/ram0 $images
    chmod 711 $images
    for number in 1 2; do
        {
            printf '\364\353\375'       # hlt; jmp to it
            head -c 507 /dev/zero
            printf '\125\252'
        } >$images/fast$number.img
        truncate -s 32M $images/fast$number.img
    done
}

# confined LINES-OF-LIBVIRTD LINES-OF-QEMU: those are AppArmor's local rules
confined()
{
    printf '%s\n' "$1" >$daemon_rules
    printf '%s\n' "$2" >$abstraction
    apparmor_parser -r /etc/apparmor.d/usr.sbin.libvirtd \
        /etc/apparmor.d/usr.lib.libvirt.virt-aa-helper
}

# A daemon with the settings of now.
daemon()
{
    local pid=

    [ ! -e /run/libvirtd.pid ] || pid=$(cat /run/libvirtd.pid)
    if [ -n "$pid" ]; then
        kill "$pid"
        timeout 60 tail --pid="$pid" -f /dev/null || kill -9 "$pid"
    fi
    libvirtd -d
    if ! timeout 100 virsh uri >/dev/null; then
        # Seen once in seven runs, idle: Debian's daemon answers nobody.
        echo "libvirtd does not answer; it is started once more" >&2
        kill -9 "$(cat /run/libvirtd.pid)"
        sleep 1
        libvirtd -d
        timeout 300 virsh uri >/dev/null
    fi
}

# refused NAME WORDS: the domain does not start, and these words say why
refused()
{
    local out rc=0

    out=$(timeout 300 virsh create $folder/fast.xml 2>&1) || rc=$?
    if [ $rc -eq 1 ] && grep -qE "$2" <<<"$out"; then
        result "refused/$1" 0
    else
        result "refused/$1" 1 "code $rc, ${out//$'\n'/ }"
        timeout 60 virsh destroy fast >/dev/null 2>&1 || true
    fi
}

# is NAME WANTED FOUND
is()
{
    local rc=0
    [ "$3" = "$2" ] || rc=1
    result "$1" $rc "$3, not $2"
}

engine()
{
    timeout 60 virsh qemu-monitor-command fast \
        '{"execute": "qom-get", "arguments": {"path":
          "/machine/peripheral/ua-'"$1"'/virtio-backend", "property": "engine"}}'
}

# In the cgroup of process $1: libvirt's list, and nothing that is not in it.
cgroup()
{
    local place device
    place=$(sed -n 's,^0::,/sys/fs/cgroup,p' "/proc/$1/cgroup")
    case $place in */machine/*) ;; *) echo "QEMU is in $place"; return ;; esac
    (
        # what libvirt makes below it is for threads
        echo 0 >"${place%/libvirt/*}/cgroup.procs" ||
            echo "$place cannot be entered"
        for device in /dev/null /dev/vhost-blk; do
            (: <>$device) 2>&1
        done
        ! (: </dev/ram0) 2>/dev/null || echo "/dev/ram0 is not denied"
    )
}

running()
{
    local pid disk seen

    pid=$(cat /run/libvirt/qemu/fast.pid)
    for disk in fast1 fast2; do
        for _ in $(seq 60); do
            seen=$(engine $disk)
            [[ $seen != *'"vhost"'* ]] || break
            sleep 2
        done
        result "engine/$disk" "$([[ $seen = *'"vhost"'* ]] && echo 0 || echo 1)" "$seen"
    done
    is user 'libvirt-qemu' "$(stat -c %U "/proc/$pid")"
    is owner libvirt-qemu "$(stat -c %U $images/fast1.img)"
    is apparmor "libvirt-$(virsh domuuid fast | head -n 1) (enforce)" \
        "$(cat "/proc/$pid/attr/current")"
    is seccomp 2 "$(sed -n 's/^Seccomp:\t//p' "/proc/$pid/status")"
    is dev 'libvirt-qemu:crw-rw----:root:kvm' "libvirt-qemu:$(stat -c %A:%U:%G \
        "/proc/$pid/root/dev/vhost-blk")"
    is dev/others '' "$(ls "/proc/$pid/root/dev" | grep -E 'ram|loop|vhost-net' || true)"
    is cgroup '' "$(cgroup "$pid" 2>&1)"
    timeout 60 virsh destroy fast >/dev/null
    is owner/after root "$(stat -c %U $images/fast1.img)"
}

installed "$1" "$2"
emulator=$(cat $folder/emulator)
disks

is udev/without '600 root:root' "$(stat -c '%a %U:%G' /dev/vhost-blk)"
cp $folder/udev.rules /etc/udev/rules.d/70-vhost-blk.rules
(exec -a systemd-udevd $packages/bin/udevadm --daemon) >/run/udevd 2>&1
rmmod vhost_blk
insmod $module
$packages/bin/udevadm settle --timeout=60
is udev/rule '660 root:kvm' "$(stat -c '%a %U:%G' /dev/vhost-blk)"
is udev/complaints '' "$(grep -i 'vhost-blk' /run/udevd || true)"

daemon_lines=$(cat $folder/libvirtd.rules) qemu_lines=$(cat $folder/qemu.rules)
cat $folder/acl.conf >>$acl
confined '' "$qemu_lines"
daemon
is libvirtd/confined 'libvirtd (enforce)' \
    "$(cat "/proc/$(cat /run/libvirtd.pid)/attr/current")"
refused apparmor/libvirtd "cannot execute binary $emulator: Permission denied"
confined "$daemon_lines" "$(grep -v "^$emulator" <<<"$qemu_lines")"
refused apparmor/qemu "cannot execute binary $emulator: Permission denied"
confined "$daemon_lines" "$(grep -v '^/dev/' <<<"$qemu_lines")"
refused apparmor/node 'no permission to open /dev/vhost-blk'
confined "$daemon_lines" "$qemu_lines"
chmod 600 /dev/vhost-blk
refused udev 'no permission to open /dev/vhost-blk.*udev rule'
$packages/bin/udevadm trigger --action=change /sys/class/misc/vhost-blk
$packages/bin/udevadm settle --timeout=60
is udev/again '660 root:kvm' "$(stat -c '%a %U:%G' /dev/vhost-blk)"

cp $acl /run/listed.conf
cp /run/plain.conf $acl
daemon
refused cgroup '/dev/vhost-blk is not there'
cp /run/listed.conf $acl
daemon
rc=0
out=$(timeout 300 virsh create $folder/fast.xml 2>&1) || rc=$?
result start $rc "${out//$'\n'/ }"
[ $rc -ne 0 ] || running
if [ $rc -ne 0 ]; then
    tail -n 20 /var/log/libvirt/libvirtd.log /var/log/libvirt/qemu/fast.log || true
fi
