// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of large folios: how the kernel maps them, splits the mappings, and makes
 * other folios of the same memory. See testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/resource.h>

#include "mmap_fixture.h"

/* Returns how many bytes should be huge in a mapping that starts at a multiple of 2 MiB. */
static ssize_t want_huge(size_t len)
{
	if (sysconf(_SC_PAGESIZE) != SZ_4K ||
	    access("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", F_OK))
		return 0;
	return len & ~(SZ_2M - 1);
}

/* Touch each page, and return how many faults that took. */
static long touch(void *mem, size_t len)
{
	struct rusage before, after;
	size_t offset;

	getrusage(RUSAGE_SELF, &before);
	for (offset = 0; offset < len; offset += SZ_4K)
		mmio_read64(mem + offset);
	getrusage(RUSAGE_SELF, &after);
	return after.ru_minflt - before.ru_minflt;
}

/*
 * mmap() maps all pages of a node, so that accesses do not fault. After MADV_DONTNEED,
 * one fault maps one folio. Pages of p2pmem/allocate are only mapped by faults, which
 * map the next folios as well.
 */
TEST_F_TIMEOUT(mmap, faults, 90)
{
	static const struct {
		size_t len;
		long faults;	/* of a node */
	} cases[] = {
		{ SZ_4K, 1 }, { 2 * SZ_4K, 1 }, { 3 * SZ_4K, 2 }, { 16 * SZ_4K, 1 },
		{ 31 * SZ_4K, 5 }, { SZ_1M, 1 }, { SZ_2M, 1 }, { SZ_2M + SZ_4K, 2 },
		{ 2 * SZ_4M, 4 },
	};
	long faults, want;
	size_t i, len;
	void *mem;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		len = cases[i].len;
		want = variant->sysfs ? 1 : cases[i].faults;
		mem = MAP(self->fd, len);
		/* Less than 2 MiB can lie in two page tables. */
		EXPECT_GE(variant->sysfs ? 1 + (len > SZ_4K && len < SZ_2M) : 0,
			  touch(mem, len)) {
			TH_LOG("%zu bytes", len);
		}
		mmio_fill(mem, len, i);
		if (want_huge(len))
			EXPECT_EQ(0, (uintptr_t)mem % SZ_2M);
		EXPECT_EQ(want_huge(len), huge_bytes(mem, len)) {
			TH_LOG("%zu bytes", len);
		}
		ASSERT_EQ(0, madvise(mem, len, MADV_DONTNEED));
		EXPECT_EQ(0, huge_bytes(mem, len));
		faults = touch(mem, len);
		EXPECT_LE(want, faults);
		EXPECT_GE(want + (len > SZ_4K && len < SZ_2M), faults) {
			TH_LOG("%zu bytes", len);
		}
		EXPECT_EQ(want_huge(len), huge_bytes(mem, len));
		EXPECT_EQ(-1, mmio_check(mem, len, i));
		ASSERT_EQ(0, munmap(mem, len));
		EXPECT_TRUE(drained(self));
	}
}

/* The kernel maps batches of PTEs where a program forbids huge pages or wants an odd address. */
TEST_F_TIMEOUT(mmap, no_huge, 90)
{
	void *mem, *odd;

	mem = MAP(self->fd, SZ_4M);
	if (!madvise(mem, SZ_4M, MADV_NOHUGEPAGE)) {
		ASSERT_EQ(0, madvise(mem, SZ_4M, MADV_DONTNEED));
		EXPECT_EQ(variant->sysfs ? 1 : 2, touch(mem, SZ_4M));
		EXPECT_EQ(0, huge_bytes(mem, SZ_4M));
	}
	page_mark(mem, SZ_4M, 1);
	EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, mem, SZ_4M));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_4M));
	ASSERT_EQ(0, munmap(mem, SZ_4M));

	odd = ram_map(2 * SZ_4M);
	ASSERT_NE(NULL, odd);
	odd = (void *)(((uintptr_t)odd + SZ_2M) & ~(SZ_2M - 1)) + SZ_4K;
	ASSERT_EQ(odd, mmap(odd, SZ_4M, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, self->fd,
			    0));
	EXPECT_EQ(variant->sysfs ? 2 : 0, touch(odd, SZ_4M));
	EXPECT_EQ(0, huge_bytes(odd, SZ_4M));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, odd, SZ_4M));
	mmio_fill(odd, SZ_4M, 2);
	ASSERT_EQ(0, madvise(odd, SZ_4M, MADV_DONTNEED));
	/* Each of the two folios lies in two page tables. A fault maps a part in one. */
	EXPECT_EQ(variant->sysfs ? 2 : 4, touch(odd, SZ_4M));
	EXPECT_EQ(-1, mmio_check(odd, SZ_4M, 2));
	ASSERT_EQ(0, munmap(odd, SZ_4M));
	EXPECT_TRUE(drained(self));
}

