#!/bin/busybox sh
# A test guest's kernel asks for what it lacks when a file system is mounted: modprobe -q -- fs-ext4.
for name in "$@"; do
    case $name in
    fs-ext4)
        for module in $(cat /mod/ext4); do
            insmod /mod/$module.ko 2>/dev/null
        done
        ;;
    esac
done
