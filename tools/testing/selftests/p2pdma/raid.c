// SPDX-License-Identifier: GPL-2.0
/*
 * Test that md does not lose a write of peer-to-peer DMA memory that its disks
 * cannot read: with a degraded raid1 of the disk of P2PDMA_PEER, which is
 * overwritten, and the memory that the nvme driver offers for P2PDMA_CMB.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/major.h>
#include <linux/raid/md_p.h>
#include <linux/raid/md_u.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "p2pdma.h"

#define SZ_4K		0x1000ul
#define SZ_1M		0x100000ul
#define MINOR		"127"

FIXTURE(raid)
{
	struct pci_fn cmb;
	int array;
};

/* Make an array that lacks its second disk, and that stores nothing about itself. */
static int array_run(int array, const char *disk)
{
	mdu_array_info_t info = {
		.level = 1, .raid_disks = 2, .nr_disks = 1, .size = SZ_1M / 1024,
		.md_minor = atoi(MINOR), .not_persistent = 1, .state = 1 << MD_SB_CLEAN,
	};
	mdu_disk_info_t member = { .state = 1 << MD_DISK_SYNC | 1 << MD_DISK_ACTIVE };
	struct stat st;

	if (stat(disk, &st))
		return -errno;
	member.major = major(st.st_rdev);
	member.minor = minor(st.st_rdev);
	if (ioctl(array, SET_ARRAY_INFO, &info) || ioctl(array, ADD_NEW_DISK, &member) ||
	    ioctl(array, RUN_ARRAY, NULL))
		return -errno;
	return 0;
}

FIXTURE_SETUP(raid)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	struct pci_fn peer;
	char disk[64];

	self->array = -1;
	if (!expect || strcmp(expect, "not-supported"))
		SKIP(return, "the disk can reach the memory, or P2PDMA_EXPECT is not set");
	if (!getenv("P2PDMA_CMB") || !getenv("P2PDMA_PEER"))
		SKIP(return, "P2PDMA_CMB and P2PDMA_PEER have to name PCI functions");
	if (geteuid())
		SKIP(return, "needs root");
	ASSERT_EQ(0, pci_fn_init(&self->cmb, getenv("P2PDMA_CMB")));
	ASSERT_EQ(0, pci_fn_init(&peer, getenv("P2PDMA_PEER")));
	if (access(pci_fn_path(&self->cmb, "p2pmem/allocate"), R_OK | W_OK))
		SKIP(return, "%s offers no peer-to-peer memory", self->cmb.name);
	if (file_write("/sys/module/md_mod/parameters/new_array", "md" MINOR))
		SKIP(return, "no md, or md" MINOR " exists");
	ASSERT_EQ(0, nvme_disk(&peer, disk, sizeof(disk)));
	self->array = open("/dev/md" MINOR, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, self->array);
	ASSERT_EQ(0, array_run(self->array, disk));
}

FIXTURE_TEARDOWN(raid)
{
	if (self->array < 0)
		return;
	ioctl(self->array, STOP_ARRAY, NULL);
	close(self->array);
}

TEST_F(raid, write_refused)
{
	char *buf = aligned_alloc(SZ_4K, SZ_4K), *mem;
	int fd;

	ASSERT_NE(NULL, buf);
	memset(buf, 0x5a, SZ_4K);
	ASSERT_EQ(SZ_4K, pwrite(self->array, buf, SZ_4K, 0));

	fd = open(pci_fn_path(&self->cmb, "p2pmem/allocate"), O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	mem = mmap(NULL, SZ_4K, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, mem);
	EXPECT_EQ(-1, pwrite(self->array, mem, SZ_4K, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, pread(self->array, mem, SZ_4K, 0));

	/* The array is well, and has what was written to it before. */
	memset(buf, 0, SZ_4K);
	EXPECT_EQ(SZ_4K, pread(self->array, buf, SZ_4K, 0));
	EXPECT_EQ(0x5a, buf[0]);
	EXPECT_EQ(SZ_4K, pwrite(self->array, buf, SZ_4K, 0));
	munmap(mem, SZ_4K);
	close(fd);
	free(buf);
}

TEST_HARNESS_MAIN