/* The last one keeps the page. */
enum { UNMAP, PROTECT, DONTNEED, LOCK, REMAP, NR_SPLITS };

static int split(int how, void *mem)
{
	switch (how) {
	case UNMAP:
		return munmap(mem, SZ_4K);
	case PROTECT:
		return mprotect(mem, SZ_4K, PROT_READ);
	case DONTNEED:
		return madvise(mem, SZ_4K, MADV_DONTNEED);
	case REMAP:
		return mremap(mem, SZ_4K, SZ_4K, MREMAP_MAYMOVE | MREMAP_FIXED,
			      ram_map(SZ_4K)) == MAP_FAILED;
	case LOCK:
		return mlock(mem, SZ_4K);
	}
	return -1;
}

/* What is done to one page of 2 MiB does nothing to the others. */
TEST_F_TIMEOUT(mmap, splits, 90)
{
	static const size_t places[] = { 0, 7 * SZ_4K, SZ_1M, SZ_2M - SZ_4K };
	size_t i, hole;
	void *mem;
	int how;

	for (how = 0; how < NR_SPLITS; how++) {
		for (i = 0; i < ARRAY_SIZE(places); i++) {
			hole = places[i];
			mem = MAP(self->fd, SZ_4M);
			page_mark(mem, SZ_4M, how);
			ASSERT_EQ(0, split(how, mem + hole)) {
				TH_LOG("%d at %zx: %s", how, hole, strerror(errno));
			}
			EXPECT_EQ(-1, page_check(mem, hole, how));
			EXPECT_EQ(-1, page_check_part(mem, hole + SZ_4K, SZ_4M, how));
			EXPECT_EQ(want_huge(SZ_2M), huge_bytes(mem + SZ_2M, SZ_2M));
			EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem + SZ_2M - SZ_1M / 2,
							 SZ_1M / 4));
			munmap(mem, SZ_4M);
			EXPECT_TRUE(how == REMAP || drained(self)) {
				TH_LOG("%d at %zx", how, hole);
			}
		}
	}
}

/* split_huge_pages must skip these folios: they have no mapping. */
TEST_F_TIMEOUT(mmap, split_huge_pages, 90)
{
	char cmd[128];
	void *mem;

	mem = MAP(self->fd, SZ_4M);
	page_mark(mem, SZ_4M, 1);
	snprintf(cmd, sizeof(cmd), "%d,0x%lx,0x%lx", getpid(), (unsigned long)mem,
		 (unsigned long)mem + SZ_4M);
	if (file_write("/sys/kernel/debug/split_huge_pages", cmd))
		SKIP(return, "no split_huge_pages in debugfs");
	EXPECT_EQ(-1, page_check(mem, SZ_4M, 1));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_4M));
}

/* A child maps what its parent does, and keeps it. */
TEST_F_TIMEOUT(mmap, fork_large, 90)
{
	void *mem;

	mem = MAP(self->fd, SZ_4M);
	page_mark(mem, SZ_4M, 1);
	EXPECT_IN_CHILD(page_check(mem, SZ_4M, 1) == -1 &&
			huge_bytes(mem, SZ_4M) == want_huge(SZ_4M) &&
			dma_in(self->peer.disk, mem + SZ_1M, SZ_2M) == self->peer.dma &&
			!munmap(mem + SZ_1M, SZ_2M) && (page_mark(mem, SZ_1M, 2), true));
	EXPECT_EQ(-1, page_check(mem, SZ_1M, 2));
	ASSERT_EQ(0, munmap(mem, SZ_4M));
	EXPECT_TRUE(drained(self));
}

