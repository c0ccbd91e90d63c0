// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of nvme_cmb as the driver of the device that nvme adds for the CMB of a
 * controller: the disk of this controller stays in use. See testbed.h for the
 * environment variables.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "dma.h"
#include "mmio.h"
#include "node.h"
#include "pages.h"
#include "process.h"
#include "testbed.h"

#define MODULE	"nvme_cmb"

/* Where use_disk() writes to the disk; other tests use what is before that. */
#define OTHER_OFFSET	(DISK_OFFSET + SZ_16M)

/* Controller properties, as indices of 32-bit words. */
enum {
	CAP_HI = 0x04 / 4,
	CMBMSC_LO = 0x50 / 4,
	CMBMSC_HI = 0x54 / 4,
};

#define CAP_HI_CMBS	0x02000000
#define CMBMSC_CRE	0x1
#define CMBMSC_CMSE	0x2

/* The teardown runs in another process, which shares this structure. */
FIXTURE(nvme_child)
{
	struct pci_fn fn;
	struct peer peer;
	char driver[64];	/* the controller's driver before the test */
	char node[256];
	int fd;			/* of the node */
	int disk;		/* of the same controller */
	uint64_t available;	/* bytes that are free while nobody maps the memory */
};

/* A process that uses a disk shares this with the test's process. */
struct loop {
	int stop;
	int rounds;
	int err;		/* why the loop ended: a negative errno */
};

static uint64_t pool_left(const struct pci_fn *fn)
{
	uint64_t val;

	return pci_fn_read_u64(fn, "p2pmem/available", &val) ? ~0ull : val;
}

static bool drained(const struct _test_data_nvme_child *self)
{
	return WAIT_FOR(pool_left(&self->fn) == self->available, 5000);
}

/* Open the disk and the node of the controller: 0 or a negative errno. */
static int open_all(struct _test_data_nvme_child *self)
{
	char path[64];
	int ret;

	ret = nvme_disk(&self->fn, path, sizeof(path));
	if (ret)
		return ret;
	self->disk = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (self->disk < 0)
		return -errno;
	self->fd = misc_open(&self->fn, self->node, sizeof(self->node));
	return self->fd < 0 ? self->fd : 0;
}

static void close_all(const struct _test_data_nvme_child *self)
{
	close(self->disk);
	close(self->fd);
}

/*
 * The N of /dev/nvme<N>, or a negative errno. The names of disks do not tell it:
 * with multipath they have the number of the subsystem.
 */
static int controller_number(const struct _test_data_nvme_child *self)
{
	DIR *dir = opendir(pci_fn_path(&self->fn, "nvme"));
	struct dirent *entry;
	int nr = -ENODEV;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir)))
		if (sscanf(entry->d_name, "nvme%d", &nr) == 1)
			break;
	closedir(dir);
	return nr;
}

static int reset_ctrl(const struct _test_data_nvme_child *self)
{
	char path[64];
	int nr = controller_number(self);

	if (nr < 0)
		return nr;
	snprintf(path, sizeof(path), "/sys/class/nvme/nvme%d/reset_controller", nr);
	return file_write(path, "1");
}

/* Write data from RAM to the disk, read and compare them, until told to stop. */
static pid_t use_disk(int disk, struct loop *loop)
{
	uint64_t seed = now_ms(), end = seed + 60000;
	void *out, *in;
	pid_t pid;

	memset(loop, 0, sizeof(*loop));
	pid = fork_child();
	if (pid)
		return pid;
	out = ram_map(SZ_1M);
	in = ram_map(SZ_1M);
	while (!loop->err && !__atomic_load_n(&loop->stop, __ATOMIC_SEQ_CST) && now_ms() < end) {
		mmio_fill(out, SZ_1M, seed + loop->rounds);
		loop->err = pwrite_all(disk, out, SZ_1M, OTHER_OFFSET) ?:
			pread_all(disk, in, SZ_1M, OTHER_OFFSET);
		if (!loop->err && memcmp(out, in, SZ_1M))
			loop->err = -EBADMSG;
		__atomic_fetch_add(&loop->rounds, 1, __ATOMIC_SEQ_CST);
	}
	_exit(!!loop->err);
}

