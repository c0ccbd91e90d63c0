// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of unbinding p2pbar, and of removing its device, while it is used. See
 * testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include "aio.h"
#include "p2pbar_fixture.h"

/* Unbinding ends all use of an open file, and of its objects and mappings, for good. */
TEST_F_TIMEOUT(p2pbar, unbind_keyed, 90)
{
	uint64_t key, unmapped, gone, val;
	struct p2pbar_peer peer;
	struct p2pmem_info info;
	int old = self->fd, i;
	void *mem, *freed;

	mem = MAP_OBJECT(old, P2PBAR_MEM, SZ_1M, &key);
	page_mark(mem, SZ_1M / 2, 1);
	freed = MAP_OBJECT(old, P2PBAR_MEM, SZ_1M, &gone);
	page_mark(freed, SZ_1M, 1);
	ASSERT_EQ(0, free_object(old, gone));
	ASSERT_EQ(0, alloc_object(old, P2PBAR_MEM, SZ_1M, &unmapped));
	/* The workqueue still has pages to free when the driver is unbound. */
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
		EXPECT_EQ(-ENODEV, ask_peer(old, self->peer.fn.name, &peer));
		/* The second round: the driver is bound again, the file stays dead. */
		if (!i)
			ASSERT_EQ(0, attach(self));
	}
	EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, munmap(mem, SZ_1M));
	EXPECT_EQ(0, close(old));
	EXPECT_EQ(0, munmap(freed, SZ_1M));
	EXPECT_EQ(0, map_errno(self->fd, SZ_4K, 0));
}

/* Put a new device into the slot, bind the driver and open the node. */
static bool plug_in(struct _test_data_p2pbar *self)
{
	int tries;

	/* The slot may not be ready right after the removal. */
	for (tries = 0; tries < 10; tries++) {
		if (system(getenv("P2PDMA_PLUG")))
			return false;
		if (WAIT_FOR(pci_fn_is_present(&self->fn), 3000))
			break;
	}
	/* The removed device's file has stayed open until the new device was there. */
	close(self->fd);
	/* The function is in sysfs a moment before a driver can be bound. */
	for (tries = 0; tries < 100; tries++) {
		if (!attach(self))
			return true;
		usleep(50 * 1000);
	}
	return false;
}

/* The device is removed while files, mappings and DMA use it. */
TEST_F_TIMEOUT(p2pbar, unplug, 150)
{
	const char *unplug = getenv("P2PDMA_UNPLUG");
	void *mem, *object;
	uint64_t key, val;
	pid_t child;
	int idle;

	if (!unplug || !getenv("P2PDMA_PLUG"))
		SKIP(return, "P2PDMA_UNPLUG and P2PDMA_PLUG are not set");
	idle = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, idle);
	mem = map_file(self->fd, SZ_2M, 0);
	ASSERT_NE(NULL, mem);
	page_mark(mem, SZ_1M, 1);
	object = MAP_OBJECT(self->fd, P2PBAR_UAR_NC, SZ_4K, &key);
	EXPECT_EQ(0, try_write64(object, 1));
	child = dma_until_gone(self->peer.disk, mem, SZ_1M, self->peer.dma);
	ASSERT_LT(0, child);

	ASSERT_EQ(0, system(unplug));
	EXPECT_TRUE(WAIT_FOR(!pci_fn_is_present(&self->fn), 30000));
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
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_1M));
}

/* The removal waits until the DMA of a slow peer is over. */
TEST_F_TIMEOUT(p2pbar, unplug_slow_client, 150)
{
	const char *unplug = getenv("P2PDMA_UNPLUG");
	const size_t len = SZ_1M / 2;
	struct io_event events[8];
	aio_context_t ctx;
	uint64_t val;
	pid_t child;
	void *mem;
	int i;

	if (!unplug || !getenv("P2PDMA_PLUG") || !peer_can_throttle())
		SKIP(return, "P2PDMA_UNPLUG, _PLUG, _SLOW and _FAST are not all set");
	if (self->peer.dma)
		SKIP(return, "the peer cannot reach the memory");
	ASSERT_EQ(0, aio_setup(8, &ctx));
	mem = map_file(self->fd, 8 * len, 0);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, peer_throttle(&self->peer));
	/* Enough for longer than pciehp waits after the attention button: 5 s. */
	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, aio_submit(ctx, IOCB_CMD_PREAD, self->peer.disk, mem + i * len, len,
					DISK_OFFSET + i * len));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		_exit(!!system(unplug));

	EXPECT_TRUE(WAIT_FOR(try_read64(mem, &val) == SIGBUS, 15000));
	EXPECT_TRUE(pci_fn_is_present(&self->fn));
	ASSERT_EQ(8, aio_wait(ctx, 8, 8, events, 90));
	for (i = 0; i < 8; i++)
		EXPECT_EQ(len, events[i].res);
	EXPECT_TRUE(WAIT_FOR(!pci_fn_is_present(&self->fn), 5000));
	EXPECT_EQ(0, wait_child(child, 5000));
	ASSERT_TRUE(plug_in(self));
	EXPECT_TRUE(drained(self));
}

TEST_HARNESS_MAIN
