/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * What p2pbar has in addition to the ioctls of linux/p2pmem.h: types of memory,
 * and an ioctl.
 *
 * See Documentation/misc-devices/p2pbar.rst.
 */
#ifndef _UAPI_LINUX_P2PBAR_H
#define _UAPI_LINUX_P2PBAR_H

#include <linux/p2pmem.h>

/**
 * enum p2pbar_type - the types of memory of a device
 * @P2PBAR_MEM: memory of any size, mapped uncached. Mappings at offset 0
 *	have this type.
 * @P2PBAR_UAR_NC: single pages, mapped uncached. A workqueue takes them
 *	back, as in a driver that has to send a command to its device first.
 * @P2PBAR_UAR_WC: the same, mapped write-combining. This type exists only
 *	if the BAR is prefetchable and could be mapped write-combining.
 */
enum p2pbar_type {
	P2PBAR_MEM = 0,
	P2PBAR_UAR_NC = 1,
	P2PBAR_UAR_WC = 2,
};

/**
 * enum p2pbar_map_type - the path of DMA between two PCI functions
 * @P2PBAR_MAP_NONE: there is no path
 * @P2PBAR_MAP_BUS_ADDR: through PCIe switches only, with bus addresses
 * @P2PBAR_MAP_THRU_HOST_BRIDGE: through the host bridge
 */
enum p2pbar_map_type {
	P2PBAR_MAP_NONE = 0,
	P2PBAR_MAP_BUS_ADDR = 1,
	P2PBAR_MAP_THRU_HOST_BRIDGE = 2,
};

/**
 * struct p2pbar_peer - P2PBAR_IOC_PEER: query the path of a PCI function
 * @domain: in: the PCI domain of the function
 * @bus: in: its bus number
 * @devfn: in: its device number times 8, plus its function number
 * @reserved: must be 0
 * @distance: out: the number of steps between the function and the device
 *	in the tree of buses, or -1 if the function cannot access the memory
 * @map_type: out: &enum p2pbar_map_type
 *
 * If another task has locked the function, for example to bind or unbind
 * it, the ioctl waits until it is unlocked.
 *
 * Errors:
 * EINVAL if @reserved is not 0;
 * EFAULT if the argument cannot be read or written;
 * ENOENT if there is no such function;
 * EBUSY if the function is not bound to a driver;
 * EINTR if a signal arrived while the ioctl waited;
 * ENODEV if the device itself has been unbound or removed.
 */
struct p2pbar_peer {
	__u32 domain;
	__u8 bus;
	__u8 devfn;
	__u16 reserved;
	__s32 distance;
	__u32 map_type;
};

#define P2PBAR_IOC_PEER		_IOWR(P2PMEM_IOC_MAGIC, 3, struct p2pbar_peer)

#endif /* _UAPI_LINUX_P2PBAR_H */
