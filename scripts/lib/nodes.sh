# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# What the guests of scripts/bench and scripts/profile have in common.

# bind_nodes: for a guest's command: binds nvme_cmb and p2pbar to their devices. Then
# "file NAME" sets args to p2pdma_bench's arguments for what the README's table calls NAME.
bind_nodes()
{
	cat <<-'EOF'
	nodes=()
	for bind in "nvme_cmb $P2PDMA_CMB" "p2pbar $P2PDMA_OTHER"; do
		read -r driver fn <<<"$bind"
		dev=/sys/bus/pci/devices/$fn
		modprobe $driver
		echo $driver >$dev/driver_override
		[ ! -e $dev/driver ] || echo $fn >$dev/driver/unbind
		echo $fn >/sys/bus/pci/drivers_probe
		nodes+=(/dev/$(ls $dev/misc))
	done
	file()
	{
		case $1 in
		allocate)	args=(/sys/bus/pci/devices/$P2PDMA_CMB/p2pmem/allocate) ;;
		nvme_cmb)	args=(${nodes[0]}) ;;
		p2pbar)		args=(${nodes[1]}) ;;
		p2pbar-keyed)	args=(-k ${nodes[1]}) ;;
		esac
	}
	EOF
}
