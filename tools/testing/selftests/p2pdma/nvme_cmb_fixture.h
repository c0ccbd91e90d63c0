/* SPDX-License-Identifier: GPL-2.0 */
/* The fixture of the tests of nvme_cmb: the driver is bound to P2PDMA_CMB. */
#ifndef SELFTESTS_P2PDMA_NVME_CMB_FIXTURE_H
#define SELFTESTS_P2PDMA_NVME_CMB_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "bar.h"
#include "dma.h"
#include "mmio.h"
#include "node.h"
#include "pages.h"
#include "testbed.h"

/* NVMe controller properties. */
#define CAP_HI	0x04
#define CMBLOC	0x38
#define CMBSZ	0x3c
#define CMBMSC	0x50
#define CMBSTS	0x58

#define CAP_HI_CMBS	0x2000000
#define CMBSZ_RDS	0x8
#define CMBSZ_WDS	0x10

FIXTURE(nvme_cmb)
{
	struct pci_fn cmb;
	struct peer peer;
	char driver[64];	/* the controller's driver before the test */
	char node[64];		/* of nvme_cmb in /dev */
	void *regs;		/* BAR 0 of the controller */
	bool cmbs;		/* whether the controller has CMBMSC (CAP.CMBS) */
	int bar;		/* the BAR that the CMB is in */
	bool prefetchable;	/* whether this BAR is */
	uint64_t bus;		/* address of the CMB on the bus */
	uint64_t phys;		/* physical address of the CMB */
	uint64_t size;		/* size of the CMB within the BAR, from CMBSZ */
	bool data;		/* whether CMBSZ.RDS and CMBSZ.WDS are set */
	int p2pmem;		/* the file p2pmem/allocate */
};

/* A line of the debugfs file "peers". */
struct peers_entry {
	int distance;
	char type[16];
	char closest[16];	/* the provider of memory that is the closest */
};

static inline int read_peers(const char *node, const struct pci_fn *peer,
			     struct peers_entry *entry)
{
	int ret = -ENOENT;
	char name[16];
	FILE *f;

	f = node_debugfs(node, "peers");
	if (!f)
		return -errno;
	while (ret && fscanf(f, "%15s %d %15s %15s", name, &entry->distance, entry->type,
			     entry->closest) == 4) {
		if (!strcmp(name, peer->name))
			ret = 0;
	}
	fclose(f);
	return ret;
}

/* The file omits a function while somebody holds its device lock: read it again. */
static inline int find_peer(const char *node, const struct pci_fn *peer,
			    struct peers_entry *entry)
{
	int tries, ret = -ENOENT;

	for (tries = 0; ret && tries < 10; tries++) {
		if (tries)
			usleep(10 * 1000);
		ret = read_peers(node, peer, entry);
	}
	return ret;
}

/* How much of the pool is free, ~0 on error. */
static inline uint64_t pool_available(const struct pci_fn *fn)
{
	uint64_t val;

	return pci_fn_read_u64(fn, "p2pmem/available", &val) ? ~0ull : val;
}

/* Learn from the controller's registers where the CMB is. */
static inline int locate_cmb(struct _test_data_nvme_cmb *self)
{
	uint32_t cmbsz = mmio_read32(self->regs + CMBSZ);
	uint32_t cmbloc = mmio_read32(self->regs + CMBLOC);
	uint64_t unit = 1ull << (12 + 4 * ((cmbsz >> 8) & 0xf));
	uint64_t offset = unit * (cmbloc >> 12);
	struct pci_bar res;
	int ret;

	self->bar = cmbloc & 7;
	ret = pci_fn_bar(&self->cmb, self->bar, &res);
	if (ret)
		return ret;
	if (offset >= res.len)
		return -ERANGE;
	self->size = unit * (cmbsz >> 12);
	if (self->size > res.len - offset)
		self->size = res.len - offset;
	self->data = (cmbsz & CMBSZ_RDS) && (cmbsz & CMBSZ_WDS);
	self->prefetchable = res.prefetchable;
	self->phys = res.start + offset;
	ret = pci_fn_bar_bus_address(&self->cmb, self->bar, &self->bus);
	self->bus += offset;
	return ret;
}

FIXTURE_SETUP(nvme_cmb)
{
	const char *lacks = testbed_lacks("P2PDMA_CMB");
	struct peers_entry entry;
	void *regs;

	if (lacks)
		SKIP(return, "%s", lacks);
	ASSERT_EQ(0, pci_fn_init(&self->cmb, getenv("P2PDMA_CMB")));
	if (load_driver("nvme_cmb"))
		SKIP(return, "no module nvme_cmb");

	/* Disable the CMB, as a reset does: the driver has to enable it. */
	ASSERT_EQ(0, pci_fn_driver(&self->cmb, self->driver, sizeof(self->driver)));
	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	ASSERT_EQ(0, pci_fn_write(&self->cmb, "enable", "1"));
	regs = pci_fn_map_bar(&self->cmb, 0, 2 * SZ_4K);
	ASSERT_NE(NULL, regs);
	self->cmbs = mmio_read32(regs + CAP_HI) & CAP_HI_CMBS;
	if (self->cmbs) {
		mmio_write32(regs + CMBMSC + 4, 0);
		mmio_write32(regs + CMBMSC, 0);
	}

	ASSERT_EQ(0, pci_fn_bind(&self->cmb, "nvme_cmb", "nvme_cmb"));
	ASSERT_EQ(0, misc_node(&self->cmb, self->node, sizeof(self->node)));

	/* With CONFIG_IO_STRICT_DEVMEM, binding has taken the first mapping away. */
	self->regs = pci_fn_map_bar(&self->cmb, 0, 2 * SZ_4K);
	if (!self->regs)
		SKIP(return, "cannot map BAR 0, needs CONFIG_IO_STRICT_DEVMEM=n");
	ASSERT_EQ(0, locate_cmb(self));

	self->p2pmem = open(pci_fn_path(&self->cmb, "p2pmem/allocate"), O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->p2pmem);
	ASSERT_EQ(0, peer_open(&self->peer));
	ASSERT_EQ(0, find_peer(self->node, &self->peer.fn, &entry));
	self->peer.dma = strcmp(entry.type, "not-supported") ? 0 : -EINVAL;
}

FIXTURE_TEARDOWN(nvme_cmb)
{
	close(self->peer.disk);
	close(self->p2pmem);
	EXPECT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(0, pci_fn_write(&self->cmb, "enable", "0"));
	EXPECT_EQ(0, pci_fn_write(&self->cmb, "driver_override", "\n"));
	if (self->driver[0] && strcmp(self->driver, "nvme_cmb"))
		EXPECT_EQ(0, pci_fn_bind(&self->cmb, self->driver, ""));
}

#endif