/* DMA runs while its memory is unmapped, and freed, as a whole and in parts. */
TEST_F_TIMEOUT(mmap, munmap_under_dma, 120)
{
	struct io_event events[4];
	aio_context_t ctx;
	int round, i;
	void *mem;

	if (self->peer.dma)
		SKIP(return, "the peer cannot reach the memory");
	ASSERT_EQ(0, aio_setup(4, &ctx));
	for (round = 0; round < rounds(20); round++) {
		mem = MAP(self->fd, SZ_4M);
		ASSERT_EQ(0, submit_quarters(self, ctx, IOCB_CMD_PREAD, mem + SZ_2M - SZ_1M / 2));
		if (round % 2)
			ASSERT_EQ(0, munmap(mem + SZ_2M - SZ_4K, 2 * SZ_4K));
		ASSERT_EQ(0, munmap(mem, SZ_4M));
		mem = MAP(self->fd, SZ_4M);
		page_mark(mem, SZ_4M, round);
		ASSERT_EQ(4, aio_wait(ctx, 4, 4, events, 30));
		for (i = 0; i < 4; i++)
			EXPECT_EQ(SZ_1M / 4, events[i].res);
		EXPECT_EQ(-1, page_check(mem, SZ_4M, round));
		ASSERT_EQ(0, munmap(mem, SZ_4M));
	}
	EXPECT_TRUE(drained(self));
}

/*
 * Where one page in every 2 MiB is in use, all the others can still be mapped, and
 * by huge pages again when that page is free. No page is mapped twice.
 */
TEST_F_TIMEOUT(mmap, fragmentation, 240)
{
	const size_t span = SZ_16M / 2, nr = span / SZ_4K, per = SZ_2M / SZ_4K;
	const size_t rest = self->available - span, len = span / per * (per - 1);
	void *pages[SZ_16M / 2 / SZ_4K], *mem;
	size_t i;

	if (self->available % SZ_2M)
		SKIP(return, "others have a part of the memory");
	if (rest)
		MAP(self->fd, rest);
	for (i = 0; i < nr; i++) {
		pages[i] = MAP(self->fd, SZ_4K);
		mmio_write64(pages[i], i);
	}
	EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, 0));
	EXPECT_EQ(ENOMEM, errno);
	for (i = 0; i < nr; i++) {
		if (i % per != per / 2)
			ASSERT_EQ(0, munmap(pages[i], SZ_4K));
	}
	ASSERT_TRUE(WAIT_FOR(memory_left(self) == len, 2000));

	mem = MAP(self->fd, len);
	EXPECT_EQ(0, memory_left(self));
	page_mark(mem, len, nr);
	EXPECT_EQ(0, huge_bytes(mem, len));
	for (i = per / 2; i < nr; i += per) {
		EXPECT_EQ(i, mmio_read64(pages[i]));
		mmio_write64(pages[i], 0);
	}
	EXPECT_EQ(-1, page_check(mem, len, nr));
	EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, mem, SZ_4M));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_4M));
	ASSERT_EQ(0, munmap(mem, len));
	for (i = per / 2; i < nr; i += per)
		ASSERT_EQ(0, munmap(pages[i], SZ_4K));

	ASSERT_TRUE(WAIT_FOR(memory_left(self) == span, 2000));
	mem = MAP(self->fd, span);
	page_mark(mem, span, 1);
	EXPECT_EQ(want_huge(span), huge_bytes(mem, span));
	EXPECT_EQ(-1, page_check(mem, span, 1));
}

