// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the nvme_cmb driver, with DMA by the controller of another disk.
 *
 * They take two NVMe controllers away from whatever uses them, and overwrite
 * the start of the second one's disk. That is why both have to be named:
 *
 *   P2PDMA_CMB=0000:01:00.0   the controller with the Controller Memory Buffer
 *   P2PDMA_PEER=0000:02:00.0  the controller of a disk that may be overwritten
 *
 * Optional are
 *
 *   P2PDMA_EXPECT=bus-address|host-bridge|not-supported
 *                             how the DMA has to travel between the two
 *   P2PDMA_OTHER=0000:03:00.0 a PCI function that is no NVMe controller, and
 *                             that needs no driver
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "p2pdma.h"

#define SZ_4K	0x1000ul
#define SZ_1M	0x100000ul

/* NVMe controller properties. */
#define CAP_HI	0x04
#define CMBLOC	0x38
#define CMBSZ	0x3c
#define CMBMSC	0x50
#define CMBSTS	0x58

#define CAP_HI_CMBS	0x2000000
#define CMBSZ_RDS	0x8
#define CMBSZ_WDS	0x10

static const size_t lengths[] = {
	SZ_4K, 2 * SZ_4K, 3 * SZ_4K, 16 * SZ_4K, 33 * SZ_4K, 128 * SZ_4K, SZ_1M,
};

FIXTURE(nvme_cmb)
{
	struct pci_fn cmb;
	struct pci_fn peer;
	char driver[64];	/* that the controller had before */
	void *regs;	/* BAR 0 of cmb */
	bool cmbs;		/* whether there is a CMBMSC register */
	int bar;		/* of the CMB */
	uint64_t bus;		/* address of the CMB on the bus */
	uint64_t phys;		/* physical address of the CMB */
	uint64_t size;		/* of the CMB, as the registers tell */
	bool data;		/* whether they say that it can hold data */
	int p2pmem;		/* the allocate file */
	int disk;		/* of the peer, O_DIRECT */
	bool supported;		/* whether there is a way between the two: else
				 * the block layer fails requests with EINVAL
				 */
};

/* The line on @peer in the peers file of @cmb. */
static int peers_line_now(const struct pci_fn *cmb, const struct pci_fn *peer, int *distance,
			  char type[16], char closest[16])
{
	char path[128], name[16];
	int ret = -ENOENT;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/kernel/debug/nvme_cmb-%s/peers", cmb->name);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (fscanf(f, "%15s %d %15s %15s", name, distance, type, closest) == 4) {
		if (!strcmp(name, peer->name)) {
			ret = 0;
			break;
		}
	}
	fclose(f);
	return ret;
}

/* Functions that are locked are left out: there may be another time. */
static int peers_line(const struct pci_fn *cmb, const struct pci_fn *peer, int *distance,
		      char type[16], char closest[16])
{
	int tries, ret;

	for (tries = 0; tries < 10; tries++) {
		ret = peers_line_now(cmb, peer, distance, type, closest);
		if (!ret || access("/sys/kernel/debug", X_OK))
			break;
		usleep(10 * 1000);
	}
	return ret;
}

