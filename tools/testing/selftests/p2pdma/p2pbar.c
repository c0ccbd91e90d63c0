// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of p2pbar's ioctls, and of what they allocate.
 *
 * They take PCI functions away from whatever uses them, and overwrite the start
 * of a disk, so these are named:
 *
 *   P2PDMA_OTHER=0000:03:00.0 a PCI function with a memory BAR
 *   P2PDMA_PEER=0000:02:00.0  the NVMe controller of a disk that may be overwritten
 *
 * Optional are
 *
 *   P2PDMA_CMB=0000:01:00.0   a PCI function that can do without its driver
 *   P2PDMA_EXPECT=bus-address|host-bridge|not-supported
 *                             how DMA has to travel between the first two
 *   P2PDMA_UNPLUG, P2PDMA_PLUG
 *                             commands that have P2PDMA_OTHER taken out of its
 *                             slot, and put back
 *   P2PDMA_SLOW, P2PDMA_FAST  commands that make the disk slow, and fast again
 *   P2PDMA_SEED=1             where the fuzzers' random numbers start
 *   P2PDMA_FUZZ_SECONDS=20    how long they run, one hour at most
 */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/p2pbar.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "p2pdma.h"

#define SZ_4K	0x1000ul
#define SZ_1M	0x100000ul
#define SZ_2M	0x200000ul
#define SZ_16M	0x1000000ul

#define RW	(PROT_READ | PROT_WRITE)

/* The layout is the same for programs of 32 bit, x86 included. */
#define CHECK_SIZE(type, size) \
	static_assert(sizeof(struct p2pbar_##type) == (size), #type)
#define CHECK_FIELD(type, field, at) \
	static_assert(offsetof(struct p2pbar_##type, field) == (at), #type "." #field)
CHECK_SIZE(alloc, 24);
CHECK_FIELD(alloc, type, 8);
CHECK_FIELD(alloc, reserved, 12);
CHECK_FIELD(alloc, offset, 16);
CHECK_SIZE(free, 16);
CHECK_FIELD(free, reserved, 8);
CHECK_SIZE(limit, 16);
CHECK_FIELD(limit, reserved, 8);
CHECK_SIZE(peer, 16);
CHECK_FIELD(peer, bus, 4);
CHECK_FIELD(peer, devfn, 5);
CHECK_FIELD(peer, reserved, 6);
CHECK_FIELD(peer, distance, 8);
CHECK_FIELD(peer, map_type, 12);
CHECK_SIZE(info, 40);
CHECK_FIELD(info, reserved, 4);
CHECK_FIELD(info, size, 8);
CHECK_FIELD(info, used, 16);
CHECK_FIELD(info, limit, 24);
CHECK_FIELD(info, allocated, 32);
static_assert(P2PBAR_IOC_ALLOC == 0xc018bb00, "ALLOC");
static_assert(P2PBAR_IOC_FREE == 0x4010bb01, "FREE");
static_assert(P2PBAR_IOC_LIMIT == 0x4010bb02, "LIMIT");
static_assert(P2PBAR_IOC_PEER == 0xc010bb03, "PEER");
static_assert(P2PBAR_IOC_INFO == 0xc028bb04, "INFO");

#define NR_TYPES	3
static const char * const type_names[NR_TYPES] = { "mem", "uar-nc", "uar-wc" };

/* The teardown is another process, and what is here is shared with it. */
FIXTURE(p2pbar)
{
	struct pci_fn fn;
	struct pci_fn peer;
	char driver[64];	/* that the function had before */
	char node[64];
	struct p2pbar_info info[NR_TYPES];	/* before the test */
	int fd;			/* of the node */
	int disk;		/* of the peer, O_DIRECT */
	int dma;		/* what DMA by it gives: 0, or -EINVAL if there
				 * is no way between the two
				 */
	bool slow;		/* whether the disk was made slow */
};

/* The ioctls, 0 or a negative errno. */
static int get_info(int fd, uint32_t type, struct p2pbar_info *info)
{
	memset(info, 0, sizeof(*info));
	info->type = type;
	return ioctl(fd, P2PBAR_IOC_INFO, info) ? -errno : 0;
}

static int alloc_object(int fd, uint32_t type, uint64_t size, uint64_t *key)
{
	struct p2pbar_alloc alloc = { .type = type, .size = size };
	int ret;

	ret = ioctl(fd, P2PBAR_IOC_ALLOC, &alloc) ? -errno : 0;
	*key = alloc.offset;
	return ret;
}

static int free_object(int fd, uint64_t key)
{
	struct p2pbar_free arg = { .offset = key };

	return ioctl(fd, P2PBAR_IOC_FREE, &arg) ? -errno : 0;
}

static int set_limit(int fd, uint64_t size)
{
	struct p2pbar_limit limit = { .size = size };

	return ioctl(fd, P2PBAR_IOC_LIMIT, &limit) ? -errno : 0;
}

/* Somebody may have locked the function just now. */
static int ask_peer(int fd, const char *name, struct p2pbar_peer *peer)
{
	unsigned int domain, bus, dev, func;
	int tries, ret = -EINVAL;

	if (sscanf(name, "%x:%x:%x.%x", &domain, &bus, &dev, &func) != 4)
		return ret;
	for (tries = 0; tries < 50; tries++) {
		memset(peer, 0, sizeof(*peer));
		peer->domain = domain;
		peer->bus = bus;
		peer->devfn = dev << 3 | func;
		ret = ioctl(fd, P2PBAR_IOC_PEER, peer) ? -errno : 0;
		if (ret != -EBUSY)
			break;
		usleep(10 * 1000);
	}
	return ret;
}

/* Allocate an object and map it, NULL with errno set on error. */
static void *map_object(int fd, uint32_t type, size_t len, uint64_t *key)
{
	int ret;

	ret = alloc_object(fd, type, len, key);
	if (!ret)
		return map_file(fd, len, *key);
	errno = -ret;
	return NULL;
}

#define MAP_OBJECT(fd, type, len, key) ({			\
	void *__mem = map_object(fd, type, len, key);		\
	ASSERT_NE(NULL, __mem);					\
	__mem;							\
})

/* The errno of mmap(), or 0. */
static int map_errno(int fd, size_t len, uint64_t offset)
{
	void *mem = map_file(fd, len, offset);

	if (!mem)
		return errno;
	munmap(mem, len);
	return 0;
}

/* Whether as much is in use as before, be it a moment later. */
static bool drained(const struct _test_data_p2pbar *self)
{
	uint64_t end = now_ms() + 2000;
	struct p2pbar_info info;
	uint32_t type;

	for (type = 0; type < NR_TYPES; type++) {
		while (p2pbar_node_info(self->node, type, &info) ||
		       info.used != self->info[type].used) {
			if (now_ms() >= end)
				return false;
			usleep(1000);
		}
	}
	return true;
}

/* The same of what this open file has allocated. */
static bool allocated(int fd, uint64_t size)
{
	uint64_t end = now_ms() + 2000;
	struct p2pbar_info info;

	while (!get_info(fd, P2PBAR_MEM, &info) && now_ms() < end) {
		if (info.allocated == size)
			return true;
		usleep(1000);
	}
	return false;
}

static int attach(struct _test_data_p2pbar *self)
{
	int ret;

	ret = pci_fn_rebind(&self->fn, "p2pbar");
	if (!ret)
		ret = misc_node(&self->fn, self->node, sizeof(self->node));
	if (ret)
		return ret;
	self->fd = open(self->node, O_RDWR | O_CLOEXEC);
	return self->fd < 0 ? -errno : 0;
}

FIXTURE_SETUP(p2pbar)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	uint32_t type;
	char disk[64];
	int ret;

	if (!getenv("P2PDMA_OTHER") || !getenv("P2PDMA_PEER"))
		SKIP(return, "P2PDMA_OTHER and P2PDMA_PEER have to name PCI functions");
	if (geteuid())
		SKIP(return, "needs root");
	if (sysconf(_SC_PAGESIZE) != SZ_4K)
		SKIP(return, "needs pages of 4 KiB");
	ASSERT_EQ(0, pci_fn_init(&self->fn, getenv("P2PDMA_OTHER")));
	ASSERT_EQ(0, pci_fn_init(&self->peer, getenv("P2PDMA_PEER")));
	ASSERT_EQ(0, nvme_disk(&self->peer, disk, sizeof(disk)));
	self->disk = open(disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, self->disk);
	self->dma = expect && !strcmp(expect, "not-supported") ? -EINVAL : 0;

	/* Loading it may bind it. */
	ASSERT_EQ(0, pci_fn_driver(&self->fn, self->driver, sizeof(self->driver)));
	if (system("modprobe -q p2pbar"))
		SKIP(return, "no module p2pbar");
	ret = attach(self);
	for (type = 0; !ret && type < NR_TYPES; type++)
		ret = get_info(self->fd, type, &self->info[type]);
	/* Without a setup there is no teardown. */
	if (ret)
		pci_fn_rebind(&self->fn, self->driver);
	ASSERT_EQ(0, ret);
}

FIXTURE_TEARDOWN_PARENT(p2pbar)
{
	if (self->slow)
		EXPECT_EQ(0, system(getenv("P2PDMA_FAST")));
	/* The test's process is gone, and so has to be all that it used. */
	if (!access(self->node, F_OK))
		EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, pci_fn_rebind(&self->fn, self->driver));
}

