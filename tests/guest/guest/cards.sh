# Three network cards: one with a pair of queues for each CPU, one with an MTU, one with limits. What comes and goes over
# them, with offloads and without, and when the tap goes down and comes up.
section() { echo "=== $1"; }
addresses() {
    for card in 0 1 2; do
        ip addr add 10.9$card.0.2/24 dev eth$card
        ip link set eth$card up
    done
}
# Has the host send back what a CPU sends it.
exchange() {
    head -c 100000 /dev/urandom >/tmp/out
    taskset -c $2 nc 10.9$1.0.1 7007 </tmp/out >/tmp/back
    if [ "$(md5sum </tmp/out)" = "$(md5sum </tmp/back)" ]; then echo "exchanged on $1 by $2"; fi
}
on_each_cpu() {
    for cpu in $(seq 0 $(($(nproc) - 1))); do exchange 0 $cpu; done
}
received() { cat /sys/class/net/$1/statistics/rx_packets; }
# Says what the host waits for, and waits until it has done its part.
await() {
    section "$1"
    read -r line
}
addresses
section mtu
cat /sys/class/net/eth1/mtu
section pairs
on_each_cpu
section mtu-exchange
exchange 1 0

await datagrams
cat /dev/vda >/tmp/datagrams
chmod +x /tmp/datagrams
/tmp/datagrams 10.91.0.1:7010
await send
# More than the limit comes and goes.
tries=0
while [ "$(received eth2)" -lt 20 ] && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
for line in $(seq 60); do
    echo more than enough
    usleep 10000
done | timeout 5 nc -u 10.92.0.1 7009
section received
received eth2

section entropy
head -c 50000 /dev/hwrng | nc 10.91.0.1 7008 && echo sent

await down
ping -q -c 1 -W 1 10.90.0.1 >/dev/null || echo unreachable
await up
tries=0
until ping -q -c 1 -W 1 10.90.0.1 >/dev/null || [ $tries -gt 20 ]; do tries=$((tries + 1)); done
section after
on_each_cpu

await plain
rmmod virtio_net && insmod /mod/virtio_net.ko csum=0 gso=0 && echo reloaded
addresses
section without-offloads
on_each_cpu
section done
