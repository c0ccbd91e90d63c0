# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# The machines that a test can ask for: one line each, then how they are wired.
#
# All hold the same four devices: an NVMe disk with a 128 MiB CMB (serial
# p2pdma-cmb), a plain NVMe disk (serial p2pdma-peer), ivshmem with a RAM BAR
# of 256 MiB, and edu, QEMU's educational device, which has a DMA engine.
#
# name|processor|placement|iommu|kernel parameters|expected map type|what it is
#
# The expected map type is what the CMB's pages get for the other disk. QEMU's
# amd-iommu (10.0) is not here: its DMA never completes, interrupts remapped or not.
TOPOLOGIES='
switch|EPYC|switch|||bus-address|all below one PCIe switch: no traffic leaves it
bridge|EPYC|ports|||host-bridge|a root port each, and a host bridge known to forward
refused|qemu64|ports|||not-supported|a root port each, and a host bridge not known to forward
intel-iommu|EPYC|ports|intel-iommu,intremap=on,caching-mode=on|intel_iommu=on iommu.strict=1|host-bridge|a root port each behind a VT-d IOMMU
virtio-iommu|EPYC|ports|virtio-iommu-pci||host-bridge|a root port each behind a virtio IOMMU
'

topologies()	{ awk -F'|' 'NF > 1 { print $1 }' <<<"$TOPOLOGIES"; }

# topology_field NAME N: the Nth field of its line.
topology_field()
{
	awk -F'|' -v name="$1" -v n="$2" '$1 == name { print $n }' <<<"$TOPOLOGIES"
}

topology_expect()	{ topology_field "$1" 6; }
topology_about()	{ topology_field "$1" 7; }

# QEMU's options for ivshmem, and for its memory.
topology_other()	{ echo "ivshmem-plain,id=shm,memdev=$1,bus=sw3"; }
topology_memory()	{ echo "memory-backend-ram,id=$1,size=${BAR_MB:-256}M,share=on"; }

# QEMU's options for the NVMe disk with a CMB, and for the drive ID with its data: DIR
# has the file.
topology_cmb()		{ echo "nvme,id=cmb,drive=$1,serial=p2pdma-cmb,cmb_size_mb=${CMB_MB:-128},bus=sw1"; }
topology_disk()		{ echo "if=none,id=$1,format=raw,cache=unsafe,file.locking=off,file=$2/cmb.img"; }

# topology_devices PLACEMENT DIR: QEMU's options for the devices, one a
# line. Virtio devices of the guest's own never sit below the switch: they would
# count as peers.
topology_devices()
{
	local dir=$2 i

	if [ "$1" = switch ]; then
		echo "-device pcie-root-port,id=rp1,chassis=1,slot=1"
		echo "-device x3130-upstream,id=up,bus=rp1"
		for i in 1 2 3 4; do
			echo "-device xio3130-downstream,id=sw$i,bus=up,chassis=2,slot=$i"
		done
	else
		for i in 1 2 3 4; do
			echo "-device pcie-root-port,id=sw$i,chassis=1,slot=$i"
		done
	fi
	echo "-drive $(topology_disk disk0 "$dir")"
	echo "-device $(topology_cmb disk0)"
	echo "-drive if=none,id=disk1,format=raw,cache=unsafe,file=$dir/peer.img"
	echo "-device nvme,id=peer,drive=disk1,serial=p2pdma-peer,bus=sw2"
	echo "-object $(topology_memory bar0)"
	echo "-device $(topology_other bar0)"
	# Its DMA addresses have 28 bits by default.
	echo "-device edu,id=client,dma_mask=0xffffffffffffffff,bus=sw4"
}