static int op_open(void *arg)
{
	struct _test_data_p2pbar *self = arg;
	int fd = open(self->node, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int op_alloc(void *arg)
{
	struct _test_data_p2pbar *self = arg;
	uint64_t key;
	int ret;

	ret = alloc_object(self->fd, P2PBAR_MEM, 16 * SZ_4K, &key);
	return ret ?: free_object(self->fd, key);
}

static int op_map(void *arg)
{
	struct _test_data_p2pbar *self = arg;
	void *mem = map_file(self->fd, 16 * SZ_4K, 0);
	int ret = 0;

	if (!mem)
		return -errno;
	/* The kernel touches them: a task's own faults are tried again. */
	if (madvise(mem, 16 * SZ_4K, MADV_POPULATE_WRITE))
		ret = -errno;
	munmap(mem, 16 * SZ_4K);
	return ret;
}

/* Each allocation of the kernel fails once, and nothing is lost. */
TEST_F_TIMEOUT(p2pbar, allocations_fail, 600)
{
	static const struct {
		const char *name;
		int (*op)(void *arg);
	} ops[] = {
		{ "open", op_open },
		{ "alloc", op_alloc },
		{ "map", op_map },
	};
	int i, nth, ret, failed;

	if (!faults_ready())
		SKIP(return, "needs CONFIG_FAILSLAB and CONFIG_FAIL_PAGE_ALLOC");
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		failed = 0;
		for (nth = 1; nth < 1000; nth++) {
			ret = with_fault(nth, ops[i].op, self);
			if (ret == -ERANGE)
				break;
			failed += !!ret;
			EXPECT_TRUE(!ret || ret == -ENOMEM || ret == -EFAULT) {
				TH_LOG("%s: allocation %d: %s", ops[i].name, nth, strerror(-ret));
			}
			EXPECT_TRUE(drained(self)) {
				TH_LOG("%s: allocation %d", ops[i].name, nth);
			}
			EXPECT_TRUE(allocated(self->fd, 0));
		}
		EXPECT_EQ(-ERANGE, ret);
		EXPECT_LT(0, failed);
		EXPECT_EQ(0, ops[i].op(self));
	}
}

/* Each step of probing fails once. */
TEST_F_TIMEOUT(p2pbar, probe_fails, 120)
{
	static const char * const steps[] = {
		"pcim_p2pdma_init", "memremap_pages", "misc_register",
	};
	char buf[16];
	int i, ret;

	if (module_load())
		SKIP(return, "no module " TEST_MODULE);
	if (!pci_fn_read(&self->fn, "numa_node", buf, sizeof(buf)) && atoi(buf) >= 0)
		SKIP(return, "not on a machine with several nodes");
	close(self->fd);
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ASSERT_EQ(0, pci_fn_unbind(&self->fn));
		ret = module_run("fail %s %d", steps[i], EDEADLK);
		if (ret == -EOPNOTSUPP)
			SKIP(return, "no kprobes, or not on this architecture");
		ASSERT_EQ(0, ret);
		EXPECT_EQ(-EDEADLK, pci_fn_bind(&self->fn, "p2pbar", "p2pbar")) {
			TH_LOG("%s", steps[i]);
		}
		EXPECT_EQ(1, module_hits());
		ASSERT_EQ(0, module_run("off"));
		ASSERT_EQ(0, pci_fn_bind(&self->fn, "p2pbar", "p2pbar"));
	}
	ASSERT_EQ(0, attach(self));
	EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, map_errno(self->fd, SZ_4K, 0));
}

static uint64_t parameter(const char *name, uint64_t def)
{
	unsigned long long val;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/module/p2pbar/parameters/%s", name);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%llu", &val) == 1)
			def = val;
		fclose(f);
	}
	return def;
}

TEST_F_TIMEOUT(p2pbar, info, 90)
{
	uint64_t start, len = 0, total = 0, limit = parameter("limit", 0), key;
	int bar = parameter("bar", 2);
	struct p2pbar_info info;
	char attr[16];
	uint32_t type;
	void *mem;

	for (type = 0; type < NR_TYPES; type++) {
		EXPECT_EQ(0, self->info[type].size % SZ_4K);
		EXPECT_EQ(0, self->info[type].used);
		EXPECT_EQ(0, self->info[type].allocated);
		total += self->info[type].size;
	}
	EXPECT_LT(0, self->info[P2PBAR_MEM].size);
	ASSERT_EQ(0, pci_fn_resource(&self->fn, bar, &start, &len));
	EXPECT_LE(total, len);
	/* Write-combining is for prefetchable BARs, as it is in sysfs. */
	snprintf(attr, sizeof(attr), "resource%d_wc", bar);
	EXPECT_EQ(!access(pci_fn_path(&self->fn, attr), F_OK), !!self->info[P2PBAR_UAR_WC].size);
	EXPECT_LE(limit ?: total, self->info[P2PBAR_MEM].limit);
	if (limit)
		EXPECT_EQ(limit, self->info[P2PBAR_MEM].limit);

	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, 3 * SZ_4K, &key));
	mem = map_file(self->fd, 2 * SZ_4K, 0);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, get_info(self->fd, P2PBAR_MEM, &info));
	EXPECT_EQ(5 * SZ_4K, info.used);
	EXPECT_EQ(5 * SZ_4K, info.allocated);
	EXPECT_EQ(0, info.reserved);
	/* It is not all types that are used, but all that are allocated. */
	ASSERT_EQ(0, get_info(self->fd, P2PBAR_UAR_NC, &info));
	EXPECT_EQ(0, info.used);
	EXPECT_EQ(5 * SZ_4K, info.allocated);
	ASSERT_EQ(0, munmap(mem, 2 * SZ_4K));
	EXPECT_TRUE(allocated(self->fd, 3 * SZ_4K));
	EXPECT_EQ(0, free_object(self->fd, key));
	EXPECT_TRUE(allocated(self->fd, 0));
	EXPECT_TRUE(drained(self));
}

