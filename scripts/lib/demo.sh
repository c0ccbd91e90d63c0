#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The demonstration, in the guest: the Rust drivers take the NVMe disk with the CMB
# and the memory BAR, and another disk reads into and writes from the memory of
# either without a copy in RAM. scripts/run shows what this prints.

BYTES=${BYTES:-4194304}

say()	{ printf '%s\n' "$*"; }
fail()	{ printf 'demo: %s\n' "$*"; exit 1; }

# The disk of an NVMe controller at a PCI address.
disk_of()
{
	basename "$(ls -d /sys/bus/pci/devices/"$1"/nvme/nvme*/nvme*n*)"
}

what_is()
{
	local dev=/sys/bus/pci/devices/$1 name=''

	case $(cat "$dev/vendor"):$(cat "$dev/device"):$(cat "$dev/class") in
	*:0x0108??)		name="NVMe disk" ;;
	0x1af4:0x1110:*)	name="memory BAR (ivshmem)" ;;
	0x104c:0x8232:*)	name="switch, upstream port" ;;
	0x104c:0x8233:*)	name="switch, downstream port" ;;
	*:0x0604??)		name="root port" ;;
	esac
	case $1 in
	"$cmb")		name="$name with CMB, provider" ;;
	"$bar")		name="$name, provider" ;;
	"$peer")	name="$name, client" ;;
	esac
	[ ! -e "$dev/driver" ] || name="$name [$(basename "$(readlink "$dev/driver")")]"
	echo "$name"
}

# draw FOLDER INDENT: the bridges and devices below a bus, as a tree.
draw()
{
	local dev path
	local -a found=()

	for path in "$1"/????:??:??.?; do
		[ -e "$path/class" ] || continue
		dev=${path##*/}
		case $(cat "$path/class") in
		0x0604?? | 0x0108?? | 0x0500??) found+=("$path") ;;
		esac
	done
	for path in "${found[@]}"; do
		dev=${path##*/}
		if [ "$path" = "${found[-1]}" ]; then
			say "$2\`-- ${dev#0000:}  $(what_is "$dev")"
			draw "$path" "$2    "
		else
			say "$2|-- ${dev#0000:}  $(what_is "$dev")"
			draw "$path" "$2|   "
		fi
	done
}

# bind_driver DRIVER FUNCTION: node is the driver's, then.
bind_driver()
{
	local dev=/sys/bus/pci/devices/$2

	modprobe "$1" || fail "there is no module $1"
	echo "$1" >"$dev/driver_override"
	[ ! -e "$dev/driver" ] || echo "$2" >"$dev/driver/unbind"
	echo "$2" >/sys/bus/pci/drivers_probe
	[ "$(basename "$(readlink "$dev/driver" || :)")" = "$1" ] || fail "$1 did not take $2"
	node=/dev/$(ls "$dev/misc")
}

cmb=${P2PDMA_CMB:?no NVMe disk with a CMB}
peer=${P2PDMA_PEER:?no second NVMe disk}
bar=${P2PDMA_OTHER:?no memory BAR}
disk=/dev/$(disk_of "$peer")
say "kernel        $(uname -r), topology $P2PDMA_TOPOLOGY"

bind_driver nvme_cmb "$cmb"
cmb_node=$node
bind_driver p2pbar "$bar"
bar_node=$node
say "devices"
draw /sys/devices/pci0000:00 "  "

pool=/sys/bus/pci/devices/$cmb/p2pmem
say "$cmb_node $(($(cat "$pool/size") >> 20)) MiB, $(($(cat "$pool/available") >> 20)) MiB free, published $(cat "$pool/published")"
read -r _ distance type closest < <(grep "^$peer " "/sys/kernel/debug/p2pdma/${cmb_node##*/}/peers")
say "way           from $cmb to $peer: distance $distance, map type $type"
say "find          closest provider of published memory to $peer: $closest"

read -r _ _ size _ used _ <"/sys/kernel/debug/p2pdma/${bar_node##*/}/memory"
say "$bar_node  $((size >> 20)) MiB, $(((size - used) >> 20)) MiB free, with an allocator of the driver's"

copy=$KSELFTEST/p2pdma/p2pdma_copy
[ -x "$copy" ] || fail "the kselftests have no p2pdma_copy"
dd if=/dev/urandom of="$disk" bs=1M count=$((BYTES >> 20)) oflag=direct status=none

if [ "$type" = not-supported ]; then
	# Then being refused is what has to happen.
	for node in "$cmb_node" "$bar_node"; do
		! "$copy" to-mem "$disk" "$node" 0 "$BYTES" 2>err || fail "the transfer was not refused"
		say "refused       $node: $(<err)"
	done
	exit
fi
for node in "$cmb_node" "$bar_node" "$pool/allocate"; do
	for way in to-mem from-mem; do
		"$copy" $way "$disk" "$node" 0 "$BYTES" >out || fail "$way $node: $(<out)"
		say "moved         $(<out)"
	done
done
