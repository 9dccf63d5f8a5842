# Writes to a slow disk for as long as it takes to write to each queue of another one; then says how much of the slow
# one's work is done.
written() { awk '{ print $5 }' /sys/block/$1/stat; }
(while dd if=/dev/zero of=/dev/vda bs=4096 count=1 seek=$((seek = seek + 1)) oflag=direct 2>/dev/null; do :; done) &
slow=$!
until [ "$(written vda)" -gt 0 ]; do usleep 10000; done
before=$(written vda)
jobs=
for cpu in $(seq 0 $(($(nproc) - 1))); do
    taskset -c $cpu dd if=/dev/zero of=/dev/vdb bs=4096 count=50 seek=$((cpu * 50)) oflag=direct 2>/dev/null &
    jobs="$jobs $!"
done
wait $jobs
echo "QUEUES $(ls /sys/block/vdb/mq | wc -l)"
echo "FAST $(written vdb)"
echo "SLOW $(($(written vda) - before))"
kill $slow
