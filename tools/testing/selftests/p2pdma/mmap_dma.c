// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of DMA between a disk and a mapping. See testbed.h for the environment
 * variables.
 */
#define _GNU_SOURCE
#include <sys/ioctl.h>

#include "../../../../mm/gup_test.h"
#include "mmap_fixture.h"

/* Of include/linux/mm_types.h. */
#define FOLL_WRITE	0x1
#define FOLL_PCI_P2PDMA	0x400

static const size_t lengths[] = {
	SZ_4K, 2 * SZ_4K, 3 * SZ_4K, 16 * SZ_4K, 33 * SZ_4K, 128 * SZ_4K, SZ_1M, SZ_2M + SZ_4K,
};

/* The peer can access mappings of any size. */
TEST_F_TIMEOUT(mmap, sizes_and_dma, 120)
{
	size_t i, len;
	void *mem;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		len = lengths[i];
		mem = MAP(self->fd, len);
		mmio_fill(mem, len, i);
		EXPECT_EQ(-1, mmio_check(mem, len, i));
		EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, len)) {
			TH_LOG("%zu bytes", len);
		}
		if (self->peer.dma)
			EXPECT_EQ(-1, mmio_check(mem, len, i));
		EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, mem, len)) {
			TH_LOG("%zu bytes", len);
		}
		ASSERT_EQ(0, munmap(mem, len));
	}
	EXPECT_TRUE(drained(self));
}

/* The first access to the pages of a mapping is one by DMA, and finds them not mapped. */
TEST_F_TIMEOUT(mmap, untouched_dma, 90)
{
	void *mem, *ram;

	mem = MAP(self->fd, SZ_1M);
	ASSERT_EQ(0, madvise(mem, SZ_1M, MADV_DONTNEED));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_1M));
	ASSERT_EQ(0, munmap(mem, SZ_1M));

	ram = ram_map(SZ_1M);
	ASSERT_NE(NULL, ram);
	mmio_fill(ram, SZ_1M, now_ms());
	ASSERT_EQ(0, pwrite_all(self->peer.disk, ram, SZ_1M, DISK_OFFSET));
	mem = MAP(self->fd, SZ_1M);
	EXPECT_EQ(self->peer.dma, pwrite_all(self->peer.disk, mem, SZ_1M, DISK_OFFSET));
	ASSERT_EQ(0, pread_all(self->peer.disk, ram, SZ_1M, DISK_OFFSET));
	if (!self->peer.dma)
		EXPECT_EQ(mmio_checksum(mem, SZ_1M), mmio_checksum(ram, SZ_1M));
}

/* Memory that is unmapped under DMA is not handed out again before the DMA is over. */
TEST_F_TIMEOUT(mmap, async_munmap, 120)
{
	struct io_event events[4];
	int round, done, n, i, ret;
	aio_context_t ctx;
	void *mem;

	ret = aio_setup(4, &ctx);
	if (ret)
		SKIP(return, "no asynchronous I/O: %s", strerror(-ret));
	for (round = 0; round < rounds(50); round++) {
		mem = MAP(self->fd, SZ_1M);
		ASSERT_EQ(0, submit_quarters(self, ctx, IOCB_CMD_PREAD, mem));
		ASSERT_EQ(0, munmap(mem, SZ_1M));
		mem = MAP(self->fd, SZ_1M);
		page_mark(mem, SZ_1M, round);
		for (done = 0; done < 4; done += n) {
			n = aio_wait(ctx, 1, 4 - done, events, 10);
			ASSERT_LT(0, n);
			for (i = 0; i < n; i++)
				EXPECT_EQ(self->peer.dma ?: SZ_1M / 4, events[i].res);
		}
		EXPECT_EQ(-1, page_check(mem, SZ_1M, round));
		ASSERT_EQ(0, munmap(mem, SZ_1M));
	}
	EXPECT_TRUE(drained(self));
}

/*
 * The interrupt handler of the disk puts the last reference to a page, if the
 * page is unmapped before the disk has written it. A throttled disk makes sure
 * of this. Without throttling it is likely enough for many rounds, but no more.
 */
TEST_F_TIMEOUT(mmap, free_in_interrupt, 120)
{
	const bool sure = peer_can_throttle();
	struct io_event events[4] = {};
	int round, i, hits;
	aio_context_t ctx;
	void *mem;

	if (self->peer.dma)
		SKIP(return, "the peer cannot reach the memory");
	if (module_load() || module_run("off") ||
	    module_run("count-irq free_zone_device_folio 0"))
		SKIP(return, "no module " TEST_MODULE ", or no kprobes");
	ASSERT_EQ(0, aio_setup(4, &ctx));
	if (sure)
		ASSERT_EQ(0, peer_throttle(&self->peer));
	for (round = 0; round < (sure ? 3 : 100) && module_hits() < 1; round++) {
		mem = MAP(self->fd, SZ_1M);
		ASSERT_EQ(0, submit_quarters(self, ctx, IOCB_CMD_PWRITE, mem));
		ASSERT_EQ(0, munmap(mem, SZ_1M));
		ASSERT_EQ(4, aio_wait(ctx, 4, 4, events, 60));
		for (i = 0; i < 4; i++)
			EXPECT_EQ(SZ_1M / 4, events[i].res);
	}
	hits = module_hits();
	EXPECT_EQ(0, module_run("off"));
	EXPECT_TRUE(drained(self));
	if (!hits && !sure)
		SKIP(return, "the disk was faster than munmap()");
	EXPECT_LT(0, hits);
}

/* Pin by gup_test, several pages a call. Return how many bytes it pinned. */
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

/* pin_user_pages_fast() pins the pages only with FOLL_PCI_P2PDMA. */
TEST_F_TIMEOUT(mmap, gup_fast, 90)
{
	const uint32_t flags = FOLL_WRITE | FOLL_PCI_P2PDMA;
	void *mem;
	int fd;

	fd = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		SKIP(return, "needs CONFIG_GUP_TEST");
	mem = MAP(self->fd, SZ_4M);
	/* Pages that are not mapped yet; one page a call; half of the pages a call. */
	EXPECT_EQ(SZ_4M, pin_fast(fd, mem, SZ_4M, SZ_2M / SZ_4K, flags));
	EXPECT_EQ(SZ_4M, pin_fast(fd, mem, SZ_4M, 1, flags));
	EXPECT_EQ(SZ_4M, pin_fast(fd, mem, SZ_4M, SZ_2M / SZ_4K, flags));
	/* A caller that does not expect such pages gets none. */
	EXPECT_EQ(0, pin_fast(fd, mem, SZ_4K, 1, FOLL_WRITE));
}

TEST_HARNESS_MAIN
