# A guest with little.
echo "=== cpus"
cat /sys/devices/system/cpu/online
echo "=== cmdline"
cat /proc/cmdline
echo "=== timers-before"
grep arch_timer /proc/interrupts
sleep 0.1
echo "=== timers-after"
grep arch_timer /proc/interrupts
# Where the machine has a boot timer, it learns that the guest is up.
grep -q kedge.timer /proc/cmdline && devmem 0x40000000 8 123
echo "=== psci"
dmesg | grep 'psci: '
echo "=== done"
