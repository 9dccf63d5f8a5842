#!/bin/busybox sh
# The emulated host's first program: brings the host up, runs /kedge/job, says how it ended.
# What it prints before the "up" mark is boot noise to the program that reads the console; a mark starts with a byte
# (record separator) that no ordinary output has.
/bin/busybox --install -s /bin
export HOME=/root TERM=${TERM:-linux} PATH=/kedge/bin:/kedge/lib:/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t devpts pts /dev/pts
ln -s /proc/self/fd /dev/fd
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup 2>/dev/null
for module in $(cat /mod/order); do
    insmod /mod/$module.ko 2>/dev/null
done
mkdir -p /dev/net
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up
hostname kedge-host
# The kernel's own messages would land within the command's lines; they stay readable with dmesg.
dmesg -n 1
printf '\036kedge-host-up\n'
. /kedge/job
sync
printf '\036kedge-host-exit %d\n' "$status"
poweroff -f