TEST_F_TIMEOUT(p2pbar, alloc_map_dma, 90)
{
	static const size_t lengths[] = { SZ_4K, 3 * SZ_4K, 33 * SZ_4K, SZ_1M, SZ_2M + SZ_4K };
	size_t i, len;
	uint32_t type;
	uint64_t key;
	void *mem;

	for (type = 0; type < NR_TYPES; type++) {
		if (!self->info[type].size) {
			EXPECT_EQ(-EOPNOTSUPP, alloc_object(self->fd, type, SZ_4K, &key));
			continue;
		}
		for (i = 0; i < (type == P2PBAR_MEM ? ARRAY_SIZE(lengths) : 1); i++) {
			len = lengths[i];
			mem = MAP_OBJECT(self->fd, type, len, &key);
			EXPECT_NE(0, key);
			/* It is the disk that touches it first. */
			EXPECT_EQ(self->dma, dma_in(self->disk, mem, len)) {
				TH_LOG("%s, %zu bytes", type_names[type], len);
			}
			EXPECT_EQ(self->dma, dma_out(self->disk, mem, len));
			mmio_fill(mem, len, i);
			EXPECT_EQ(-1, mmio_check(mem, len, i));
			ASSERT_EQ(0, munmap(mem, len));
			EXPECT_EQ(0, free_object(self->fd, key));
		}
	}
	EXPECT_TRUE(drained(self));
}

TEST_F_TIMEOUT(p2pbar, cache_modes, 90)
{
	char line[512];
	uint32_t type;
	uint64_t key;
	void *mem;

	for (type = 0; type < NR_TYPES; type++) {
		if (!self->info[type].size)
			continue;
		mem = MAP_OBJECT(self->fd, type, SZ_4K, &key);
		mmio_write64(mem, 1);
		if (page_table_line(mem, line, sizeof(line)))
			SKIP(return, "needs CONFIG_PTDUMP_DEBUGFS, on x86");
		EXPECT_EQ(type != P2PBAR_UAR_WC, !!strstr(line, " PCD")) {
			TH_LOG("%s: %s", type_names[type], line);
		}
		EXPECT_EQ(type == P2PBAR_UAR_WC, !!strstr(line, " PWT"));
	}
}

/* What others have mapped with another cache mode is left to them. */
TEST_F_TIMEOUT(p2pbar, other_cache_mode, 90)
{
	int bar = parameter("bar", 2), ret, fd;
	uint64_t start, len = 0;
	char attr[16];
	void *mem;

	if (!self->info[P2PBAR_UAR_WC].size)
		SKIP(return, "the BAR is not prefetchable");
#ifndef __x86_64__
	SKIP(return, "only x86 keeps track of it");
#endif
	close(self->fd);
	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	ASSERT_EQ(0, pci_fn_resource(&self->fn, bar, &start, &len));
	snprintf(attr, sizeof(attr), "resource%d_wc", bar);
	fd = open(pci_fn_path(&self->fn, attr), O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	mem = map_file(fd, SZ_4K, 0);
	close(fd);
	ASSERT_NE(NULL, mem);
	ret = pci_fn_bind(&self->fn, "p2pbar", "p2pbar");
	ASSERT_EQ(0, munmap(mem, SZ_4K));
	EXPECT_EQ(-EBUSY, ret);

	/* It can do without write-combining. */
	mem = pci_fn_map_bar(&self->fn, bar, len);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, attach(self));
	EXPECT_EQ(0, get_info(self->fd, P2PBAR_MEM, &self->info[P2PBAR_MEM]));
	EXPECT_EQ(-EOPNOTSUPP, alloc_object(self->fd, P2PBAR_UAR_WC, SZ_4K, &start));
	close(self->fd);
	ASSERT_EQ(0, munmap(mem, len));
	ASSERT_EQ(0, attach(self));
	EXPECT_EQ(0, alloc_object(self->fd, P2PBAR_UAR_WC, SZ_4K, &start));
}

TEST_F_TIMEOUT(p2pbar, exact_size, 90)
{
	uint64_t key;
	void *mem;

	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, 4 * SZ_4K, &key));
	EXPECT_EQ(EINVAL, map_errno(self->fd, SZ_4K, key));
	EXPECT_EQ(EINVAL, map_errno(self->fd, 3 * SZ_4K, key));
	EXPECT_EQ(EINVAL, map_errno(self->fd, 5 * SZ_4K, key));
	EXPECT_EQ(EINVAL, map_errno(self->fd, 3 * SZ_4K, key + SZ_4K));
	EXPECT_EQ(EINVAL, map_errno(self->fd, 4 * SZ_4K, key + SZ_4K));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 4 * SZ_4K, RW, MAP_PRIVATE, self->fd, key));
	EXPECT_EQ(EINVAL, errno);
	mem = map_file(self->fd, 4 * SZ_4K, key);
	ASSERT_NE(NULL, mem);
	page_mark(mem, 4 * SZ_4K, 1);
	EXPECT_EQ(MAP_FAILED, mremap(mem, 4 * SZ_4K, 5 * SZ_4K, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	/* Mappings may become smaller, but objects do not. */
	ASSERT_EQ(0, munmap(mem + SZ_4K, SZ_4K));
	EXPECT_EQ(EINVAL, map_errno(self->fd, 3 * SZ_4K, key));
	ASSERT_EQ(0, munmap(mem, 4 * SZ_4K));
	mem = map_file(self->fd, 4 * SZ_4K, key);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-1, page_check(mem, 4 * SZ_4K, 1));
	ASSERT_EQ(0, munmap(mem, 4 * SZ_4K));
	EXPECT_EQ(0, free_object(self->fd, key));
}

TEST_F_TIMEOUT(p2pbar, share_between_mappings, 90)
{
	uint64_t key, other_key;
	void *mem, *again, *other;

	mem = MAP_OBJECT(self->fd, P2PBAR_MEM, SZ_1M, &key);
	page_mark(mem, SZ_1M, 1);
	again = map_file(self->fd, SZ_1M, key);
	ASSERT_NE(NULL, again);
	other = MAP_OBJECT(self->fd, P2PBAR_MEM, SZ_1M, &other_key);
	EXPECT_NE(key, other_key);
	page_mark(other, SZ_1M, 2);
	EXPECT_EQ(-1, page_check(again, SZ_1M, 1));
	EXPECT_EQ(phys_addr(mem), phys_addr(again));
	EXPECT_EQ(self->dma, dma_in(self->disk, again, SZ_1M));
	EXPECT_EQ(mmio_checksum(mem, SZ_1M), mmio_checksum(again, SZ_1M));
	page_mark(again, SZ_1M, 3);
	ASSERT_EQ(0, munmap(again, SZ_1M));
	EXPECT_EQ(-1, page_check(mem, SZ_1M, 3));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
	/* The object is more than its mappings. */
	mem = map_file(self->fd, SZ_1M, key);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-1, page_check(mem, SZ_1M, 3));
	EXPECT_EQ(-1, page_check(other, SZ_1M, 2));
}

