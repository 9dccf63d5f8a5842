#!/bin/busybox sh
# Installs the packages of a recipe on an empty disk, in the emulated host, as root:
#   install.sh DISK FOLDER-OF-PACKAGES
# First every package is unpacked by hand, so that there is a dpkg to run; then that dpkg installs them all. This is
# how debootstrap and mmdebstrap begin a system too.
set -eu
disk=$1
packages=$2
root=/mnt

mount -t ext4 "$disk" $root
cd $root

echo "unpacking"
mkdir -p usr/bin usr/lib usr/sbin
for folder in bin lib sbin; do
    ln -s usr/$folder $folder
done
for deb in "$packages"/*.deb; do
    dpkg-deb -x "$deb" .
done
# The users that files are to belong to. The package base-passwd does the same before it is unpacked.
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
mkdir -p var/lib/dpkg/info
: >var/lib/dpkg/status

echo "installing"
mount -t proc proc proc
mount -t sysfs sys sys
mount -t devtmpfs dev dev
mount -t tmpfs run run
mkdir run/packages
mount -o bind "$packages" run/packages
# Nothing is started here.
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
# Programs of the new system by their whole names: busybox would take its own of the same name.
inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true chroot $root "$@"
}
# What a package needs to be unpacked is unpacked, by hand; in order of need they are configured.
inside /bin/sh -c 'dpkg --force-depends --force-unsafe-io --install /run/packages/*.deb'
unfinished=$(inside /usr/bin/dpkg --audit)
if [ -n "$unfinished" ]; then
    echo "$unfinished"
    exit 1
fi

echo "setting up"
echo kedge-debian >etc/hostname
printf '127.0.0.1\tlocalhost\n127.0.1.1\tkedge-debian\n::1\tlocalhost ip6-localhost ip6-loopback\n' >etc/hosts
echo '/dev/vda / ext4 errors=remount-ro 0 1' >etc/fstab
inside /usr/bin/passwd --quiet --delete root
# Empty, not missing: the first boot then asks no questions.
: >etc/machine-id
rm -f var/lib/dbus/machine-id usr/sbin/policy-rc.d
rm -f var/log/dpkg.log var/log/alternatives.log var/lib/dpkg/*-old var/cache/debconf/*-old etc/*-
rm -rf var/cache/ldconfig/aux-cache tmp/* var/tmp/*

cd /
# What is free takes no room in the image.
fstrim $root
umount $root/run/packages $root/run $root/dev $root/sys $root/proc
umount $root