FIXTURE_SETUP(nvme_cmb)
{
	char path[256], type[16], closest[16];
	uint64_t start, len, unit, offset;
	uint32_t cmbsz, cmbloc;
	void *regs;
	int distance;

	if (!getenv("P2PDMA_CMB") || !getenv("P2PDMA_PEER"))
		SKIP(return, "P2PDMA_CMB and P2PDMA_PEER have to name two NVMe controllers");
	if (geteuid())
		SKIP(return, "needs root");

	ASSERT_EQ(0, pci_fn_init(&self->cmb, getenv("P2PDMA_CMB")));
	ASSERT_EQ(0, pci_fn_init(&self->peer, getenv("P2PDMA_PEER")));
	if (system("modprobe -q nvme_cmb"))
		SKIP(return, "no module nvme_cmb");

	/* The driver is to find the switch of the CMB as it is after a reset. */
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

	/* The first mapping is gone if the kernel is strict. */
	self->regs = pci_fn_map_bar(&self->cmb, 0, 2 * SZ_4K);
	if (!self->regs)
		SKIP(return, "no access to registers, is this CONFIG_IO_STRICT_DEVMEM?");
	cmbsz = mmio_read32(self->regs + CMBSZ);
	cmbloc = mmio_read32(self->regs + CMBLOC);
	unit = 1ull << (12 + 4 * ((cmbsz >> 8) & 0xf));
	offset = unit * (cmbloc >> 12);
	self->bar = cmbloc & 7;
	ASSERT_EQ(0, pci_fn_resource(&self->cmb, self->bar, &start, &len));
	ASSERT_LT(offset, len);
	self->size = unit * (cmbsz >> 12);
	if (self->size > len - offset)
		self->size = len - offset;
	self->data = (cmbsz & CMBSZ_RDS) && (cmbsz & CMBSZ_WDS);
	self->phys = start + offset;
	ASSERT_EQ(0, pci_fn_bar_bus_address(&self->cmb, self->bar, &self->bus));
	self->bus += offset;

	self->p2pmem = open(pci_fn_path(&self->cmb, "p2pmem/allocate"), O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->p2pmem);

	/* Whatever drives the peer, it has to be nvme for its disk to show up. */
	ASSERT_EQ(0, nvme_disk(&self->peer, path, sizeof(path)));
	self->disk = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, self->disk);

	ASSERT_EQ(0, peers_line(&self->cmb, &self->peer, &distance, type, closest));
	self->supported = strcmp(type, "not-supported");
}

FIXTURE_TEARDOWN(nvme_cmb)
{
	close(self->disk);
	close(self->p2pmem);
	EXPECT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(0, pci_fn_write(&self->cmb, "enable", "0"));
	EXPECT_EQ(0, pci_fn_write(&self->cmb, "driver_override", "\n"));
	if (self->driver[0] && strcmp(self->driver, "nvme_cmb"))
		EXPECT_EQ(0, pci_fn_bind(&self->cmb, self->driver, ""));
}

static uint64_t pool_available(const struct pci_fn *fn)
{
	uint64_t val;

	return pci_fn_read_u64(fn, "p2pmem/available", &val) ? ~0ull : val;
}

static void *p2pmem_map(int fd, size_t len)
{
	void *mem;

	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return mem == MAP_FAILED ? NULL : mem;
}

/* The registers of the controller are as the specification wants them. */
TEST_F_TIMEOUT(nvme_cmb, registers, 90)
{
	if (!self->cmbs)
		SKIP(return, "the CMB is always on");

	EXPECT_EQ(3 | (uint32_t)self->bus, mmio_read32(self->regs + CMBMSC));
	EXPECT_EQ(self->bus >> 32, mmio_read32(self->regs + CMBMSC + 4));
	EXPECT_EQ(0, mmio_read32(self->regs + CMBSTS) & 1);

	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(0, mmio_read32(self->regs + CMBMSC));
	EXPECT_EQ(0, mmio_read32(self->regs + CMBMSC + 4));
	EXPECT_EQ(0, mmio_read32(self->regs + CMBSZ));
}

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

/* Distance, map type and closest provider are those of the topology. */
TEST_F_TIMEOUT(nvme_cmb, peers, 90)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	char type[16], closest[16];
	int distance;

	if (!expect)
		SKIP(return, "P2PDMA_EXPECT is not set");

	/* Nothing is closer to it than itself. */
	ASSERT_EQ(0, peers_line(&self->cmb, &self->cmb, &distance, type, closest));
	EXPECT_EQ(0, distance);
	EXPECT_STREQ("bus-address", type);
	EXPECT_STREQ(self->cmb.name, closest);

	ASSERT_EQ(0, peers_line(&self->cmb, &self->peer, &distance, type, closest));
	EXPECT_STREQ(expect, type);
	if (strcmp(expect, "not-supported")) {
		EXPECT_LT(0, distance);
		EXPECT_STREQ(self->cmb.name, closest);
	} else {
		EXPECT_EQ(-1, distance);
		EXPECT_STREQ("-", closest);
	}

	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(-ENOENT, peers_line(&self->cmb, &self->peer, &distance, type, closest));
}

/* Without a driver_override the driver takes no controller. */
TEST_F_TIMEOUT(nvme_cmb, override_only, 90)
{
	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	EXPECT_EQ(-ENODEV, pci_fn_bind(&self->cmb, "nvme_cmb", ""));
}

