#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The guest's first process. The kernel started it from the read-only root, with
# the job folder at /mnt. It makes a writable system of root, layer (modules and
# tests) and a tmpfs, runs the job's command there and turns the machine off.

power_off()
{
	local nr=169 # reboot(2)

	[ "$(uname -m)" = x86_64 ] || nr=142
	sync
	# No init system here, so no poweroff(8) either.
	perl -e 'syscall('$nr', 0xfee1dead, 672274793, 0x4321fedc, 0)'
	exec sleep 1000
}

make_system()
{
	mount -t tmpfs -o size=75% tmpfs /run || return 1
	mkdir /run/layer /run/upper /run/work /run/system
	mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro layer /run/layer || return 1
	mount -t overlay -o lowerdir=/run/layer:/,upperdir=/run/upper,workdir=/run/work overlay /run/system || return 1
	cd /run/system || return 1
	mount -t proc proc proc
	mount -t sysfs sysfs sys
	mount -t devtmpfs devtmpfs dev
	mkdir -p dev/pts dev/shm job
	mount -t devpts devpts dev/pts 2>/dev/null
	mount -t tmpfs tmpfs dev/shm
	mount -t tmpfs tmpfs tmp
	mount -t tmpfs tmpfs run
	mount -t debugfs debugfs sys/kernel/debug 2>/dev/null
	mount -t tracefs tracefs sys/kernel/tracing 2>/dev/null
	mount --move /mnt job
	ln -sfn /proc/self/fd dev/fd
	ln -sfn /proc/self/mounts etc/mtab
	exec chroot . /bin/bash /job/init inside
}

# Objects that nothing points to any more; kmemleak reports those older than 5 s.
find_leaks()
{
	local file=/sys/kernel/debug/kmemleak

	[ -w $file ] || return 0
	sleep 6
	echo scan >$file
	echo scan >$file
	cat $file >/job/kmemleak
}

run_command()
{
	set -a
	# shellcheck source=/dev/null
	. /job/env
	set +a
	# shellcheck source=scripts/lib/devices.sh
	. /job/devices
	date -s "@$GUEST_DATE" >/dev/null 2>&1
	hostname p2pdma 2>/dev/null
	ip link set lo up 2>/dev/null
	export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 USER=root
	export KSELFTEST=/opt/kselftest
	cp -a /job/work /tmp/job
	cd /tmp/job || exit
	if [ -e /job/tty ]; then
		export TERM=${TERM:-linux}
		# shellcheck disable=SC2016
		setsid -c bash -c 'stty sane; [ ! -s /job/tty ] || { read -r r c </job/tty; stty rows "$r" cols "$c"; }
			. /job/command' </dev/ttyS1 >/dev/ttyS1 2>&1
	else
		bash /job/command </dev/null >>/job/out 2>>/job/err
	fi
	echo $? >/job/status.new
	find_leaks
	mv /job/status.new /job/status
}

if [ "${1:-}" = inside ]; then
	run_command
else
	make_system
	echo "guest: no system" >/dev/console
fi
power_off
