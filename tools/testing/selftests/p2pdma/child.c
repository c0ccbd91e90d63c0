// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of a driver whose memory belongs to the parent of its device: the sample
 * rust_driver_p2pmem_child. See testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "dma.h"
#include "mmio.h"
#include "node.h"
#include "pages.h"
#include "process.h"
#include "testbed.h"

#define DRIVER	"rust_driver_p2pmem_child"

/* The teardown runs in another process, which shares this structure. */
FIXTURE(child)
{
	struct pci_fn fn;
	struct peer peer;
	char driver[64];	/* the function's driver before the test */
	char node[256];
	int fd;			/* of the node */
};

static int open_node(struct _test_data_child *self)
{
	self->fd = misc_open(&self->fn, self->node, sizeof(self->node));
	return self->fd < 0 ? self->fd : 0;
}

static bool has_child(const struct _test_data_child *self)
{
	char name[64];

	return !child_name(&self->fn, name, sizeof(name));
}

FIXTURE_SETUP(child)
{
	const char *lacks = testbed_lacks("P2PDMA_OTHER");
	int ret;

	if (lacks)
		SKIP(return, "%s", lacks);
	ASSERT_EQ(0, pci_fn_init(&self->fn, getenv("P2PDMA_OTHER")));
	ASSERT_EQ(0, peer_open(&self->peer));
	ASSERT_EQ(0, pci_fn_driver(&self->fn, self->driver, sizeof(self->driver)));
	if (load_driver(DRIVER))
		SKIP(return, "no module " DRIVER);
	ret = pci_fn_rebind(&self->fn, DRIVER) ?: open_node(self);
	/* The harness does not run the teardown if the setup fails. */
	if (ret)
		pci_fn_rebind(&self->fn, self->driver);
	ASSERT_EQ(0, ret);
}

FIXTURE_TEARDOWN_PARENT(child)
{
	EXPECT_EQ(0, pci_fn_rebind(&self->fn, self->driver));
}

/* Unbinding the child takes the memory away, and leaves the parent as it is. */
TEST_F_TIMEOUT(child, child_unbound, 90)
{
	char driver[64];
	uint64_t val;
	pid_t pid;
	void *mem;

	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	page_mark(mem, SZ_4M, 1);
	pid = dma_until_gone(self->peer.disk, mem, SZ_1M, self->peer.dma);
	ASSERT_LT(0, pid);

	ASSERT_EQ(0, child_unbind(&self->fn));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_4M - SZ_4K, 1));
	EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(0, wait_child(pid, 10000));
	EXPECT_NE(0, access(self->node, F_OK));
	EXPECT_TRUE(has_child(self));
	EXPECT_EQ(0, pci_fn_driver(&self->fn, driver, sizeof(driver)));
	EXPECT_STREQ(DRIVER, driver);

	ASSERT_EQ(0, child_bind(&self->fn, DRIVER));
	ASSERT_EQ(0, open_node(self));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	ASSERT_EQ(0, munmap(mem, SZ_4M));
	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_4M));
	EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, mem, SZ_4M));
}

/* Unbinding the parent takes the memory away, and deletes the child. */
TEST_F_TIMEOUT(child, parent_unbound, 90)
{
	uint64_t val;
	pid_t pid;
	void *mem;
	int old;

	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	page_mark(mem, SZ_4M, 1);
	pid = dma_until_gone(self->peer.disk, mem, SZ_1M, self->peer.dma);
	ASSERT_LT(0, pid);

	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	EXPECT_FALSE(has_child(self));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_4M - SZ_4K, 1));
	EXPECT_EQ(0, wait_child(pid, 10000));
	EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);

	old = self->fd;
	ASSERT_EQ(0, pci_fn_rebind(&self->fn, DRIVER));
	ASSERT_EQ(0, open_node(self));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(NULL, map_file(old, SZ_4K, 0));
	ASSERT_EQ(0, munmap(mem, SZ_4M));
	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_4M));
}

/* The memory is in use while parent and child are unbound and bound in any order. */
TEST_F_TIMEOUT(child, rounds, 240)
{
	int round, max = number_from_env("P2PDMA_ROUNDS", 20);
	uint64_t val;
	void *mem;

	for (round = 0; round < max; round++) {
		mem = map_file(self->fd, SZ_4M, 0);
		ASSERT_NE(NULL, mem);
		/* Memory that others have used is cleared. */
		EXPECT_EQ(0, mmio_read64(mem + SZ_4M - SZ_4K));
		page_mark(mem, SZ_4M, round + 1);
		if (round % 3)
			ASSERT_EQ(0, child_unbind(&self->fn));
		if (round % 3 == 1) {
			ASSERT_EQ(0, child_bind(&self->fn, DRIVER));
		} else {
			ASSERT_EQ(0, pci_fn_unbind(&self->fn));
			ASSERT_EQ(0, pci_fn_rebind(&self->fn, DRIVER));
		}
		EXPECT_EQ(SIGBUS, try_read64(mem, &val));
		ASSERT_EQ(0, munmap(mem, SZ_4M));
		close(self->fd);
		ASSERT_EQ(0, open_node(self));
	}
}

TEST_HARNESS_MAIN