/* A function of another class is refused, even with a driver_override. */
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

/* A controller without a CMB is refused, and works as before. */
TEST_F_TIMEOUT(nvme_cmb, no_cmb, 90)
{
	void *regs;
	uint64_t val;
	char disk[64];

	close(self->disk);
	ASSERT_EQ(0, pci_fn_unbind(&self->peer));
	ASSERT_EQ(0, pci_fn_write(&self->peer, "enable", "1"));
	regs = pci_fn_map_bar(&self->peer, 0, 2 * SZ_4K);
	ASSERT_NE(NULL, regs);
	if (!mmio_read32(regs + CMBSZ)) {
		EXPECT_EQ(-ENODEV, pci_fn_bind(&self->peer, "nvme_cmb", "nvme_cmb"));
		EXPECT_EQ(-ENOENT, pci_fn_read_u64(&self->peer, "p2pmem/size", &val));
	} else {
		TH_LOG("the peer has a CMB");
	}

	EXPECT_EQ(0, pci_fn_write(&self->peer, "enable", "0"));
	EXPECT_EQ(0, pci_fn_bind(&self->peer, "nvme", ""));
	EXPECT_EQ(0, nvme_disk(&self->peer, disk, sizeof(disk)));
	self->disk = open(disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	EXPECT_LE(0, self->disk);
}

TEST_F_TIMEOUT(nvme_cmb, mmap_refused, 90)
{
	size_t page = sysconf(_SC_PAGESIZE);
	void *mem;

	mem = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE, self->p2pmem, 0);
	EXPECT_EQ(MAP_FAILED, mem);
	EXPECT_EQ(EINVAL, errno);

	mem = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, self->p2pmem, page);
	EXPECT_EQ(MAP_FAILED, mem);
	EXPECT_EQ(EINVAL, errno);

	mem = mmap(NULL, self->size + page, PROT_READ | PROT_WRITE, MAP_SHARED, self->p2pmem, 0);
	EXPECT_EQ(MAP_FAILED, mem);
	EXPECT_EQ(ENOMEM, errno);

	EXPECT_EQ(self->size, pool_available(&self->cmb));
}

/* A mapping can be pinned, but neither grow nor show up in a core dump. */
TEST_F_TIMEOUT(nvme_cmb, mmap_flags, 90)
{
	char line[512];
	void *mem;

	mem = p2pmem_map(self->p2pmem, 4 * SZ_4K);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, vma_flags(mem, line, sizeof(line)));
	EXPECT_NE(NULL, strstr(line, " de")) {
		TH_LOG("%s", line);
	}
	EXPECT_NE(NULL, strstr(line, " dd"));
	EXPECT_EQ(NULL, strstr(line, " io"));
	EXPECT_EQ(NULL, strstr(line, " pf"));

	EXPECT_EQ(MAP_FAILED, mremap(mem, 4 * SZ_4K, 8 * SZ_4K, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, munmap(mem, 4 * SZ_4K));
}

/* It is not cached, also after its protection was changed. */
TEST_F_TIMEOUT(nvme_cmb, mmap_uncached, 90)
{
	char line[512];
	void *mem;

	mem = p2pmem_map(self->p2pmem, SZ_4K);
	ASSERT_NE(NULL, mem);
	mmio_write64(mem, 1);
	if (page_table_line(mem, line, sizeof(line)))
		SKIP(return, "needs CONFIG_PTDUMP_DEBUGFS, on x86");
	EXPECT_NE(NULL, strstr(line, " PCD")) {
		TH_LOG("%s", line);
	}
	ASSERT_EQ(0, mprotect(mem, SZ_4K, PROT_READ));
	EXPECT_EQ(1, mmio_read64(mem));
	ASSERT_EQ(0, page_table_line(mem, line, sizeof(line)));
	EXPECT_NE(NULL, strstr(line, " PCD")) {
		TH_LOG("%s", line);
	}
	ASSERT_EQ(0, munmap(mem, SZ_4K));
}

