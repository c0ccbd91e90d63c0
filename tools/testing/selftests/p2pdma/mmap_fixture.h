/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The fixture of the tests of mappings at offset 0, which hand out fresh memory.
 * Each test runs with the device nodes of p2pbar, nvme_cmb (in place of nvme, and as
 * the driver of its child) and the sample drivers
 * rust_driver_p2pmem and rust_driver_p2pmem_child and, to compare, with
 * p2pmem/allocate in sysfs.
 */
#ifndef SELFTESTS_P2PDMA_MMAP_FIXTURE_H
#define SELFTESTS_P2PDMA_MMAP_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/p2pmem.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "aio.h"
#include "dma.h"
#include "faults.h"
#include "mmio.h"
#include "node.h"
#include "pages.h"
#include "process.h"
#include "testbed.h"

/* The teardown runs in another process, which shares this structure. */
FIXTURE(mmap)
{
	struct pci_fn fn;	/* the function that has the memory */
	struct peer peer;
	char driver[64];	/* the function's driver before the test */
	char node[256];		/* the file that the test maps */
	uint64_t available;	/* bytes that are free while nobody uses the memory */
	int fd;			/* of the file */
};

FIXTURE_VARIANT(mmap)
{
	const char *env;	/* the variable that names the function */
	const char *driver;
	const char *child;	/* the driver of the function's child, which has the node */
	bool function;		/* it is the function that is unbound, not the child */
	bool sysfs;		/* map p2pmem/allocate, not the node of the driver */
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

FIXTURE_VARIANT_ADD(mmap, sample)
{
	.env = "P2PDMA_OTHER",
	.driver = "rust_driver_p2pmem",
};

/* It is the child that is unbound. */
FIXTURE_VARIANT_ADD(mmap, child)
{
	.env = "P2PDMA_OTHER",
	.driver = "rust_driver_p2pmem_child",
	.child = "rust_driver_p2pmem_child",
};

FIXTURE_VARIANT_ADD(mmap, nvme_child)
{
	.env = "P2PDMA_CMB",
	.driver = "nvme",
	.child = "nvme_cmb",
	.function = true,
};

FIXTURE_VARIANT_ADD(mmap, p2pmem)
{
	.env = "P2PDMA_CMB",
	.driver = "nvme_cmb",
	.sysfs = true,
};

/* Map memory at offset 0, or end the test. */
#define MAP(fd, len) ({						\
	void *__mem = map_file(fd, len, 0);			\
	ASSERT_NE(NULL, __mem);					\
	__mem;							\
})

/* Expect that a condition is true in a child of the test's process. */
#define EXPECT_IN_CHILD(cond) do {				\
	pid_t __child = fork_child();				\
	if (!__child)						\
		_exit(!(cond));					\
	EXPECT_EQ(0, wait_child(__child, 10000));		\
} while (0)

/* Bind the driver that has the node, again if it is bound already: 0 or a negative errno. */
static inline int bind_node(const struct _test_data_mmap *self,
			    const struct _fixture_variant_mmap *variant)
{
	char driver[64];
	int ret;

	ret = pci_fn_driver(&self->fn, driver, sizeof(driver));
	if (ret)
		return ret;
	if (!variant->child || variant->function || strcmp(driver, variant->driver))
		return pci_fn_rebind(&self->fn, variant->driver);
	return child_unbind(&self->fn) ?: child_bind(&self->fn, variant->child);
}

static inline int unbind_node(const struct _test_data_mmap *self,
			      const struct _fixture_variant_mmap *variant)
{
	return variant->child && !variant->function ? child_unbind(&self->fn) :
		pci_fn_unbind(&self->fn);
}

/* The module with the node. */
static inline const char *module_of(const struct _fixture_variant_mmap *variant)
{
	return variant->child ?: variant->driver;
}

