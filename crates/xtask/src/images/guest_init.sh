#!/bin/busybox sh
# A test guest's first program. Words of the kernel command line say what it does once it is up:
#   kedge.run=NAME                            runs /tests/NAME
#   kedge.then=poweroff|reboot|halt|shell     what comes last; a shell is followed by poweroff
#   kedge.then=switch-root                    the init of the disk in the word root= takes over
/bin/busybox --install -s /bin
export HOME=/root TERM=${TERM:-linux} PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
load() {
    for module in $(cat /mod/$1); do
        insmod /mod/$module.ko 2>/dev/null
    done
}
load order
# What a guest does not have only takes time to load.
if grep -qs 0x0013 /sys/bus/virtio/devices/*/device; then load vsock; fi
ip link set lo up
hostname kedge-guest
run=
then=poweroff
root=/dev/vda
access=ro
for word in $(cat /proc/cmdline); do
    case $word in
    kedge.run=*) run=${word#*=} ;;
    kedge.then=*) then=${word#*=} ;;
    root=*) root=${word#*=} ;;
    ro | rw) access=$word ;;
    esac
done
echo "GUEST-UP $(uname -r) $(cat /proc/uptime)"
if [ -n "$run" ]; then
    if [ -e "/tests/$run" ]; then
        sh "/tests/$run"
    else
        echo "there is no /tests/$run in this guest"
    fi
fi
sync
# What was written to the console last is still on its way out, and nothing waits for it.
sleep 0.2
case $then in
reboot) reboot -f ;;
halt) halt -f ;;
switch-root)
    if mount -t ext4 -o $access "$root" /mnt; then
        umount /tmp /dev/pts
        for folder in dev sys proc; do
            mount -o move /$folder /mnt/$folder
        done
        exec switch_root /mnt /sbin/init
    fi
    echo "$root cannot be mounted as ext4"
    ;;
shell)
    # A session of its own on the real console device, so that Ctrl-C and job control work.
    setsid cttyhack sh
    sync
    ;;
esac
poweroff -f