TEST_F_TIMEOUT(p2pbar, free_semantics, 90)
{
	struct p2pbar_info info;
	pid_t child;
	uint64_t key;
	void *mem;

	mem = MAP_OBJECT(self->fd, P2PBAR_MEM, SZ_1M, &key);
	page_mark(mem, SZ_1M / 2, 1);
	/* Any process that has the file may do that. */
	child = fork_child();
	if (!child)
		_exit(map_errno(self->fd, SZ_1M, key) || free_object(self->fd, key));
	EXPECT_EQ(0, wait_child(child, 10000));
	EXPECT_EQ(EINVAL, map_errno(self->fd, SZ_1M, key));
	EXPECT_EQ(-ENOENT, free_object(self->fd, key));
	/* What is mapped stays, be it touched or not. */
	EXPECT_EQ(-1, page_check(mem, SZ_1M / 2, 1));
	EXPECT_EQ(self->dma, dma_in(self->disk, mem, SZ_1M));
	EXPECT_EQ(self->dma, dma_out(self->disk, mem, SZ_1M));
	ASSERT_EQ(0, get_info(self->fd, P2PBAR_MEM, &info));
	EXPECT_EQ(self->info[P2PBAR_MEM].used + SZ_1M, info.used);
	ASSERT_EQ(0, munmap(mem, SZ_1M / 2));
	EXPECT_EQ(0, try_write64(mem + SZ_1M / 2, 1));
	ASSERT_EQ(0, munmap(mem + SZ_1M / 2, SZ_1M / 2));
	EXPECT_TRUE(drained(self));
	EXPECT_TRUE(allocated(self->fd, 0));
	EXPECT_EQ(-ENOENT, free_object(self->fd, key));
}

/* An open file is one as long as anything of it is mapped. */
TEST_F_TIMEOUT(p2pbar, close_frees, 90)
{
	uint64_t key, unmapped;
	void *mem;

	mem = MAP_OBJECT(self->fd, P2PBAR_MEM, SZ_1M, &key);
	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, SZ_2M, &unmapped));
	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(self->dma, dma_in(self->disk, mem, SZ_1M));
	EXPECT_EQ(0, try_write64(mem, 1));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
	EXPECT_TRUE(drained(self));
}

TEST_F_TIMEOUT(p2pbar, foreign_keys, 90)
{
	uint64_t key, own;
	void *mem, *other;
	int fd;

	mem = MAP_OBJECT(self->fd, P2PBAR_MEM, SZ_4K, &key);
	mmio_write64(mem, 1);
	fd = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(EINVAL, map_errno(fd, SZ_4K, key));
	EXPECT_EQ(-ENOENT, free_object(fd, key));
	/* Its own may have the same key, but are something else. */
	other = MAP_OBJECT(fd, P2PBAR_MEM, SZ_4K, &own);
	EXPECT_EQ(0, mmio_read64(other));
	mmio_write64(other, 2);
	EXPECT_EQ(1, mmio_read64(mem));
	EXPECT_NE(phys_addr(mem), phys_addr(other));
	close(fd);
	ASSERT_EQ(0, munmap(other, SZ_4K));
	EXPECT_EQ(0, map_errno(self->fd, SZ_4K, key));
	EXPECT_EQ(0, free_object(self->fd, key));
}

TEST_F_TIMEOUT(p2pbar, bad_arguments, 90)
{
	static const unsigned long cmds[] = {
		P2PBAR_IOC_ALLOC, P2PBAR_IOC_FREE, P2PBAR_IOC_LIMIT, P2PBAR_IOC_PEER,
		P2PBAR_IOC_INFO,
	};
	const struct {
		uint32_t type;
		uint64_t size;
		uint32_t reserved;
		int err;
	} allocs[] = {
		{ P2PBAR_MEM, 0, 0, EINVAL },
		{ P2PBAR_MEM, 1, 0, EINVAL },
		{ P2PBAR_MEM, SZ_4K - 1, 0, EINVAL },
		{ P2PBAR_MEM, SZ_4K + 1, 0, EINVAL },
		{ P2PBAR_MEM, ~0ull, 0, EINVAL },
		{ P2PBAR_MEM, SZ_4K, 1, EINVAL },
		{ P2PBAR_MEM, SZ_4K, 1u << 31, EINVAL },
		{ P2PBAR_MEM, self->info[P2PBAR_MEM].size + SZ_4K, 0, ENOSPC },
		{ P2PBAR_MEM, 1ull << 62, 0, ENOSPC },
		{ P2PBAR_MEM, ~(SZ_4K - 1), 0, ENOSPC },
		{ P2PBAR_UAR_NC, 0, 0, EINVAL },
		{ P2PBAR_UAR_NC, 2 * SZ_4K, 0, EINVAL },
		{ P2PBAR_UAR_NC, SZ_4K / 2, 0, EINVAL },
		{ P2PBAR_UAR_NC, SZ_4K, 1, EINVAL },
		{ NR_TYPES, SZ_4K, 0, EINVAL },
		{ 0x100, SZ_4K, 0, EINVAL },
		{ ~0u, SZ_4K, 0, EINVAL },
	};
	struct p2pbar_alloc *ro, alloc;
	struct p2pbar_limit limit = { .size = SZ_1M, .reserved = 1 };
	struct p2pbar_info info = { .reserved = 1 };
	struct p2pbar_peer peer = { .reserved = 1 };
	struct p2pbar_free free = { .reserved = 1 };
	uint64_t key;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(allocs); i++) {
		alloc.type = allocs[i].type;
		alloc.size = allocs[i].size;
		alloc.reserved = allocs[i].reserved;
		EXPECT_EQ(-1, ioctl(self->fd, P2PBAR_IOC_ALLOC, &alloc));
		EXPECT_EQ(allocs[i].err, errno) {
			TH_LOG("case %zu", i);
		}
	}

	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, SZ_4K, &key));
	free.offset = key;
	EXPECT_EQ(-1, ioctl(self->fd, P2PBAR_IOC_FREE, &free));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-ENOENT, free_object(self->fd, 0));
	EXPECT_EQ(-ENOENT, free_object(self->fd, key + 1));
	EXPECT_EQ(-ENOENT, free_object(self->fd, key + SZ_4K));
	EXPECT_EQ(-ENOENT, free_object(self->fd, ~0ull));
	EXPECT_EQ(0, free_object(self->fd, key));

	EXPECT_EQ(-1, ioctl(self->fd, P2PBAR_IOC_LIMIT, &limit));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(self->fd, P2PBAR_IOC_PEER, &peer));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(self->fd, P2PBAR_IOC_INFO, &info));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-EINVAL, get_info(self->fd, NR_TYPES, &info));
	EXPECT_EQ(-EINVAL, get_info(self->fd, ~0u, &info));

	for (i = 0; i < ARRAY_SIZE(cmds); i++) {
		EXPECT_EQ(-1, ioctl(self->fd, cmds[i], NULL));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, ioctl(self->fd, cmds[i], 1ul << 63));
		EXPECT_EQ(EFAULT, errno);
	}
	/* The result cannot be told, so nobody can free it. */
	ro = ram_map(SZ_4K);
	ASSERT_NE(NULL, ro);
	ro->size = SZ_1M;
	ASSERT_EQ(0, mprotect(ro, SZ_4K, PROT_READ));
	EXPECT_EQ(-1, ioctl(self->fd, P2PBAR_IOC_ALLOC, ro));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(allocated(self->fd, 0));
	EXPECT_TRUE(drained(self));
}

TEST_F_TIMEOUT(p2pbar, unknown_ioctl, 90)
{
	static const unsigned long cmds[] = {
		_IO(P2PBAR_IOC_MAGIC, 0),
		_IOR(P2PBAR_IOC_MAGIC, 0, struct p2pbar_alloc),
		_IOWR(P2PBAR_IOC_MAGIC, 0, struct p2pbar_free),
		_IOWR(P2PBAR_IOC_MAGIC, 1, struct p2pbar_free),
		_IOWR(P2PBAR_IOC_MAGIC, 5, struct p2pbar_info),
		_IO(P2PBAR_IOC_MAGIC, 255),
		_IOWR(P2PBAR_IOC_MAGIC + 1, 0, struct p2pbar_alloc),
	};
	char arg[64] = {};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cmds); i++) {
		EXPECT_EQ(-1, ioctl(self->fd, cmds[i], arg));
		EXPECT_EQ(ENOTTY, errno) {
			TH_LOG("%#lx", cmds[i]);
		}
	}
}

