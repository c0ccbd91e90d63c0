# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# What the guests of scripts/bench and scripts/profile have in common.

# bind_nodes: for a guest's command: binds nvme_cmb and p2pbar to their devices. Then
# "file NAME" sets args to p2pdma_bench's arguments for a column of the README's table,
# fns[NAME] is its PCI function, and "bind_all" binds again what has been unbound.
bind_nodes()
{
	cat <<-'EOF'
	declare -A fns=([allocate]=$P2PDMA_CMB [nvme_cmb]=$P2PDMA_CMB [p2pbar]=$P2PDMA_OTHER
		[p2pbar-keyed]=$P2PDMA_OTHER)
	bind_all()
	{
		local driver dev

		for driver in nvme_cmb p2pbar; do
			dev=/sys/bus/pci/devices/${fns[$driver]}
			modprobe $driver
			echo $driver >$dev/driver_override
			[ "$(basename "$(readlink $dev/driver)")" != $driver ] || continue
			[ ! -e $dev/driver ] || echo ${fns[$driver]} >$dev/driver/unbind
			echo ${fns[$driver]} >/sys/bus/pci/drivers_probe
		done
	}
	file()
	{
		local misc=/sys/bus/pci/devices/${fns[$1]}/misc

		case $1 in
		allocate)	args=(/sys/bus/pci/devices/$P2PDMA_CMB/p2pmem/allocate) ;;
		p2pbar-keyed)	args=(-k /dev/$(ls $misc)) ;;
		*)		args=(/dev/$(ls $misc)) ;;
		esac
	}
	bind_all
	EOF
}
