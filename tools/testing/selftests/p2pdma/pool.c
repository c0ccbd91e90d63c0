// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of pools of peer-to-peer DMA memory: which of a device's resources pages
 * come from, and how they are mapped, by p2pmem/allocate and by the driver
 * p2pdma_pool, which is beside this program.
 *
 *   P2PDMA_OTHER=0000:03:00.0 a PCI function with a prefetchable BAR of memory, of
 *                             at least 64 MiB, which is taken away from its driver
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "mmio.h"
#include "p2pdma.h"
#include "pages.h"

#define POOL		"p2pdma_pool"
#define PARAMETERS	"/sys/module/" POOL "/parameters/"
#define IORESOURCE_PREFETCH	0x2000

/* The pages of mmap() that p2pdma_pool knows. */
#define PART(n)		((off_t)(n) << 20)
#define BARE		((off_t)16 << 20)

FIXTURE(pool)
{
	struct pci_fn fn;
	uint64_t start, size;	/* of the BAR */
};

/* What a command has done. */
struct done {
	unsigned int nr;
	unsigned long long low, high, ns;
};

/* The largest BAR, which p2pdma_pool takes. */
static int find_bar(const struct pci_fn *fn, uint64_t *start, uint64_t *size, uint64_t *flags)
{
	unsigned long long from, to, bits;
	FILE *f;
	int i;

	f = fopen(pci_fn_path(fn, "resource"), "re");
	if (!f)
		return -errno;
	*size = 0;
	for (i = 0; i < 6; i++) {
		if (fscanf(f, "%llx %llx %llx", &from, &to, &bits) != 3)
			break;
		if (!from || to - from + 1 <= *size)
			continue;
		*start = from;
		*size = to - from + 1;
		*flags = bits;
	}
	fclose(f);
	return *size ? 0 : -ENODEV;
}

static int bind_pool(const struct pci_fn *fn, const char *parts, const char *premap)
{
	int ret;

	ret = pci_fn_unbind(fn) ?: file_write(PARAMETERS "parts", parts);
	ret = ret ?: file_write(PARAMETERS "premap", premap);
	return ret ?: pci_fn_bind(fn, POOL, POOL);
}

