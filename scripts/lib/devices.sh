# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# In the guest: which PCI functions are the topology's devices, under the
# names that the kselftests want.

# nvme_with SERIAL: the PCI function of that NVMe controller.
nvme_with()
{
	local ctrl serial

	for ctrl in /sys/class/nvme/nvme*; do
		read -r serial <"$ctrl/serial" || continue
		[ "$serial" != "$1" ] || basename "$(realpath "$ctrl/device")"
	done
}

# pci_with VENDOR DEVICE: the first PCI function with these IDs.
pci_with()
{
	local dev

	for dev in /sys/bus/pci/devices/*; do
		[ "$(<"$dev/vendor")$(<"$dev/device")" = "$1$2" ] || continue
		basename "$dev"
		break
	done
}

P2PDMA_CMB=$(nvme_with p2pdma-cmb)
P2PDMA_PEER=$(nvme_with p2pdma-peer)
P2PDMA_OTHER=$(pci_with 0x1af4 0x1110)
P2PDMA_CLIENT=$(pci_with 0x1234 0x11e8)
export P2PDMA_CMB P2PDMA_PEER P2PDMA_OTHER P2PDMA_CLIENT
