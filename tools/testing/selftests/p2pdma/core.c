// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the kernel's peer-to-peer DMA core, with the memory of an NVMe
 * controller that the nvme driver offers, and the module p2pdma_test.
 *
 * They take PCI functions away from whatever uses them, so these are named:
 *
 *   P2PDMA_CMB=0000:01:00.0   an NVMe controller with a Controller Memory Buffer
 *   P2PDMA_PEER=0000:02:00.0  another one, as a client of its memory
 *   P2PDMA_OTHER=0000:03:00.0 a PCI function with a memory BAR of 8 MiB or more
 *
 * Optional is
 *
 *   P2PDMA_EXPECT=bus-address|host-bridge|not-supported
 *                             how DMA has to travel between the first two, and
 *                             between the first and the last
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "mmio.h"
#include "p2pdma.h"
#include "process.h"

#define SZ_4K		0x1000ul
/* In seconds: a kernel with checkers takes long to bind a driver. */
#define TIMEOUT		120

FIXTURE(core)
{
	struct pci_fn cmb;
	struct pci_fn peer;
	struct pci_fn other;
	uint64_t size;		/* of the memory that the nvme driver offers */
	long tainted;
	cpu_set_t cpus;
};

/* The bits of the kernel's taint for a warning, a bad page, or an oops. */
static long taint(void)
{
	const long bits = 1 << 9 | 1 << 5 | 1 << 7;
	char buf[32];

	return file_read("/proc/sys/kernel/tainted", buf, sizeof(buf)) ? 0 : atol(buf) & bits;
}

static void wait_for_hit(int n)
{
	int tries;

	for (tries = 0; tries < 2000 && module_hits() < n; tries++)
		usleep(1000);
}

/* The kernel may run probe functions elsewhere than in the task that asks. */
static bool probed_elsewhere(const struct pci_fn *fn)
{
	char buf[16];

	return !pci_fn_read(fn, "numa_node", buf, sizeof(buf)) && atoi(buf) >= 0;
}