static int command(const char *what, int part, unsigned int n, struct done *done)
{
	char buf[96];
	ssize_t len;
	int fd;

	memset(done, 0, sizeof(*done));
	fd = open("/dev/" POOL, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	len = snprintf(buf, sizeof(buf), "%s %d %u", what, part, n);
	if (write(fd, buf, len) == len)
		len = pread(fd, buf, sizeof(buf) - 1, 0);
	else
		len = -1;
	close(fd);
	if (len < 0)
		return -errno;
	buf[len] = '\0';
	return sscanf(buf, "%u %llx %llx %llu", &done->nr, &done->low, &done->high,
		      &done->ns) == 4 ? 0 : -EIO;
}

static uint64_t pool_left(const struct pci_fn *fn)
{
	uint64_t n = 0;

	return pci_fn_read_u64(fn, "p2pmem/available", &n) ? ~0ull : n;
}

FIXTURE_SETUP(pool)
{
	uint64_t flags = 0;
	int ret;

	if (!getenv("P2PDMA_OTHER"))
		SKIP(return, "P2PDMA_OTHER has to name a PCI function");
	if (geteuid())
		SKIP(return, "needs root");
	ret = module_load_named(POOL);
	if (ret)
		SKIP(return, "no module " POOL ": %s", strerror(-ret));
	ASSERT_EQ(0, pci_fn_init(&self->fn, getenv("P2PDMA_OTHER")));
	ASSERT_EQ(0, find_bar(&self->fn, &self->start, &self->size, &flags));
	if (!(flags & IORESOURCE_PREFETCH) || self->size < 64 << 20)
		SKIP(return, "no prefetchable BAR of 64 MiB");
	ASSERT_EQ(0, bind_pool(&self->fn, "1", "0"));
}

/* Unbinding waits for mappings, which a failing test may leave: not in its process. */
FIXTURE_TEARDOWN_PARENT(pool)
{
	module_run("off");
	pci_fn_unbind(&self->fn);
	pci_fn_write(&self->fn, "driver_override", "\n");
}

/* Map pages from a file, NULL with errno set on error. */
static void *map(const char *path, size_t len, int flags, off_t pgoff)
{
	void *mem;
	int fd;

	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, pgoff * SZ_4K);
	close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

/* Each resource's pages come out of it, all of them, and only these. */
TEST_F_TIMEOUT(pool, alloc_pages_of_pagemap, 120)
{
	unsigned int half = self->size / SZ_4K / 2;
	struct done done;
	int part;

	ASSERT_EQ(0, bind_pool(&self->fn, "2", "0"));
	ASSERT_EQ(self->size, pool_left(&self->fn));
	/* The part that was added last is the one that the pool prefers. */
	for (part = 0; part < 2; part++) {
		ASSERT_EQ(0, command("take", part, 16, &done));
		EXPECT_EQ(16, done.nr);
		ASSERT_EQ(0, command("take", part, half - 16, &done));
		EXPECT_EQ(half - 16, done.nr);
		EXPECT_LE(part * self->size / 2, done.low);
		EXPECT_GE((part + 1) * self->size / 2 - SZ_4K, done.high);
		ASSERT_EQ(0, command("take", part, 1, &done));
		EXPECT_EQ(0, done.nr);
		EXPECT_EQ((1 - part) * self->size / 2, pool_left(&self->fn));
	}
	/* What is free in one is not taken for the other. */
	ASSERT_EQ(0, command("free", 1, 2, &done));
	ASSERT_EQ(0, command("take", 0, 1, &done));
	EXPECT_EQ(0, done.nr);
	ASSERT_EQ(0, command("free", 0, 1, &done));
	EXPECT_EQ(half, done.nr);
	ASSERT_EQ(0, command("free", 1, 1, &done));
	EXPECT_EQ(half / 2, done.nr);
	EXPECT_EQ(self->size, pool_left(&self->fn));
}

/* Many pages of a fragmented pool are all found. */
TEST_F_TIMEOUT(pool, alloc_pages_fragmented, 120)
{
	unsigned int all = self->size / SZ_4K;
	struct done done;

	ASSERT_EQ(0, command("take", 0, all, &done));
	ASSERT_EQ(all, done.nr);
	ASSERT_EQ(0, command("free", 0, 2, &done));
	ASSERT_EQ(all / 2, done.nr);
	ASSERT_EQ(0, command("take", 0, 1, &done));
	EXPECT_EQ(1, done.nr);
	EXPECT_EQ(0, done.low);
	ASSERT_EQ(0, command("take", 0, all, &done));
	EXPECT_EQ(all / 2 - 1, done.nr);
	EXPECT_EQ(0, pool_left(&self->fn));
}

/* Pages at the end of a full pool take as long as those at its start. */
TEST_F_TIMEOUT(pool, alloc_pages_linear, 120)
{
	unsigned int all = self->size / SZ_4K, n = all / 8;
	unsigned long long first = ~0ull, end = ~0ull;
	struct done done;
	int i;

	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, command("take", 0, n, &done));
		ASSERT_EQ(n, done.nr);
		first = done.ns < first ? done.ns : first;
		ASSERT_EQ(0, command("take", 0, all - 2 * n, &done));
		ASSERT_EQ(0, command("take", 0, n, &done));
		ASSERT_EQ(n, done.nr);
		end = done.ns < end ? done.ns : end;
		ASSERT_EQ(0, command("free", 0, 1, &done));
		ASSERT_EQ(all, done.nr);
	}
	TH_LOG("%u pages: %llu us at the start, %llu us at the end", n, first / 1000, end / 1000);
	EXPECT_GE(2 * first, end);
}