TEST_F_TIMEOUT(nvme_cmb, mmap_whole, 90)
{
	void *mem;

	mem = p2pmem_map(self->p2pmem, self->size);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, pool_available(&self->cmb));
	EXPECT_EQ(NULL, p2pmem_map(self->p2pmem, sysconf(_SC_PAGESIZE)));
	EXPECT_EQ(ENOMEM, errno);

	/* Both ends of the mapping are memory, and of this BAR. */
	EXPECT_EQ(self->phys, phys_addr(mem));
	EXPECT_EQ(self->phys + self->size - SZ_4K, phys_addr(mem + self->size - SZ_4K));
	mmio_fill(mem + self->size - SZ_4K, SZ_4K, 1);
	EXPECT_EQ(-1, mmio_check(mem + self->size - SZ_4K, SZ_4K, 1));

	ASSERT_EQ(0, munmap(mem, self->size));
	EXPECT_EQ(self->size, pool_available(&self->cmb));
}

/*
 * The same memory as @mem of @len bytes, through the BAR itself and not through
 * the mapping that is under test.
 */
static void *bar_view(void *bar, uint64_t phys, const void *mem, size_t len)
{
	size_t page = sysconf(_SC_PAGESIZE), i;
	uint64_t first = phys_addr(mem);

	if (first < phys)
		return NULL;
	for (i = 0; i < len; i += page) {
		if (phys_addr(mem + i) != first + i)
			return NULL;
	}
	return bar + (first - phys);
}

/* Disk to CMB: the peer writes to the CMB. */
TEST_F_TIMEOUT(nvme_cmb, dma_to_cmb, 120)
{
	void *bar, *view, *mem, *ram;
	size_t i, len;

	bar = pci_fn_map_bar(&self->cmb, self->bar, self->size);
	ASSERT_NE(NULL, bar);
	ram = ram_map(SZ_1M);
	ASSERT_NE(NULL, ram);

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		len = lengths[i];
		mmio_fill(ram, len, 2 * i);
		ASSERT_EQ(0, pwrite_all(self->disk, ram, len, DISK_OFFSET));

		mem = p2pmem_map(self->p2pmem, len);
		ASSERT_NE(NULL, mem);
		mmio_fill(mem, len, 2 * i + 1);
		view = bar_view(bar, self->phys, mem, len);
		ASSERT_NE(NULL, view);
		ASSERT_EQ(-1, mmio_check(view, len, 2 * i + 1));

		ASSERT_EQ(self->supported ? 0 : -EINVAL,
			  pread_all(self->disk, mem, len, DISK_OFFSET)) {
			TH_LOG("%zu bytes", len);
		}
		EXPECT_EQ(-1, mmio_check(mem, len, self->supported ? 2 * i : 2 * i + 1));
		EXPECT_EQ(-1, mmio_check(view, len, self->supported ? 2 * i : 2 * i + 1));

		memset(ram, 0, len);
		ASSERT_EQ(0, pread_all(self->disk, ram, len, DISK_OFFSET));
		EXPECT_EQ(-1, mmio_check(ram, len, 2 * i));
		ASSERT_EQ(0, munmap(mem, len));
	}
	EXPECT_EQ(self->size, pool_available(&self->cmb));
}

/* CMB to disk: the peer reads from the CMB. */
TEST_F_TIMEOUT(nvme_cmb, dma_from_cmb, 120)
{
	void *bar, *view, *mem, *ram;
	size_t i, len;

	bar = pci_fn_map_bar(&self->cmb, self->bar, self->size);
	ASSERT_NE(NULL, bar);
	ram = ram_map(SZ_1M);
	ASSERT_NE(NULL, ram);

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		len = lengths[i];
		mmio_fill(ram, len, 2 * i);
		ASSERT_EQ(0, pwrite_all(self->disk, ram, len, DISK_OFFSET));

		mem = p2pmem_map(self->p2pmem, len);
		ASSERT_NE(NULL, mem);
		view = bar_view(bar, self->phys, mem, len);
		ASSERT_NE(NULL, view);
		mmio_fill(view, len, 2 * i + 1);
		ASSERT_EQ(-1, mmio_check(mem, len, 2 * i + 1));

		ASSERT_EQ(self->supported ? 0 : -EINVAL,
			  pwrite_all(self->disk, mem, len, DISK_OFFSET)) {
			TH_LOG("%zu bytes", len);
		}

		memset(ram, 0, len);
		ASSERT_EQ(0, pread_all(self->disk, ram, len, DISK_OFFSET));
		EXPECT_EQ(-1, mmio_check(ram, len, self->supported ? 2 * i + 1 : 2 * i));
		EXPECT_EQ(-1, mmio_check(view, len, 2 * i + 1));
		ASSERT_EQ(0, munmap(mem, len));
	}
	EXPECT_EQ(self->size, pool_available(&self->cmb));
}

