# Uses a disk and a card that come, round after round until they go, and a disk that comes again. What it waits for
# and does not get, it says.
section() { echo "=== $1"; }
await() {
    for try in $(seq 1200); do
        eval "$1" && return
        sleep 0.05
    done
    echo "NEVER: $1"
}

section slots
ls /sys/bus/pci/slots
# A disk from before the start, read until it goes: then, to Linux, it has come to its end.
await '[ -b /dev/vda ]'
dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2>/tmp/fault &
section waiting
wait
echo "READS END $(grep 'records out' /tmp/fault)"
await '[ ! -e /sys/class/block/vda ]'
await '[ -b /dev/vda ]'
await '[ -e /sys/class/net/eth0 ]'
mkdir /mnt/plugged
mount -t ext4 /dev/vda /mnt/plugged && echo mounted
ip addr add 10.92.0.2/24 dev eth0
ip link set dev eth0 up

round() {
    dd if=/dev/urandom of=/tmp/piece bs=4096 count=16 2>/dev/null
    cp /tmp/piece /mnt/plugged/var/piece && sync && echo 3 >/proc/sys/vm/drop_caches
    cmp /tmp/piece /mnt/plugged/var/piece && ping -c 1 -W 5 10.92.0.1 >/dev/null
}
# Writes past the guest's cache until it cannot.
writes() {
    while dd if=/dev/zero of=/mnt/plugged/var/direct bs=64k count=8 oflag=direct 2>/tmp/fault; do :; done
    echo "WRITES END $(grep dd: /tmp/fault)"
}
writes &
while round 2>/dev/null; do
    echo "ROUND"
done
wait
await '[ ! -e /sys/class/block/vda ]'
await '[ ! -e /sys/class/net/eth0 ]'
echo "GONE"
umount -l /mnt/plugged

await '[ -e /sys/class/block/vd? ]'
disk=$(ls -d /sys/class/block/vd?)
section again
cat $disk/size
dd if=/dev/urandom of=/tmp/piece bs=4096 count=16 2>/dev/null
dd if=/tmp/piece of=/dev/${disk##*/} conv=fsync 2>/dev/null && cmp -n 65536 /tmp/piece /dev/${disk##*/} && echo same
section done