/* Another opener sees nothing of what large and small folios held, in whichever order. */
TEST_F_TIMEOUT(mmap, cleared_sizes, 180)
{
	static const size_t sizes[] = { SZ_4M, 16 * SZ_4K, SZ_2M, SZ_4K, SZ_1M, 3 * SZ_4K, SZ_4M };
	size_t i, n;
	void *mem[64];
	int fd;

	if (variant->sysfs)
		SKIP(return, "p2pmem/allocate does not clear memory");
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		fd = open(self->node, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, fd);
		for (n = 0; n < ARRAY_SIZE(mem) && n * sizes[i] < SZ_4M; n++) {
			mem[n] = MAP(fd, sizes[i]);
			EXPECT_EQ(0, mmio_count_nonzero(mem[n], sizes[i])) {
				TH_LOG("%zu bytes, mapping %zu", sizes[i], n);
			}
			mmio_fill(mem[n], sizes[i], i);
		}
		while (n--)
			ASSERT_EQ(0, munmap(mem[n], sizes[i]));
		close(fd);
		ASSERT_TRUE(drained(self));
	}
}

/*
 * Memory can be written after mprotect() has made a read-only mapping writable, and
 * after clear_refs has cleared the soft-dirty bits.
 */
TEST_F_TIMEOUT(mmap, first_write_large, 90)
{
	uint64_t val;
	void *mem;

	mem = mmap(NULL, SZ_4M, PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_EQ(0, try_read64(mem, &val));
	ASSERT_EQ(0, mprotect(mem, SZ_4M, PROT_READ | PROT_WRITE));
	EXPECT_IN_CHILD(!try_write64(mem, 1));
	EXPECT_IN_CHILD(dma_in(self->peer.disk, mem, SZ_4M) == self->peer.dma);
	EXPECT_IN_CHILD((file_write("/proc/self/clear_refs", "4"),
			 !try_write64(mem + SZ_2M, 2)));
	EXPECT_EQ(2, mmio_read64(mem + SZ_2M));
	page_mark(mem, SZ_4M, 3);
	ASSERT_EQ(0, mprotect(mem, SZ_4M, PROT_READ));
	EXPECT_EQ(SIGSEGV, try_write64(mem + SZ_1M, 0));
	EXPECT_EQ(-1, page_check(mem, SZ_4M, 3));
}

/* While writes are tracked, a fault maps one page, whatever the folio and those after it. */
TEST_F_TIMEOUT(mmap, tracked, 90)
{
	static const size_t sizes[] = { 3 * SZ_4K, 31 * SZ_4K, SZ_4M };
	size_t i, page, mapped;
	void *mem;

	if (!has_soft_dirty())
		SKIP(return, "needs CONFIG_MEM_SOFT_DIRTY");
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		mem = MAP(self->fd, sizes[i]);
		page_mark(mem, sizes[i], i);
		ASSERT_EQ(0, file_write("/proc/self/clear_refs", "4"));
		ASSERT_EQ(0, madvise(mem, sizes[i], MADV_DONTNEED));
		mmio_read64(mem + SZ_4K);
		for (page = mapped = 0; page < sizes[i]; page += SZ_4K)
			mapped += !!phys_addr(mem + page);
		EXPECT_EQ(1, mapped) {
			TH_LOG("%zu bytes", sizes[i]);
		}
		EXPECT_EQ(-1, page_check(mem, sizes[i], i));
		ASSERT_EQ(0, munmap(mem, sizes[i]));
	}
}

/* Faults map the folios that could not be mapped without one. */
TEST_F_TIMEOUT(mmap, map_fails, 90)
{
	void *mem;

	if (module_load() || module_run("fail vm_insert_folio %d", ENOMEM))
		SKIP(return, "no kprobes, or no module " TEST_MODULE);
	mem = MAP(self->fd, 2 * SZ_4M);
	/* Of p2pmem/allocate, the second fault maps all that is left. */
	EXPECT_EQ(variant->sysfs ? 2 : 4, touch(mem, 2 * SZ_4M));
	EXPECT_EQ(1, module_hits());
	ASSERT_EQ(0, module_run("off"));
	EXPECT_EQ(want_huge(2 * SZ_4M), huge_bytes(mem, 2 * SZ_4M));
	page_mark(mem, 2 * SZ_4M, 1);
	ASSERT_EQ(0, madvise(mem, SZ_4M, MADV_DONTNEED));
	EXPECT_EQ(-1, page_check(mem, 2 * SZ_4M, 1));
	ASSERT_EQ(0, munmap(mem, 2 * SZ_4M));
}

