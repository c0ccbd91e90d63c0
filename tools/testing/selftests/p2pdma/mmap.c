// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of what maps peer-to-peer DMA memory into user space at offset 0, with
 * DMA by an NVMe disk: the device nodes of p2pbar and nvme_cmb, and for
 * comparison p2pmem/allocate in sysfs.
 *
 * They take PCI functions away from whatever uses them, and overwrite the start
 * of the disk, so these are named:
 *
 *   P2PDMA_OTHER=0000:03:00.0 a PCI function with a memory BAR, for p2pbar
 *   P2PDMA_CMB=0000:01:00.0   an NVMe controller with a Controller Memory Buffer
 *   P2PDMA_PEER=0000:02:00.0  the controller of a disk that may be overwritten
 *
 * Optional are
 *
 *   P2PDMA_EXPECT=bus-address|host-bridge|not-supported
 *                             how the DMA has to travel to the disk
 *   P2PDMA_SLOW, P2PDMA_FAST  commands that make the disk slow, and fast again
 *   P2PDMA_ROUNDS=20          how often to repeat what is repeated
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/p2pbar.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../../../mm/gup_test.h"
#include "../kselftest_harness.h"
#include "p2pdma.h"

#define SZ_4K	0x1000ul
#define SZ_1M	0x100000ul
#define SZ_2M	0x200000ul
#define SZ_4M	0x400000ul
#define SZ_16M	0x1000000ul

/* Of include/linux/mm_types.h. */
#define FOLL_WRITE	0x1
#define FOLL_PCI_P2PDMA	0x400

static const size_t lengths[] = {
	SZ_4K, 2 * SZ_4K, 3 * SZ_4K, 16 * SZ_4K, 33 * SZ_4K, 128 * SZ_4K, SZ_1M, SZ_2M + SZ_4K,
};

/* The teardown is another process, and what is here is shared with it. */
FIXTURE(mmap)
{
	struct pci_fn fn;	/* with the memory */
	struct pci_fn peer;
	char driver[64];	/* that the function had before */
	char node[256];		/* what is mapped */
	bool p2pbar;
	bool slow;		/* whether the disk was made slow */
	uint64_t available;	/* memory, while nobody uses it */
	int fd;			/* of the node */
	int disk;		/* of the peer, O_DIRECT */
	int dma;		/* what DMA by it gives: 0, or -EINVAL if there
				 * is no way between the two
				 */
};

FIXTURE_VARIANT(mmap)
{
	const char *env;	/* that names the function */
	const char *driver;
	bool sysfs;		/* whether p2pmem/allocate is mapped */
};

FIXTURE_VARIANT_ADD(mmap, p2pbar)
{
	.env = "P2PDMA_OTHER",
	.driver = "p2pbar",
};

FIXTURE_VARIANT_ADD(mmap, nvme_cmb)
{
	.env = "P2PDMA_CMB",
	.driver = "nvme_cmb",
};

FIXTURE_VARIANT_ADD(mmap, p2pmem)
{
	.env = "P2PDMA_CMB",
	.driver = "nvme_cmb",
	.sysfs = true,
};

/* Map fresh memory. */
#define MAP(fd, len) ({						\
	void *__mem = map_file(fd, len, 0);			\
	ASSERT_NE(NULL, __mem);					\
	__mem;							\
})

/* Something that has to be true in a child. */
#define EXPECT_IN_CHILD(cond) do {				\
	pid_t __child = fork_child();				\
	if (!__child)						\
		_exit(!(cond));					\
	EXPECT_EQ(0, wait_child(__child, 10000));		\
} while (0)

static int load(const char *driver)
{
	char command[64];

	snprintf(command, sizeof(command), "modprobe -q %s", driver);
	return system(command);
}

/* Bind the driver, and open what can be mapped. */
static int attach(struct _test_data_mmap *self, const struct _fixture_variant_mmap *variant)
{
	int ret;

	ret = pci_fn_rebind(&self->fn, variant->driver);
	if (ret)
		return ret;
	if (variant->sysfs) {
		snprintf(self->node, sizeof(self->node), "%s",
			 pci_fn_path(&self->fn, "p2pmem/allocate"));
	} else {
		ret = misc_node(&self->fn, self->node, sizeof(self->node));
		if (ret)
			return ret;
	}
	self->fd = open(self->node, O_RDWR | O_CLOEXEC);
	return self->fd < 0 ? -errno : 0;
}

/* How much memory nobody uses. */
static uint64_t memory_left(const struct _test_data_mmap *self)
{
	struct p2pbar_info info;
	uint64_t val;

	if (self->p2pbar) {
		if (p2pbar_node_info(self->node, P2PBAR_MEM, &info))
			return ~0ull;
		return info.size - info.used;
	}
	return pci_fn_read_u64(&self->fn, "p2pmem/available", &val) ? ~0ull : val;
}

/* Whether all is there again, be it a moment later. */
static bool drained(const struct _test_data_mmap *self)
{
	uint64_t end = now_ms() + 2000;

	while (memory_left(self) != self->available) {
		if (now_ms() >= end)
			return false;
		usleep(1000);
	}
	return true;
}

static int rounds(int def)
{
	const char *env = getenv("P2PDMA_ROUNDS");

	return env ? atoi(env) : def;
}

