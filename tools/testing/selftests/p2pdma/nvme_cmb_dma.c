// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of DMA to and from the CMB by the controller of another disk. See
 * testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include "nvme_cmb_fixture.h"

static const size_t lengths[] = {
	SZ_4K, 2 * SZ_4K, 3 * SZ_4K, 16 * SZ_4K, 33 * SZ_4K, 128 * SZ_4K, SZ_1M,
};

/* Part of the CMB, as the kernel's mapping shows it and as the BAR shows it. */
struct cmb_part {
	void *mem;	/* of p2pmem/allocate */
	void *view;	/* of the resource file: this does not need struct pages */
	void *ram;	/* ordinary memory of the same size */
	size_t len;
};

/*
 * Map @len bytes of p2pmem/allocate, and find the same bytes in @bar, which is
 * the BAR from the start of the CMB on. Return 0 or a negative errno.
 */
static int map_part(const struct _test_data_nvme_cmb *self, void *bar, size_t len,
		    struct cmb_part *part)
{
	uint64_t first;
	size_t i;

	part->len = len;
	part->mem = map_file(self->p2pmem, len, 0);
	part->ram = ram_map(len);
	if (!part->mem || !part->ram)
		return -ENOMEM;
	/* Faults map the pages. */
	for (i = 0; i < len; i += SZ_4K)
		mmio_read64(part->mem + i);
	first = phys_addr(part->mem);
	if (first < self->phys)
		return -EFAULT;
	for (i = 0; i < len; i += SZ_4K) {
		if (phys_addr(part->mem + i) != first + i)
			return -EFAULT;
	}
	part->view = bar + (first - self->phys);
	return 0;
}

static void unmap_part(struct cmb_part *part)
{
	munmap(part->mem, part->len);
	munmap(part->ram, part->len);
}

/* Map the BAR from the start of the CMB on, through sysfs. */
static void *map_cmb_bar(const struct _test_data_nvme_cmb *self)
{
	struct pci_bar res;
	void *bar;

	if (pci_fn_bar(&self->cmb, self->bar, &res))
		return NULL;
	bar = pci_fn_map_bar(&self->cmb, self->bar, res.len);
	return bar ? bar + (self->phys - res.start) : NULL;
}

/*
 * Let the peer copy from its disk to the CMB, or from the CMB to its disk, and
 * compare both ends. If the peer cannot reach the CMB, both have to stay as they
 * were.
 */
static void copy_by_peer(struct __test_metadata *_metadata, struct _test_data_nvme_cmb *self,
			 bool to_cmb)
{
	const int dma = self->peer.dma, disk = self->peer.disk;
	uint64_t disk_seed, cmb_seed;
	struct cmb_part part;
	size_t i, len;
	void *bar;
	int ret;

	bar = map_cmb_bar(self);
	ASSERT_NE(NULL, bar);
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		len = lengths[i];
		disk_seed = 2 * i;
		cmb_seed = 2 * i + 1;
		ASSERT_EQ(0, map_part(self, bar, len, &part));
		mmio_fill(part.ram, len, disk_seed);
		ASSERT_EQ(0, pwrite_all(disk, part.ram, len, DISK_OFFSET));
		/* Write through one mapping, and read through the other one. */
		mmio_fill(to_cmb ? part.mem : part.view, len, cmb_seed);
		mmio_flush();
		ASSERT_EQ(-1, mmio_check(to_cmb ? part.view : part.mem, len, cmb_seed));

		if (to_cmb)
			ret = pread_all(disk, part.mem, len, DISK_OFFSET);
		else
			ret = pwrite_all(disk, part.mem, len, DISK_OFFSET);
		ASSERT_EQ(dma, ret) {
			TH_LOG("%zu bytes", len);
		}

		if (!dma && to_cmb)
			cmb_seed = disk_seed;
		else if (!dma)
			disk_seed = cmb_seed;
		EXPECT_EQ(-1, mmio_check(part.mem, len, cmb_seed));
		EXPECT_EQ(-1, mmio_check(part.view, len, cmb_seed));
		memset(part.ram, 0, len);
		ASSERT_EQ(0, pread_all(disk, part.ram, len, DISK_OFFSET));
		EXPECT_EQ(-1, mmio_check(part.ram, len, disk_seed));
		unmap_part(&part);
	}
	EXPECT_EQ(self->size, pool_available(&self->cmb));
}

TEST_F_TIMEOUT(nvme_cmb, dma_to_cmb, 120)
{
	copy_by_peer(_metadata, self, true);
}

TEST_F_TIMEOUT(nvme_cmb, dma_from_cmb, 120)
{
	copy_by_peer(_metadata, self, false);
}

/* DMA to a part of a mapping leaves the rest of it alone. */
TEST_F_TIMEOUT(nvme_cmb, dma_part, 90)
{
	void *mem, *ram;

	if (self->peer.dma)
		SKIP(return, "the peer cannot reach the memory");

	ram = ram_map(SZ_1M);
	ASSERT_NE(NULL, ram);
	mmio_fill(ram, SZ_1M, 1);
	ASSERT_EQ(0, pwrite_all(self->peer.disk, ram, SZ_1M, DISK_OFFSET));

	mem = map_file(self->p2pmem, SZ_1M, 0);
	ASSERT_NE(NULL, mem);
	mmio_fill(mem, SZ_1M, 2);
	mmio_flush();
	/* The transfer starts within a page and ends within the next one. */
	ASSERT_EQ(0, pread_all(self->peer.disk, mem + SZ_4K + 512, SZ_4K, DISK_OFFSET));

	EXPECT_EQ(-1, mmio_check(mem + SZ_4K + 512, SZ_4K, 1));
	EXPECT_EQ(-1, mmio_check_part(mem, 0, SZ_4K + 512, 2));
	EXPECT_EQ(-1, mmio_check_part(mem, 2 * SZ_4K + 512, SZ_1M, 2));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
}

/* O_DIRECT refuses for the CMB the alignments that it refuses for ordinary memory. */
TEST_F_TIMEOUT(nvme_cmb, dma_unaligned, 90)
{
	void *mem;

	mem = map_file(self->p2pmem, 4 * SZ_4K, 0);
	ASSERT_NE(NULL, mem);
	mmio_fill(mem, 4 * SZ_4K, 1);

	EXPECT_EQ(-EINVAL, pread_all(self->peer.disk, mem + 2, SZ_4K, DISK_OFFSET));
	EXPECT_EQ(-EINVAL, pread_all(self->peer.disk, mem, SZ_4K - 8, DISK_OFFSET));
	EXPECT_EQ(-EINVAL, pread_all(self->peer.disk, mem, SZ_4K, DISK_OFFSET + 8));
	EXPECT_EQ(-EINVAL, pwrite_all(self->peer.disk, mem + 2, SZ_4K, DISK_OFFSET));
	EXPECT_EQ(-EINVAL, pwrite_all(self->peer.disk, mem, SZ_4K - 8, DISK_OFFSET));
	EXPECT_EQ(-EINVAL, pwrite_all(self->peer.disk, mem, SZ_4K, DISK_OFFSET + 8));

	EXPECT_EQ(-1, mmio_check(mem, 4 * SZ_4K, 1));
	ASSERT_EQ(0, munmap(mem, 4 * SZ_4K));
}

TEST_HARNESS_MAIN
