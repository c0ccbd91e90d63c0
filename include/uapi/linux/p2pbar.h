/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The user interface of p2pbar: memory behind a BAR of a PCI device, which other
 * devices can access by DMA.
 *
 * See Documentation/misc-devices/p2pbar.rst. Each ioctl fails with EINVAL if
 * @reserved is not 0, and with EFAULT if its argument cannot be accessed.
 */
#ifndef _UAPI_LINUX_P2PBAR_H
#define _UAPI_LINUX_P2PBAR_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * enum p2pbar_type - the kinds of memory of a device
 * @P2PBAR_MEM: memory of any size, uncached. This is also what is mapped at
 *	offset 0.
 * @P2PBAR_UAR_NC: single pages, uncached. They go back to the device by way of
 *	a workqueue, as if it took a command of its firmware.
 * @P2PBAR_UAR_WC: the same, but write-combining. Only if the BAR is
 *	prefetchable.
 */
enum p2pbar_type {
	P2PBAR_MEM = 0,
	P2PBAR_UAR_NC = 1,
	P2PBAR_UAR_WC = 2,
};

/**
 * struct p2pbar_alloc - allocate an object
 * @size: in: its size in bytes, a multiple of the page size, and one page for
 *	the UAR types
 * @type: in: &enum p2pbar_type
 * @reserved: must be 0
 * @offset: out: where to mmap() the file to map it, at its full size. It
 *	is also the object's name for P2PBAR_IOC_FREE. It means nothing to other
 *	open files.
 *
 * The memory is cleared, unless it was this open file that used it last.
 *
 * Errors: EINVAL for what is not as told above; EOPNOTSUPP if the device has no
 * memory of this type; EDQUOT if the open file would have more than its limit;
 * ENOSPC if the device has not got as much left; ENODEV if it is gone; EINTR;
 * ENOMEM.
 */
struct p2pbar_alloc {
	__u64 size;
	__u32 type;
	__u32 reserved;
	__u64 offset;
};

/**
 * struct p2pbar_free - free an object
 * @offset: in: its offset
 * @reserved: must be 0
 *
 * From then on it cannot be mapped. Mappings that exist keep the memory until
 * they are gone, and so does DMA.
 *
 * Errors: ENOENT if there is no object at that offset; ENODEV if the device is
 * gone.
 */
struct p2pbar_free {
	__u64 offset;
	__u64 reserved;
};

/**
 * struct p2pbar_limit - limit what this open file may have allocated
 * @size: in: the limit in bytes, for objects and what is mapped at offset 0
 *	together. It can only be lowered, also to less than there is. Memory that
 *	only is under DMA any more does not count.
 * @reserved: must be 0
 *
 * Errors: EPERM if it is higher than the limit was; ENODEV if the device is gone.
 */
struct p2pbar_limit {
	__u64 size;
	__u64 reserved;
};

/**
 * enum p2pbar_map_type - how DMA between two PCI functions travels
 * @P2PBAR_MAP_NONE: not at all
 * @P2PBAR_MAP_BUS_ADDR: within a PCIe switch, by bus addresses
 * @P2PBAR_MAP_THRU_HOST_BRIDGE: through the host bridge
 */
enum p2pbar_map_type {
	P2PBAR_MAP_NONE = 0,
	P2PBAR_MAP_BUS_ADDR = 1,
	P2PBAR_MAP_THRU_HOST_BRIDGE = 2,
};

/**
 * struct p2pbar_peer - ask whether a PCI function can access the memory
 * @domain: in: its PCI domain
 * @bus: in: its bus number
 * @devfn: in: its device number times 8, plus its function number
 * @reserved: must be 0
 * @distance: out: the number of steps between the two in the tree of buses, or -1
 *	if it cannot access the memory
 * @map_type: out: &enum p2pbar_map_type
 *
 * Errors: ENOENT if there is no such function; EBUSY if it has no driver just
 * now, or if somebody has locked it; ENODEV if this device is gone.
 */
struct p2pbar_peer {
	__u32 domain;
	__u8 bus;
	__u8 devfn;
	__u16 reserved;
	__s32 distance;
	__u32 map_type;
};

/**
 * struct p2pbar_info - tell what memory there is
 * @type: in: &enum p2pbar_type
 * @reserved: must be 0
 * @size: out: the memory of this type, in bytes; 0 if there is none
 * @used: out: how much of it is in use, by whomever
 * @limit: out: how much this open file may have allocated, of all types; the
 *	largest number if there is no limit
 * @allocated: out: how much it has allocated, of all types
 *
 * Errors: EINVAL if there is no such type; ENODEV if the device is gone.
 */
struct p2pbar_info {
	__u32 type;
	__u32 reserved;
	__u64 size;
	__u64 used;
	__u64 limit;
	__u64 allocated;
};

#define P2PBAR_IOC_MAGIC	0xBB

#define P2PBAR_IOC_ALLOC	_IOWR(P2PBAR_IOC_MAGIC, 0, struct p2pbar_alloc)
#define P2PBAR_IOC_FREE		_IOW(P2PBAR_IOC_MAGIC, 1, struct p2pbar_free)
#define P2PBAR_IOC_LIMIT	_IOW(P2PBAR_IOC_MAGIC, 2, struct p2pbar_limit)
#define P2PBAR_IOC_PEER		_IOWR(P2PBAR_IOC_MAGIC, 3, struct p2pbar_peer)
#define P2PBAR_IOC_INFO		_IOWR(P2PBAR_IOC_MAGIC, 4, struct p2pbar_info)

#endif /* _UAPI_LINUX_P2PBAR_H */
