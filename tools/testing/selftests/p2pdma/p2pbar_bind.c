// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of binding p2pbar: errors while it probes, and a BAR that others use.
 * See testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include "bar.h"
#include "faults.h"
#include "p2pbar_fixture.h"

static int op_open(void *arg)
{
	struct _test_data_p2pbar *self = arg;
	int fd = open(self->node, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int op_alloc(void *arg)
{
	struct _test_data_p2pbar *self = arg;
	uint64_t key;
	int ret;

	ret = alloc_object(self->fd, P2PBAR_MEM, 16 * SZ_4K, &key);
	return ret ?: free_object(self->fd, key);
}

static int op_map(void *arg)
{
	struct _test_data_p2pbar *self = arg;
	void *mem = map_file(self->fd, 16 * SZ_4K, 0);
	int ret = 0;

	if (!mem)
		return -errno;
	/*
	 * Let madvise() fault the pages in, as it returns an error. A fault of the
	 * task itself would be repeated.
	 */
	if (madvise(mem, 16 * SZ_4K, MADV_POPULATE_WRITE))
		ret = -errno;
	munmap(mem, 16 * SZ_4K);
	return ret;
}

/* Each allocation that open(), the ioctls and mmap() make fails once. Nothing leaks. */
TEST_F_TIMEOUT(p2pbar, allocations_fail, 600)
{
	static const struct {
		const char *name;
		int (*op)(void *arg);
	} ops[] = {
		{ "open", op_open },
		{ "alloc", op_alloc },
		{ "map", op_map },
	};
	int i, nth, ret, failed;

	if (!faults_ready())
		SKIP(return, "needs CONFIG_FAILSLAB and CONFIG_FAIL_PAGE_ALLOC");
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		failed = 0;
		for (nth = 1; nth < 1000; nth++) {
			ret = with_fault(nth, ops[i].op, self);
			if (ret == -ERANGE)
				break;
			failed += !!ret;
			EXPECT_TRUE(!ret || ret == -ENOMEM || ret == -EFAULT) {
				TH_LOG("%s: allocation %d: %s", ops[i].name, nth, strerror(-ret));
			}
			EXPECT_TRUE(drained(self)) {
				TH_LOG("%s: allocation %d", ops[i].name, nth);
			}
			EXPECT_TRUE(has_allocated(self->fd, 0));
		}
		EXPECT_EQ(-ERANGE, ret);
		EXPECT_LT(0, failed);
		EXPECT_EQ(0, ops[i].op(self));
	}
}

/* Each step of probing fails once. The driver returns the error. */
TEST_F_TIMEOUT(p2pbar, probe_fails, 120)
{
	static const char * const steps[] = {
		"pcim_p2pdma_init", "memremap_pages", "misc_register",
	};
	char buf[16];
	int i, ret;

	if (module_load())
		SKIP(return, "no module " TEST_MODULE);
	if (!pci_fn_read(&self->fn, "numa_node", buf, sizeof(buf)) && atoi(buf) >= 0)
		SKIP(return, "several NUMA nodes: another task probes");
	close(self->fd);
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ASSERT_EQ(0, pci_fn_unbind(&self->fn));
		ret = module_run("fail %s %d", steps[i], EDEADLK);
		if (ret == -EOPNOTSUPP)
			SKIP(return, "no kprobes, or not on this architecture");
		ASSERT_EQ(0, ret);
		/* No step returns this error by itself. */
		EXPECT_EQ(-EDEADLK, pci_fn_bind(&self->fn, "p2pbar", "p2pbar")) {
			TH_LOG("%s", steps[i]);
		}
		EXPECT_EQ(1, module_hits());
		ASSERT_EQ(0, module_run("off"));
		ASSERT_EQ(0, pci_fn_bind(&self->fn, "p2pbar", "p2pbar"));
	}
	ASSERT_EQ(0, attach(self));
	EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, map_errno(self->fd, SZ_4K, 0));
}

/* The driver refuses a function that does not have the BAR. */
TEST_F_TIMEOUT(p2pbar, absent_bar, 90)
{
	struct pci_fn *fn = &self->peer.fn;
	struct pci_bar res;

	ASSERT_EQ(0, pci_fn_bar(fn, parameter("bar", 2), &res));
	if (res.len)
		SKIP(return, "the peer has such a BAR");
	close(self->peer.disk);
	ASSERT_EQ(0, pci_fn_unbind(fn));
	EXPECT_EQ(-EINVAL, pci_fn_bind(fn, "p2pbar", "p2pbar"));
	/* The peer's own driver works afterwards. */
	EXPECT_EQ(0, pci_fn_bind(fn, "nvme", ""));
	EXPECT_EQ(0, peer_open(&self->peer));
}

