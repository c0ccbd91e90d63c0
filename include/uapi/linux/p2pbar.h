/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The ioctls of p2pbar: memory behind a BAR of a PCI device that other
 * devices can access by DMA.
 *
 * See Documentation/misc-devices/p2pbar.rst. Each ioctl fails with EINVAL
 * if @reserved is not 0, with EFAULT if its argument cannot be read or
 * written, and, if its other arguments are valid, with ENODEV if the device
 * has been unbound or removed. P2PBAR_IOC_PEER looks for the other function
 * first.
 */
#ifndef _UAPI_LINUX_P2PBAR_H
#define _UAPI_LINUX_P2PBAR_H

#include <linux/ioctl.h>
#include <linux/types.h>

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
 * struct p2pbar_alloc - P2PBAR_IOC_ALLOC: allocate an object
 * @size: in: the size of the object in bytes: a multiple of the page size,
 *	and exactly one page for the UAR types
 * @type: in: &enum p2pbar_type
 * @reserved: must be 0
 * @offset: out: the offset at which mmap() of the same open file maps the
 *	object, at its full size. P2PBAR_IOC_FREE takes it, too.
 *
 * The memory is cleared, unless the same open file was the last to use it.
 * The object exists until P2PBAR_IOC_FREE or until the file is closed.
 *
 * Errors:
 * EINVAL if @size or @type is not valid;
 * EOPNOTSUPP if the device has no memory of this type;
 * EDQUOT if the limit of the open file would be exceeded;
 * ENOSPC if the device does not have that much free memory;
 * EINTR if the task is being killed;
 * ENOMEM if the kernel does not have enough memory.
 */
struct p2pbar_alloc {
	__u64 size;
	__u32 type;
	__u32 reserved;
	__u64 offset;
};

/**
 * struct p2pbar_free - P2PBAR_IOC_FREE: free an object
 * @offset: in: the offset of the object
 * @reserved: must be 0
 *
 * The object cannot be mapped any more. Its memory is free again when it
 * is neither mapped nor under DMA any more.
 *
 * Errors: ENOENT if the open file has no object at @offset.
 */
struct p2pbar_free {
	__u64 offset;
	__u64 reserved;
};

/**
 * struct p2pbar_limit - P2PBAR_IOC_LIMIT: lower the limit of the open file
 * @size: in: how many bytes may be allocated for the open file. Objects
 *	and mappings at offset 0 count; memory that is only under DMA does
 *	not. The limit may be lower than what is allocated already.
 * @reserved: must be 0
 *
 * Errors: EPERM if @size is higher than the limit is.
 */
struct p2pbar_limit {
	__u64 size;
	__u64 reserved;
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
 * ENOENT if there is no such function;
 * EBUSY if the function is not bound to a driver;
 * EINTR if a signal arrived while the ioctl waited.
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
 * struct p2pbar_info - P2PBAR_IOC_INFO: query sizes
 * @type: in: &enum p2pbar_type
 * @reserved: must be 0
 * @size: out: the size of the memory of this type in bytes, 0 if the
 *	device has none
 * @used: out: how many bytes of @size are in use, by anyone
 * @limit: out: how many bytes of all types may be allocated for the open
 *	file, the largest 64-bit number if there is no limit
 * @allocated: out: how many bytes of all types are allocated for the open
 *	file
 *
 * Errors: EINVAL if @type is not valid.
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
