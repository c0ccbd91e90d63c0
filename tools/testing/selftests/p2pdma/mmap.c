// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of what mmap() accepts, and of what programs can do to a mapping. See
 * testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include "mmap_fixture.h"

/* A private mapping would copy on write, and so read MMIO. It is refused. */
TEST_F_TIMEOUT(mmap, private_refused, 90)
{
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SZ_4K, PROT_READ | PROT_WRITE, MAP_PRIVATE, self->fd, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SZ_4K, PROT_READ, MAP_PRIVATE, self->fd, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(self->available, memory_left(self));
}

/* What a child that maps in a loop shares with the test's process. */
struct map_loop {
	int fd;
	int flags;
	size_t len;
	uint64_t end;		/* by now_ms() */
	int mapped;		/* how often mmap() succeeded */
	int failed;		/* how often it failed */
	int err;		/* an errno of these: EINVAL only if there was no other */
};

static void map_in_loop(struct map_loop *loop)
{
	void *mem;

	while (now_ms() < loop->end) {
		mem = mmap(NULL, loop->len, PROT_READ | PROT_WRITE, loop->flags, loop->fd, 0);
		if (mem != MAP_FAILED) {
			munmap(mem, loop->len);
			loop->mapped++;
		} else {
			if (!loop->err || errno != EINVAL)
				loop->err = errno;
			loop->failed++;
		}
	}
}

/*
 * mmap() refuses a private mapping before it allocates: the attempt to map all
 * memory so does not make another mmap() fail. The two run in two processes, as
 * one process does not run two mmap() at a time.
 */
TEST_F_TIMEOUT(mmap, private_takes_nothing, 90)
{
	uint64_t end = now_ms() + 2000;
	struct map_loop *private = ram_map_shared(SZ_4K), shared = {
		.fd = self->fd, .flags = MAP_SHARED, .len = SZ_4K, .end = end,
	};
	pid_t child;

	ASSERT_NE(NULL, private);
	private->fd = self->fd;
	private->flags = MAP_PRIVATE;
	private->len = self->available;
	private->end = end;
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		map_in_loop(private);
		_exit(0);
	}
	map_in_loop(&shared);
	EXPECT_EQ(0, wait_child(child, 10000));
	EXPECT_EQ(0, private->mapped);
	EXPECT_LT(0, private->failed);
	EXPECT_EQ(EINVAL, private->err);
	EXPECT_LT(0, shared.mapped);
	EXPECT_EQ(0, shared.failed) {
		TH_LOG("%d of %d: %s", shared.failed, shared.failed + shared.mapped,
		       strerror(shared.err));
	}
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

/* The mapping is shared, is neither VM_IO nor VM_PFNMAP, cannot grow, and is not dumped. */
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
	EXPECT_EQ(NULL, strstr(line, " mm"));
}

/* Read a number in fdinfo of the file, ~0 if it is not there. */
static uint64_t fdinfo(const struct _test_data_mmap *self, const char *name)
{
	uint64_t val;

	return fdinfo_read(self->fd, name, &val) ? ~0ull : val;
}

TEST_F_TIMEOUT(mmap, fdinfo, 90)
{
	void *mem;

	if (variant->sysfs)
		SKIP(return, "files in sysfs have no such fdinfo");
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
	/* mremap() can neither copy the mapping, nor move it and leave an empty one. */
	EXPECT_EQ(MAP_FAILED, mremap(mem, 0, 4 * SZ_4K, MREMAP_MAYMOVE));
	EXPECT_EQ(MAP_FAILED, mremap(mem, 4 * SZ_4K, 4 * SZ_4K,
				     MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
	EXPECT_EQ(-1, page_check(mem, 4 * SZ_4K, 1));
}

/* mremap() can move and shrink the mapping, as a whole and in part. */
TEST_F_TIMEOUT(mmap, remap, 90)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	void *mem, *to, *part;
	uint64_t val;

	mem = MAP(self->fd, SZ_4M);
	page_mark(mem, SZ_4M, 1);
	/* An address that is not aligned for huge pages. */
	to = ram_map(2 * SZ_4M) + SZ_4K;
	ASSERT_EQ(to, mremap(mem, SZ_4M, SZ_4M, flags, to));
	EXPECT_EQ(SIGSEGV, try_read64(mem, &val));
	EXPECT_EQ(-1, page_check(to, SZ_4M, 1));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, to, SZ_1M));
	page_mark(to, SZ_4M, 2);

	/* Move a part. It keeps its pages, also when they are mapped anew. */
	part = ram_map(SZ_1M);
	ASSERT_EQ(part, mremap(to + SZ_1M, SZ_1M, SZ_1M, flags, part));
	EXPECT_EQ(SIGSEGV, try_read64(to + SZ_1M, &val));
	ASSERT_EQ(0, madvise(to, SZ_1M, MADV_DONTNEED));
	ASSERT_EQ(0, madvise(part, SZ_1M, MADV_DONTNEED));
	ASSERT_EQ(0, madvise(to + SZ_2M, SZ_2M, MADV_DONTNEED));
	EXPECT_EQ(-1, page_check(to, SZ_1M, 2));
	ASSERT_EQ(to + SZ_1M, mremap(part, SZ_1M, SZ_1M, flags, to + SZ_1M));
	EXPECT_EQ(-1, page_check(to, SZ_4M, 2));

	/* Shrink the mapping. */
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
	/* Ordinary memory with the same marks, to compare with. */
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
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem + SZ_1M + SZ_4K, 16 * SZ_4K));
	EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, mem + SZ_2M + SZ_4K, 16 * SZ_4K));
	EXPECT_EQ(-EFAULT, pread_all(self->peer.disk, mem + SZ_1M, SZ_4K, DISK_OFFSET));
	/* munmap() accepts a range with holes. */
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
	EXPECT_EQ(-EFAULT, pread_all(self->peer.disk, mem, SZ_4K, DISK_OFFSET));
	EXPECT_EQ(self->peer.dma, pwrite_all(self->peer.disk, mem, SZ_1M, DISK_OFFSET));
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

/*
 * A page that was mapped for reading can be written after mprotect(), or after
 * its soft-dirty bit was cleared. A child does so, because a write fault that
 * the kernel repeats for ever would hang the test.
 */
TEST_F_TIMEOUT(mmap, first_write, 90)
{
	uint64_t val;
	void *mem;

	mem = mmap(NULL, SZ_1M, PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_EQ(0, try_read64(mem, &val));
	ASSERT_EQ(0, mprotect(mem, SZ_1M, PROT_READ | PROT_WRITE));
	EXPECT_IN_CHILD(!try_write64(mem, 1));
	EXPECT_IN_CHILD(dma_in(self->peer.disk, mem, SZ_1M) == self->peer.dma);
	/* Without CONFIG_MEM_SOFT_DIRTY, clear_refs refuses this. */
	EXPECT_IN_CHILD((file_write("/proc/self/clear_refs", "4"), !try_write64(mem, 2)));
	EXPECT_EQ(2, mmio_read64(mem));
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

/* MADV_DONTNEED unmaps pages. The next access maps the same pages again. */
TEST_F_TIMEOUT(mmap, dontneed, 90)
{
	uint64_t phys;
	void *mem;

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
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_1M));
}

TEST_HARNESS_MAIN
