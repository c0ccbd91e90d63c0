// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of how memory is cleared that closed files have left. The tests watch it
 * through the resource file of the BAR, which is no user of the memory. See testbed.h
 * for the environment variables.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/wait.h>

#include "bar.h"
#include "mmap_fixture.h"

#define SIZE		(SZ_2M + 3 * SZ_4K)
#define NR_PAGES	(SIZE / SZ_4K)
/* How long the worker of the kernel may take. */
#define WAIT_MS		20000

/* The pages of a mapping, as they are seen through the BAR. */
struct view {
	void *pages[NR_PAGES];
};

/* Map the start of the BAR that has @mem, and find its pages: 0 or a negative errno. */
static int view_of(const struct pci_fn *fn, const void *mem, struct view *view)
{
	uint64_t phys[NR_PAGES], end = 0;
	struct pci_bar res;
	int bar, i;
	void *view_bar;

	for (i = 0; i < NR_PAGES; i++) {
		phys[i] = phys_addr(mem + i * SZ_4K);
		if (phys[i] + SZ_4K > end)
			end = phys[i] + SZ_4K;
	}
	for (bar = 0; bar < 6; bar++) {
		if (!pci_fn_bar(fn, bar, &res) && res.start < end && end - res.start <= res.len)
			break;
	}
	if (bar == 6)
		return -ENXIO;
	/* Not all of the BAR: its parts may have several cache modes. */
	view_bar = pci_fn_map_bar(fn, bar, end - res.start);
	if (!view_bar)
		return -errno;
	for (i = 0; i < NR_PAGES; i++) {
		if (phys[i] < res.start)
			return -ENXIO;
		view->pages[i] = view_bar + (phys[i] - res.start);
	}
	return 0;
}

/* How many pages of a view hold what mmio_fill() has written to the mapping. */
static int nr_filled(const struct view *view, uint64_t seed)
{
	int i, nr = 0;

	for (i = 0; i < NR_PAGES; i++)
		nr += mmio_check(view->pages[i], SZ_4K, seed + i) == -1;
	return nr;
}

static int nr_clear(const struct view *view)
{
	int i, nr = 0;

	for (i = 0; i < NR_PAGES; i++)
		nr += !mmio_count_nonzero(view->pages[i], SZ_4K);
	return nr;
}

static void fill(void *mem, uint64_t seed)
{
	int i;

	for (i = 0; i < NR_PAGES; i++)
		mmio_fill(mem + i * SZ_4K, SZ_4K, seed + i);
	mmio_flush();
}

/* Open the node, map memory at offset 0 and fill it; NULL on error. */
static void *open_and_fill(const struct _test_data_mmap *self, int *fd, uint64_t seed)
{
	void *mem;

	*fd = open(self->node, O_RDWR | O_CLOEXEC);
	mem = *fd < 0 ? NULL : map_file(*fd, SIZE, 0);
	if (mem)
		fill(mem, seed);
	return mem;
}

/*
 * The memory of a file is cleared when the file has been closed, without anybody
 * allocating it. What other files have is not, be it mapped or free.
 */
TEST_F_TIMEOUT(mmap, cleared_after_close, 180)
{
	struct view gone = {}, mapped = {}, freed = {};
	int fd, fd_mapped, fd_freed;
	void *mem, *mem_mapped, *mem_freed;

	if (variant->sysfs)
		SKIP(return, "p2pmem/allocate does not clear memory");
	/* In this order, so that they share parts of the memory. */
	mem_mapped = open_and_fill(self, &fd_mapped, 1000);
	ASSERT_NE(NULL, mem_mapped);
	mem = open_and_fill(self, &fd, 3000);
	ASSERT_NE(NULL, mem);
	mem_freed = open_and_fill(self, &fd_freed, 5000);
	ASSERT_NE(NULL, mem_freed);
	ASSERT_EQ(0, view_of(&self->fn, mem_mapped, &mapped));
	ASSERT_EQ(0, view_of(&self->fn, mem, &gone));
	ASSERT_EQ(0, view_of(&self->fn, mem_freed, &freed));
	ASSERT_EQ(0, munmap(mem_freed, SIZE));
	EXPECT_EQ(NR_PAGES, nr_filled(&gone, 3000));

	/* As long as the file is open, the memory is its own. */
	ASSERT_EQ(0, munmap(mem, SIZE));
	EXPECT_TRUE(WAIT_FOR(memory_left(self) == self->available - SIZE, 2000));
	usleep(200 * 1000);
	EXPECT_EQ(NR_PAGES, nr_filled(&gone, 3000));
	ASSERT_EQ(0, close(fd));
	EXPECT_TRUE(WAIT_FOR(nr_clear(&gone) == NR_PAGES, WAIT_MS)) {
		TH_LOG("%d of %lu pages are clear", nr_clear(&gone), NR_PAGES);
	}

	EXPECT_EQ(NR_PAGES, nr_filled(&mapped, 1000));
	EXPECT_EQ(NR_PAGES, nr_filled(&freed, 5000));
	ASSERT_EQ(0, close(fd_freed));
	EXPECT_TRUE(WAIT_FOR(nr_clear(&freed) == NR_PAGES, WAIT_MS));
	ASSERT_EQ(0, munmap(mem_mapped, SIZE));
	ASSERT_EQ(0, close(fd_mapped));
	EXPECT_TRUE(WAIT_FOR(nr_clear(&mapped) == NR_PAGES, WAIT_MS));
}

