#!/bin/sh
# mmdebstrap's customize hook: turn a bare Debian tree into the lab's machine, natively.
#
#   bake.sh ROOT     (ROOT/tmp/lab: the project's vagrant/ and labkit/; ca/, certificates to trust)
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

# AppArmor itself stays on; the distribution's own hundred profiles, for programs that are not
# here, cost 12 s of every boot under emulation.
mkdir -p "$root/etc/apparmor.d/disable"
for profile in "$root"/etc/apparmor.d/*; do
    [ ! -f "$profile" ] || ln -sf "/etc/apparmor.d/${profile##*/}" "$root/etc/apparmor.d/disable/"
done

# The script that every way of starting shares, with the machine's own name service meanwhile.
rm -f "$root/etc/resolv.conf"
cp /etc/resolv.conf "$root/etc/resolv.conf"
chroot "$root" env LABKIT_SOURCE=/tmp/lab LABKIT_CA=/tmp/lab/ca HOME=/root \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash /tmp/lab/vagrant/provision.sh
rm -rf "$root/tmp/lab"

rm -f "$root/etc/resolv.conf"
ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
: > "$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_*key* "$root/var/lib/dbus/machine-id"