/* An offset or a private mapping is refused before memory is taken for it. */
TEST_F_TIMEOUT(pool, allocate_checks_first, 120)
{
	char path[256];
	void *mem;
	int ret;

	ret = module_load() ?: module_run("count gen_pool_alloc_algo_owner 0");
	if (ret)
		SKIP(return, "no kprobes, or no module " TEST_MODULE);
	strcpy(path, pci_fn_path(&self->fn, "p2pmem/allocate"));
	EXPECT_EQ(NULL, map(path, self->size, MAP_PRIVATE, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(NULL, map(path, self->size, MAP_SHARED, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, module_hits());
	mem = map(path, self->size, MAP_SHARED, 0);
	ASSERT_NE(NULL, mem);
	/* Once for each folio. */
	EXPECT_EQ(self->size / SZ_2M, module_hits());
	/* The same with nothing left. */
	EXPECT_EQ(NULL, map(path, SZ_4K, MAP_PRIVATE, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(NULL, map(path, SZ_4K, MAP_SHARED, 0));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(0, munmap(mem, self->size));
}

/* The mode that x86 has reserved for the BAR, which is that of the kernel's mapping. */
static int reserved_mode(uint64_t addr, char *mode, size_t len)
{
	unsigned long long from, to;
	char line[128], name[64];
	int ret = -ENOENT;
	FILE *f;

	f = fopen("/sys/kernel/debug/x86/pat_memtype_list", "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "PAT: [mem %llx-%llx] %63s", &from, &to, name) != 3 ||
		    addr < from || addr >= to)
			continue;
		/* All entries of a range say the same. */
		if (!ret && strcmp(mode, name))
			ret = -EBUSY;
		else
			ret = 0;
		snprintf(mode, len, "%s", name);
	}
	fclose(f);
	return ret;
}

/* A store that the compiler does not leave out. */
static void touch(char *mem)
{
	__atomic_store_n(mem, 1, __ATOMIC_RELAXED);
}

/* The cache mode of a page in the page table. */
static const char *mode_of(void *mem)
{
	char line[256];

	touch(mem);
	if (page_table_line(mem, line, sizeof(line)))
		return "unknown";
	if (strstr(line, "PWT") && strstr(line, "PCD"))
		return "uncached";
	if (strstr(line, "PCD"))
		return "uncached-minus";
	return strstr(line, "PWT") ? "write-combining" : "write-back";
}

/* The kernel's mapping and those of user space have one cache mode. */
TEST_F_TIMEOUT(pool, cachemode, 120)
{
	static const struct {
		const char *premap, *kernel, *driver, *allocate;
	} cases[] = {
		{ "0", "write-combining", "write-combining", "write-combining" },
		/* The pagemap follows, p2pmem/allocate keeps what it has always had. */
		{ "1", "uncached-minus", "uncached-minus", "write-back" },
		{ "2", "write-combining", "write-combining", "write-combining" },
	};
	char mode[64] = "", path[256];
	struct done done;
	void *mem;
	int i;

	strcpy(path, pci_fn_path(&self->fn, "p2pmem/allocate"));
	mem = map(path, SZ_4K, MAP_SHARED, 0);
	ASSERT_NE(NULL, mem);
	if (!strcmp(mode_of(mem), "unknown") ||
	    reserved_mode(self->start, mode, sizeof(mode)) == -ENOENT)
		SKIP(munmap(mem, SZ_4K); return, "needs x86 with CONFIG_PTDUMP_DEBUGFS");
	EXPECT_EQ(0, munmap(mem, SZ_4K));

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, bind_pool(&self->fn, "1", cases[i].premap));
		EXPECT_EQ(0, reserved_mode(self->start, mode, sizeof(mode)));
		EXPECT_STREQ(cases[i].kernel, mode);
		ASSERT_EQ(0, command("take", 0, 1, &done));
		mem = map("/dev/" POOL, SZ_4K, MAP_SHARED, 0);
		ASSERT_NE(NULL, mem);
		EXPECT_STREQ(cases[i].driver, mode_of(mem));
		/* It has to be in the VMA, not only in the page table. */
		EXPECT_EQ(0, mprotect(mem, SZ_4K, PROT_READ));
		EXPECT_EQ(0, mprotect(mem, SZ_4K, PROT_READ | PROT_WRITE));
		EXPECT_STREQ(cases[i].driver, mode_of(mem));
		EXPECT_EQ(0, munmap(mem, SZ_4K));
		mem = map(path, SZ_4K, MAP_SHARED, 0);
		ASSERT_NE(NULL, mem);
		EXPECT_STREQ(cases[i].allocate, mode_of(mem));
		EXPECT_EQ(0, munmap(mem, SZ_4K));
	}
}

static sigjmp_buf on_sigbus;

static void sigbus(int sig)
{
	siglongjmp(on_sigbus, sig);
}

static bool faults(void *mem)
{
	struct sigaction action = { .sa_handler = sigbus }, old;
	bool ret = true;

	sigaction(SIGBUS, &action, &old);
	if (!sigsetjmp(on_sigbus, 1)) {
		touch(mem);
		ret = false;
	}
	sigaction(SIGBUS, &old, NULL);
	return ret;
}

/* Pages that a driver maps are memory, shared, and in mappings that cannot grow. */
TEST_F_TIMEOUT(pool, map_pages, 120)
{
	const size_t len = 16 * SZ_4K;
	struct done done;
	char *a, *b, buf[256];
	int i;

	ASSERT_EQ(0, command("take", 0, 16, &done));
	ASSERT_EQ(16, done.nr);
	a = map("/dev/" POOL, len, MAP_SHARED, 0);
	b = map("/dev/" POOL, len - SZ_4K, MAP_SHARED, 1);
	ASSERT_NE(NULL, a);
	ASSERT_NE(NULL, b);
	ASSERT_EQ(0, vma_flags(a, buf, sizeof(buf)));
	EXPECT_NE(NULL, strstr(buf, " de ")) {
		TH_LOG("%s", buf);
	}
	EXPECT_NE(NULL, strstr(buf, " dd "));
	EXPECT_EQ(NULL, strstr(buf, " io "));
	EXPECT_EQ(NULL, strstr(buf, " pf "));
	for (i = 0; i < 16; i++)
		sprintf(a + i * SZ_4K + 1, "page %d", i);
	for (i = 1; i < 16; i++) {
		sprintf(buf, "page %d", i);
		EXPECT_STREQ(buf, b + (i - 1) * SZ_4K + 1);
	}
	EXPECT_EQ(MAP_FAILED, mremap(a, len, 2 * len, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(NULL, map("/dev/" POOL, len, MAP_PRIVATE, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, munmap(b, len - SZ_4K));
	EXPECT_EQ(0, munmap(a, len));
	/* There are no more references than those of the driver. */
	ASSERT_EQ(0, command("free", 0, 1, &done));
	EXPECT_EQ(self->size, pool_left(&self->fn));
}

/* p2pmem/allocate as well. */
TEST_F_TIMEOUT(pool, allocate_flags, 120)
{
	char buf[256];
	void *mem;

	mem = map(pci_fn_path(&self->fn, "p2pmem/allocate"), SZ_4K, MAP_SHARED, 0);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, vma_flags(mem, buf, sizeof(buf)));
	EXPECT_NE(NULL, strstr(buf, " de "));
	EXPECT_NE(NULL, strstr(buf, " dd "));
	EXPECT_EQ(MAP_FAILED, mremap(mem, SZ_4K, 2 * SZ_4K, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, munmap(mem, SZ_4K));
}

/* A driver that has not prepared its VMA gets no mapping in another cache mode. */
TEST_F_TIMEOUT(pool, map_unprepared, 120)
{
	struct done done;
	void *mem;

	ASSERT_EQ(0, command("take", 0, 1, &done));
	mem = map("/dev/" POOL, SZ_4K, MAP_SHARED, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_FALSE(faults(mem));
	if (!strcmp(mode_of(mem), "write-back") || !strcmp(mode_of(mem), "unknown"))
		SKIP(munmap(mem, SZ_4K); return, "all mappings are alike, or not known");
	EXPECT_EQ(0, munmap(mem, SZ_4K));
	mem = map("/dev/" POOL, SZ_4K, MAP_SHARED, BARE);
	ASSERT_NE(NULL, mem);
	EXPECT_TRUE(faults(mem));
	EXPECT_EQ(0, munmap(mem, SZ_4K));
}

/* A store works, too, where the VMA wants to be notified of writes. */
TEST_F_TIMEOUT(pool, map_soft_dirty, 120)
{
	struct done done;
	char *mem;

	if (!has_soft_dirty())
		SKIP(return, "needs CONFIG_MEM_SOFT_DIRTY");
	ASSERT_EQ(0, command("take", 0, 2, &done));
	mem = map("/dev/" POOL, 2 * SZ_4K, MAP_SHARED, 0);
	ASSERT_NE(NULL, mem);
	mem[0] = 1;
	ASSERT_EQ(0, file_write("/proc/self/clear_refs", "4"));
	/* A page that is mapped, and one that is not yet. */
	mem[0] = 2;
	mem[SZ_4K] = 3;
	EXPECT_EQ(2, mem[0]);
	EXPECT_EQ(3, mem[SZ_4K]);
	EXPECT_EQ(0, munmap(mem, 2 * SZ_4K));
}

TEST_HARNESS_MAIN
