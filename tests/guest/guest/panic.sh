# Ends the kernel.
echo c >/proc/sysrq-trigger
