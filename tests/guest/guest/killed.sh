# Writes files to two new file systems and says of each, and of each line of a growing one, once it is to last: until
# the machine is killed.
. /tests/debian
for disk in vdb vdc; do
    mkdir /mnt/$disk
    /usr/sbin/mke2fs -q -t ext4 /dev/$disk
    mount -t ext4 /dev/$disk /mnt/$disk
done
# Until the disk is full, which takes longer than the machine lives.
write() {
    number=0
    while [ $number -lt 900 ]; do
        number=$((number + 1))
        head -c $((number % 7 * 9000 + 100)) /dev/urandom | dd of=/mnt/$1/file.$number conv=fsync 2>/dev/null
        echo "SYNCED $1 $number $(md5sum </mnt/$1/file.$number)"
        echo "line $number" | dd of=/mnt/$1/lines oflag=append conv=notrunc,fsync 2>/dev/null
        echo "ADDED $1 $number"
        # What need not last.
        head -c 30000 /dev/zero >/mnt/$1/passing.$((number % 3))
        rm -f /mnt/$1/passing.$(((number + 1) % 3))
    done
    echo "ENDED $1"
}
write vdb &
write vdc
