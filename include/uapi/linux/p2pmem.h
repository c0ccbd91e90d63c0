/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The ioctls of device nodes for peer-to-peer DMA memory, /dev/p2pbar<N> and
 * /dev/nvme-cmb<N> for example: objects that are mapped at an offset of their
 * own. No ioctl is necessary to map new memory at offset 0.
 *
 * See Documentation/misc-devices/p2pmem.rst. Each ioctl fails with EINVAL if
 * @reserved is not 0, with EFAULT if its argument cannot be read or written,
 * and, if its other arguments are valid, with ENODEV if the device has been
 * unbound or removed.
 */
#ifndef _UAPI_LINUX_P2PMEM_H
#define _UAPI_LINUX_P2PMEM_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct p2pmem_alloc - P2PMEM_IOC_ALLOC: allocate an object
 * @size: in: the size of the object in bytes: a multiple of the page size,
 *	and exactly one page for some types
 * @type: in: the type of the memory: 0 for that of mappings at offset 0, or
 *	another one that the driver of the device describes
 * @reserved: must be 0
 * @offset: out: the offset at which mmap() of the same open file maps the
 *	object, at its full size. P2PMEM_IOC_FREE takes it, too.
 *
 * The memory is cleared, unless the same open file was the last to use it.
 * The object exists until P2PMEM_IOC_FREE or until the file is closed.
 *
 * Errors:
 * EINVAL if @size or @type is not valid;
 * EOPNOTSUPP if the device has no memory of this type;
 * EDQUOT if the limit of the open file would be exceeded;
 * ENOSPC if the device does not have that much free memory;
 * EINTR if the task is being killed;
 * ENOMEM if the kernel does not have enough memory.
 */
struct p2pmem_alloc {
	__u64 size;
	__u32 type;
	__u32 reserved;
	__u64 offset;
};

/**
 * struct p2pmem_free - P2PMEM_IOC_FREE: free an object
 * @offset: in: the offset of the object
 * @reserved: must be 0
 *
 * The object cannot be mapped any more. Its memory is free again when it
 * is neither mapped nor under DMA any more.
 *
 * Errors: ENOENT if the open file has no object at @offset.
 */
struct p2pmem_free {
	__u64 offset;
	__u64 reserved;
};

/**
 * struct p2pmem_limit - P2PMEM_IOC_LIMIT: lower the limit of the open file
 * @size: in: how many bytes may be allocated for the open file. Objects
 *	and mappings at offset 0 count; memory that is only under DMA does
 *	not. The limit may be lower than what is allocated already.
 * @reserved: must be 0
 *
 * Errors: EPERM if @size is higher than the limit is.
 */
struct p2pmem_limit {
	__u64 size;
	__u64 reserved;
};

/**
 * struct p2pmem_info - P2PMEM_IOC_INFO: query sizes
 * @type: in: the type of the memory
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
struct p2pmem_info {
	__u32 type;
	__u32 reserved;
	__u64 size;
	__u64 used;
	__u64 limit;
	__u64 allocated;
};

/* Drivers have ioctls of their own with other numbers, see their headers. */
#define P2PMEM_IOC_MAGIC	0xBB

#define P2PMEM_IOC_ALLOC	_IOWR(P2PMEM_IOC_MAGIC, 0, struct p2pmem_alloc)
#define P2PMEM_IOC_FREE		_IOW(P2PMEM_IOC_MAGIC, 1, struct p2pmem_free)
#define P2PMEM_IOC_LIMIT	_IOW(P2PMEM_IOC_MAGIC, 2, struct p2pmem_limit)
#define P2PMEM_IOC_INFO		_IOWR(P2PMEM_IOC_MAGIC, 4, struct p2pmem_info)

#endif /* _UAPI_LINUX_P2PMEM_H */
