# A network card with a pair of queues for each CPU, before the machine moves and after.
on_each_cpu() {
    for cpu in $(seq 0 $(($(nproc) - 1))); do
        head -c 50000 /dev/urandom >/tmp/out
        for try in 1 2 3; do
            taskset -c $cpu nc 10.90.0.1 7007 </tmp/out >/tmp/back && break
        done
        if [ "$(md5sum </tmp/out)" = "$(md5sum </tmp/back)" ]; then echo "exchanged $1 by $cpu"; fi
    done
}
ip addr add 10.90.0.2/24 dev eth0
ip link set eth0 up
on_each_cpu before
echo "=== ready"
read -r line
on_each_cpu after
echo "=== done"
