// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of functions that leave their slots while drivers of their children have
 * memory of theirs. See testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
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

/* The teardown runs in another process, which shares this structure. */
FIXTURE(slot)
{
	struct pci_fn fn;
	struct peer peer;
	char driver[64];	/* the function's driver before the test */
	char node[256];
	int fd;			/* of the node */
};

FIXTURE_VARIANT(slot)
{
	const char *env;	/* names the function */
	const char *module;	/* has the driver of the child */
	const char *driver;	/* of the function */
	const char *unplug;	/* the variables with the commands */
	const char *surprise;
	const char *plug;
};

FIXTURE_VARIANT_ADD(slot, child)
{
	.env = "P2PDMA_OTHER",
	.module = "rust_driver_p2pmem_child",
	.driver = "rust_driver_p2pmem_child",
	.unplug = "P2PDMA_UNPLUG",
	.surprise = "P2PDMA_SURPRISE",
	.plug = "P2PDMA_PLUG",
};

FIXTURE_VARIANT_ADD(slot, nvme_child)
{
	.env = "P2PDMA_CMB",
	.module = "nvme_cmb",
	.driver = "nvme",
	.unplug = "P2PDMA_UNPLUG_CMB",
	.surprise = "P2PDMA_SURPRISE_CMB",
	.plug = "P2PDMA_PLUG_CMB",
};

static int open_node(struct _test_data_slot *self)
{
	self->fd = misc_open(&self->fn, self->node, sizeof(self->node));
	return self->fd < 0 ? self->fd : 0;
}

FIXTURE_SETUP(slot)
{
	const char *lacks = testbed_lacks(variant->env);
	int ret;

	if (lacks)
		SKIP(return, "%s", lacks);
	if (!getenv(variant->unplug) || !getenv(variant->plug))
		SKIP(return, "%s and %s are not set", variant->unplug, variant->plug);
	ASSERT_EQ(0, pci_fn_init(&self->fn, getenv(variant->env)));
	ASSERT_EQ(0, peer_open(&self->peer));
	ASSERT_EQ(0, pci_fn_driver(&self->fn, self->driver, sizeof(self->driver)));
	if (load_driver(variant->module))
		SKIP(return, "no module %s", variant->module);
	ret = pci_fn_rebind(&self->fn, variant->driver) ?: open_node(self);
	/* The harness does not run the teardown if the setup fails. */
	if (ret)
		pci_fn_rebind(&self->fn, self->driver);
	ASSERT_EQ(0, ret);
}

FIXTURE_TEARDOWN_PARENT(slot)
{
	EXPECT_EQ(0, pci_fn_rebind(&self->fn, self->driver));
}

/* A process that reads a disk until this fails. */
static pid_t use_disk(const char *disk)
{
	uint64_t end = now_ms() + 60000;
	void *buf;
	pid_t pid;
	int fd;

	pid = fork_child();
	if (pid)
		return pid;
	fd = open(disk, O_RDONLY | O_DIRECT | O_CLOEXEC);
	buf = ram_map(SZ_1M);
	while (!pread_all(fd, buf, SZ_1M, 0) && now_ms() < end)
		;
	_exit(now_ms() >= end);
}

/*
 * Run @command, which empties the slot. The child and the memory go with the function. If
 * @use is true, the disk of an NVMe controller is in use at the time, too.
 */
static void empty_slot(struct __test_metadata *_metadata, struct _test_data_slot *self,
		       const struct _fixture_variant_slot *variant, const char *command,
		       bool use)
{
	int old = self->fd, ret = -ENODEV, tries;
	pid_t pid, user;
	char disk[64];
	uint64_t val;
	void *mem;

	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	page_mark(mem, SZ_4M, 1);
	pid = dma_until_gone(self->peer.disk, mem, SZ_1M, self->peer.dma);
	ASSERT_LT(0, pid);
	use = use && !strcmp(variant->driver, "nvme");
	if (use) {
		ASSERT_EQ(0, nvme_disk(&self->fn, disk, sizeof(disk)));
		user = use_disk(disk);
		ASSERT_LT(0, user);
		usleep(100 * 1000);
	}

	ASSERT_EQ(0, system(command));
	EXPECT_TRUE(WAIT_FOR(!pci_fn_is_present(&self->fn), 30000));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_4M - SZ_4K, 1));
	EXPECT_EQ(0, wait_child(pid, 10000));
	if (use)
		EXPECT_EQ(0, wait_child(user, 10000));
	EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);

	/* The slot may not be ready right after the removal. */
	for (tries = 0; tries < 10 && !pci_fn_is_present(&self->fn); tries++) {
		ASSERT_EQ(0, system(getenv(variant->plug)));
		WAIT_FOR(pci_fn_is_present(&self->fn), 3000);
	}
	for (tries = 0; tries < 100 && ret; tries++) {
		ret = pci_fn_rebind(&self->fn, variant->driver);
		usleep(50 * 1000);
	}
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, open_node(self));
	EXPECT_EQ(NULL, map_file(old, SZ_4K, 0));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	ASSERT_EQ(0, munmap(mem, SZ_4M));
	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_4M));
	EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, mem, SZ_4M));
}

/* Somebody asks for the function, and the kernel lets it go. */
TEST_F_TIMEOUT(slot, unplug, 150)
{
	empty_slot(_metadata, self, variant, getenv(variant->unplug), true);
}

/*
 * The function is gone before the kernel hears of it. QEMU 10 crashes if an NVMe controller goes
 * this way while it has requests in flight, so its disk is idle.
 */
TEST_F_TIMEOUT(slot, surprise, 150)
{
	const char *command = getenv(variant->surprise);
	char line[512];

	if (!command)
		SKIP(return, "%s is not set", variant->surprise);
	snprintf(line, sizeof(line), "%s %s", command, self->fn.name);
	empty_slot(_metadata, self, variant, line, false);
}

TEST_HARNESS_MAIN
