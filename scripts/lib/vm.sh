# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Booting the built kernel in QEMU: this system's files as the guest's root,
# read-only below a tmpfs, and a job folder for the command and what it says.

# What must not be in a kernel log. One list for every suite.
BAD_LOG='Kernel panic|BUG:|BUG at|WARNING:|Oops|general protection fault|KASAN:|UBSAN:|KFENCE:'
BAD_LOG+='|possible circular locking|possible recursive locking|possible irq lock inversion'
BAD_LOG+='|inconsistent lock state|suspicious RCU|sleeping function called|scheduling while atomic'
BAD_LOG+='|held lock freed|lock held when returning|bad unlock balance|Call Trace|hung task'
BAD_LOG+='|blocked for more than|rcu.*(stall|self-detected)|soft lockup|hard LOCKUP|refcount_t'
BAD_LOG+='|Bad rss-counter|Bad page|page_table_check|list_(add|del) corruption|unreferenced object'
BAD_LOG+='|workqueue lockup|DMA-API: |rust_kernel: panicked|panicked at'

# bad_lines LOG: the first bad line and what follows it; true if there is one. While
# a test has allocations fail, these may say so with a trace.
bad_lines()
{
	local at

	at=$(awk -v bad="$BAD_LOG" '
		/p2pdma selftest: allocations are made to fail/ { failing = 1 }
		/p2pdma selftest: allocations are left alone/ { failing = 0 }
		failing && /vmalloc error:|page allocation failure:/ { told = NR }
		/Call Trace/ && told && NR < told + 6 { told = 0; next }
		$0 ~ bad { print NR; exit }' "$1")
	[ -n "$at" ] || return 1
	sed -n "$((at > 3 ? at - 3 : 1)),$((at + 40))p" "$1"
}

# accelerator IMAGE: kvm if it really boots the kernel in 20 s, else tcg. Some
# machines have /dev/kvm and yet cannot run one.
accelerator()
{
	local image=$1 file=$CACHE/accelerator key dir

	case ${P2PDMA_ACCEL:-} in
	kvm | tcg)	echo "$P2PDMA_ACCEL"; return ;;
	esac
	if [ ! -w /dev/kvm ]; then
		echo tcg
		return
	fi
	key=$(hash_text "$(uname -srv) $(grep -m1 'model name' /proc/cpuinfo) $(qemu-system-x86_64 --version)")
	if ! grep -qx "$key [a-z]*" "$file" 2>/dev/null; then
		new_tmp dir
		timeout -k 2 20 qemu-system-x86_64 -machine q35,accel=kvm -cpu host -m 1G -nodefaults -no-reboot \
			-display none -serial "file:$dir/log" -kernel "$image" \
			-append 'console=ttyS0 panic=-1 root=/dev/none' </dev/null >/dev/null 2>&1 || :
		# Without a root it panics for want of one: then it did boot.
		if grep -q 'Unable to mount root' "$dir/log" 2>/dev/null; then
			echo "$key kvm" >"$file"
		else
			echo "$key tcg" >"$file"
		fi
		rm -rf "$dir"
	fi
	sed "s/.* //" "$file"
}

# share TAG PATH READONLY: QEMU's options for a folder of the guest's.
share()
{
	echo "-fsdev local,id=$1,path=$2,security_model=none,multidevs=remap${3:+,readonly=on}"
	echo "-device virtio-9p-pci,fsdev=$1,mount_tag=$1"
}

# new_job VAR: a job folder; copy files into its folder work, then vm_run it.
new_job()
{
	local folder

	new_tmp folder
	mkdir "$folder/work"
	fresh_job "$folder"
	cp "$TOP/scripts/lib/guest.sh" "$folder/init"
	cp "$TOP/scripts/lib/devices.sh" "$folder/devices"
	printf -v "$1" %s "$folder"
}

# fresh_job JOB: without output, and with empty disks.
fresh_job()
{
	local file

	for file in out err console qemu.log cmb.img peer.img; do
		: >"$1/$file"
	done
	rm -f "$1"/{status,status.new,kmemleak,monitor,.monitor,state}
	truncate -s 64M "$1/cmb.img" "$1/peer.img"
}