TEST_F_TIMEOUT(p2pbar, limit, 90)
{
	struct p2pbar_info info;
	uint64_t key, big, page;
	void *mem;
	int fd;

	ASSERT_EQ(0, set_limit(self->fd, 8 * SZ_4K));
	EXPECT_EQ(-EPERM, set_limit(self->fd, 8 * SZ_4K + 1));
	EXPECT_EQ(-EPERM, set_limit(self->fd, ~0ull));
	EXPECT_EQ(0, set_limit(self->fd, 8 * SZ_4K));
	ASSERT_EQ(0, get_info(self->fd, P2PBAR_MEM, &info));
	EXPECT_EQ(8 * SZ_4K, info.limit);

	EXPECT_EQ(-EDQUOT, alloc_object(self->fd, P2PBAR_MEM, 9 * SZ_4K, &big));
	EXPECT_EQ(EDQUOT, map_errno(self->fd, 9 * SZ_4K, 0));
	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, 5 * SZ_4K, &key));
	EXPECT_EQ(EDQUOT, map_errno(self->fd, 4 * SZ_4K, 0));
	mem = map_file(self->fd, 3 * SZ_4K, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-EDQUOT, alloc_object(self->fd, P2PBAR_MEM, SZ_4K, &page));
	EXPECT_EQ(EDQUOT, map_errno(self->fd, SZ_4K, 0));
	if (self->info[P2PBAR_UAR_NC].size)
		EXPECT_EQ(-EDQUOT, alloc_object(self->fd, P2PBAR_UAR_NC, SZ_4K, &page));
	/* An object is not counted again when it is mapped. */
	EXPECT_EQ(0, map_errno(self->fd, 5 * SZ_4K, key));
	/* Others have limits of their own. */
	fd = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, map_errno(fd, 16 * SZ_4K, 0));
	close(fd);

	ASSERT_EQ(0, munmap(mem, 3 * SZ_4K));
	EXPECT_TRUE(allocated(self->fd, 5 * SZ_4K));
	EXPECT_EQ(0, map_errno(self->fd, 3 * SZ_4K, 0));
	EXPECT_TRUE(allocated(self->fd, 5 * SZ_4K));
	EXPECT_EQ(0, free_object(self->fd, key));
	EXPECT_TRUE(allocated(self->fd, 0));
	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, 8 * SZ_4K, &key));
	/* Nothing is taken away by a limit. */
	EXPECT_EQ(0, set_limit(self->fd, SZ_4K));
	EXPECT_EQ(0, map_errno(self->fd, 8 * SZ_4K, key));
	EXPECT_EQ(-EDQUOT, alloc_object(self->fd, P2PBAR_MEM, SZ_4K, &page));
	EXPECT_EQ(0, free_object(self->fd, key));
	EXPECT_TRUE(allocated(self->fd, 0));
	EXPECT_EQ(0, map_errno(self->fd, SZ_4K, 0));
}

TEST_F_TIMEOUT(p2pbar, exhaustion, 120)
{
	uint64_t keys[1024], page;
	struct p2pbar_info info;
	size_t n = 0, len = SZ_16M;
	int ret;

	while (n < ARRAY_SIZE(keys) && len >= SZ_4K) {
		ret = alloc_object(self->fd, P2PBAR_MEM, len, &keys[n]);
		if (!ret) {
			n++;
			continue;
		}
		EXPECT_EQ(-ENOSPC, ret);
		len /= 2;
	}
	ASSERT_EQ(0, get_info(self->fd, P2PBAR_MEM, &info));
	EXPECT_EQ(info.size, info.used);
	EXPECT_EQ(ENOMEM, map_errno(self->fd, SZ_4K, 0));
	/* The other types have their own. */
	if (self->info[P2PBAR_UAR_NC].size) {
		EXPECT_EQ(0, alloc_object(self->fd, P2PBAR_UAR_NC, SZ_4K, &page));
		EXPECT_EQ(0, free_object(self->fd, page));
	}
	while (n--)
		EXPECT_EQ(0, free_object(self->fd, keys[n]));
	EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, map_errno(self->fd, SZ_16M, 0));
}

/* All pages of such a type: they come back, and clean. */
TEST_F_TIMEOUT(p2pbar, uar_deferred_free, 300)
{
	uint64_t *keys, val;
	size_t i, n, dirty = 0;
	uint32_t type;
	void *mem;
	int fd;

	for (type = P2PBAR_UAR_NC; type < NR_TYPES; type++) {
		n = self->info[type].size / SZ_4K;
		keys = calloc(n + 1, sizeof(*keys));
		ASSERT_NE(NULL, keys);
		for (i = 0; i < n; i++) {
			mem = MAP_OBJECT(self->fd, type, SZ_4K, &keys[i]);
			mmio_fill(mem, SZ_4K, i);
			ASSERT_EQ(0, munmap(mem, SZ_4K));
		}
		EXPECT_EQ(n ? -ENOSPC : -EOPNOTSUPP,
			  alloc_object(self->fd, type, SZ_4K, &keys[n]));
		for (i = 0; i < n; i++)
			EXPECT_EQ(0, free_object(self->fd, keys[i]));
		EXPECT_TRUE(drained(self));

		fd = open(self->node, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, fd);
		for (i = 0; i < n; i++) {
			mem = MAP_OBJECT(fd, type, SZ_4K, &keys[i]);
			for (val = 0; val < SZ_4K; val += sizeof(val))
				dirty += !!mmio_read64(mem + val);
			ASSERT_EQ(0, munmap(mem, SZ_4K));
		}
		EXPECT_EQ(0, dirty);
		close(fd);
		EXPECT_TRUE(drained(self));
		free(keys);
	}
}

TEST_F_TIMEOUT(p2pbar, peer_query, 90)
{
	const char *expect = getenv("P2PDMA_EXPECT"), *name = getenv("P2PDMA_CMB");
	struct p2pbar_peer peer;
	struct pci_fn other;
	char driver[64];
	uint32_t type;

	EXPECT_EQ(-ENOENT, ask_peer(self->fd, "fffe:00:00.0", &peer));
	EXPECT_EQ(-ENOENT, ask_peer(self->fd, "fffffffe:ff:1f.7", &peer));
	/* Nothing is closer to it than itself. */
	ASSERT_EQ(0, ask_peer(self->fd, self->fn.name, &peer));
	EXPECT_EQ(0, peer.distance);
	EXPECT_EQ(P2PBAR_MAP_BUS_ADDR, peer.map_type);

	ASSERT_EQ(0, ask_peer(self->fd, self->peer.name, &peer));
	EXPECT_EQ(0, peer.reserved);
	if (expect) {
		type = P2PBAR_MAP_NONE;
		if (!strcmp(expect, "bus-address"))
			type = P2PBAR_MAP_BUS_ADDR;
		else if (!strcmp(expect, "host-bridge"))
			type = P2PBAR_MAP_THRU_HOST_BRIDGE;
		EXPECT_EQ(type, peer.map_type);
	}
	EXPECT_EQ(peer.map_type == P2PBAR_MAP_NONE, peer.distance == -1);
	EXPECT_NE(0, peer.distance);

	if (!name || pci_fn_init(&other, name) || pci_fn_driver(&other, driver, sizeof(driver)))
		return;
	EXPECT_EQ(0, pci_fn_unbind(&other));
	EXPECT_EQ(-EBUSY, ask_peer(self->fd, name, &peer));
	EXPECT_EQ(0, pci_fn_rebind(&other, driver));
}