/* Memory is also cleared if others have allocated a part of the huge page since. */
TEST_F_TIMEOUT(mmap, cleared_in_part, 180)
{
	struct view gone = {};
	int fd, other, i;
	void *mem, *part;

	if (variant->sysfs)
		SKIP(return, "p2pmem/allocate does not clear memory");
	mem = open_and_fill(self, &fd, 3000);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, view_of(&self->fn, mem, &gone));
	ASSERT_EQ(0, munmap(mem, SIZE));
	EXPECT_TRUE(drained(self));

	other = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, other);
	part = MAP(other, 5 * SZ_4K);
	for (i = 0; i < 5; i++)
		mmio_fill(part + i * SZ_4K, SZ_4K, i);
	mmio_flush();
	/* The part is one of that memory. */
	EXPECT_GT(NR_PAGES, nr_filled(&gone, 3000));
	ASSERT_EQ(0, close(fd));
	EXPECT_TRUE(WAIT_FOR(nr_filled(&gone, 3000) == 0 && nr_clear(&gone) >= NR_PAGES - 5,
			     WAIT_MS)) {
		TH_LOG("%d of %lu pages are clear", nr_clear(&gone), NR_PAGES);
	}
	for (i = 0; i < 5; i++)
		EXPECT_EQ(-1, mmio_check(part + i * SZ_4K, SZ_4K, i));
	ASSERT_EQ(0, munmap(part, 5 * SZ_4K));
	close(other);
}

/*
 * Take memory of various sizes, check that it is clear, write to it, and check that it
 * stays so, until the time is over. Returns the number of errors.
 */
static int take_and_close(const char *node, bool clear, int seed, uint64_t end)
{
	static const size_t sizes[] = { SZ_4K, 3 * SZ_4K, 16 * SZ_4K, SZ_1M };
	int fd, round, errors = 0;
	size_t len;
	void *mem;

	for (round = seed; now_ms() < end && !errors; round++) {
		len = sizes[(round + seed) % ARRAY_SIZE(sizes)];
		fd = open(node, O_RDWR | O_CLOEXEC);
		mem = fd < 0 ? NULL : map_file(fd, len, 0);
		if (!mem) {
			errors++;
			break;
		}
		if (clear)
			errors += mmio_count_nonzero(mem, len) > 0;
		mmio_fill(mem, len, round);
		errors += mmio_check(mem, len, round) != -1;
		/* Close the file with memory that is free, or with memory that is mapped. */
		if (round & 1) {
			close(fd);
			munmap(mem, len);
		} else {
			munmap(mem, len);
			close(fd);
		}
	}
	return errors;
}

/* The same with pci_alloc_p2pmem(), one page at a time. */
static int take_in_kernel(const struct pci_fn *fn, uint64_t end)
{
	while (now_ms() < end)
		if (module_run("alloc %s", fn->name))
			return 1;
	return 0;
}

/*
 * Processes allocate what the worker is clearing: with the node, and with
 * p2pmem/allocate and as drivers do if the memory has a pool. None sees what another has left, and
 * none loses what it has written. No allocation fails.
 */
TEST_F_TIMEOUT(mmap, cleared_while_used, 180)
{
	char allocate[256];
	pid_t pids[5];
	uint64_t end;
	int i, nr;

	if (variant->sysfs)
		SKIP(return, "p2pmem/allocate does not clear memory");
	snprintf(allocate, sizeof(allocate), "%s", pci_fn_path(&self->fn, "p2pmem/allocate"));
	if (access(allocate, F_OK))
		allocate[0] = '\0';
	/* The module may be missing. */
	nr = allocate[0] && !module_load() ? ARRAY_SIZE(pids) : ARRAY_SIZE(pids) - 1;
	end = now_ms() + 1000 * rounds(5);
	for (i = 0; i < nr; i++) {
		bool sysfs = allocate[0] && i == 3;

		pids[i] = fork_child();
		ASSERT_LE(0, pids[i]);
		if (!pids[i] && i == 4)
			_exit(take_in_kernel(&self->fn, end));
		if (!pids[i])
			_exit(take_and_close(sysfs ? allocate : self->node, !sysfs, i, end));
	}
	for (i = 0; i < nr; i++)
		EXPECT_EQ(0, wait_child(pids[i], 60000));
}