# vm_command JOB TOPOLOGY BUILD: sets QEMU to the whole command.
vm_command()
{
	local job=$1 topology=$2 build=$3 cpu iommu append accel root=/ machine=q35 line

	cpu=$(topology_field "$topology" 2)
	iommu=$(topology_field "$topology" 4)
	append=$(topology_field "$topology" 5)
	accel=$(accelerator "$build/arch/x86/boot/bzImage")
	[ "$accel" = kvm ] || accel=tcg,thread=multi
	# With VM_ICOUNT, time in the guest counts instructions: 1 ns each.
	[ -z "${VM_ICOUNT:-}" ] || accel=tcg,thread=single
	[ "$iommu" = "${iommu#intel}" ] || machine=q35,kernel-irqchip=split
	# In the root, its own folder: without the binds of this machine's files.
	[ "${P2PDMA_INSIDE:-/}" = / ] || root=$P2PDMA_INSIDE
	QEMU=(qemu-system-x86_64 -machine "$machine" -accel "$accel" -cpu "$cpu" -smp 2 -m "${P2PDMA_MEM:-2G}"
		-nodefaults -no-reboot -display none
		# Hot-plug is PCIe's own, not ACPI's.
		-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off
		-kernel "$build/arch/x86/boot/bzImage"
		-append "console=ttyS0 panic=-1 random.trust_cpu=on root=root rootfstype=9p rootflags=trans=virtio,version=9p2000.L,msize=262144,cache=loose ro $append ${VM_APPEND:-} init=/bin/bash -- -c \"mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 job /mnt; exec bash /mnt/init\""
		-serial "file:$job/console" -qmp "unix:$job/qmp,server=on,wait=off")
	[ -z "${VM_ICOUNT:-}" ] || QEMU+=(-icount "shift=0,sleep=off" -smp 1)
	# Before the devices: only what comes after an IOMMU is behind it.
	[ -z "$iommu" ] || QEMU+=(-device "$iommu")
	while read -r line; do
		# shellcheck disable=SC2206 # options and values, without blanks
		QEMU+=($line)
	done < <(share root "$root" ro; share job "$job" ""; share layer "$build/guest" ro
		topology_devices "$(topology_field "$topology" 3)" "$job")
}

# vm_monitor JOB: give QEMU the commands that the guest has put into JOB/monitor,
# for it to plug and unplug devices.
vm_monitor()
{
	local commands

	mapfile -t commands <"$1/monitor"
	"$TOP/scripts/lib/qmp.py" "$1/qmp" "${commands[@]}" >>"$1/qemu.log" 2>&1 || :
	rm -f "$1/monitor"
}

# monitor VAR COMMAND...: the guest's variable VAR runs these commands of QEMU's monitor.
monitor()
{
	local var=$1
	shift

	printf "%s='printf \"%%s\\\\n\"%s >/job/.monitor; mv /job/.monitor /job/monitor; while [ -e /job/monitor ]; do sleep 0.05; done'\n" \
		"$var" "$(printf ' "%s"' "$@")"
}

# new_names: make the command set N to a new number each time the guest runs it.
new_names()	{ sed "s/='/='N=\$(cut -d\" \" -f1 \/proc\/uptime | tr -d .); /"; }

# vm_said JOB: how much the guest has said.
vm_said()	{ stat -c %s "$1/out" "$1/err" "$1/console" | paste -sd' '; }

# vm_boot JOB CONFIG TOPOLOGY TIMEOUT [interactive]: run what is in JOB/command
# and set VM_STATUS to its status; 124 if it took too long, 125 if the guest
# ended without one. Output is in JOB/out and JOB/err, the console in
# JOB/console. With VM_STREAM set, output is also shown as it comes. A guest that
# stopped because of one of two faults of QEMU is started again, once.
vm_boot()
{
	vm_boot_once "$@"
	[ -n "$QEMU_FAULT" ] || return 0
	note "  QEMU $QEMU_FAULT after $VM_SECONDS s: the guest starts again"
	cp "$1/state" "$LOGS/qemu-fault.state" 2>/dev/null || :
	cp "$1/console" "$LOGS/qemu-fault.console"
	fresh_job "$1"
	vm_boot_once "$@"
}