/* Map memory of the pool, NULL with errno set on error. */
static void *map_p2pmem(const struct pci_fn *fn, size_t len, int flags)
{
	void *mem;
	int fd;

	fd = open(pci_fn_path(fn, "p2pmem/allocate"), O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);
	close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

static int bind_nvme(const struct pci_fn *fn)
{
	char driver[64];
	int ret;

	ret = pci_fn_driver(fn, driver, sizeof(driver));
	if (ret || !strcmp(driver, "nvme"))
		return ret;
	ret = pci_fn_unbind(fn);
	return ret ?: pci_fn_bind(fn, "nvme", "");
}

FIXTURE_SETUP(core)
{
	const char *name;
	int ret;

	if (!getenv("P2PDMA_CMB") || !getenv("P2PDMA_PEER") || !getenv("P2PDMA_OTHER"))
		SKIP(return, "P2PDMA_CMB, P2PDMA_PEER and P2PDMA_OTHER have to name PCI functions");
	if (geteuid())
		SKIP(return, "needs root");
	ret = module_load();
	if (ret)
		SKIP(return, "no module " TEST_MODULE ": %s", strerror(-ret));
	if (access(MODULE_RUN, W_OK))
		SKIP(return, "no " MODULE_RUN);
	name = getenv("P2PDMA_CMB");
	ASSERT_EQ(0, pci_fn_init(&self->cmb, name));
	ASSERT_EQ(0, pci_fn_init(&self->peer, getenv("P2PDMA_PEER")));
	ASSERT_EQ(0, pci_fn_init(&self->other, getenv("P2PDMA_OTHER")));
	ASSERT_EQ(0, sched_getaffinity(0, sizeof(self->cpus), &self->cpus));
	ASSERT_EQ(0, bind_nvme(&self->cmb));
	ASSERT_EQ(0, bind_nvme(&self->peer));
	if (pci_fn_read_u64(&self->cmb, "p2pmem/size", &self->size))
		SKIP(return, "%s offers no peer-to-peer memory", name);
	self->tainted = taint();
}

FIXTURE_TEARDOWN(core)
{
	module_run("off");
	pci_fn_unbind(&self->other);
	pci_fn_write(&self->other, "driver_override", "\n");
	EXPECT_EQ(0, bind_nvme(&self->cmb));
	EXPECT_EQ(self->tainted, taint()) {
		TH_LOG("the kernel has complained, see its log");
	}
}

/* The pool's allocation fails after all else of the memory has been set up. */
TEST_F_TIMEOUT(core, add_resource_fails, TIMEOUT)
{
	uint64_t size = 0;
	int ret;

	if (probed_elsewhere(&self->cmb))
		SKIP(return, "not on a machine with several nodes");
	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	ret = module_run("fail gen_pool_add_owner %d", ENOMEM);
	if (ret == -EOPNOTSUPP)
		SKIP(return, "no kprobes, or not on this architecture");
	ASSERT_EQ(0, ret);
	/* nvme does without the memory then. */
	EXPECT_EQ(0, pci_fn_bind(&self->cmb, "nvme", ""));
	EXPECT_EQ(1, module_hits());
	ASSERT_EQ(0, module_run("off"));
	EXPECT_EQ(0, pci_fn_read_u64(&self->cmb, "p2pmem/size", &size));
	EXPECT_EQ(0, size);
	/* A devm action that is left behind runs here. */
	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	ASSERT_EQ(0, pci_fn_bind(&self->cmb, "nvme", ""));
	EXPECT_EQ(0, pci_fn_read_u64(&self->cmb, "p2pmem/size", &size));
	EXPECT_EQ(self->size, size);
}

/* mmap() fails at one folio after the other, and gives back those that it has got. */
TEST_F_TIMEOUT(core, mmap_fails, TIMEOUT)
{
	uint64_t before, left, after;
	void *pages[64], *mem;
	int nth, calls;
	size_t i;

	if (module_run("fail-nth pci_p2pmem_alloc_folio 1") == -EOPNOTSUPP)
		SKIP(return, "no kprobes, or not on this architecture");
	ASSERT_EQ(0, module_run("off"));
	ASSERT_EQ(0, pci_fn_read_u64(&self->cmb, "p2pmem/available", &before));
	/* With holes in the memory, it takes more folios than mmap() has room for at first. */
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		pages[i] = map_p2pmem(&self->cmb, SZ_4K, 0);
		ASSERT_NE(NULL, pages[i]);
	}
	for (i = 0; i < ARRAY_SIZE(pages); i += 2)
		ASSERT_EQ(0, munmap(pages[i], SZ_4K));
	ASSERT_EQ(0, pci_fn_read_u64(&self->cmb, "p2pmem/available", &left));

	for (nth = 1; nth < 1000; nth++) {
		ASSERT_EQ(0, module_run("fail-nth pci_p2pmem_alloc_folio %d", nth));
		mem = map_p2pmem(&self->cmb, left, 0);
		EXPECT_TRUE(mem || errno == ENOMEM);
		calls = module_hits();
		ASSERT_EQ(0, module_run("off"));
		EXPECT_EQ(calls < nth, !!mem);
		if (mem)
			break;
		ASSERT_EQ(0, pci_fn_read_u64(&self->cmb, "p2pmem/available", &after));
		ASSERT_EQ(left, after) {
			TH_LOG("folio %d", nth);
		}
	}
	/* At least the single pages between the holes. */
	EXPECT_LT(ARRAY_SIZE(pages) / 2, nth);
	EXPECT_EQ(0, munmap(mem, left));
	for (i = 1; i < ARRAY_SIZE(pages); i += 2)
		EXPECT_EQ(0, munmap(pages[i], SZ_4K));
	EXPECT_EQ(0, pci_fn_read_u64(&self->cmb, "p2pmem/available", &after));
	EXPECT_EQ(before, after);
}

/* A folio goes back to the pool, and somebody else makes another one of its memory. */
TEST_F_TIMEOUT(core, mmap_while_freed, TIMEOUT)
{
	uint64_t before = 0, after = 0;
	int status, tries;
	void *mem = NULL;
	pid_t child;

	if (module_run("delay-return gen_pool_free_owner 0") == -EOPNOTSUPP)
		SKIP(return, "no kprobes, or not on this architecture");
	ASSERT_EQ(0, module_run("off"));
	if (!run_on(&self->cpus, 1))
		SKIP(return, "needs two processors");
	/* The controller's queues may be in the memory too. */
	ASSERT_EQ(0, pci_fn_read_u64(&self->cmb, "p2pmem/available", &before));
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		mem = map_p2pmem(&self->cmb, before, 0);
		if (!mem || !run_on(&self->cpus, 0) ||
		    module_run("delay-return gen_pool_free_owner 500"))
			_exit(2);
		_exit(munmap(mem, before) != 0);
	}
	/* A page of the first folio is taken again before its former owner is done. */
	wait_for_hit(1);
	for (tries = 0; tries < 400 && !mem; tries++) {
		mem = map_p2pmem(&self->cmb, SZ_4K, 0);
		if (!mem)
			usleep(1000);
	}
	ASSERT_NE(NULL, mem);
	mmio_write64(mem, 1);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(1, module_hits());
	ASSERT_EQ(0, module_run("off"));
	EXPECT_EQ(0, munmap(mem, SZ_4K));
	EXPECT_EQ(0, pci_fn_read_u64(&self->cmb, "p2pmem/available", &after));
	EXPECT_EQ(before, after);
	/* All references have to be put once, or this waits for ever. */
	EXPECT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(0, bind_nvme(&self->cmb));
}

