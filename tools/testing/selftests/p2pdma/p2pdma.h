/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of peer-to-peer DMA share: PCI functions in sysfs, disks, and
 * memory that has to be accessed like MMIO.
 */
#ifndef SELFTESTS_P2PDMA_H
#define SELFTESTS_P2PDMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A PCI function, named like 0000:01:00.0. */
struct pci_fn {
	char name[16];
};

/* All of these return 0, or a negative errno. */
int file_write(const char *path, const char *val);
int pci_fn_init(struct pci_fn *fn, const char *name);
int pci_fn_read(const struct pci_fn *fn, const char *attr, char *buf, size_t len);
int pci_fn_read_u64(const struct pci_fn *fn, const char *attr, uint64_t *val);
int pci_fn_write(const struct pci_fn *fn, const char *attr, const char *val);
/* Path of an attribute in sysfs, in a static buffer. */
const char *pci_fn_path(const struct pci_fn *fn, const char *attr);
/* Name of the bound driver, or "" if there is none. */
int pci_fn_driver(const struct pci_fn *fn, char *buf, size_t len);
int pci_fn_unbind(const struct pci_fn *fn);
/*
 * Bind to @driver with @override in driver_override, "" for none. If that
 * fails, the result is what the driver's probe function returned.
 */
int pci_fn_bind(const struct pci_fn *fn, const char *driver, const char *override);
/* The address that a BAR register holds, and the physical address and size. */
int pci_fn_bar_bus_address(const struct pci_fn *fn, int bar, uint64_t *addr);
int pci_fn_resource(const struct pci_fn *fn, int bar, uint64_t *start, uint64_t *len);
/* Map a BAR through sysfs; NULL with errno set on error. */
void *pci_fn_map_bar(const struct pci_fn *fn, int bar, size_t len);
/* The /dev name of the first namespace of an NVMe controller, waiting for it. */
int nvme_disk(const struct pci_fn *fn, char *buf, size_t len);

/*
 * Accesses to MMIO: each is done once, and in one piece. Atomics make the
 * compiler do so.
 */
static inline uint32_t mmio_read32(const void *mem)
{
	return __atomic_load_n((const uint32_t *)mem, __ATOMIC_SEQ_CST);
}

static inline void mmio_write32(void *mem, uint32_t val)
{
	__atomic_store_n((uint32_t *)mem, val, __ATOMIC_RELEASE);
}

static inline uint64_t mmio_read64(const void *mem)
{
	return __atomic_load_n((const uint64_t *)mem, __ATOMIC_SEQ_CST);
}

static inline void mmio_write64(void *mem, uint64_t val)
{
	__atomic_store_n((uint64_t *)mem, val, __ATOMIC_RELEASE);
}

/* The same for many words of 64 bits; @len is a multiple of 8. */
void mmio_fill(void *mem, size_t len, uint64_t seed);
/*
 * The offset of the first difference from what mmio_fill() writes to @mem, of
 * those from @from to before @to, or -1.
 */
long mmio_check_part(const void *mem, size_t from, size_t to, uint64_t seed);
static inline long mmio_check(const void *mem, size_t len, uint64_t seed)
{
	return mmio_check_part(mem, 0, len, seed);
}

uint64_t mmio_checksum(const void *mem, size_t len);

/* pread() and pwrite() of exactly @len bytes, 0 or a negative errno. */
int pread_all(int fd, void *buf, size_t len, uint64_t offset);
int pwrite_all(int fd, const void *buf, size_t len, uint64_t offset);

/* The physical address of a mapped page, 0 if unknown. */
uint64_t phys_addr(const void *mem);

#endif