/* Whether a loop that has not failed does three more rounds. */
static bool goes_on(struct loop *loop)
{
	int rounds = __atomic_load_n(&loop->rounds, __ATOMIC_SEQ_CST);

	return WAIT_FOR(__atomic_load_n(&loop->rounds, __ATOMIC_SEQ_CST) >= rounds + 3, 20000) &&
		!loop->err;
}

/*
 * DMA between the disk and the CMB of the same controller, in transfers of one
 * segment: QEMU's controller refuses others ("Invalid Use of Controller Memory
 * Buffer"), as it takes the address of the SGL segment for that of the data.
 */
static int own_dma(const struct _test_data_nvme_child *self, void *mem, size_t len)
{
	size_t part, n;
	int ret = 0;

	for (part = 0; part < len && !ret; part += n) {
		n = len - part < SZ_1M / 8 ? len - part : SZ_1M / 8;
		ret = dma_in(self->disk, mem + part, n) ?: dma_out(self->disk, mem + part, n);
	}
	return ret;
}

/* Let a disk write to @mem until this fails. */
static pid_t start_dma(int disk, void *mem, int want)
{
	uint64_t end = now_ms() + 60000;
	pid_t pid = fork_child();
	int ret;

	if (pid)
		return pid;
	do
		ret = pread_all(disk, mem, SZ_1M / 8, 0);
	while (ret == want && now_ms() < end);
	if (ret == -EFAULT)
		_exit(1);
	_exit(ret == -EIO || ret == -ENODEV || ret == -ENXIO || ret == -ENODATA ? 2 : 3);
}

/* Whether such a process has ended since it could not access the memory, or the disk. */
static bool dma_ended(pid_t pid, bool disk_too)
{
	int status = wait_child(pid, 20000);

	return status == 1 << 8 || (disk_too && (status == 2 << 8 || status == 0));
}

FIXTURE_SETUP(nvme_child)
{
	const char *lacks = testbed_lacks("P2PDMA_CMB");
	int ret;

	if (lacks)
		SKIP(return, "%s", lacks);
	ASSERT_EQ(0, pci_fn_init(&self->fn, getenv("P2PDMA_CMB")));
	ASSERT_EQ(0, peer_open(&self->peer));
	ASSERT_EQ(0, pci_fn_driver(&self->fn, self->driver, sizeof(self->driver)));
	if (load_driver(MODULE))
		SKIP(return, "no module " MODULE);
	ret = pci_fn_rebind(&self->fn, "nvme") ?: open_all(self);
	/* The harness does not run the teardown if the setup fails. */
	if (ret)
		pci_fn_rebind(&self->fn, self->driver);
	ASSERT_EQ(0, ret);
	self->available = pool_left(&self->fn);
	ASSERT_NE(~0ull, self->available);
}

FIXTURE_TEARDOWN_PARENT(nvme_child)
{
	module_run("off");
	load_driver(MODULE);
	EXPECT_EQ(0, pci_fn_rebind(&self->fn, self->driver));
}

/* The node can be found from the controller, and the other way round. */
TEST_F_TIMEOUT(nvme_child, topology, 60)
{
	char path[PATH_MAX], child[64], link[PATH_MAX], want[PATH_MAX];
	int nr;

	nr = controller_number(self);
	ASSERT_LE(0, nr);
	ASSERT_EQ(0, child_name(&self->fn, child, sizeof(child)));
	snprintf(want, sizeof(want), "nvme.cmb.%d", nr);
	EXPECT_STREQ(want, child);
	snprintf(want, sizeof(want), "/dev/nvme-cmb%d", nr);
	EXPECT_STREQ(want, self->node);

	snprintf(path, sizeof(path), "/sys/class/misc/%s/device/..", strrchr(self->node, '/') + 1);
	ASSERT_NE(NULL, realpath(path, link));
	ASSERT_NE(NULL, realpath(pci_fn_path(&self->fn, "."), want));
	EXPECT_STREQ(want, link);
}

/* The controller's own disk and another one access the memory. */
TEST_F_TIMEOUT(nvme_child, two_disks, 120)
{
	static const size_t lengths[] = { SZ_4K, 3 * SZ_4K, SZ_1M, SZ_4M };
	struct loop *loop = ram_map_shared(SZ_4K);
	void *mem;
	pid_t pid;
	size_t i;

	ASSERT_NE(NULL, loop);
	pid = use_disk(self->disk, loop);
	ASSERT_LE(0, pid);
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		mem = map_file(self->fd, lengths[i], 0);
		ASSERT_NE(NULL, mem);
		EXPECT_EQ(0, own_dma(self, mem, lengths[i]));
		EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, lengths[i]));
		EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, mem, lengths[i]));
		ASSERT_EQ(0, munmap(mem, lengths[i]));
	}
	EXPECT_TRUE(goes_on(loop));
	__atomic_store_n(&loop->stop, 1, __ATOMIC_SEQ_CST);
	EXPECT_EQ(0, wait_child(pid, 20000));
	EXPECT_TRUE(drained(self));
}