/* More bridges redirect than the message about them can list. */
TEST_F(core, acs_list)
{
	bool told = false;
	char line[1024];
	ssize_t n;
	int fd, ret;

	fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_LE(0, lseek(fd, 0, SEEK_END));
	ret = module_run("acs");
	if (ret == -EOPNOTSUPP)
		SKIP(close(fd); return, "not on this processor");
	EXPECT_EQ(0, ret);
	while ((n = read(fd, line, sizeof(line) - 1)) > 0) {
		line[n] = '\0';
		if (strstr(line, "pci=disable_acs_redir=fake-bridge-0-7;"))
			told = strstr(line, "(truncated)");
	}
	close(fd);
	EXPECT_TRUE(told);
}

/* Unbinding a provider without a pool waits for those who use its map types. */
TEST_F_TIMEOUT(core, unbind_without_pool, TIMEOUT)
{
	uint64_t start, ms;
	pid_t child;
	int status;

	ASSERT_EQ(0, pci_fn_unbind(&self->other));
	ASSERT_EQ(0, pci_fn_bind(&self->other, TEST_MODULE, TEST_MODULE));
	if (module_run("delay xa_store 0") == -EOPNOTSUPP)
		SKIP(return, "no kprobes");
	ASSERT_EQ(0, module_run("off"));
	if (!run_on(&self->cpus, 1))
		SKIP(return, "needs two processors");
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		if (!run_on(&self->cpus, 0) || module_run("delay xa_store 500"))
			_exit(2);
		_exit(!!module_run("distance %s %s", self->other.name, self->peer.name));
	}
	wait_for_hit(1);
	start = now_ms();
	EXPECT_EQ(0, pci_fn_unbind(&self->other));
	ms = now_ms() - start;
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(1, module_hits());
	EXPECT_LE(200, ms);
}

/*
 * Of two memories, one is released and the other is not, and an allocation finds
 * the one that is released.
 */
TEST_F_TIMEOUT(core, alloc_while_released, TIMEOUT)
{
	const char *driver = TEST_MODULE "_two";
	char buf[32];
	int ret;

	ASSERT_EQ(0, pci_fn_unbind(&self->other));
	ret = pci_fn_bind(&self->other, driver, driver);
	if (ret == -ENOSPC)
		SKIP(return, "%s has no BAR of 8 MiB", self->other.name);
	ASSERT_EQ(0, ret);
	EXPECT_EQ(0, module_run("alloc %s", self->other.name));
	ASSERT_EQ(0, pci_fn_unbind(&self->other));
	ASSERT_EQ(0, file_read(MODULE_RUN, buf, sizeof(buf)));
	EXPECT_EQ(-ENOMEM, atoi(buf));
}

TEST_F_TIMEOUT(core, alloc_without_pool, TIMEOUT)
{
	ASSERT_EQ(0, module_run("alloc %s", self->cmb.name));
	ASSERT_EQ(0, pci_fn_unbind(&self->other));
	EXPECT_EQ(-ENOMEM, module_run("alloc %s", self->other.name));
	ASSERT_EQ(0, pci_fn_bind(&self->other, TEST_MODULE, TEST_MODULE));
	EXPECT_EQ(-ENOMEM, module_run("alloc %s", self->other.name));
}

/* The kernel's mapping of the memory is not cached, and not encrypted. */
TEST_F_TIMEOUT(core, decrypted, TIMEOUT)
{
	/* PAT modes 1 and 2, write-combining and UC-: only x86 has cc_mkdec() */
	const unsigned long pwt = 0x8, pcd = 0x10;
	int ret;

	if (probed_elsewhere(&self->cmb))
		SKIP(return, "not on a machine with several nodes");
	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	ret = module_run("count cc_mkdec %lu", pcd);
	if (ret == -ENOENT || ret == -EOPNOTSUPP)
		SKIP(return, "no memory encryption, or no kprobes");
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, module_run("count cc_mkdec %lu", pwt));
	EXPECT_EQ(0, pci_fn_bind(&self->cmb, "nvme", ""));
	EXPECT_LE(1, module_hits());
}