/*
 * Who gets the very page that is being cleared waits until it is clear, by the node and
 * in the kernel: later, zeros would overwrite what the new owner writes.
 */
TEST_F_TIMEOUT(mmap, cleared_while_taken, 180)
{
	uint64_t phys, start;
	cpu_set_t allowed;
	bool in_kernel;
	pid_t child;
	int fd, i;
	void *mem;

	if (variant->sysfs)
		SKIP(return, "p2pmem/allocate does not clear memory");
	/* Elsewhere than on x86, the function is inline. */
	if (module_load() || module_run("delay-work __iowrite64_copy 0"))
		SKIP(return, "no test module, no kprobes, or no such function");
	ASSERT_EQ(0, module_run("off"));
	/* The worker runs, and disables interrupts, where the file is closed. */
	ASSERT_EQ(0, sched_getaffinity(0, sizeof(allowed), &allowed));
	if (!run_on(&allowed, 1))
		SKIP(return, "needs two processors");

	in_kernel = !access(pci_fn_path(&self->fn, "p2pmem/size"), F_OK);
	for (i = 0; i <= in_kernel; i++) {
		fd = open(self->node, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, fd);
		mem = MAP(fd, SZ_4K);
		mmio_fill(mem, SZ_4K, 1);
		phys = phys_addr(mem);
		ASSERT_EQ(0, munmap(mem, SZ_4K));
		ASSERT_EQ(0, module_run("delay-work __iowrite64_copy 500"));
		child = fork_child();
		ASSERT_LE(0, child);
		if (!child) {
			usleep(200 * 1000);
			_exit(!run_on(&allowed, 0) || close(fd));
		}
		ASSERT_EQ(0, close(fd));
		EXPECT_EQ(0, module_hits());
		ASSERT_TRUE(WAIT_FOR(module_hits() == 1, 2000));
		start = now_ms();

		if (i) {
			EXPECT_EQ(0, module_run("alloc %s", self->fn.name));
		} else {
			mem = MAP(self->fd, SZ_4K);
			EXPECT_EQ(phys, phys_addr(mem));
			EXPECT_EQ(0, mmio_count_nonzero(mem, SZ_4K));
		}
		EXPECT_LT(300, now_ms() - start);
		EXPECT_EQ(0, wait_child(child, 10000));
		ASSERT_EQ(0, module_run("off"));
		if (!i) {
			mmio_fill(mem, SZ_4K, 2);
			usleep(10 * 1000);
			EXPECT_EQ(-1, mmio_check(mem, SZ_4K, 2));
			ASSERT_EQ(0, munmap(mem, SZ_4K));
		}
	}
}

/* Memory that a disk still reads when the file is closed is left alone. */
TEST_F_TIMEOUT(mmap, cleared_not_under_dma, 180)
{
	struct io_event events[4];
	aio_context_t ctx;
	void *mem, *ram;
	int fd;

	if (variant->sysfs)
		SKIP(return, "p2pmem/allocate does not clear memory");
	if (self->peer.dma)
		SKIP(return, "the peer cannot reach the memory");
	if (!peer_can_throttle())
		SKIP(return, "needs a way to throttle the disk");
	ram = ram_map(SZ_1M);
	ASSERT_NE(NULL, ram);
	fd = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	mem = MAP(fd, SZ_1M);
	mmio_fill(mem, SZ_1M, 7);
	mmio_flush();
	ASSERT_EQ(0, aio_setup(4, &ctx));
	ASSERT_EQ(0, peer_throttle(&self->peer));
	ASSERT_EQ(0, submit_quarters(self, ctx, IOCB_CMD_PWRITE, mem));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
	ASSERT_EQ(0, close(fd));
	EXPECT_GT(self->available, memory_left(self));
	EXPECT_EQ(4, aio_wait(ctx, 4, 4, events, 60));
	ASSERT_EQ(0, peer_unthrottle(&self->peer));
	ASSERT_EQ(0, pread_all(self->peer.disk, ram, SZ_1M, DISK_OFFSET));
	EXPECT_EQ(-1, mmio_check(ram, SZ_1M, 7));
}

/* The device can be unbound while the worker clears much memory. */
TEST_F_TIMEOUT(mmap, cleared_while_unbound, 180)
{
	uint64_t start;
	size_t i;
	void *mem;

	if (variant->sysfs)
		SKIP(return, "p2pmem/allocate does not clear memory");
	mem = MAP(self->fd, self->available);
	for (i = 0; i < self->available; i += SZ_4K)
		mmio_write64(mem + i, 1);
	ASSERT_EQ(0, munmap(mem, self->available));
	ASSERT_EQ(0, close(self->fd));
	start = now_ms();
	EXPECT_EQ(0, unbind_node(self, variant));
	EXPECT_LT(now_ms() - start, 5000);
}

TEST_HARNESS_MAIN
