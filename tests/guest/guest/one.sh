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
echo "=== done"