/* System calls that only look at the pages work, those that take them do not. */
TEST_F(core, populate)
{
	struct iovec iov;
	int pipefd[2];
	void *mem;

	mem = map_p2pmem(&self->cmb, 4 * SZ_4K, MAP_POPULATE);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, madvise(mem, 4 * SZ_4K, MADV_POPULATE_READ)) {
		TH_LOG("%s", strerror(errno));
	}
	EXPECT_EQ(0, madvise(mem, 4 * SZ_4K, MADV_POPULATE_WRITE));
	EXPECT_EQ(0, mlock(mem, 4 * SZ_4K));
	EXPECT_EQ(0, munlock(mem, 4 * SZ_4K));
	ASSERT_EQ(0, pipe(pipefd));
	iov.iov_base = mem;
	iov.iov_len = SZ_4K;
	EXPECT_EQ(-1, vmsplice(pipefd[1], &iov, 1, 0));
	EXPECT_EQ(EREMOTEIO, errno);
	close(pipefd[0]);
	close(pipefd[1]);
	EXPECT_EQ(0, munmap(mem, 4 * SZ_4K));
}

/* Where a scatterlist of the memory points to, for another function. */
TEST_F(core, scatterlist)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	unsigned long long dma = 0, bus = 0, phys = 0;
	char group[512], buf[128];
	bool iommu;
	int ret;

	if (!expect)
		SKIP(return, "P2PDMA_EXPECT is not set");
	iommu = readlink(pci_fn_path(&self->peer, "iommu_group"), group, sizeof(group)) > 0;
	ret = module_run("map-sg %s %s", self->cmb.name, self->peer.name);
	if (!strcmp(expect, "not-supported")) {
		EXPECT_EQ(-EREMOTEIO, ret);
		return;
	}
	if (!strcmp(expect, "host-bridge") && !iommu && on_command_line("swiotlb=force")) {
		/* MMIO is not copied by the processor. */
		EXPECT_EQ(-EREMOTEIO, ret);
		return;
	}
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, file_read(MODULE_RUN, buf, sizeof(buf)));
	ret = sscanf(buf, "%llx %llx %llx", &dma, &bus, &phys);
	ASSERT_EQ(3, ret);
	EXPECT_NE(0, phys);
	EXPECT_NE(0, dma);
	if (!strcmp(expect, "bus-address"))
		EXPECT_EQ(bus, dma);
	/* With an IOMMU it may be any address. */
	if (!strcmp(expect, "host-bridge") && !iommu)
		EXPECT_EQ(phys, dma);
}

/* The address of the memory is too large for the client's DMA mask. */
TEST_F(core, scatterlist_mask)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	char group[512];

	if (!expect || strcmp(expect, "host-bridge"))
		SKIP(return, "P2PDMA_EXPECT is not host-bridge");
	if (readlink(pci_fn_path(&self->other, "iommu_group"), group, sizeof(group)) > 0)
		SKIP(return, "the IOMMU maps it to an address that is not too large");
	/* Nobody else may use the function while its mask is changed. */
	ASSERT_EQ(0, pci_fn_unbind(&self->other));
	ASSERT_EQ(0, pci_fn_bind(&self->other, TEST_MODULE, TEST_MODULE));
	EXPECT_EQ(-EREMOTEIO, module_run("map-sg-mask %s %s", self->cmb.name, self->other.name));
}

/* A disk that may only use the bounce buffer cannot read to the memory. */
TEST_F(core, direct_io)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	char disk[64], group[512];
	int fd, status, tries;
	pid_t child;
	void *mem;

	if (!expect || strcmp(expect, "host-bridge") || !on_command_line("swiotlb=force") ||
	    readlink(pci_fn_path(&self->peer, "iommu_group"), group, sizeof(group)) > 0)
		SKIP(return, "not with swiotlb=force and a host bridge in between");
	ASSERT_EQ(0, nvme_disk(&self->peer, disk, sizeof(disk)));
	mem = map_p2pmem(&self->cmb, SZ_4K, 0);
	ASSERT_NE(NULL, mem);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		fd = open(disk, O_RDONLY | O_DIRECT | O_CLOEXEC);
		_exit(fd < 0 || pread(fd, mem, SZ_4K, 0) >= 0 ? 255 : errno);
	}
	/* A read that is tried for ever cannot be killed. */
	for (tries = 0; tries < 500 && waitpid(child, &status, WNOHANG) != child; tries++)
		usleep(10 * 1000);
	ASSERT_LT(tries, 500) {
		TH_LOG("the read does not end");
	}
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(EINVAL, WEXITSTATUS(status));
	EXPECT_EQ(0, munmap(mem, SZ_4K));
}

TEST_HARNESS_MAIN
