# Works with disks, by the program that the first holds: all others are checked all over, and the last gets files, too.
cat /dev/vda >/tmp/checker
chmod +x /tmp/checker
for disk in vdb vdc vdd vde; do
    queues=$(ls /sys/block/$disk/mq | wc -l)
    discard=$(cat /sys/block/$disk/queue/discard_max_bytes)
    stored=$(cat /sys/block/$disk/queue/physical_block_size)
    echo "=== $disk $(cat /sys/block/$disk/cache_type), $queues queues, discards $discard, stores $stored"
    /tmp/checker /dev/$disk 7
    blockdev --flushbufs /dev/$disk
done
echo "write through" >/sys/block/vdb/cache_type
echo "=== vdb turned to $(cat /sys/block/vdb/cache_type)"
/tmp/checker /dev/vdb 8
echo "=== vdg $(md5sum </dev/vdg)"
echo "=== files"
mkdir -p /mnt/root
mount -t ext4 -o rw /dev/vdf /mnt/root
for piece in 1 2 3 4 5 6; do
    head -c 1048576 /dev/urandom >/mnt/root/var/piece.$piece
done
md5sum /mnt/root/var/piece.* >/tmp/sums
sync
echo 3 >/proc/sys/vm/drop_caches
md5sum -c -s /tmp/sums && echo "=== files are whole"
rm /mnt/root/var/piece.[1-5]
sync
echo "=== full"
read -r line
fstrim -v /mnt/root
sync
echo 3 >/proc/sys/vm/drop_caches
grep piece.6 /tmp/sums | md5sum -c -s && echo "=== the file that is left is whole"
umount /mnt/root
dmesg | grep -E 'I/O error|EXT4-fs error|WARNING:|BUG:' | while read -r line; do echo "WRONG: $line"; done
echo "=== done"
