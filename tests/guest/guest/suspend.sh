# Sleeps in memory until the clock's alarm.
echo "=== states"
cat /sys/power/state
cat /sys/power/mem_sleep
echo deep >/sys/power/mem_sleep
echo "=== before"
cat /sys/class/rtc/rtc0/since_epoch
echo 0 >/sys/class/rtc/rtc0/wakealarm
echo +3 >/sys/class/rtc/rtc0/wakealarm
echo mem >/sys/power/state && echo "slept"
echo "=== after"
cat /sys/class/rtc/rtc0/since_epoch
echo "=== cpus"
cat /sys/devices/system/cpu/online
echo "=== done"