# vm_boot_once: the same without a second try, and says in QEMU_FAULT why one is due.
vm_boot_once()
{
	local job=$1 topology=$3 limit=$4 build pid tails=() began now said='' saying asked QEMU

	QEMU_FAULT=
	build=$(build_dir "$2")
	# The debug kernel checks each struct page, which takes seconds for 128 MiB.
	# VM_MEMORY_MB is the memory of each device, in the release kernel.
	# shellcheck disable=SC2034 # topology_devices reads them
	local CMB_MB=${VM_MEMORY_MB:-128} BAR_MB=${VM_MEMORY_MB:-256}
	# shellcheck disable=SC2034
	[ "$2" = release ] || CMB_MB=16
	[ -f "$build/.p2pdma-built" ] || die "the $2 kernel is not built yet: ./scripts/run"
	vm_command "$job" "$topology" "$build"
	{
		echo "P2PDMA_TOPOLOGY=$topology"
		echo "P2PDMA_EXPECT=$(topology_expect "$topology")"
		echo "P2PDMA_KERNEL=$2"
		# pciehp itself has its locks in an order that lockdep does not like.
		if [ "$2" = debug ]; then
			# shellcheck disable=SC2016 # for the guest's shell
			echo 'P2PDMA_UNPLUG='\''echo 1 >"/sys/bus/pci/devices/$P2PDMA_OTHER/remove"'\'
			echo "P2PDMA_PLUG='echo 1 >/sys/bus/pci/rescan'"
		else
			monitor P2PDMA_UNPLUG "device_del shm"
			# QEMU aborts if the device is plugged in again with a memory backend of the
			# same name, even after object_del: RCU frees the old one later.
			# shellcheck disable=SC2016 # for the guest's shell
			monitor P2PDMA_PLUG "object_add $(topology_memory 'bar$N')" \
				"device_add $(topology_other 'bar$N')" | new_names
			monitor P2PDMA_UNPLUG_CMB "device_del cmb"
			# QEMU keeps the drive if requests are in flight while the device goes.
			# shellcheck disable=SC2016 # for the guest's shell
			monitor P2PDMA_PLUG_CMB "drive_add 0 $(topology_disk 'disk$N' "$job")" \
				"device_add $(topology_cmb 'disk$N')" | new_names
			# The port's Slot Control: power indicator (bits 8 and 9), power (10) and hot-plug
			# interrupt (5) are off, which takes the device away, and then on again.
			# shellcheck disable=SC2016 # for the guest's shell
			echo 'P2PDMA_SURPRISE='\''cut() { setpci -s "$(basename "$(dirname "$(realpath "/sys/bus/pci/devices/$1")")")" CAP_EXP+18.w=700:720 CAP_EXP+18.w=120:720; }; cut'\'
			# shellcheck disable=SC2016 # for the guest's shell
			echo 'P2PDMA_SURPRISE_CMB=$P2PDMA_SURPRISE'
		fi
		if [ -n "${VM_TRACE:-}" ]; then
			monitor TRACE_ON "one-insn-per-tb on" "logfile $job/trace" "log exec,nochain"
			monitor TRACE_OFF "log none"
		fi
		monitor P2PDMA_SLOW "block_set_io_throttle disk1 262144 0 0 0 0 0"
		monitor P2PDMA_FAST "block_set_io_throttle disk1 0 0 0 0 0 0"
		echo "GUEST_DATE=$(date +%s)"
		echo "TERM=${TERM:-linux}"
	} >"$job/env"
	printf '%q ' "${QEMU[@]}" >"$job/qemu"
	VM_STATUS=125
	began=$(date +%s)
	if [ "${5:-}" = interactive ]; then
		stty size >"$job/tty" 2>/dev/null || :
		"${QEMU[@]}" -chardev stdio,id=tty,signal=off -serial chardev:tty 2>"$job/qemu.log" || :
	else
		"${QEMU[@]}" </dev/null >>"$job/qemu.log" 2>&1 &
		pid=$!
		CLEAN_PIDS+=("$pid")
		if [ -n "${VM_STREAM:-}" ]; then
			tail -q -c +1 -s 0.1 --pid="$pid" -f "$job/out" & tails+=($!)
			tail -q -c +1 -s 0.1 --pid="$pid" -f "$job/err" >&2 & tails+=($!)
			CLEAN_PIDS+=("${tails[@]}")
		fi
		now=$began asked=$began
		while kill -0 "$pid" 2>/dev/null; do
			[ ! -s "$job/monitor" ] || vm_monitor "$job"
			[ "$EPOCHSECONDS" != "$now" ] || { sleep 0.1; continue; }
			now=$EPOCHSECONDS
			saying=$(vm_said "$job")
			[ "$saying" = "$said" ] || { said=$saying; asked=$now; }
			if [ $((now - began)) -ge "$limit" ]; then
				vm_state "$job" || :
				VM_STATUS=124
				kill -KILL "$pid"
				break
			fi
			if [ $((now - asked)) -ge 120 ]; then
				asked=$now
				if vm_state "$job" && eoi_lost "$job"; then
					VM_STATUS=124 QEMU_FAULT="lost the end of an interrupt (eoi_lost)"
					kill -KILL "$pid"
					break
				fi
			fi
		done
		wait "$pid" 2>/dev/null || :
		[ ${#tails[@]} = 0 ] || wait "${tails[@]}" 2>/dev/null || :
		CLEAN_PIDS=()
	fi
	! tlb_lost "$job" || QEMU_FAULT="aborted (tlb_lost)"
	[ ! -s "$job/status" ] || VM_STATUS=$(cat "$job/status")
	# shellcheck disable=SC2034 # for the caller
	VM_SECONDS=$(($(date +%s) - began))
}

# vm_verdict JOB: nothing if the guest was well, else what was wrong with it.
vm_verdict()
{
	local job=$1

	case $VM_STATUS in
	124)	echo "the guest did not end in $VM_SECONDS s; where its processors are, and the end of its console:"
		grep -E '^(RIP=|ISR|IRR)|HLT=' "$job/state" || :
		tail -n 5 "$job/console" ;;
	125)	[ -s "$job/status" ] || { echo "the guest ended without a status"; grep -v '^$' "$job/qemu.log" | tail -n 10; } ;;
	esac
	bad_lines "$job/console" || :
	[ ! -s "$job/kmemleak" ] || { echo "kmemleak:"; head -n 60 "$job/kmemleak"; }
}