/* DMA to a part of a mapping leaves the rest of it alone. */
TEST_F_TIMEOUT(nvme_cmb, dma_part, 90)
{
	void *mem, *ram;

	if (!self->supported)
		SKIP(return, "no way for DMA");

	ram = ram_map(SZ_1M);
	ASSERT_NE(NULL, ram);
	mmio_fill(ram, SZ_1M, 1);
	ASSERT_EQ(0, pwrite_all(self->disk, ram, SZ_1M, DISK_OFFSET));

	mem = p2pmem_map(self->p2pmem, SZ_1M);
	ASSERT_NE(NULL, mem);
	mmio_fill(mem, SZ_1M, 2);
	/* Starts within a page, and crosses into the next. */
	ASSERT_EQ(0, pread_all(self->disk, mem + SZ_4K + 512, SZ_4K, DISK_OFFSET));

	EXPECT_EQ(-1, mmio_check(mem + SZ_4K + 512, SZ_4K, 1));
	EXPECT_EQ(-1, mmio_check_part(mem, 0, SZ_4K + 512, 2));
	EXPECT_EQ(-1, mmio_check_part(mem, 2 * SZ_4K + 512, SZ_1M, 2));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
}

/* What O_DIRECT cannot do with ordinary memory, it cannot do with the CMB. */
TEST_F_TIMEOUT(nvme_cmb, dma_unaligned, 90)
{
	void *mem;

	mem = p2pmem_map(self->p2pmem, 4 * SZ_4K);
	ASSERT_NE(NULL, mem);
	mmio_fill(mem, 4 * SZ_4K, 1);

	EXPECT_EQ(-EINVAL, pread_all(self->disk, mem + 2, SZ_4K, DISK_OFFSET));
	EXPECT_EQ(-EINVAL, pread_all(self->disk, mem, SZ_4K - 8, DISK_OFFSET));
	EXPECT_EQ(-EINVAL, pread_all(self->disk, mem, SZ_4K, DISK_OFFSET + 8));
	EXPECT_EQ(-EINVAL, pwrite_all(self->disk, mem + 2, SZ_4K, DISK_OFFSET));
	EXPECT_EQ(-EINVAL, pwrite_all(self->disk, mem, SZ_4K - 8, DISK_OFFSET));
	EXPECT_EQ(-EINVAL, pwrite_all(self->disk, mem, SZ_4K, DISK_OFFSET + 8));

	EXPECT_EQ(-1, mmio_check(mem, 4 * SZ_4K, 1));
	ASSERT_EQ(0, munmap(mem, 4 * SZ_4K));
}

static sigjmp_buf sigbus_env;

static void sigbus(int sig)
{
	siglongjmp(sigbus_env, sig);
}

/* Unbinding takes the memory away from those who have mapped it. */
TEST_F_TIMEOUT(nvme_cmb, unbind_mapped, 90)
{
	struct sigaction sa = { .sa_handler = sigbus };
	void *mem;

	ASSERT_EQ(0, sigaction(SIGBUS, &sa, NULL));
	mem = p2pmem_map(self->p2pmem, SZ_1M);
	ASSERT_NE(NULL, mem);
	mmio_write64(mem, 1);
	ASSERT_EQ(1, mmio_read64(mem));

	ASSERT_EQ(0, pci_fn_unbind(&self->cmb));
	if (!sigsetjmp(sigbus_env, 1)) {
		mmio_write64(mem, 2);
		EXPECT_TRUE(false) {
			TH_LOG("the memory is still there");
		}
	}

	EXPECT_EQ(NULL, p2pmem_map(self->p2pmem, SZ_4K));
	EXPECT_EQ(ENODEV, errno);

	ASSERT_EQ(0, pci_fn_bind(&self->cmb, "nvme_cmb", "nvme_cmb"));
	EXPECT_EQ(self->size, pool_available(&self->cmb));
}

/* Binding and unbinding can be repeated, also from the nvme driver and back. */
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