/* Unbinding the child takes the mappings away. The disk and the pool do not notice. */
TEST_F_TIMEOUT(nvme_child, child_unbound, 120)
{
	struct loop *loop = ram_map_shared(SZ_4K);
	pid_t user, own, other;
	void *mem, *pool;
	uint64_t val;
	int fd;

	ASSERT_NE(NULL, loop);
	user = use_disk(self->disk, loop);
	ASSERT_LE(0, user);
	fd = open(pci_fn_path(&self->fn, "p2pmem/allocate"), O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	pool = map_file(fd, SZ_1M, 0);
	ASSERT_NE(NULL, pool);
	page_mark(pool, SZ_1M, 5);
	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	page_mark(mem, SZ_4M, 1);
	own = start_dma(self->disk, mem, 0);
	ASSERT_LE(0, own);
	other = start_dma(self->peer.disk, mem + SZ_2M, self->peer.dma);
	ASSERT_LE(0, other);
	EXPECT_TRUE(goes_on(loop));

	ASSERT_EQ(0, child_unbind(&self->fn));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_4M - SZ_4K, 1));
	EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_TRUE(dma_ended(own, false));
	EXPECT_TRUE(dma_ended(other, false));
	EXPECT_NE(0, access(self->node, F_OK));
	EXPECT_EQ(-1, page_check(pool, SZ_1M, 5));
	EXPECT_TRUE(goes_on(loop));
	ASSERT_EQ(0, munmap(pool, SZ_1M));
	EXPECT_TRUE(drained(self));

	ASSERT_EQ(0, child_bind(&self->fn, MODULE));
	close(self->fd);
	ASSERT_EQ(0, misc_node(&self->fn, self->node, sizeof(self->node)));
	self->fd = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	ASSERT_EQ(0, munmap(mem, SZ_4M));
	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, own_dma(self, mem, SZ_4M));
	EXPECT_TRUE(goes_on(loop));
	__atomic_store_n(&loop->stop, 1, __ATOMIC_SEQ_CST);
	EXPECT_EQ(0, wait_child(user, 20000));
}

/* Mappings survive resets of the controller, under load. */
TEST_F_TIMEOUT(nvme_child, reset, 180)
{
	struct loop *loops = ram_map_shared(SZ_4K);
	pid_t pids[2];
	uint64_t val;
	int round, i;
	void *mem;

	ASSERT_NE(NULL, loops);
	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	pids[0] = use_disk(self->disk, &loops[0]);
	pids[1] = use_disk(self->peer.disk, &loops[1]);
	for (round = 0; round < number_from_env("P2PDMA_ROUNDS", 20) / 4; round++) {
		EXPECT_EQ(0, own_dma(self, mem, SZ_1M));
		ASSERT_EQ(0, reset_ctrl(self));
		EXPECT_EQ(0, try_read64(mem, &val));
		EXPECT_EQ(0, try_write64(mem + SZ_4M - SZ_4K, round));
		EXPECT_EQ(0, own_dma(self, mem, SZ_4M));
		EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_4M));
	}
	for (i = 0; i < ARRAY_SIZE(pids); i++) {
		EXPECT_TRUE(goes_on(&loops[i])) {
			TH_LOG("disk %d: %s", i, strerror(-loops[i].err));
		}
		__atomic_store_n(&loops[i].stop, 1, __ATOMIC_SEQ_CST);
		EXPECT_EQ(0, wait_child(pids[i], 20000));
	}
	ASSERT_EQ(0, munmap(mem, SZ_4M));
	EXPECT_TRUE(drained(self));
}

static uint32_t reg_read(const uint32_t *reg)
{
	return __atomic_load_n(reg, __ATOMIC_SEQ_CST);
}

/*
 * Resets that clear CMBMSC, such as a Function Level Reset, disable the CMB until
 * nvme enables it again. QEMU has none, so clear the register by hand.
 */
