#!/bin/sh
# mmdebstrap's customize hook: turn a bare Debian tree into the lab's machine, natively.
#
#   bake.sh ROOT     (environment: LAB_TREE the project, LAB_CA a folder of certificates)
#
# Runs in mmdebstrap's namespaces, as root of its own user namespace at least.
set -eu
root=$1

echo lab > "$root/etc/hostname"
printf '127.0.0.1 localhost lab\n::1 localhost ip6-localhost\n' > "$root/etc/hosts"
echo 'LABEL=root / ext4 errors=remount-ro,noatime 0 1' > "$root/etc/fstab"
cat > "$root/etc/systemd/network/50-lab.network" <<'N'
[Match]
Name=en* eth0
[Network]
DHCP=yes
[DHCPv4]
ClientIdentifier=mac
N
cat > "$root/etc/systemd/system/ssh-hostkeys.service" <<'U'
[Unit]
Description=Host keys, made at the first boot
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
[Install]
WantedBy=multi-user.target
U
printf 'UseDNS no\nHostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nMaxSessions 64\n' \
    > "$root/etc/ssh/sshd_config.d/lab.conf"
chroot "$root" systemctl -q enable systemd-networkd systemd-resolved ssh ssh-hostkeys
# Nobody logs in on the consoles, and the boot need not wait for a terminal.
chroot "$root" systemctl -q mask getty@tty1.service serial-getty@ttyS0.service systemd-networkd-wait-online.service

# The script that every way of starting shares, with the machine's own name service meanwhile.
mkdir -p "$root/tmp/lab"
cp -r "$LAB_TREE/vagrant" "$LAB_TREE/labkit" "$root/tmp/lab/"
[ -z "${LAB_CA:-}" ] || cp -r "$LAB_CA" "$root/tmp/lab/ca"
rm -f "$root/etc/resolv.conf"
cp /etc/resolv.conf "$root/etc/resolv.conf"
chroot "$root" env LABKIT_SOURCE=/tmp/lab LABKIT_CA=/tmp/lab/ca HOME=/root \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash /tmp/lab/vagrant/provision.sh
rm -rf "$root/tmp/lab"

rm -f "$root/etc/resolv.conf"
ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
: > "$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_*key* "$root/var/lib/dbus/machine-id"