FIXTURE_SETUP(mmap)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	char disk[64];
	int ret;

	if (!getenv(variant->env) || !getenv("P2PDMA_PEER"))
		SKIP(return, "%s and P2PDMA_PEER have to name PCI functions", variant->env);
	if (geteuid())
		SKIP(return, "needs root");
	if (sysconf(_SC_PAGESIZE) != SZ_4K)
		SKIP(return, "needs pages of 4 KiB");
	ASSERT_EQ(0, pci_fn_init(&self->fn, getenv(variant->env)));
	ASSERT_EQ(0, pci_fn_init(&self->peer, getenv("P2PDMA_PEER")));
	ASSERT_EQ(0, nvme_disk(&self->peer, disk, sizeof(disk)));
	self->disk = open(disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, self->disk);
	self->dma = expect && !strcmp(expect, "not-supported") ? -EINVAL : 0;

	/* Loading it may bind it. */
	ASSERT_EQ(0, pci_fn_driver(&self->fn, self->driver, sizeof(self->driver)));
	if (load(variant->driver))
		SKIP(return, "no module %s", variant->driver);
	self->p2pbar = !strcmp(variant->driver, "p2pbar");
	ret = attach(self, variant);
	self->available = ret ? 0 : memory_left(self);
	if (!ret && (self->available < 2 * SZ_4M || self->available == ~0ull))
		ret = -ENOSPC;
	/* Without a setup there is no teardown. */
	if (ret)
		pci_fn_rebind(&self->fn, self->driver);
	ASSERT_EQ(0, ret);
}

FIXTURE_TEARDOWN_PARENT(mmap)
{
	/* Whatever it has left behind. */
	if (self->slow)
		EXPECT_EQ(0, system(getenv("P2PDMA_FAST")));
	module_run("off");
	faults_not_in(NULL, NULL);
	/* The test's process is gone, and so has to be all that it used. */
	if (!access(self->node, F_OK))
		EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, pci_fn_rebind(&self->fn, self->driver));
}

TEST_F_TIMEOUT(mmap, sizes_and_dma, 120)
{
	size_t i, len;
	void *mem;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		len = lengths[i];
		mem = MAP(self->fd, len);
		mmio_fill(mem, len, i);
		EXPECT_EQ(-1, mmio_check(mem, len, i));
		EXPECT_EQ(self->dma, dma_in(self->disk, mem, len)) {
			TH_LOG("%zu bytes", len);
		}
		if (self->dma)
			EXPECT_EQ(-1, mmio_check(mem, len, i));
		EXPECT_EQ(self->dma, dma_out(self->disk, mem, len)) {
			TH_LOG("%zu bytes", len);
		}
		ASSERT_EQ(0, munmap(mem, len));
	}
	EXPECT_TRUE(drained(self));
}

/* DMA is the first that ever comes to the pages of a mapping. */
TEST_F_TIMEOUT(mmap, untouched_dma, 90)
{
	void *mem, *ram;

	mem = MAP(self->fd, SZ_1M);
	EXPECT_EQ(self->dma, dma_in(self->disk, mem, SZ_1M));
	ASSERT_EQ(0, munmap(mem, SZ_1M));

	ram = ram_map(SZ_1M);
	ASSERT_NE(NULL, ram);
	mmio_fill(ram, SZ_1M, now_ms());
	ASSERT_EQ(0, pwrite_all(self->disk, ram, SZ_1M, DISK_OFFSET));
	mem = MAP(self->fd, SZ_1M);
	EXPECT_EQ(self->dma, pwrite_all(self->disk, mem, SZ_1M, DISK_OFFSET));
	ASSERT_EQ(0, pread_all(self->disk, ram, SZ_1M, DISK_OFFSET));
	if (!self->dma)
		EXPECT_EQ(mmio_checksum(mem, SZ_1M), mmio_checksum(ram, SZ_1M));
}

TEST_F_TIMEOUT(mmap, private_refused, 90)
{
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SZ_4K, PROT_READ | PROT_WRITE, MAP_PRIVATE, self->fd, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SZ_4K, PROT_READ, MAP_PRIVATE, self->fd, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(self->available, memory_left(self));
}

TEST_F_TIMEOUT(mmap, offset_refused, 90)
{
	static const uint64_t offsets[] = { SZ_4K, SZ_2M, 1ull << 32, 1ull << 40 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, offsets[i]));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(self->available, memory_left(self));
}

TEST_F_TIMEOUT(mmap, oversize, 90)
{
	static const uint64_t sizes[] = { 1ull << 32, 1ull << 40 };
	size_t i;

	EXPECT_EQ(NULL, map_file(self->fd, self->available + SZ_4K, 0));
	EXPECT_EQ(ENOMEM, errno);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		if (sizes[i] <= self->available)
			continue;
		EXPECT_EQ(NULL, map_file(self->fd, sizes[i], 0));
		EXPECT_EQ(ENOMEM, errno);
	}
}

TEST_F_TIMEOUT(mmap, vma_flags, 90)
{
	char line[512];
	void *mem;

	mem = MAP(self->fd, SZ_2M);
	page_mark(mem, SZ_2M, 1);
	ASSERT_EQ(0, vma_flags(mem, line, sizeof(line)));
	EXPECT_NE(NULL, strstr(line, " sh")) {
		TH_LOG("%s", line);
	}
	EXPECT_NE(NULL, strstr(line, " de"));
	EXPECT_NE(NULL, strstr(line, " dd"));
	EXPECT_EQ(NULL, strstr(line, " io"));
	EXPECT_EQ(NULL, strstr(line, " pf"));
	EXPECT_EQ(variant->sysfs, !!strstr(line, " mm"));
}

/* A number of the file's fdinfo, ~0 if it is not told. */
static uint64_t fdinfo(const struct _test_data_mmap *self, const char *name)
{
	uint64_t val;

	return fdinfo_read(self->fd, name, &val) ? ~0ull : val;
}

TEST_F_TIMEOUT(mmap, fdinfo, 90)
{
	void *mem;

	if (variant->sysfs)
		SKIP(return, "not of files in sysfs");
	EXPECT_EQ(0, fdinfo(self, "p2pdma-allocated"));
	EXPECT_EQ(0, fdinfo(self, "p2pdma-mappings"));
	mem = MAP(self->fd, 3 * SZ_4K);
	EXPECT_EQ(3 * SZ_4K, fdinfo(self, "p2pdma-allocated"));
	EXPECT_EQ(1, fdinfo(self, "p2pdma-mappings"));
	ASSERT_EQ(0, munmap(mem, 3 * SZ_4K));
	EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, fdinfo(self, "p2pdma-allocated"));
	EXPECT_EQ(0, fdinfo(self, "p2pdma-mappings"));
}