TEST_F_TIMEOUT(nvme_child, cmb_disabled, 60)
{
	uint32_t *regs, lo, hi;
	void *mem;
	int fd;

	mem = map_file(self->fd, SZ_1M, 0);
	ASSERT_NE(NULL, mem);
	fd = open(pci_fn_path(&self->fn, "resource0"), O_RDWR | O_SYNC | O_CLOEXEC);
	ASSERT_LE(0, fd);
	regs = map_file(fd, SZ_4K, 0);
	close(fd);
	if (!regs)
		SKIP(return, "cannot map the controller's registers");
	if (!(reg_read(&regs[CAP_HI]) & CAP_HI_CMBS))
		SKIP(return, "the CMB is always enabled");
	lo = reg_read(&regs[CMBMSC_LO]);
	hi = reg_read(&regs[CMBMSC_HI]);
	EXPECT_EQ(CMBMSC_CRE | CMBMSC_CMSE, lo & (CMBMSC_CRE | CMBMSC_CMSE));

	__atomic_store_n(&regs[CMBMSC_LO], 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&regs[CMBMSC_HI], 0, __ATOMIC_SEQ_CST);
	EXPECT_EQ(0, reg_read(&regs[CMBMSC_LO]));
	ASSERT_EQ(0, reset_ctrl(self));
	EXPECT_EQ(lo, reg_read(&regs[CMBMSC_LO]));
	EXPECT_EQ(hi, reg_read(&regs[CMBMSC_HI]));
	EXPECT_EQ(0, own_dma(self, mem, SZ_1M));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_1M));
	ASSERT_EQ(0, munmap(regs, SZ_4K));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
}

/* Unbinding or removing the controller takes child and memory away. */
static void parent_goes(struct __test_metadata *_metadata, struct _test_data_nvme_child *self,
			bool removed)
{
	pid_t own, other;
	char child[64];
	uint64_t val;
	void *mem;
	int old;

	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	page_mark(mem, SZ_4M, 1);
	own = start_dma(self->disk, mem, 0);
	ASSERT_LE(0, own);
	other = start_dma(self->peer.disk, mem + SZ_2M, self->peer.dma);
	ASSERT_LE(0, other);
	usleep(100 * 1000);

	close(self->disk);
	ASSERT_EQ(0, removed ? pci_fn_write(&self->fn, "remove", "1") : pci_fn_unbind(&self->fn));
	EXPECT_EQ(-ENODEV, child_name(&self->fn, child, sizeof(child)));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_4M - SZ_4K, 1));
	EXPECT_TRUE(dma_ended(own, true));
	EXPECT_TRUE(dma_ended(other, false));
	EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);

	old = self->fd;
	if (removed)
		ASSERT_EQ(0, file_write("/sys/bus/pci/rescan", "1"));
	/* The kernel may be about to bind it, too. */
	ASSERT_TRUE(WAIT_FOR(!pci_fn_rebind(&self->fn, "nvme"), 5000));
	ASSERT_EQ(0, open_all(self));
	EXPECT_EQ(self->available, pool_left(&self->fn));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(NULL, map_file(old, SZ_4K, 0));
	ASSERT_EQ(0, munmap(mem, SZ_4M));
	mem = map_file(self->fd, SZ_4M, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, own_dma(self, mem, SZ_4M));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_4M));
}

TEST_F_TIMEOUT(nvme_child, parent_unbound, 120)
{
	parent_goes(_metadata, self, false);
}

TEST_F_TIMEOUT(nvme_child, parent_removed, 120)
{
	parent_goes(_metadata, self, true);
}

/* Others allocate from the pool while the node does. */
TEST_F_TIMEOUT(nvme_child, pool_shared, 120)
{
	int round, i, status;
	void *mem[8];
	pid_t pid;

	if (module_load())
		SKIP(return, "no module " TEST_MODULE);
	pid = fork_child();
	ASSERT_LE(0, pid);
	if (!pid) {
		for (round = 0; round < 2000; round++) {
			if (module_run("alloc %s", self->fn.name))
				_exit(1);
		}
		_exit(0);
	}
	for (round = 0; round < number_from_env("P2PDMA_ROUNDS", 20); round++) {
		for (i = 0; i < ARRAY_SIZE(mem); i++) {
			mem[i] = map_file(self->fd, SZ_1M, 0);
			ASSERT_NE(NULL, mem[i]);
			page_mark(mem[i], SZ_1M, round * ARRAY_SIZE(mem) + i);
		}
		EXPECT_EQ(0, own_dma(self, mem[0], SZ_1M));
		for (i = 0; i < ARRAY_SIZE(mem); i++) {
			if (i)
				EXPECT_EQ(-1, page_check(mem[i], SZ_1M,
							 round * ARRAY_SIZE(mem) + i));
			ASSERT_EQ(0, munmap(mem[i], SZ_1M));
		}
	}
	status = wait_child(pid, 60000);
	EXPECT_EQ(0, status);
	EXPECT_TRUE(drained(self));
}

