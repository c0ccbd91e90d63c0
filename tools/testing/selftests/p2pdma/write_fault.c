// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of write faults in mappings of p2pmem/allocate, with the memory of an
 * NVMe controller that the nvme driver offers:
 *
 *   P2PDMA_CMB=0000:01:00.0   an NVMe controller with a Controller Memory Buffer
 *   P2PDMA_PEER=0000:02:00.0  another one, with a disk to read from
 *   P2PDMA_EXPECT=bus-address|host-bridge|not-supported
 *                             how DMA has to travel between the two
 *
 * A write fault that the kernel retries for ever ends with SIGALRM.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "p2pdma.h"

#define SZ_4K		0x1000ul

struct fns {
	struct pci_fn cmb;
	char disk[64];		/* of the peer, where a test needs it */
};

FIXTURE(write_fault)
{
	struct fns fns;
};

FIXTURE_SETUP(write_fault)
{
	if (!getenv("P2PDMA_CMB"))
		SKIP(return, "P2PDMA_CMB has to name a PCI function");
	if (geteuid())
		SKIP(return, "needs root");
	ASSERT_EQ(0, pci_fn_init(&self->fns.cmb, getenv("P2PDMA_CMB")));
	if (access(pci_fn_path(&self->fns.cmb, "p2pmem/allocate"), R_OK | W_OK))
		SKIP(return, "%s offers no peer-to-peer memory", self->fns.cmb.name);
}

FIXTURE_TEARDOWN(write_fault)
{
}

/*
 * Run @op in a child that has 5 s for it. Returns the child's wait status: its
 * errno as exit status, or SIGALRM.
 */
static int in_child(int (*op)(const struct fns *fns), const struct fns *fns)
{
	int status;
	pid_t child;

	child = fork();
	if (!child) {
		alarm(5);
		_exit(-op(fns));
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return -errno;
	return status;
}

/* Map a page of the pool, NULL with errno set on error. */
static char *map_page(const struct fns *fns, int prot)
{
	char *mem;
	int fd;

	fd = open(pci_fn_path(&fns->cmb, "p2pmem/allocate"), O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	mem = mmap(NULL, SZ_4K, prot, MAP_SHARED, fd, 0);
	close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

/* The same for one that may be written to, but was mapped read-only. */
static char *map_page_then_allow_writing(const struct fns *fns)
{
	char *mem = map_page(fns, PROT_READ);

	if (mem && mprotect(mem, SZ_4K, PROT_READ | PROT_WRITE))
		return NULL;
	return mem;
}

static int load(char *mem)
{
	return __atomic_load_n(mem, __ATOMIC_SEQ_CST);
}

static int store(char *mem, char val)
{
	__atomic_store_n(mem, val, __ATOMIC_RELEASE);
	return load(mem) == val ? 0 : -EBADMSG;
}

static int store_after_mprotect(const struct fns *fns)
{
	char *mem = map_page_then_allow_writing(fns);

	return mem ? store(mem, 1) : -errno;
}

TEST_F(write_fault, after_mprotect)
{
	EXPECT_EQ(0, in_child(store_after_mprotect, &self->fns));
}

static int store_after_fork(const struct fns *fns)
{
	char *mem = map_page_then_allow_writing(fns);
	int status;
	pid_t child;

	if (!mem)
		return -errno;
	child = fork();
	if (!child) {
		alarm(4);
		_exit(-store(mem, 1));
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return -errno;
	if (status)
		return -EINTR;
	/* The page is shared, and writable for the parent as well. */
	return load(mem) == 1 ? store(mem, 2) : -EBADMSG;
}

TEST_F(write_fault, after_fork)
{
	EXPECT_EQ(0, in_child(store_after_fork, &self->fns));
}

/* Whether the kernel tracks which pages were written to. */
static bool have_soft_dirty(void)
{
	uint64_t entry = 0;
	char byte;
	int fd;

	store(&byte, 1);
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (pread(fd, &entry, sizeof(entry), (uintptr_t)&byte / getpagesize() * sizeof(entry)) !=
	    sizeof(entry))
		entry = 0;
	close(fd);
	return entry & 1ull << 55;
}

static int store_after_clear_refs(const struct fns *fns)
{
	char *mem = map_page(fns, PROT_READ | PROT_WRITE);
	int ret;

	if (!mem)
		return -errno;
	ret = store(mem, 1) ?: file_write("/proc/self/clear_refs", "4");
	return ret ?: store(mem, 2);
}

TEST_F(write_fault, after_clear_refs)
{
	if (!have_soft_dirty())
		SKIP(return, "no CONFIG_MEM_SOFT_DIRTY");
	EXPECT_EQ(0, in_child(store_after_clear_refs, &self->fns));
}

static int read_from_disk(const struct fns *fns)
{
	char *mem = map_page_then_allow_writing(fns);
	ssize_t done;
	int fd;

	if (!mem)
		return -errno;
	fd = open(fns->disk, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	done = pread(fd, mem, SZ_4K, 0);
	if (done < 0)
		return -errno;
	return done == SZ_4K ? 0 : -EIO;
}

TEST_F(write_fault, by_direct_io)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	struct pci_fn peer;

	if (!getenv("P2PDMA_PEER") || !expect || !strcmp(expect, "not-supported"))
		SKIP(return, "no P2PDMA_PEER that can use the memory, says P2PDMA_EXPECT");
	if (!strcmp(expect, "host-bridge") && on_command_line("swiotlb=force"))
		SKIP(return, "the disk may only use the bounce buffer");
	ASSERT_EQ(0, pci_fn_init(&peer, getenv("P2PDMA_PEER")));
	ASSERT_EQ(0, nvme_disk(&peer, self->fns.disk, sizeof(self->fns.disk)));
	EXPECT_EQ(0, in_child(read_from_disk, &self->fns));
}

TEST_HARNESS_MAIN