/* The driver requests the BAR. Sysfs can map it all the same. */
TEST_F_TIMEOUT(p2pbar, region_requested, 90)
{
	int bar = parameter("bar", 2);
	struct pci_bar res;
	void *mem, *view;
	uint64_t offset;

	ASSERT_EQ(0, pci_fn_bar(&self->fn, bar, &res));
	EXPECT_EQ(0, find_iomem(&res, "p2pbar"));
	mem = map_file(self->fd, SZ_4K, 0);
	ASSERT_NE(NULL, mem);
	mmio_fill(mem, SZ_4K, 1);
	mmio_flush();
	offset = phys_addr(mem) - res.start;
	ASSERT_GT(res.len, offset);
	/* Not all of the BAR: its parts have several cache modes. */
	view = pci_fn_map_bar(&self->fn, bar, offset + SZ_4K);
	ASSERT_NE(NULL, view);
	EXPECT_EQ(-1, mmio_check(view + offset, SZ_4K, 1));
	ASSERT_EQ(0, munmap(view, offset + SZ_4K));
	ASSERT_EQ(0, munmap(mem, SZ_4K));

	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	EXPECT_EQ(-ENOENT, find_iomem(&res, "p2pbar"));
}

/* Either p2pbar or another driver can have the BAR. */
TEST_F_TIMEOUT(p2pbar, region_busy, 90)
{
	int bar = parameter("bar", 2), ret;
	struct pci_bar res;

	if (module_load())
		SKIP(return, "no module " TEST_MODULE);
	ASSERT_EQ(0, pci_fn_bar(&self->fn, bar, &res));
	ret = module_run("request-region %s %d", self->fn.name, bar);
	EXPECT_EQ(-EBUSY, ret);
	if (!ret)
		module_run("release-region %s %d", self->fn.name, bar);
	close(self->fd);
	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	ASSERT_EQ(0, module_run("request-region %s %d", self->fn.name, bar));
	EXPECT_EQ(0, find_iomem(&res, TEST_MODULE));
	ret = pci_fn_bind(&self->fn, "p2pbar", "p2pbar");
	EXPECT_EQ(0, module_run("release-region %s %d", self->fn.name, bar));
	EXPECT_EQ(-EBUSY, ret);
	ASSERT_EQ(0, attach(self));
	EXPECT_EQ(0, map_errno(self->fd, SZ_4K, 0));
}

/* Whether user space and the kernel have mapped the memory at offset 0 in the same mode. */
static bool modes_agree(int fd)
{
	const char *kernel, *user;
	void *mem;

	mem = map_file(fd, SZ_4K, 0);
	if (!mem)
		return false;
	mmio_write64(mem, 1);
	kernel = memory_type(phys_addr(mem));
	user = page_table_mode(mem);
	munmap(mem, SZ_4K);
	/* The kernel may lack what it takes to see them. */
	return !kernel || !user || !strcmp(kernel, user);
}

/*
 * Somebody has mapped the BAR before the driver is bound. x86 permits only one
 * cache mode of a page: the driver's memory has this one, or the driver does
 * without the memory.
 */
TEST_F_TIMEOUT(p2pbar, other_cache_mode, 90)
{
	int bar = parameter("bar", 2), ret, fd;
	struct pci_bar res;
	char attr[16];
	uint64_t key;
	void *mem;

#ifndef __x86_64__
	SKIP(return, "only x86 keeps track of cache modes");
#endif
	if (!self->info[P2PBAR_UAR_WC].size)
		SKIP(return, "the BAR is not prefetchable");
	close(self->fd);
	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	ASSERT_EQ(0, pci_fn_bar(&self->fn, bar, &res));
	snprintf(attr, sizeof(attr), "resource%d_wc", bar);
	fd = open(pci_fn_path(&self->fn, attr), O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	mem = map_file(fd, SZ_4K, 0);
	close(fd);
	ASSERT_NE(NULL, mem);
	/* The start of the BAR, which p2pbar wants uncached, is write-combining. */
	ret = attach(self);
	if (!ret) {
		EXPECT_TRUE(modes_agree(self->fd));
		close(self->fd);
	} else {
		EXPECT_EQ(-EBUSY, ret);
	}
	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	ASSERT_EQ(0, munmap(mem, SZ_4K));

	/* All of the BAR is uncached: there is no write-combining memory. */
	mem = pci_fn_map_bar(&self->fn, bar, res.len);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, attach(self));
	EXPECT_TRUE(modes_agree(self->fd));
	EXPECT_EQ(0, get_info(self->fd, P2PBAR_MEM, &self->info[P2PBAR_MEM]));
	EXPECT_EQ(-EOPNOTSUPP, alloc_object(self->fd, P2PBAR_UAR_WC, SZ_4K, &key));
	close(self->fd);
	ASSERT_EQ(0, munmap(mem, res.len));
	ASSERT_EQ(0, attach(self));
	EXPECT_EQ(0, alloc_object(self->fd, P2PBAR_UAR_WC, SZ_4K, &key));
}

TEST_HARNESS_MAIN