/* What fdinfo tells: limit, allocated, objects, mappings. */
static int read_fdinfo(int fd, uint64_t val[4])
{
	static const char * const names[] = {
		"p2pdma-limit", "p2pdma-allocated", "p2pdma-objects", "p2pdma-mappings",
	};
	int i, ret = 0;

	for (i = 0; !ret && i < 4; i++)
		ret = fdinfo_read(fd, names[i], &val[i]);
	return ret;
}

TEST_F_TIMEOUT(p2pbar, fdinfo, 90)
{
	const uint64_t none[] = { SZ_1M, 0, 0, 0 };
	const uint64_t mapped[] = { SZ_1M, 2 * SZ_4K, 1, 2 };
	uint64_t val[4], key;
	void *mem, *again;

	ASSERT_EQ(0, set_limit(self->fd, SZ_1M));
	ASSERT_EQ(0, read_fdinfo(self->fd, val));
	EXPECT_EQ(0, memcmp(val, none, sizeof(val)));
	mem = MAP_OBJECT(self->fd, P2PBAR_MEM, 2 * SZ_4K, &key);
	again = map_file(self->fd, 2 * SZ_4K, key);
	ASSERT_NE(NULL, again);
	ASSERT_EQ(0, read_fdinfo(self->fd, val));
	EXPECT_EQ(0, memcmp(val, mapped, sizeof(val)));
	ASSERT_EQ(0, munmap(mem, 2 * SZ_4K));
	ASSERT_EQ(0, munmap(again, 2 * SZ_4K));
	ASSERT_EQ(0, free_object(self->fd, key));
	EXPECT_TRUE(allocated(self->fd, 0));
	ASSERT_EQ(0, read_fdinfo(self->fd, val));
	EXPECT_EQ(0, memcmp(val, none, sizeof(val)));
}

static int debugfs_line(const struct pci_fn *fn, const char *type, unsigned long long val[4])
{
	char path[64], name[16];
	int ret = -ENOENT;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/kernel/debug/p2pbar-%s/memory", fn->name);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (ret && fscanf(f, "%15s size %llu used %llu objects %llu mappings %llu\n", name,
			     &val[0], &val[1], &val[2], &val[3]) == 5) {
		if (!strcmp(name, type))
			ret = 0;
	}
	fclose(f);
	return ret;
}

TEST_F_TIMEOUT(p2pbar, debugfs, 90)
{
	unsigned long long before[4], val[4];
	uint32_t type;
	uint64_t key;
	void *mem;

	if (access("/sys/kernel/debug/bdi", F_OK))
		SKIP(return, "needs debugfs at /sys/kernel/debug");
	for (type = 0; type < NR_TYPES; type++) {
		if (!self->info[type].size)
			continue;
		ASSERT_EQ(0, debugfs_line(&self->fn, type_names[type], before));
		EXPECT_EQ(self->info[type].size, before[0]);
		EXPECT_EQ(self->info[type].used, before[1]);
		mem = MAP_OBJECT(self->fd, type, SZ_4K, &key);
		ASSERT_EQ(0, debugfs_line(&self->fn, type_names[type], val));
		EXPECT_EQ(before[0], val[0]);
		EXPECT_EQ(before[1] + SZ_4K, val[1]);
		EXPECT_EQ(before[2] + 1, val[2]);
		EXPECT_EQ(before[3] + 1, val[3]);
		ASSERT_EQ(0, munmap(mem, SZ_4K));
		ASSERT_EQ(0, free_object(self->fd, key));
		EXPECT_TRUE(drained(self));
		ASSERT_EQ(0, debugfs_line(&self->fn, type_names[type], val));
		EXPECT_EQ(0, memcmp(before, val, sizeof(val)));
	}
	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	EXPECT_EQ(-ENOENT, debugfs_line(&self->fn, "mem", val));
}

/* Whether the function is there, or not, within some time. */
static bool wait_for_function(const struct pci_fn *fn, bool there, int ms)
{
	uint64_t end = now_ms() + ms;

	while (!access(pci_fn_path(fn, "class"), F_OK) != there) {
		if (now_ms() >= end)
			return false;
		usleep(10 * 1000);
	}
	return true;
}

/* Put another one into the slot, and open its node. */
static bool plug_in(struct _test_data_p2pbar *self)
{
	int tries;

	/* The slot may not be ready for another one yet. */
	for (tries = 0; tries < 10; tries++) {
		if (system(getenv("P2PDMA_PLUG")))
			return false;
		if (wait_for_function(&self->fn, true, 3000))
			break;
	}
	/* The one that was taken out is still open, and another one is there. */
	close(self->fd);
	/* It is seen before it can be bound. */
	for (tries = 0; tries < 100; tries++) {
		if (!attach(self))
			return true;
		usleep(50 * 1000);
	}
	return false;
}

/* The device is taken out while it is used in every way. */
TEST_F_TIMEOUT(p2pbar, unplug, 150)
{
	const char *unplug = getenv("P2PDMA_UNPLUG");
	uint64_t key, val, end = now_ms() + 60000;
	void *mem, *object;
	pid_t child;
	int idle, ret;

	if (!unplug || !getenv("P2PDMA_PLUG"))
		SKIP(return, "P2PDMA_UNPLUG and P2PDMA_PLUG are not set");
	idle = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, idle);
	mem = map_file(self->fd, SZ_2M, 0);
	ASSERT_NE(NULL, mem);
	page_mark(mem, SZ_1M, 1);
	object = MAP_OBJECT(self->fd, P2PBAR_UAR_NC, SZ_4K, &key);
	EXPECT_EQ(0, try_write64(object, 1));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		/* Until the memory is gone; without a way for DMA, it never works. */
		while ((ret = pread_all(self->disk, mem, SZ_1M, 0)) == self->dma && now_ms() < end)
			;
		_exit(ret != -EFAULT && ret != -EIO);
	}

	ASSERT_EQ(0, system(unplug));
	EXPECT_TRUE(wait_for_function(&self->fn, false, 30000));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_1M, 1));
	EXPECT_EQ(SIGBUS, try_read64(object, &val));
	EXPECT_EQ(0, wait_child(child, 10000));
	EXPECT_EQ(-ENODEV, alloc_object(self->fd, P2PBAR_MEM, SZ_4K, &key));
	EXPECT_EQ(ENODEV, map_errno(idle, SZ_4K, 0));

	ASSERT_TRUE(plug_in(self));
	EXPECT_EQ(ENODEV, map_errno(idle, SZ_4K, 0));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	ASSERT_EQ(0, munmap(mem, SZ_2M));
	mem = map_file(self->fd, SZ_1M, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(self->dma, dma_in(self->disk, mem, SZ_1M));
}