TEST_F_TIMEOUT(mmap, no_growth, 90)
{
	void *mem;

	mem = MAP(self->fd, 4 * SZ_4K);
	page_mark(mem, 4 * SZ_4K, 1);
	EXPECT_EQ(MAP_FAILED, mremap(mem, 4 * SZ_4K, 5 * SZ_4K, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(MAP_FAILED, mremap(mem, 4 * SZ_4K, SZ_2M, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	/* Neither a second one, nor one that stays behind. */
	EXPECT_EQ(MAP_FAILED, mremap(mem, 0, 4 * SZ_4K, MREMAP_MAYMOVE));
	EXPECT_EQ(MAP_FAILED, mremap(mem, 4 * SZ_4K, 4 * SZ_4K,
				     MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
	EXPECT_EQ(-1, page_check(mem, 4 * SZ_4K, 1));
}

TEST_F_TIMEOUT(mmap, remap, 90)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	void *mem, *to, *part;
	uint64_t val;

	mem = MAP(self->fd, SZ_4M);
	page_mark(mem, SZ_4M, 1);
	/* Where a huge page cannot be mapped. */
	to = ram_map(2 * SZ_4M) + SZ_4K;
	ASSERT_EQ(to, mremap(mem, SZ_4M, SZ_4M, flags, to));
	EXPECT_EQ(SIGSEGV, try_read64(mem, &val));
	EXPECT_EQ(-1, page_check(to, SZ_4M, 1));
	EXPECT_EQ(self->dma, dma_in(self->disk, to, SZ_1M));
	page_mark(to, SZ_4M, 2);

	/* A part, which has to stay what it was. */
	part = ram_map(SZ_1M);
	ASSERT_EQ(part, mremap(to + SZ_1M, SZ_1M, SZ_1M, flags, part));
	EXPECT_EQ(SIGSEGV, try_read64(to + SZ_1M, &val));
	if (!variant->sysfs) {
		ASSERT_EQ(0, madvise(to, SZ_1M, MADV_DONTNEED));
		ASSERT_EQ(0, madvise(part, SZ_1M, MADV_DONTNEED));
		ASSERT_EQ(0, madvise(to + SZ_2M, SZ_2M, MADV_DONTNEED));
	}
	EXPECT_EQ(-1, page_check(to, SZ_1M, 2));
	ASSERT_EQ(to + SZ_1M, mremap(part, SZ_1M, SZ_1M, flags, to + SZ_1M));
	EXPECT_EQ(-1, page_check(to, SZ_4M, 2));

	/* And shrink. */
	ASSERT_EQ(to, mremap(to, SZ_4M, SZ_1M, 0));
	EXPECT_EQ(SIGSEGV, try_read64(to + SZ_1M, &val));
	EXPECT_EQ(-1, page_check(to, SZ_1M, 2));
	ASSERT_EQ(0, munmap(to, SZ_1M));
}

TEST_F_TIMEOUT(mmap, partial_munmap, 90)
{
	static const struct {
		size_t start;
		size_t len;
	} holes[] = {
		{ SZ_4K, 2 * SZ_4K }, { SZ_1M, SZ_4K }, { SZ_2M - SZ_4K, 2 * SZ_4K },
		{ SZ_4M - SZ_4K, SZ_4K }, { 0, SZ_4K },
	};
	size_t i, offset, count = 0, wrong = 0;
	uint64_t val, *ram;
	void *mem;

	mem = MAP(self->fd, SZ_4M);
	page_mark(mem, SZ_4M, 1);
	/* The same marks, to compare with. */
	ram = ram_map(SZ_4M);
	ASSERT_NE(NULL, ram);
	page_mark(ram, SZ_4M, 1);
	for (i = 0; i < ARRAY_SIZE(holes); i++) {
		ASSERT_EQ(0, munmap(mem + holes[i].start, holes[i].len));
		count += holes[i].len / SZ_4K;
	}
	for (offset = 0; offset < SZ_4M; offset += SZ_4K) {
		if (try_read64(mem + offset, &val) == SIGSEGV)
			count--;
		else
			wrong += val != ram[offset / sizeof(*ram)];
	}
	EXPECT_EQ(0, count);
	EXPECT_EQ(0, wrong);
	EXPECT_EQ(self->dma, dma_in(self->disk, mem + SZ_1M + SZ_4K, 16 * SZ_4K));
	EXPECT_EQ(self->dma, dma_out(self->disk, mem + SZ_2M + SZ_4K, 16 * SZ_4K));
	EXPECT_EQ(-EFAULT, pread_all(self->disk, mem + SZ_1M, SZ_4K, DISK_OFFSET));
	/* Holes may be unmapped as well. */
	ASSERT_EQ(0, munmap(mem, SZ_4M));
	EXPECT_TRUE(drained(self));
}

TEST_F_TIMEOUT(mmap, protect, 90)
{
	uint64_t val;
	void *mem;

	mem = MAP(self->fd, SZ_4M);
	page_mark(mem, SZ_4M, 1);
	ASSERT_EQ(0, mprotect(mem, SZ_4M, PROT_READ));
	EXPECT_EQ(SIGSEGV, try_write64(mem, 0));
	EXPECT_EQ(-1, page_check(mem, SZ_4M, 1));
	EXPECT_EQ(-EFAULT, pread_all(self->disk, mem, SZ_4K, DISK_OFFSET));
	EXPECT_EQ(self->dma, pwrite_all(self->disk, mem, SZ_1M, DISK_OFFSET));
	ASSERT_EQ(0, mprotect(mem, SZ_4M, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, try_write64(mem, 0));

	ASSERT_EQ(0, mprotect(mem + SZ_1M, SZ_4K, PROT_NONE));
	EXPECT_EQ(SIGSEGV, try_read64(mem + SZ_1M, &val));
	page_mark(mem, SZ_1M, 2);
	EXPECT_EQ(0, try_read64(mem + SZ_1M + SZ_4K, &val));
	ASSERT_EQ(0, mprotect(mem + SZ_1M, SZ_4K, PROT_READ | PROT_WRITE));
	page_mark(mem, SZ_4M, 2);
	EXPECT_EQ(-1, page_check(mem, SZ_4M, 2));
}

TEST_F_TIMEOUT(mmap, populate, 90)
{
	void *mem;

	mem = mmap(NULL, SZ_4M, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, self->fd, 0);
	ASSERT_NE(MAP_FAILED, mem);
	page_mark(mem, SZ_4M, 1);
	EXPECT_EQ(0, madvise(mem, SZ_4M, MADV_POPULATE_WRITE)) {
		TH_LOG("%s", strerror(errno));
	}
	EXPECT_EQ(0, mlock(mem, SZ_4M));
	EXPECT_EQ(0, munlock(mem, SZ_4M));
	EXPECT_EQ(-1, page_check(mem, SZ_4M, 1));
}

/* The pages stay the same, they are only mapped anew. */
TEST_F_TIMEOUT(mmap, dontneed, 90)
{
	uint64_t phys;
	void *mem;

	if (variant->sysfs)
		SKIP(return, "it takes the pages away for good");
	mem = MAP(self->fd, SZ_4M);
	page_mark(mem, SZ_4M, 1);
	phys = phys_addr(mem + SZ_1M);
	ASSERT_NE(0, phys);
	ASSERT_EQ(0, madvise(mem + SZ_1M, 3 * SZ_4K, MADV_DONTNEED));
	EXPECT_EQ(0, phys_addr(mem + SZ_1M));
	EXPECT_EQ(-1, page_check(mem, SZ_4M, 1));
	EXPECT_EQ(phys, phys_addr(mem + SZ_1M));
	ASSERT_EQ(0, madvise(mem, SZ_4M, MADV_DONTNEED));
	EXPECT_EQ(-1, page_check(mem, SZ_4M, 1));
	EXPECT_EQ(phys, phys_addr(mem + SZ_1M));
	ASSERT_EQ(0, madvise(mem, SZ_4M, MADV_DONTNEED));
	EXPECT_EQ(self->dma, dma_in(self->disk, mem, SZ_1M));
}

TEST_F_TIMEOUT(mmap, dontfork, 90)
{
	uint64_t val;
	void *mem;

	mem = MAP(self->fd, 3 * SZ_4K);
	page_mark(mem, 3 * SZ_4K, 1);
	ASSERT_EQ(0, madvise(mem + SZ_4K, SZ_4K, MADV_DONTFORK));
	EXPECT_IN_CHILD(!try_read64(mem, &val) && try_read64(mem + SZ_4K, &val) == SIGSEGV);
	EXPECT_EQ(-1, page_check(mem, 3 * SZ_4K, 1));
}

TEST_F_TIMEOUT(mmap, fork_shares, 90)
{
	int pipefd[2];
	pid_t child;
	void *mem;
	char byte;

	/* One half is not touched before. */
	mem = MAP(self->fd, SZ_2M);
	page_mark(mem, SZ_1M, 1);
	EXPECT_IN_CHILD(page_check(mem, SZ_1M, 1) == -1 &&
			(page_mark(mem, SZ_2M, 2), true));
	EXPECT_EQ(-1, page_check(mem, SZ_2M, 2));

	/* The memory is in use as long as anybody has it mapped. */
	ASSERT_EQ(0, pipe(pipefd));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		if (read(pipefd[0], &byte, 1) != 1)
			_exit(1);
		_exit(page_check(mem, SZ_2M, 2) != -1 ||
		      dma_in(self->disk, mem, SZ_1M) != self->dma);
	}
	ASSERT_EQ(0, munmap(mem, SZ_2M));
	EXPECT_EQ(self->available - SZ_2M, memory_left(self));
	ASSERT_EQ(1, write(pipefd[1], "", 1));
	EXPECT_EQ(0, wait_child(child, 10000));
	EXPECT_TRUE(drained(self));
}

/* Memory that was taken until there was no more. */
struct taken {
	void *mem;
	size_t len;
};

/* Take up to @len more, or as much as there is in one piece; false if none is. */
static bool take(int fd, struct taken *taken, size_t len)
{
	for (; len >= SZ_4K; len /= 2) {
		taken->mem = map_file(fd, len, 0);
		taken->len = len;
		if (taken->mem)
			return true;
		if (errno != ENOMEM)
			break;
	}
	return false;
}

/* How many words of a page are not 0. */
static size_t dirty_words(const void *mem)
{
	size_t i, count = 0;

	for (i = 0; i < SZ_4K; i += sizeof(uint64_t))
		count += !!mmio_read64(mem + i);
	return count;
}

/* What one open file had in the memory is not for another one. */
TEST_F_TIMEOUT(mmap, cleared_between_openers, 180)
{
	size_t i, n, offset, found, dirty;
	uint64_t phys[SZ_2M / SZ_4K], addr;
	struct taken taken[1024];
	int round, fd, other;
	void *mem, *ram;

	if (variant->sysfs)
		SKIP(return, "it hands out what was there before");
	ram = ram_map(SZ_4K);
	ASSERT_NE(NULL, ram);
	for (round = 0; round < 3; round++) {
		fd = open(self->node, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, fd);
		mem = MAP(fd, SZ_2M);
		mmio_fill(mem, SZ_2M, round);
		for (i = 0; i < ARRAY_SIZE(phys); i++) {
			phys[i] = phys_addr(mem + i * SZ_4K);
			ASSERT_NE(0, phys[i]);
		}
		/* The file is closed before or after, or stays open. */
		if (round == 0)
			close(fd);
		ASSERT_EQ(0, munmap(mem, SZ_2M));
		if (round == 1)
			close(fd);
		ASSERT_TRUE(drained(self));

		/* Take memory until all those pages were seen. */
		other = open(self->node, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, other);
		found = 0;
		dirty = 0;
		for (n = 0; n < ARRAY_SIZE(taken) && found < ARRAY_SIZE(phys); n++) {
			if (!take(other, &taken[n], SZ_2M))
				break;
			mem = taken[n].mem;
			/* The disk must not see it either, and be it the first. */
			if (!n && !self->dma) {
				ASSERT_EQ(0, pwrite_all(self->disk, mem, SZ_4K, DISK_OFFSET));
				ASSERT_EQ(0, pread_all(self->disk, ram, SZ_4K, DISK_OFFSET));
				EXPECT_EQ(0, dirty_words(ram));
			}
			for (offset = 0; offset < taken[n].len; offset += SZ_4K) {
				dirty += !!mmio_read64(mem + offset);
				addr = phys_addr(mem + offset);
				for (i = 0; i < ARRAY_SIZE(phys) && phys[i] != addr; i++)
					;
				if (i == ARRAY_SIZE(phys))
					continue;
				found++;
				dirty += dirty_words(mem + offset);
			}
		}
		EXPECT_EQ(ARRAY_SIZE(phys), found);
		EXPECT_EQ(0, dirty) {
			TH_LOG("round %d", round);
		}
		for (i = 0; i < n; i++)
			ASSERT_EQ(0, munmap(taken[i].mem, taken[i].len));
		close(other);
		if (round == 2)
			close(fd);
	}
}

TEST_F_TIMEOUT(mmap, full_device, 240)
{
	struct taken taken[1024];
	uint64_t total = 0;
	size_t i, n;
	void *mem;

	for (n = 0; n < ARRAY_SIZE(taken); n++) {
		if (!take(self->fd, &taken[n], SZ_16M))
			break;
		total += taken[n].len;
		mmio_write64(taken[n].mem, n);
		mmio_write64(taken[n].mem + taken[n].len - SZ_4K, n);
	}
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(self->available, total);
	EXPECT_EQ(0, memory_left(self));
	/* No two of them are the same. */
	for (i = 0; i < n; i++) {
		EXPECT_EQ(i, mmio_read64(taken[i].mem));
		EXPECT_EQ(i, mmio_read64(taken[i].mem + taken[i].len - SZ_4K));
		ASSERT_EQ(0, munmap(taken[i].mem, taken[i].len));
	}
	EXPECT_TRUE(drained(self));

	/* All at once. */
	mem = MAP(self->fd, self->available);
	EXPECT_EQ(0, memory_left(self));
	EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, 0));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(self->dma, dma_in(self->disk, mem + self->available - SZ_4K, SZ_4K));
	ASSERT_EQ(0, munmap(mem, self->available));
	EXPECT_TRUE(drained(self));
}

/* What a process that uses the memory in a loop tells of it. */
struct loop {
	int rounds;
	int err;		/* a negative errno, or a signal */
	uint64_t ended;		/* when, by now_ms() */
};

/* Start one, and wait for it to be in the middle of that; -1 if it is not. */
static pid_t start_loop(const struct _test_data_mmap *self, struct loop *loop)
{
	uint64_t end = now_ms() + 60000, val;
	void *mem;
	pid_t pid;
	int i;

	memset(loop, 0, sizeof(*loop));
	pid = fork_child();
	if (pid) {
		for (i = 0; i < 10000 && __atomic_load_n(&loop->rounds, __ATOMIC_SEQ_CST) < 3; i++)
			usleep(1000);
		return i < 10000 ? pid : -1;
	}
	mem = map_file(self->fd, SZ_1M, 0);
	if (!mem)
		_exit(1);
	page_mark(mem, SZ_1M, 1);
	while (!loop->err && now_ms() < end) {
		if (!self->dma)
			loop->err = pread_all(self->disk, mem, SZ_1M, 0);
		if (!loop->err)
			loop->err = try_read64(mem + SZ_1M - SZ_4K, &val);
		loop->ended = now_ms();
		__atomic_fetch_add(&loop->rounds, 1, __ATOMIC_SEQ_CST);
	}
	_exit(!loop->err);
}

TEST_F_TIMEOUT(mmap, killed, 90)
{
	struct loop *loops = ram_map_shared(SZ_4K);
	int round, status;
	pid_t pids[3];
	size_t i;

	ASSERT_NE(NULL, loops);
	for (round = 0; round < rounds(5); round++) {
		for (i = 0; i < ARRAY_SIZE(pids); i++) {
			pids[i] = start_loop(self, &loops[i]);
			ASSERT_LT(0, pids[i]);
		}
		EXPECT_EQ(self->available - ARRAY_SIZE(pids) * SZ_1M, memory_left(self));
		for (i = 0; i < ARRAY_SIZE(pids); i++)
			kill(pids[i], SIGKILL);
		for (i = 0; i < ARRAY_SIZE(pids); i++) {
			status = wait_child(pids[i], 10000);
			EXPECT_LE(0, status);
			EXPECT_TRUE(WIFSIGNALED(status));
		}
		EXPECT_TRUE(drained(self));
	}
}

TEST_F_TIMEOUT(mmap, passed_fd, 90)
{
	int sock[2], fd;
	pid_t child;
	void *mem;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		fd = open(self->node, O_RDWR | O_CLOEXEC);
		_exit(fd < 0 || send_fd(sock[0], fd));
	}
	fd = recv_fd(sock[1]);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, wait_child(child, 5000));
	/* Who opened it is gone. */
	mem = MAP(fd, SZ_1M);
	EXPECT_EQ(self->dma, dma_in(self->disk, mem, SZ_1M));
	EXPECT_EQ(self->dma, dma_out(self->disk, mem, SZ_1M));
	EXPECT_EQ(self->available - SZ_1M, memory_left(self));
	close(fd);
	EXPECT_EQ(0, try_write64(mem, 1));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
	EXPECT_TRUE(drained(self));
}

struct toucher {
	pthread_t thread;
	pthread_barrier_t *barrier;
	void *mem;
	size_t word;
};

/* Write a word of its own to each page. */
static void *touch_pages(void *arg)
{
	struct toucher *t = arg;
	size_t i;

	pthread_barrier_wait(t->barrier);
	for (i = 0; i < SZ_4M; i += SZ_4K)
		mmio_write64(t->mem + i + t->word * sizeof(uint64_t), i + t->word);
	return NULL;
}

/* Threads that touch a page first at the same time get the same page. */
TEST_F_TIMEOUT(mmap, threads_fault, 120)
{
	struct toucher touchers[4];
	pthread_barrier_t barrier;
	size_t i, word, wrong = 0;
	int round;
	void *mem;

	ASSERT_EQ(0, pthread_barrier_init(&barrier, NULL, ARRAY_SIZE(touchers)));
	for (round = 0; round < rounds(5); round++) {
		mem = MAP(self->fd, SZ_4M);
		for (i = 0; i < ARRAY_SIZE(touchers); i++) {
			touchers[i].barrier = &barrier;
			touchers[i].mem = mem;
			touchers[i].word = i + round;
			ASSERT_EQ(0, pthread_create(&touchers[i].thread, NULL, touch_pages,
						    &touchers[i]));
		}
		for (i = 0; i < ARRAY_SIZE(touchers); i++)
			ASSERT_EQ(0, pthread_join(touchers[i].thread, NULL));
		for (i = 0; i < SZ_4M; i += SZ_4K) {
			for (word = round; word < round + ARRAY_SIZE(touchers); word++)
				wrong += mmio_read64(mem + i + word * sizeof(uint64_t)) != i + word;
		}
		EXPECT_EQ(0, wrong);
		ASSERT_EQ(0, munmap(mem, SZ_4M));
	}
}

/* Requests of the disk for 1 MiB, a quarter each. */
static int submit_quarters(const struct _test_data_mmap *self, aio_context_t ctx, int opcode,
			   void *mem)
{
	const size_t len = SZ_1M / 4;
	int i, ret = 0;

	for (i = 0; i < 4 && !ret; i++)
		ret = aio_submit(ctx, opcode, self->disk, mem + i * len, len,
				 DISK_OFFSET + i * len);
	return ret;
}

/* Memory is not anybody else's before DMA to it is over. */
TEST_F_TIMEOUT(mmap, async_munmap, 120)
{
	const struct timespec limit = { .tv_sec = 10 };
	struct io_event events[4];
	aio_context_t ctx = 0;
	int round, done, n, i;
	void *mem;

	if (syscall(SYS_io_setup, 4, &ctx))
		SKIP(return, "no asynchronous I/O: %s", strerror(errno));
	for (round = 0; round < rounds(50); round++) {
		mem = MAP(self->fd, SZ_1M);
		ASSERT_EQ(0, submit_quarters(self, ctx, IOCB_CMD_PREAD, mem));
		ASSERT_EQ(0, munmap(mem, SZ_1M));
		mem = MAP(self->fd, SZ_1M);
		page_mark(mem, SZ_1M, round);
		for (done = 0; done < 4; done += n) {
			n = syscall(SYS_io_getevents, ctx, 1, 4 - done, events, &limit);
			ASSERT_LT(0, n);
			for (i = 0; i < n; i++)
				EXPECT_EQ(self->dma ?: SZ_1M / 4, events[i].res);
		}
		EXPECT_EQ(-1, page_check(mem, SZ_1M, round));
		ASSERT_EQ(0, munmap(mem, SZ_1M));
	}
	EXPECT_TRUE(drained(self));
}

/*
 * The interrupt of a disk may be what puts the last reference: of pages that are
 * written by a disk which still has others to write, if it can be made slow, or
 * else by luck.
 */
TEST_F_TIMEOUT(mmap, free_in_interrupt, 120)
{
	const char *slow = getenv("P2PDMA_SLOW");
	const bool sure = slow && getenv("P2PDMA_FAST");
	const struct timespec limit = { .tv_sec = 60 };
	struct io_event events[4] = {};
	aio_context_t ctx = 0;
	int round, i, hits;
	void *mem;

	if (self->dma)
		SKIP(return, "no way for DMA");
	if (module_load() || module_run("off") ||
	    module_run("count-irq free_zone_device_folio 0"))
		SKIP(return, "no module " TEST_MODULE ", or no kprobes");
	ASSERT_EQ(0, syscall(SYS_io_setup, 4, &ctx));
	self->slow = sure;
	if (sure)
		ASSERT_EQ(0, system(slow));
	for (round = 0; round < (sure ? 3 : 100) && module_hits() < 1; round++) {
		mem = MAP(self->fd, SZ_1M);
		ASSERT_EQ(0, submit_quarters(self, ctx, IOCB_CMD_PWRITE, mem));
		ASSERT_EQ(0, munmap(mem, SZ_1M));
		ASSERT_EQ(4, syscall(SYS_io_getevents, ctx, 4, 4, events, &limit));
		for (i = 0; i < 4; i++)
			EXPECT_EQ(SZ_1M / 4, events[i].res);
	}
	hits = module_hits();
	EXPECT_EQ(0, module_run("off"));
	EXPECT_TRUE(drained(self));
	if (!hits && !sure)
		SKIP(return, "the disk is too fast");
	EXPECT_LT(0, hits);
}

static uint64_t pin_fast(int fd, void *mem, size_t len, uint32_t pages, uint32_t flags)
{
	struct gup_test gup = {
		.addr = (uintptr_t)mem,
		.size = len,
		.nr_pages_per_call = pages,
		.gup_flags = flags,
	};

	return ioctl(fd, PIN_FAST_BENCHMARK, &gup) ? 0 : gup.size;
}

TEST_F_TIMEOUT(mmap, gup_fast, 90)
{
	const uint32_t flags = FOLL_WRITE | FOLL_PCI_P2PDMA;
	void *mem;
	int fd;

	fd = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		SKIP(return, "needs CONFIG_GUP_TEST");
	mem = MAP(self->fd, SZ_4M);
	/* Untouched, one by one, and half of it at a time. */
	EXPECT_EQ(SZ_4M, pin_fast(fd, mem, SZ_4M, SZ_2M / SZ_4K, flags));
	EXPECT_EQ(SZ_4M, pin_fast(fd, mem, SZ_4M, 1, flags));
	EXPECT_EQ(SZ_4M, pin_fast(fd, mem, SZ_4M, SZ_2M / SZ_4K, flags));
	/* Only for those who know what it is. */
	EXPECT_EQ(0, pin_fast(fd, mem, SZ_4K, 1, FOLL_WRITE));
}

static void *read_until_signal(void *mem)
{
	uint64_t end = now_ms() + 20000, val;
	intptr_t sig = 0;

	while (!sig && now_ms() < end)
		sig = try_read64(mem, &val);
	return (void *)sig;
}

/* Unbinding takes the memory away from everybody who has it mapped. */
TEST_F_TIMEOUT(mmap, unbind_mapped, 90)
{
	pthread_t thread;
	void *mem, *ret;
	uint64_t val;
	pid_t child;
	int old;

	/* One half is never touched. */
	mem = MAP(self->fd, SZ_2M);
	page_mark(mem, SZ_1M, 1);
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		_exit(read_until_signal(mem) != (void *)SIGBUS);
	ASSERT_EQ(0, pthread_create(&thread, NULL, read_until_signal, mem));
	usleep(100 * 1000);

	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_1M - SZ_4K, 1));
	EXPECT_EQ(SIGBUS, try_read64(mem + SZ_1M, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_2M - SZ_4K, 1));
	EXPECT_EQ(-EFAULT, pread_all(self->disk, mem, SZ_4K, 0));
	EXPECT_EQ(-EFAULT, pwrite_all(self->disk, mem, SZ_4K, DISK_OFFSET));
	ASSERT_EQ(0, pthread_join(thread, &ret));
	EXPECT_EQ((void *)SIGBUS, ret);
	EXPECT_EQ(0, wait_child(child, 30000));
	EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);

	/* It does not come back with the device. */
	old = self->fd;
	ASSERT_EQ(0, attach(self, variant));
	EXPECT_EQ(self->available, memory_left(self));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(0, munmap(mem, SZ_2M));
	close(old);
	mem = MAP(self->fd, SZ_2M);
	EXPECT_EQ(self->dma, dma_in(self->disk, mem, SZ_1M));
}