/* Bind the driver and open the file: 0 or a negative errno. */
static inline int attach(struct _test_data_mmap *self, const struct _fixture_variant_mmap *variant)
{
	int ret;

	ret = bind_node(self, variant);
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

/* How many bytes are free, ~0 on error. */
static inline uint64_t memory_left(const struct _test_data_mmap *self)
{
	struct p2pmem_info info;
	uint64_t val;

	if (strncmp(self->node, "/sys/", 5))
		return node_info(self->node, 0, &info) ? ~0ull : info.size - info.used;
	return pci_fn_read_u64(&self->fn, "p2pmem/available", &val) ? ~0ull : val;
}

/* Whether all memory is free. DMA or a workqueue may keep it for a moment: wait. */
static inline bool drained(const struct _test_data_mmap *self)
{
	return WAIT_FOR(memory_left(self) == self->available, 2000);
}

static inline int rounds(int def)
{
	return number_from_env("P2PDMA_ROUNDS", def);
}

/* Submit four requests to the disk, each for a quarter of 1 MiB: 0 or a negative errno. */
static inline int submit_quarters(const struct _test_data_mmap *self, aio_context_t ctx, int opcode,
				  void *mem)
{
	const size_t len = SZ_1M / 4;
	int i, ret = 0;

	for (i = 0; i < 4 && !ret; i++)
		ret = aio_submit(ctx, opcode, self->peer.disk, mem + i * len, len,
				 DISK_OFFSET + i * len);
	return ret;
}

/* A child that uses the memory in a loop shares this with the test's process. */
struct loop {
	int rounds;
	int err;		/* why the loop ended: a negative errno, or a signal */
	uint64_t ended;		/* the time of the last round, by now_ms() */
};

/* Start such a child, and wait for its third round; -1 if it does not get there. */
static inline pid_t start_loop(const struct _test_data_mmap *self, struct loop *loop)
{
	uint64_t end = now_ms() + 60000, val;
	void *mem;
	pid_t pid;

	memset(loop, 0, sizeof(*loop));
	pid = fork_child();
	if (pid)
		return WAIT_FOR(__atomic_load_n(&loop->rounds, __ATOMIC_SEQ_CST) >= 3, 10000) ?
			pid : -1;
	mem = map_file(self->fd, SZ_1M, 0);
	if (!mem)
		_exit(1);
	page_mark(mem, SZ_1M, 1);
	while (!loop->err && now_ms() < end) {
		if (!self->peer.dma)
			loop->err = pread_all(self->peer.disk, mem, SZ_1M, 0);
		if (!loop->err)
			loop->err = try_read64(mem + SZ_1M - SZ_4K, &val);
		loop->ended = now_ms();
		__atomic_fetch_add(&loop->rounds, 1, __ATOMIC_SEQ_CST);
	}
	_exit(!loop->err);
}

FIXTURE_SETUP(mmap)
{
	const char *lacks = testbed_lacks(variant->env);
	int ret;

	if (lacks)
		SKIP(return, "%s", lacks);
	ASSERT_EQ(0, pci_fn_init(&self->fn, getenv(variant->env)));
	ASSERT_EQ(0, peer_open(&self->peer));

	/* Loading the module may bind the driver: remember what was bound before. */
	ASSERT_EQ(0, pci_fn_driver(&self->fn, self->driver, sizeof(self->driver)));
	if (load_driver(module_of(variant)))
		SKIP(return, "no module %s", module_of(variant));
	ret = attach(self, variant);
	self->available = ret ? 0 : memory_left(self);
	if (!ret && (self->available < 2 * SZ_4M || self->available == ~0ull))
		ret = -ENOSPC;
	/* The harness does not run the teardown if the setup fails. */
	if (ret)
		pci_fn_rebind(&self->fn, self->driver);
	ASSERT_EQ(0, ret);
}

FIXTURE_TEARDOWN_PARENT(mmap)
{
	if (self->peer.slow)
		EXPECT_EQ(0, peer_unthrottle(&self->peer));
	/* A test that failed may have left its probes and its fault injection behind. */
	module_run("off");
	faults_exempt(NULL, NULL);
	/* The test's process has exited, so that all its memory has to be free. */
	if (!access(self->node, F_OK))
		EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, pci_fn_rebind(&self->fn, self->driver));
}

#endif
