#!/bin/busybox sh
# What whoever asks is told: random numbers, of which no two machines may have the same, and the machine's generation,
# which is two numbers in a page of the machine's own. Linux keeps others from that page while it uses it.
echo "RANDOM $(head -c 16 /dev/urandom | od -An -v -tx1 | tr -d ' \n')"
rmmod vmgenid 2>/dev/null
page=$(printf '%d' "0x$(od -An -v -tx1 -N8 /proc/device-tree/rng@*/reg | tr -d ' \n')")
echo "GENERATION $(devmem "$page" 64) $(devmem $((page + 8)) 64)"
echo "FORKS $(dmesg | grep -c 'crng reseeded due to virtual machine fork')"