/* The device is taken out, but not before a slow peer's DMA is over. */
TEST_F_TIMEOUT(p2pbar, unplug_slow_client, 150)
{
	const char *unplug = getenv("P2PDMA_UNPLUG"), *slow = getenv("P2PDMA_SLOW");
	const struct timespec limit = { .tv_sec = 90 };
	const size_t len = SZ_1M / 2;
	struct io_event events[8];
	aio_context_t ctx = 0;
	uint64_t val, end;
	pid_t child;
	void *mem;
	int i;

	if (!unplug || !getenv("P2PDMA_PLUG") || !slow || !getenv("P2PDMA_FAST"))
		SKIP(return, "P2PDMA_UNPLUG, _PLUG, _SLOW and _FAST are not all set");
	if (self->dma)
		SKIP(return, "no way for DMA");
	ASSERT_EQ(0, syscall(SYS_io_setup, 8, &ctx));
	mem = map_file(self->fd, 8 * len, 0);
	ASSERT_NE(NULL, mem);
	self->slow = true;
	ASSERT_EQ(0, system(slow));
	/* It takes longer than a slot's button. */
	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, aio_submit(ctx, IOCB_CMD_PREAD, self->disk, mem + i * len, len,
					DISK_OFFSET + i * len));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		_exit(!!system(unplug));

	end = now_ms() + 15000;
	while (try_read64(mem, &val) != SIGBUS && now_ms() < end)
		usleep(1000);
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_TRUE(wait_for_function(&self->fn, true, 0));
	ASSERT_EQ(8, syscall(SYS_io_getevents, ctx, 8, 8, events, &limit));
	for (i = 0; i < 8; i++)
		EXPECT_EQ(len, events[i].res);
	EXPECT_TRUE(wait_for_function(&self->fn, false, 5000));
	EXPECT_EQ(0, wait_child(child, 5000));
	ASSERT_TRUE(plug_in(self));
	EXPECT_TRUE(drained(self));
}

TEST_F_TIMEOUT(p2pbar, unbind_keyed, 90)
{
	uint64_t key, unmapped, gone, val;
	struct p2pbar_peer peer;
	struct p2pbar_info info;
	int old = self->fd, i;
	void *mem, *freed;

	mem = MAP_OBJECT(old, P2PBAR_MEM, SZ_1M, &key);
	page_mark(mem, SZ_1M / 2, 1);
	freed = MAP_OBJECT(old, P2PBAR_MEM, SZ_1M, &gone);
	page_mark(freed, SZ_1M, 1);
	ASSERT_EQ(0, free_object(old, gone));
	ASSERT_EQ(0, alloc_object(old, P2PBAR_MEM, SZ_1M, &unmapped));
	/* Unbinding has to wait for the workqueue. */
	for (i = 0; i < 8 && self->info[P2PBAR_UAR_NC].size; i++) {
		ASSERT_EQ(0, alloc_object(old, P2PBAR_UAR_NC, SZ_4K, &gone));
		ASSERT_EQ(0, free_object(old, gone));
	}
	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(SIGBUS, try_read64(mem, &val));
		EXPECT_EQ(SIGBUS, try_write64(mem + SZ_1M - SZ_4K, 1));
		EXPECT_EQ(SIGBUS, try_read64(freed, &val));
		EXPECT_EQ(ENODEV, map_errno(old, SZ_1M, key));
		EXPECT_EQ(ENODEV, map_errno(old, SZ_4K, 0));
		EXPECT_EQ(-ENODEV, alloc_object(old, P2PBAR_MEM, SZ_4K, &val));
		EXPECT_EQ(-ENODEV, free_object(old, key));
		EXPECT_EQ(-ENODEV, set_limit(old, SZ_4K));
		EXPECT_EQ(-ENODEV, get_info(old, P2PBAR_MEM, &info));
		EXPECT_EQ(-ENODEV, ask_peer(old, self->peer.name, &peer));
		/* Nor with the device there again. */
		if (!i)
			ASSERT_EQ(0, attach(self));
	}
	EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, munmap(mem, SZ_1M));
	EXPECT_EQ(0, close(old));
	EXPECT_EQ(0, munmap(freed, SZ_1M));
	EXPECT_EQ(0, map_errno(self->fd, SZ_4K, 0));
}

/*
 * The fuzzer: processes that do at random what programs can do, each with open
 * files, keys and a range of addresses of its own.
 */
#define ARENA		(16 * SZ_1M)
#define NR_FDS		4
#define NR_KEYS		16
#define NR_IOCBS	8

struct fuzz {
	const struct _test_data_p2pbar *self;
	uint64_t rng;
	void *arena;
	int fds[NR_FDS];
	struct {
		uint64_t key;
		uint64_t size;
	} keys[NR_KEYS];
	aio_context_t aio;
	int in_flight;
};

static uint64_t below(struct fuzz *f, uint64_t n)
{
	f->rng ^= f->rng << 13;
	f->rng ^= f->rng >> 7;
	f->rng ^= f->rng << 17;
	return (f->rng >> 11) % n;
}

static bool one_in(struct fuzz *f, uint64_t n)
{
	return !below(f, n);
}

/* Sizes and offsets, of which some should not be. */
static uint64_t any_number(struct fuzz *f)
{
	static const uint64_t edges[] = {
		0, 1, SZ_4K - 1, SZ_4K + 1, SZ_2M, 1ull << 32, 1ull << 62, 1ull << 63,
		~(SZ_4K - 1), ~0ull,
	};

	return one_in(f, 8) ? edges[below(f, ARRAY_SIZE(edges))] : (1 + below(f, 64)) * SZ_4K;
}

/* Part of the arena, seldom not of whole pages. */
static void *any_range(struct fuzz *f, size_t *len)
{
	size_t start = below(f, ARENA / SZ_4K) * SZ_4K;

	*len = (1 + below(f, one_in(f, 8) ? 1024 : 32)) * SZ_4K;
	if (*len > ARENA - start)
		*len = ARENA - start;
	if (one_in(f, 32))
		start += 8 * below(f, 512);
	return f->arena + start;
}

