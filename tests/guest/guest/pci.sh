# What a guest finds on PCI and does with it. A line `=== NAME` begins what the tests know by that name.
section() { echo "=== $1"; }

section functions
for function in /sys/bus/pci/devices/*; do
    echo "${function##*/} $(cat $function/vendor) $(cat $function/device)"
done
section drivers
for device in /sys/bus/virtio/devices/*; do
    driver=$(readlink $device/driver)
    echo "${device##*/} ${driver##*/}"
done

section root
mkdir /mnt/root
mount -t ext4 -o rw /dev/vda /mnt/root && echo mounted
dd if=/dev/urandom of=/mnt/root/var/written bs=4096 count=75 2>/dev/null
md5sum </mnt/root/var/written >/tmp/sum
umount /mnt/root
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 -o ro /dev/vda /mnt/root
section read-back
md5sum </mnt/root/var/written | cmp - /tmp/sum && echo same
umount /mnt/root
section sizes
cat /sys/block/vda/size /sys/block/vdb/size

section entropy
dd if=/dev/hwrng bs=32 count=1 2>/dev/null | od -An -v -tx1 | tr -d ' \n'
echo

ip addr add 10.90.0.2/24 dev eth0
ip link set dev eth0 up
section ping
ping -c 2 -W 5 10.90.0.1

section vectors
grep virtio /proc/interrupts
section done