/* The module comes and goes, before and after the controller; the disk stays. */
TEST_F_TIMEOUT(nvme_child, load_order, 120)
{
	struct loop *loop = ram_map_shared(SZ_4K);
	char child[64];
	pid_t pid;

	if (access("/sys/module/" MODULE "/initstate", F_OK))
		SKIP(return, MODULE " is built in");
	ASSERT_NE(NULL, loop);
	EXPECT_EQ(-1, syscall(SYS_delete_module, MODULE, O_NONBLOCK));
	close(self->fd);
	pid = use_disk(self->disk, loop);
	ASSERT_LE(0, pid);
	EXPECT_TRUE(goes_on(loop));
	ASSERT_EQ(0, syscall(SYS_delete_module, MODULE, O_NONBLOCK));
	EXPECT_NE(0, access(self->node, F_OK));
	EXPECT_EQ(0, child_name(&self->fn, child, sizeof(child)));
	EXPECT_TRUE(goes_on(loop));
	__atomic_store_n(&loop->stop, 1, __ATOMIC_SEQ_CST);
	EXPECT_EQ(0, wait_child(pid, 20000));

	/* First the controller, then the module. */
	close(self->disk);
	ASSERT_EQ(0, pci_fn_rebind(&self->fn, "nvme"));
	ASSERT_EQ(0, load_driver(MODULE));
	ASSERT_EQ(0, open_all(self));
	close_all(self);
	/* First the module, then the controller. */
	ASSERT_EQ(0, pci_fn_rebind(&self->fn, "nvme"));
	ASSERT_EQ(0, open_all(self));
	EXPECT_EQ(self->available, pool_left(&self->fn));
}

/* The same controller is given to nvme_cmb alone, and back. */
TEST_F_TIMEOUT(nvme_child, alone, 90)
{
	char child[64];
	void *mem;

	close_all(self);
	ASSERT_EQ(0, pci_fn_rebind(&self->fn, MODULE));
	EXPECT_EQ(-ENODEV, child_name(&self->fn, child, sizeof(child)));
	ASSERT_EQ(0, misc_node(&self->fn, self->node, sizeof(self->node)));
	self->fd = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	mem = map_file(self->fd, SZ_1M, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_1M));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
	close(self->fd);

	ASSERT_EQ(0, pci_fn_rebind(&self->fn, "nvme"));
	ASSERT_EQ(0, open_all(self));
	mem = map_file(self->fd, SZ_1M, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, own_dma(self, mem, SZ_1M));
}

/* The memory is in use while child and controller are unbound and bound. */
TEST_F_TIMEOUT(nvme_child, rounds, 300)
{
	int round, max = number_from_env("P2PDMA_ROUNDS", 20);
	uint64_t val;
	void *mem;

	for (round = 0; round < max; round++) {
		mem = map_file(self->fd, SZ_4M, 0);
		ASSERT_NE(NULL, mem);
		page_mark(mem, SZ_4M, round + 1);
		if (round % 2)
			ASSERT_EQ(0, child_unbind(&self->fn));
		if (round % 4 == 1) {
			ASSERT_EQ(0, child_bind(&self->fn, MODULE));
			close_all(self);
		} else {
			close_all(self);
			ASSERT_EQ(0, pci_fn_unbind(&self->fn));
			ASSERT_EQ(0, pci_fn_rebind(&self->fn, "nvme"));
		}
		EXPECT_EQ(SIGBUS, try_read64(mem, &val));
		ASSERT_EQ(0, munmap(mem, SZ_4M));
		ASSERT_EQ(0, open_all(self));
		ASSERT_TRUE(drained(self));
	}
}

TEST_HARNESS_MAIN
