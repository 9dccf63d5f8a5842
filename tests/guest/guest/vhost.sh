# Two network cards, the second with a pair of queues for each CPU: what goes over them before the machine is saved and
# after. While it is saved, data has come that no program has read: it is where the card has put it.
exchange() {
    head -c $4 /dev/urandom >/tmp/out
    for try in 1 2 3; do
        taskset -c $3 nc 10.9$2.0.1 7007 </tmp/out >/tmp/back && break
    done
    if [ "$(md5sum </tmp/out)" = "$(md5sum </tmp/back)" ]; then echo "exchanged $1 on $2 by $3"; fi
}
exchange_all() {
    exchange $1 0 0 $2
    for cpu in $(seq 0 $(($(nproc) - 1))); do exchange $1 1 $cpu $2; done
}
for card in 0 1; do
    ip addr add 10.9$card.0.2/24 dev eth$card
    ip link set eth$card up
done
exchange_all before 1000000
ping -q -c 20 -A 10.90.0.1 | grep -q '20 packets received' && echo "pinged before"
nc -l -p 7012 -e /tests/keep &
until netstat -ltn | grep -q :7012; do sleep 0.1; done
echo "=== ready"
read -r line
: >/tmp/read
wait
echo "GOT $(cat /tmp/got)"
exchange_all after 100000
dmesg | grep -E 'WARNING:|BUG:|Call trace|virtio.*(fail|error)'
echo "=== done"