TEST_F_TIMEOUT(mmap, unbind_idle_fd, 90)
{
	struct p2pbar_info info = {};
	int old = self->fd, fd;
	char node[256];
	void *mem;

	/* No ioctls but those of p2pbar. */
	EXPECT_EQ(self->p2pbar ? 0 : -1, ioctl(old, P2PBAR_IOC_INFO, &info));
	if (!self->p2pbar)
		EXPECT_EQ(ENOTTY, errno);
	snprintf(node, sizeof(node), "%s", self->node);

	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	EXPECT_EQ(NULL, map_file(old, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);
	if (self->p2pbar) {
		EXPECT_EQ(-1, ioctl(old, P2PBAR_IOC_INFO, &info));
		EXPECT_EQ(ENODEV, errno);
	}
	fd = open(node, O_RDWR | O_CLOEXEC);
	EXPECT_EQ(-1, fd);
	EXPECT_TRUE(errno == ENOENT || errno == ENODEV || errno == ENXIO) {
		TH_LOG("%s", strerror(errno));
	}

	ASSERT_EQ(0, attach(self, variant));
	EXPECT_EQ(NULL, map_file(old, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);
	mem = MAP(self->fd, SZ_4K);
	EXPECT_EQ(0, close(old));
	EXPECT_EQ(0, try_write64(mem, 1));
}

/* Unbinding waits for DMA that is under way, but not for programs to end. */
TEST_F_TIMEOUT(mmap, unbind_under_dma, 90)
{
	struct loop *loops = ram_map_shared(SZ_4K);
	uint64_t end;
	pid_t pids[2];
	size_t i;

	if (self->dma)
		SKIP(return, "no way for DMA");
	ASSERT_NE(NULL, loops);
	for (i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = start_loop(self, &loops[i]);
		ASSERT_LT(0, pids[i]);
	}
	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	end = now_ms();
	for (i = 0; i < ARRAY_SIZE(pids); i++) {
		EXPECT_EQ(0, wait_child(pids[i], 10000));
		EXPECT_TRUE(loops[i].err == -EFAULT || loops[i].err == -EIO ||
			    loops[i].err == SIGBUS) {
			TH_LOG("%d", loops[i].err);
		}
		EXPECT_LE(end, loops[i].ended + 2000);
	}
	ASSERT_EQ(0, attach(self, variant));
}

struct bind {
	int fd;			/* of the driver's file in sysfs */
	const char *name;	/* of the function */
};

static int op_bind(void *arg)
{
	struct bind *bind = arg;

	return write(bind->fd, bind->name, strlen(bind->name)) < 0 ? -errno : 0;
}

/*
 * Each allocation of probing fails once, but for those of the architecture's memory
 * hot-plug, which does not recover from that.
 */
TEST_F_TIMEOUT(mmap, bind_allocations_fail, 600)
{
	struct bind bind = { .name = self->fn.name };
	int nth, ret = 0, failed = 0;
	char buf[128], node[256];

	if (variant->sysfs)
		SKIP(return, "it is the same driver's as the node");
	/* There, it is not this task that probes. */
	if (!pci_fn_read(&self->fn, "numa_node", buf, sizeof(buf)) && atoi(buf) >= 0)
		SKIP(return, "not on a machine with several nodes");
	if (!faults_ready() || !faults_not_in("arch_add_memory", "add_pages"))
		SKIP(return, "needs CONFIG_FAULT_INJECTION_STACKTRACE_FILTER");
	snprintf(node, sizeof(node), "%s", self->node);
	close(self->fd);
	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	ASSERT_EQ(0, pci_fn_write(&self->fn, "driver_override", variant->driver));
	snprintf(buf, sizeof(buf), "/sys/bus/pci/drivers/%s/bind", variant->driver);
	bind.fd = open(buf, O_WRONLY | O_CLOEXEC);
	ASSERT_LE(0, bind.fd);
	file_write("/dev/kmsg", "p2pdma selftest: allocations are made to fail\n");
	for (nth = 1; nth < 2000; nth++) {
		ret = with_fault(nth, op_bind, &bind);
		if (ret == -ERANGE)
			break;
		failed += !!ret;
		/* A region whose record cannot be allocated is told to be busy. */
		EXPECT_TRUE(!ret || ret == -ENOMEM || ret == -EBUSY) {
			TH_LOG("allocation %d: %s", nth, strerror(-ret));
		}
		ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	}
	file_write("/dev/kmsg", "p2pdma selftest: allocations are left alone\n");
	TH_LOG("%d allocations, %d of them needed", nth - 1, failed);
	EXPECT_EQ(-ERANGE, ret);
	/* The file's own are a few. */
	EXPECT_LT(10, failed);
	close(bind.fd);
	EXPECT_TRUE(faults_not_in(NULL, NULL));
	ASSERT_EQ(0, attach(self, variant));
	EXPECT_EQ(self->available, memory_left(self));
	/* Numbers of nodes are free again, too. */
	EXPECT_STREQ(node, self->node);
}

/* It waits for a slow peer, and returns once that is done. */
TEST_F_TIMEOUT(mmap, unbind_slow_client, 120)
{
	const char *slow = getenv("P2PDMA_SLOW");
	const struct timespec limit = { .tv_sec = 60 };
	uint64_t *unbound = ram_map_shared(SZ_4K), done, start, val;
	struct io_event events[4];
	aio_context_t ctx = 0;
	pid_t child;
	void *mem;
	int i;

	if (!slow || !getenv("P2PDMA_FAST"))
		SKIP(return, "P2PDMA_SLOW and P2PDMA_FAST are not set");
	if (self->dma)
		SKIP(return, "no way for DMA");
	ASSERT_NE(NULL, unbound);
	ASSERT_EQ(0, syscall(SYS_io_setup, 4, &ctx));
	mem = MAP(self->fd, SZ_1M);
	self->slow = true;
	ASSERT_EQ(0, system(slow));
	start = now_ms();
	ASSERT_EQ(0, submit_quarters(self, ctx, IOCB_CMD_PREAD, mem));
	child = fork_child();
	if (!child) {
		i = pci_fn_unbind(&self->fn);
		*unbound = now_ms();
		_exit(!!i);
	}
	/* Programs lose the memory at once, whatever the disk does. */
	while (try_read64(mem, &val) != SIGBUS && now_ms() < start + 1000)
		usleep(1000);
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(0, *unbound);
	EXPECT_EQ(4, syscall(SYS_io_getevents, ctx, 4, 4, events, &limit));
	done = now_ms();
	EXPECT_LT(start + 1000, done);
	EXPECT_EQ(0, wait_child(child, 20000));
	EXPECT_GT(done + 1000, *unbound);
	for (i = 0; i < 4; i++)
		EXPECT_EQ(SZ_1M / 4, events[i].res);
	ASSERT_EQ(0, attach(self, variant));
}

TEST_F_TIMEOUT(mmap, unbind_time, 90)
{
	uint64_t start, val;
	void *mem;

	mem = MAP(self->fd, SZ_4M);
	page_mark(mem, SZ_4M, 1);
	start = now_ms();
	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	EXPECT_GT(1000, now_ms() - start);
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	ASSERT_EQ(0, attach(self, variant));
}

TEST_F_TIMEOUT(mmap, rebind, 240)
{
	uint64_t val;
	int round;
	void *mem;

	for (round = 0; round < rounds(20); round++) {
		mem = MAP(self->fd, 16 * SZ_4K);
		page_mark(mem, 8 * SZ_4K, round);
		ASSERT_EQ(0, pci_fn_unbind(&self->fn));
		EXPECT_EQ(SIGBUS, try_read64(mem, &val));
		ASSERT_EQ(0, munmap(mem, 16 * SZ_4K));
		close(self->fd);
		ASSERT_EQ(0, attach(self, variant));
		EXPECT_EQ(self->available, memory_left(self));
	}
}

/* A module can go when nobody has a file of it any more, and not before. */
TEST_F_TIMEOUT(mmap, rmmod_refused, 90)
{
	char path[64];
	void *mem;

	if (variant->sysfs)
		SKIP(return, "files in sysfs are not the module's");
	snprintf(path, sizeof(path), "/sys/module/%s/initstate", variant->driver);
	if (access(path, F_OK))
		SKIP(return, "%s is built in", variant->driver);
	EXPECT_EQ(-1, syscall(SYS_delete_module, variant->driver, O_NONBLOCK));
	EXPECT_TRUE(errno == EWOULDBLOCK || errno == EBUSY);
	mem = MAP(self->fd, SZ_4K);
	close(self->fd);
	EXPECT_EQ(-1, syscall(SYS_delete_module, variant->driver, O_NONBLOCK));
	EXPECT_TRUE(errno == EWOULDBLOCK || errno == EBUSY);
	EXPECT_EQ(0, try_write64(mem, 1));
	ASSERT_EQ(0, munmap(mem, SZ_4K));

	EXPECT_EQ(0, syscall(SYS_delete_module, variant->driver, O_NONBLOCK)) {
		TH_LOG("%s", strerror(errno));
	}
	EXPECT_EQ(0, load(variant->driver));
	ASSERT_EQ(0, attach(self, variant));
	EXPECT_EQ(self->available, memory_left(self));
}

TEST_HARNESS_MAIN