/*
 * An open file gets its memory back as it has left it, unless somebody has allocated
 * a page of it from the pool in the meantime.
 */
TEST_F_TIMEOUT(mmap, pool_page_taken, 90)
{
	void *mem;

	if (variant->sysfs || access(pci_fn_path(&self->fn, "p2pmem"), F_OK))
		SKIP(return, "only for pools");
	if (self->available % SZ_2M)
		SKIP(return, "the first free page is not one of the largest block");
	if (module_load())
		SKIP(return, "no module " TEST_MODULE);
	mem = MAP(self->fd, SZ_2M);
	mmio_fill(mem, SZ_2M, 1);
	ASSERT_EQ(0, munmap(mem, SZ_2M));
	mem = MAP(self->fd, SZ_2M);
	EXPECT_EQ(-1, mmio_check(mem, SZ_2M, 1));
	ASSERT_EQ(0, munmap(mem, SZ_2M));
	/* Allocates the first free page, and frees it again. */
	ASSERT_EQ(0, module_run("alloc %s", self->fn.name));
	mem = MAP(self->fd, SZ_2M);
	EXPECT_EQ(0, mmio_count_nonzero(mem, SZ_2M));
	mmio_fill(mem, SZ_2M, 2);
	ASSERT_EQ(0, munmap(mem, SZ_2M));
	mem = MAP(self->fd, SZ_2M);
	EXPECT_EQ(-1, mmio_check(mem, SZ_2M, 2));
	ASSERT_EQ(0, munmap(mem, SZ_2M));
}

/* What a thread does to a mapping until it is gone. */
struct user {
	pthread_t thread;
	void *mem;
	int disk;
	int what;
	uint64_t end;		/* by now_ms() */
};

static void *use(void *arg)
{
	struct user *u = arg;
	uint64_t val, round;
	pid_t child;
	void *part;

	for (round = 0; now_ms() < u->end; round++) {
		part = u->mem + round * 7 * SZ_4K % SZ_4M;
		switch (u->what) {
		case 0:
			if (try_write64(part, round) == SIGBUS)
				return NULL;
			break;
		case 1:
			madvise(part, SZ_4K, MADV_DONTNEED);
			break;
		case 2:
			mprotect(part, SZ_4K, PROT_READ);
			mprotect(part, SZ_4K, PROT_READ | PROT_WRITE);
			break;
		case 3:
			madvise(u->mem, SZ_4M, MADV_DONTNEED);
			try_read64(part, &val);
			break;
		case 4:
			child = fork_child();
			if (!child)
				_exit(!!try_read64(part, &val));
			wait_child(child, 10000);
			break;
		case 5:
			pread_all(u->disk, u->mem + SZ_2M - SZ_1M / 2, SZ_1M, DISK_OFFSET);
			break;
		}
	}
	return NULL;
}

/* The device is unbound while six threads fault, split, fork and do DMA. */
TEST_F_TIMEOUT(mmap, unbind_under_use, 120)
{
	struct user users[6];
	void *mem;
	int i;

	mem = MAP(self->fd, SZ_4M);
	for (i = 0; i < ARRAY_SIZE(users); i++) {
		users[i] = (struct user) {
			.mem = mem, .disk = self->peer.disk, .what = i, .end = now_ms() + 3000,
		};
		ASSERT_EQ(0, pthread_create(&users[i].thread, NULL, use, &users[i]));
	}
	usleep(1000 * 1000);
	EXPECT_EQ(0, unbind_node(self, variant));
	for (i = 0; i < ARRAY_SIZE(users); i++)
		ASSERT_EQ(0, pthread_join(users[i].thread, NULL));
	EXPECT_EQ(0, munmap(mem, SZ_4M));
	ASSERT_EQ(0, attach(self, variant));
	EXPECT_EQ(self->available, memory_left(self));
}

TEST_HARNESS_MAIN
