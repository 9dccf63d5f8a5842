# Everything that one guest can show at once. A line `=== NAME` begins what the tests know by that name.
section() { echo "=== $1"; }

section kernel
uname -r
section cmdline
cat /proc/cmdline
section cpus
cat /sys/devices/system/cpu/online
section features
grep -m 1 '^Features' /proc/cpuinfo
section memory
grep MemTotal /proc/meminfo

section timers-before
grep arch_timer /proc/interrupts
for cpu in 0 1 2 3; do
    taskset -c $cpu sleep 0.1
done
section timers-after
grep arch_timer /proc/interrupts

section disks
for disk in vda vdb vdc; do
    echo "$disk $(cat /sys/block/$disk/size) $(cat /sys/block/$disk/ro)"
done

section root
mkdir /mnt/root
mount -t ext4 -o rw /dev/vda /mnt/root && echo mounted
dd if=/dev/urandom of=/mnt/root/var/written bs=4096 count=75 2>/dev/null
section written
md5sum </mnt/root/var/written
section chroot
chroot /mnt/root /bin/sh -c 'read -r name </etc/hostname; echo "I am $name"; echo log >>/var/log; sync'
section unmounted
umount /mnt/root && echo unmounted

section read-only
if dd if=/dev/zero of=/dev/vdb bs=512 count=1 conv=fsync 2>/tmp/error; then echo written; else cat /tmp/error; fi

section tree
dd if=/sys/firmware/fdt of=/dev/vdc conv=fsync 2>/dev/null && echo copied
sync

section entropy-source
cat /sys/class/misc/hw_random/rng_current
section entropy
for read in 1 2; do
    dd if=/dev/hwrng bs=32 count=1 2>/dev/null | od -An -v -tx1 | tr -d ' \n'
    echo
done

section clock
cat /sys/class/rtc/rtc0/name
section seconds
cat /sys/class/rtc/rtc0/since_epoch
section alarm-before
grep -w rtc-pl031 /proc/interrupts
section alarm-after
echo 0 >/sys/class/rtc/rtc0/wakealarm
echo +1 >/sys/class/rtc/rtc0/wakealarm
tries=0
while [ -n "$(cat /sys/class/rtc/rtc0/wakealarm)" ] && [ $tries -lt 40 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
grep -w rtc-pl031 /proc/interrupts

section stolen-time
dmesg | grep -o 'using stolen time PV'
section stolen
awk '/^cpu / { print $9 }' /proc/stat

section card
cat /sys/class/net/eth0/address
ip addr add 10.87.0.2/24 dev eth0
ip link set dev eth0 up
section ping
ping -c 2 -W 5 10.87.0.1
# The tests ping back, and then say so on the serial port.
section ready
read -r line
section typed
echo "$line"
section done
