// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of what nvme_cmb does when it is bound and unbound. See testbed.h for
 * the environment variables.
 */
#define _GNU_SOURCE
#include <signal.h>

#include "nvme_cmb_fixture.h"

/* The driver programs CMBMSC as the NVMe specification demands, and clears it. */
TEST_F_TIMEOUT(nvme_cmb, registers, 90)
{
	if (!self->cmbs)
		SKIP(return, "the controller has no CMBMSC");

	EXPECT_EQ(3 | (uint32_t)self->bus, mmio_read32(self->regs + CMBMSC));
	EXPECT_EQ(self->bus >> 32, mmio_read32(self->regs + CMBMSC + 4));
	EXPECT_EQ(0, mmio_read32(self->regs + CMBSTS) & 1);

	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(0, mmio_read32(self->regs + CMBMSC));
	EXPECT_EQ(0, mmio_read32(self->regs + CMBMSC + 4));
	EXPECT_EQ(0, mmio_read32(self->regs + CMBSZ));
}

/* The pool is the whole CMB. It is published if the CMB can hold data. */
TEST_F_TIMEOUT(nvme_cmb, pool, 90)
{
	uint64_t val;

	ASSERT_EQ(0, pci_fn_read_u64(&self->cmb, "p2pmem/size", &val));
	EXPECT_EQ(self->size, val);
	EXPECT_EQ(self->size, pool_available(&self->cmb));
	ASSERT_EQ(0, pci_fn_read_u64(&self->cmb, "p2pmem/published", &val));
	EXPECT_EQ(self->data, val);

	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(-ENOENT, pci_fn_read_u64(&self->cmb, "p2pmem/size", &val));
}

/* Debugfs counts the mappings of the device node, and the memory that they have allocated. */
TEST_F_TIMEOUT(nvme_cmb, memory, 90)
{
	struct memory_use use;
	void *mem;
	int fd;

	ASSERT_EQ(0, node_memory(self->node, "cmb", &use));
	EXPECT_EQ(self->size, use.size);
	EXPECT_EQ(0, use.used);
	EXPECT_EQ(0, use.objects);
	EXPECT_EQ(0, use.mappings);

	fd = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	mem = map_file(fd, 3 * SZ_4K, 0);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, node_memory(self->node, "cmb", &use));
	EXPECT_EQ(3 * SZ_4K, use.used);
	EXPECT_EQ(1, use.objects);
	EXPECT_EQ(1, use.mappings);
	EXPECT_EQ(self->size - 3 * SZ_4K, pool_available(&self->cmb));
	ASSERT_EQ(0, munmap(mem, 3 * SZ_4K));
	ASSERT_EQ(0, node_memory(self->node, "cmb", &use));
	EXPECT_EQ(0, use.objects);
	EXPECT_EQ(0, use.mappings);
	close(fd);

	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(-ENOENT, node_memory(self->node, "cmb", &use));
}

/* Distance, map type and closest provider match the topology. */
TEST_F_TIMEOUT(nvme_cmb, peers, 90)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	struct peers_entry entry;

	if (!expect)
		SKIP(return, "P2PDMA_EXPECT is not set");

	/* The controller itself is the closest provider to the controller. */
	ASSERT_EQ(0, find_peer(self->node, &self->cmb, &entry));
	EXPECT_EQ(0, entry.distance);
	EXPECT_STREQ("bus-address", entry.type);
	EXPECT_STREQ(self->cmb.name, entry.closest);

	ASSERT_EQ(0, find_peer(self->node, &self->peer.fn, &entry));
	EXPECT_STREQ(expect, entry.type);
	if (strcmp(expect, "not-supported")) {
		EXPECT_LT(0, entry.distance);
		EXPECT_STREQ(self->cmb.name, entry.closest);
	} else {
		EXPECT_EQ(-1, entry.distance);
		EXPECT_STREQ("-", entry.closest);
	}

	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(-ENOENT, find_peer(self->node, &self->peer.fn, &entry));
}

/* The driver takes a controller only through driver_override. */
TEST_F_TIMEOUT(nvme_cmb, override_only, 90)
{
	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(-ENODEV, pci_fn_bind(&self->cmb, "nvme_cmb", ""));
}

/* The driver refuses a function of another class, even with a driver_override. */
TEST_F_TIMEOUT(nvme_cmb, not_nvme, 90)
{
	const char *name = getenv("P2PDMA_OTHER");
	struct pci_fn other;
	char driver[64];

	if (!name)
		SKIP(return, "P2PDMA_OTHER is not set");
	ASSERT_EQ(0, pci_fn_init(&other, name));
	ASSERT_EQ(0, pci_fn_driver(&other, driver, sizeof(driver)));
	ASSERT_STREQ("", driver);
	EXPECT_EQ(-ENODEV, pci_fn_bind(&other, "nvme_cmb", "nvme_cmb"));
	EXPECT_EQ(0, pci_fn_write(&other, "driver_override", "\n"));
}

/* The driver refuses a controller without a CMB. The controller's disk works afterwards. */
TEST_F_TIMEOUT(nvme_cmb, no_cmb, 90)
{
	struct pci_fn *fn = &self->peer.fn;
	uint64_t val;
	void *regs;

	close(self->peer.disk);
	ASSERT_EQ(0, pci_fn_unbind(fn));
	ASSERT_EQ(0, pci_fn_write(fn, "enable", "1"));
	regs = pci_fn_map_bar(fn, 0, 2 * SZ_4K);
	ASSERT_NE(NULL, regs);
	if (!mmio_read32(regs + CMBSZ)) {
		EXPECT_EQ(-ENODEV, pci_fn_bind(fn, "nvme_cmb", "nvme_cmb"));
		EXPECT_EQ(-ENOENT, pci_fn_read_u64(fn, "p2pmem/size", &val));
	} else {
		TH_LOG("the peer has a CMB");
	}

	EXPECT_EQ(0, pci_fn_write(fn, "enable", "0"));
	EXPECT_EQ(0, pci_fn_bind(fn, "nvme", ""));
	EXPECT_EQ(0, peer_open(&self->peer));
}

/* Unbinding the driver takes the memory away from a process that has mapped it. */
TEST_F_TIMEOUT(nvme_cmb, unbind_mapped, 90)
{
	void *mem;

	mem = map_file(self->p2pmem, SZ_1M, 0);
	ASSERT_NE(NULL, mem);
	mmio_write64(mem, 1);
	ASSERT_EQ(1, mmio_read64(mem));

	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(SIGBUS, try_write64(mem, 2));
	EXPECT_EQ(NULL, map_file(self->p2pmem, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);

	ASSERT_EQ(0, pci_fn_bind(&self->cmb, "nvme_cmb", "nvme_cmb"));
	EXPECT_EQ(self->size, pool_available(&self->cmb));
}

/* The driver can be bound again and again, also in turn with nvme. */
TEST_F_TIMEOUT(nvme_cmb, rebind, 240)
{
	int i;

	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
		ASSERT_EQ(0, pci_fn_bind(&self->cmb, "nvme_cmb", "nvme_cmb"));
		ASSERT_EQ(self->size, pool_available(&self->cmb));
	}

	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	ASSERT_EQ(0, pci_fn_bind(&self->cmb, "nvme", ""));
	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	ASSERT_EQ(0, pci_fn_bind(&self->cmb, "nvme_cmb", "nvme_cmb"));
	ASSERT_EQ(self->size, pool_available(&self->cmb));
}

TEST_HARNESS_MAIN
