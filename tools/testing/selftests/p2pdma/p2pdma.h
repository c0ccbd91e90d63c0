/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of peer-to-peer DMA share: PCI functions in sysfs, disks,
 * memory that has to be accessed like MMIO, and helper processes.
 */
#ifndef SELFTESTS_P2PDMA_H
#define SELFTESTS_P2PDMA_H

#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct p2pbar_info;

/* A PCI function, named like 0000:01:00.0. */
struct pci_fn {
	char name[16];
};

/* All of these return 0, or a negative errno. */
int file_write(const char *path, const char *val);
int file_read(const char *path, char *buf, size_t len);
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
/*
 * Unbind from whatever it is, and bind to @driver, "" for none. The function
 * has no driver_override then, unless it takes one for that.
 */
int pci_fn_rebind(const struct pci_fn *fn, const char *driver);
/* The address that a BAR register holds, and the physical address and size. */
int pci_fn_bar_bus_address(const struct pci_fn *fn, int bar, uint64_t *addr);
int pci_fn_resource(const struct pci_fn *fn, int bar, uint64_t *start, uint64_t *len);
/* Map a BAR through sysfs; NULL with errno set on error. */
void *pci_fn_map_bar(const struct pci_fn *fn, int bar, size_t len);
/* The /dev name of the first namespace of an NVMe controller, waiting for it. */
int nvme_disk(const struct pci_fn *fn, char *buf, size_t len);
/* The /dev name of the misc device of a function, waiting for it. */
int misc_node(const struct pci_fn *fn, char *buf, size_t len);
/* What P2PBAR_IOC_INFO tells, by an open file of its own. */
int p2pbar_node_info(const char *node, uint32_t type, struct p2pbar_info *info);
/* A decimal number in what /proc/self/fdinfo tells of an open file. */
int fdinfo_read(int fd, const char *name, uint64_t *val);

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

/* Submit a request, IOCB_CMD_PREAD or _PWRITE: 0 or a negative errno. */
int aio_submit(aio_context_t ctx, int opcode, int fd, void *buf, size_t len, uint64_t offset);

/* Map a file to share it, NULL with errno set on error. */
void *map_file(int fd, size_t len, uint64_t offset);
/* Ordinary memory, aligned to pages, for this process or to share. */
void *ram_map(size_t len);
void *ram_map_shared(size_t len);
/* Write a word to each page, and find the first page that has another, or -1. */
void page_mark(void *mem, size_t len, uint64_t seed);
long page_check(const void *mem, size_t len, uint64_t seed);
/* Accesses that may fail: 0, or the signal that there would have been. */
int try_read64(const void *mem, uint64_t *val);
int try_write64(void *mem, uint64_t val);

/* Where on the disk the tests write, and where they compare. */
#define DISK_OFFSET	0x200000ul

/*
 * DMA from a disk to memory, and the other way: 0, -EBADMSG if it is not the
 * right data that arrives, or another negative errno.
 */
int dma_in(int disk, void *mem, size_t len);
int dma_out(int disk, void *mem, size_t len);

/* The physical address of a mapped page, 0 if unknown. */
uint64_t phys_addr(const void *mem);
/* The line of smaps that tells the flags of the mapping that starts at @mem. */
int vma_flags(const void *mem, char *buf, size_t len);
/* What the page table says of @mem, on x86. */
int page_table_line(const void *mem, char *buf, size_t len);

uint64_t now_ms(void);
/* A child that does not outlive the thread that starts it. */
pid_t fork_child(void);
/* The wait status, or -ETIMEDOUT for a child that had to be killed. */
int wait_child(pid_t pid, int ms);
/* Pass an open file through a socket. */
int send_fd(int sock, int fd);
int recv_fd(int sock);

/*
 * The module p2pdma_test: see its source for the commands. These return 0 or a
 * negative errno, but for the number of hits.
 */
#define TEST_MODULE	"p2pdma_test"
#define MODULE_RUN	"/sys/kernel/debug/" TEST_MODULE "/run"
int module_load(void);
int module_run(const char *fmt, ...);
/* How often the probes were hit. */
int module_hits(void);

/* Let allocations fail where a task asks for it, whatever they are for. */
bool faults_ready(void);
/*
 * None that @function makes, or that is made for it, or by what it ends with a jump
 * to: @tail, if there is one. NULL: none is left out.
 */
bool faults_not_in(const char *function, const char *tail);
/*
 * Run @op with its @nth allocation failing. The result is that of @op, or
 * -ERANGE if it has not got as many.
 */
int with_fault(int nth, int (*op)(void *arg), void *arg);

#endif