/* Nothing but the fuzzer's may come to be in the arena, so it has no holes. */
static void plug(void *mem, size_t len)
{
	mem = (void *)((uintptr_t)mem & ~(SZ_4K - 1));
	mmap(mem, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void fuzz_ioctl(struct fuzz *f, int fd)
{
	union {
		struct p2pbar_alloc alloc;
		struct p2pbar_free free;
		struct p2pbar_limit limit;
		struct p2pbar_peer peer;
		struct p2pbar_info info;
		char room[48];
	} arg = {};
	size_t i = below(f, NR_KEYS), len;
	void *ptr = one_in(f, 32) ? any_range(f, &len) : &arg;
	uint32_t reserved = one_in(f, 16);

	switch (below(f, 8)) {
	case 0 ... 2:
		arg.alloc.size = one_in(f, 2) ? SZ_4K : any_number(f);
		arg.alloc.type = below(f, NR_TYPES + 1);
		arg.alloc.reserved = reserved;
		if (!ioctl(fd, P2PBAR_IOC_ALLOC, ptr) && ptr == &arg) {
			f->keys[i].key = arg.alloc.offset;
			f->keys[i].size = arg.alloc.size;
		}
		break;
	case 3 ... 4:
		arg.free.offset = one_in(f, 8) ? any_number(f) : f->keys[i].key;
		arg.free.reserved = reserved;
		ioctl(fd, P2PBAR_IOC_FREE, ptr);
		break;
	case 5:
		arg.limit.size = SZ_16M + any_number(f);
		arg.limit.reserved = reserved;
		if (one_in(f, 16))
			ioctl(fd, P2PBAR_IOC_LIMIT, ptr);
		break;
	case 6:
		arg.peer.bus = below(f, 16);
		arg.peer.devfn = one_in(f, 2) ? 0 : below(f, 256);
		arg.peer.reserved = reserved;
		ioctl(fd, P2PBAR_IOC_PEER, ptr);
		break;
	case 7:
		arg.info.type = below(f, NR_TYPES + 1);
		arg.info.reserved = reserved;
		ioctl(fd, one_in(f, 8) ? _IOC(below(f, 4), P2PBAR_IOC_MAGIC, below(f, 8),
					      below(f, 48)) : P2PBAR_IOC_INFO, ptr);
		break;
	}
}

static void fuzz_mmap(struct fuzz *f, int fd)
{
	static const int flags[] = { MAP_SHARED, MAP_SHARED_VALIDATE, MAP_PRIVATE };
	static const int more[] = { MAP_POPULATE, MAP_LOCKED, MAP_NORESERVE, MAP_NONBLOCK };
	size_t i = below(f, NR_KEYS), len;
	void *mem = any_range(f, &len);
	int flag = flags[one_in(f, 8) ? below(f, 3) : 0] | MAP_FIXED, prot = RW;
	uint64_t offset = 0;

	if (one_in(f, 4))
		flag |= more[below(f, ARRAY_SIZE(more))];
	if (one_in(f, 4))
		prot = below(f, 8);
	if (one_in(f, 2)) {
		offset = f->keys[i].key;
		/* Beyond the end of the arena there may be anything. */
		if (!one_in(f, 8) && f->keys[i].size <= (size_t)(f->arena + ARENA - mem))
			len = f->keys[i].size;
		if (one_in(f, 8))
			offset += any_number(f) - SZ_4K;
	}
	if (mmap(mem, len, prot, flag, fd, offset) == MAP_FAILED)
		plug(mem, len);
	/* One that is nowhere, and of any size. */
	len = any_number(f);
	mem = one_in(f, 4) ? mmap(NULL, len, prot, flags[0], fd, 0) : MAP_FAILED;
	if (mem != MAP_FAILED)
		munmap(mem, len);
}

static void fuzz_range(struct fuzz *f)
{
	static const int hints[] = {
		MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED,
		MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP, MADV_COLD, MADV_PAGEOUT,
		MADV_POPULATE_READ, MADV_POPULATE_WRITE,
	};
	size_t len, new_len;
	void *mem = any_range(f, &len), *to;

	switch (below(f, 6)) {
	case 0:
		plug(mem, len);
		break;
	case 1:
		/* Ordinary memory among it. */
		mmap(mem, len, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	case 2:
		mprotect(mem, len, one_in(f, 2) ? RW : below(f, 8));
		break;
	case 3 ... 4:
		madvise(mem, len, hints[below(f, ARRAY_SIZE(hints))]);
		break;
	case 5:
		to = any_range(f, &new_len);
		if (one_in(f, 2) && len <= (size_t)(f->arena + ARENA - to))
			new_len = len;
		/* A failure may leave holes at both ends. */
		if (mremap(mem, len, new_len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
			plug(to, new_len);
		plug(mem, len);
		break;
	}
}

static void fuzz_reap(struct fuzz *f, bool all)
{
	struct timespec limit = { .tv_sec = all ? 10 : 0 };
	struct io_event events[NR_IOCBS];
	int n;

	do {
		n = syscall(SYS_io_getevents, f->aio, all && f->in_flight, NR_IOCBS, events,
			    &limit);
		if (n > 0)
			f->in_flight -= n;
	} while (all && n > 0 && f->in_flight > 0);
}

static void fuzz_access(struct fuzz *f)
{
	uint64_t offset = DISK_OFFSET + below(f, 256) * SZ_4K, val;
	size_t len;
	void *mem = any_range(f, &len);
	int i;

	switch (below(f, 8)) {
	case 0:
		pread(f->self->disk, mem, len, offset);
		break;
	case 1:
		pwrite(f->self->disk, mem, len, offset);
		break;
	case 2 ... 3:
		i = one_in(f, 2) ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
		if (!aio_submit(f->aio, i, f->self->disk, mem, len, offset))
			f->in_flight++;
		break;
	case 4:
		fuzz_reap(f, false);
		break;
	default:
		for (i = 0; i < 16; i++) {
			mem = f->arena + below(f, ARENA / 8) * 8;
			if (one_in(f, 2))
				try_read64(mem, &val);
			else
				try_write64(mem, below(f, ~0ull));
		}
	}
}

static void fuzz_op(struct fuzz *f)
{
	int i = below(f, NR_FDS), *fd = &f->fds[i];

	switch (below(f, 16)) {
	case 0 ... 3:
		fuzz_ioctl(f, *fd);
		break;
	case 4 ... 7:
		fuzz_mmap(f, *fd);
		break;
	case 8 ... 10:
		fuzz_range(f);
		break;
	case 11 ... 14:
		fuzz_access(f);
		break;
	case 15:
		if (*fd >= 0 && !one_in(f, 4))
			break;
		close(*fd);
		*fd = one_in(f, 2) ? dup(f->fds[below(f, NR_FDS)]) :
				     open(f->self->node, O_RDWR | O_CLOEXEC);
		break;
	}
}

/* What a process does until @end; its exit status. */
static int fuzz_process(const struct _test_data_p2pbar *self, uint64_t seed, uint64_t end)
{
	struct fuzz f = { .self = self, .rng = seed, .fds = { -1, -1, -1, -1 } };
	pid_t child;
	int i;

	f.arena = mmap(NULL, ARENA + SZ_2M, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f.arena == MAP_FAILED || syscall(SYS_io_setup, NR_IOCBS, &f.aio))
		return 1;
	f.arena = (void *)(((uintptr_t)f.arena + SZ_2M - 1) & ~(SZ_2M - 1));
	while (now_ms() < end) {
		for (i = 0; i < 256; i++)
			fuzz_op(&f);
		child = fork_child();
		if (!child) {
			for (i = 0; i < 64; i++)
				fuzz_op(&f);
			_exit(0);
		}
		/* Mostly this one goes on while the other does. */
		for (i = below(&f, 64); i; i--)
			fuzz_op(&f);
		if (child < 0 || wait_child(child, 30000))
			return 2;
	}
	fuzz_reap(&f, true);
	return f.in_flight ? 3 : 0;
}

static uint64_t number_from_env(const char *name, uint64_t def)
{
	const char *env = getenv(name);

	return env ? strtoull(env, NULL, 0) : def;
}

/* Run two of them, and unbind under them if that is wanted. */
static void run_fuzz(struct __test_metadata *_metadata, struct _test_data_p2pbar *self, bool unbind)
{
	uint64_t seconds = number_from_env("P2PDMA_FUZZ_SECONDS", 20);
	uint64_t seed = number_from_env("P2PDMA_SEED", now_ms());
	pid_t pids[2];
	uint64_t end;
	size_t i;

	if (seconds > 3600)
		seconds = 3600;
	end = now_ms() + 1000 * seconds;
	TH_LOG("P2PDMA_SEED=%llu", (unsigned long long)seed);
	for (i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = fork_child();
		ASSERT_LE(0, pids[i]);
		/* Neither 0 nor close to each other. */
		if (!pids[i])
			_exit(fuzz_process(self, (seed + i) * 0x9e3779b97f4a7c15ull | 1, end));
	}
	while (unbind && now_ms() < end) {
		usleep(500 * 1000);
		close(self->fd);
		EXPECT_EQ(0, attach(self));
	}
	for (i = 0; i < ARRAY_SIZE(pids); i++)
		EXPECT_EQ(0, wait_child(pids[i], 1000 * seconds + 60000));
	EXPECT_TRUE(drained(self));
	EXPECT_EQ(self->dma, dma_in(self->disk, map_file(self->fd, SZ_1M, 0), SZ_1M));
}

TEST_F_TIMEOUT(p2pbar, fuzz, 3700)
{
	run_fuzz(_metadata, self, false);
}

TEST_F_TIMEOUT(p2pbar, fuzz_unbind, 3700)
{
	run_fuzz(_metadata, self, true);
}

TEST_HARNESS_MAIN
