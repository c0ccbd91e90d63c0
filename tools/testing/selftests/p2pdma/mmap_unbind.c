// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of unbinding the driver while its memory is mapped, and of binding it
 * again. See testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "mmap_fixture.h"

static void *read_until_signal(void *mem)
{
	uint64_t end = now_ms() + 20000, val;
	intptr_t sig = 0;

	while (!sig && now_ms() < end)
		sig = try_read64(mem, &val);
	return (void *)sig;
}

/* Unbinding takes the memory away from all threads and processes that have mapped it. */
TEST_F_TIMEOUT(mmap, unbind_mapped, 90)
{
	pthread_t thread;
	void *mem, *ret;
	uint64_t val;
	pid_t child;
	int old;

	/* Nobody accesses the other half before the driver is unbound. */
	mem = MAP(self->fd, SZ_2M);
	page_mark(mem, SZ_1M, 1);
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		_exit(read_until_signal(mem) != (void *)SIGBUS);
	ASSERT_EQ(0, pthread_create(&thread, NULL, read_until_signal, mem));
	usleep(100 * 1000);

	ASSERT_EQ(0, unbind_node(self, variant));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_1M - SZ_4K, 1));
	EXPECT_EQ(SIGBUS, try_read64(mem + SZ_1M, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_2M - SZ_4K, 1));
	EXPECT_EQ(-EFAULT, pread_all(self->peer.disk, mem, SZ_4K, 0));
	EXPECT_EQ(-EFAULT, pwrite_all(self->peer.disk, mem, SZ_4K, DISK_OFFSET));
	ASSERT_EQ(0, pthread_join(thread, &ret));
	EXPECT_EQ((void *)SIGBUS, ret);
	EXPECT_EQ(0, wait_child(child, 30000));
	EXPECT_EQ(NULL, map_file(self->fd, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);

	/* The old mapping stays dead when the driver is bound again. */
	old = self->fd;
	ASSERT_EQ(0, attach(self, variant));
	EXPECT_EQ(self->available, memory_left(self));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(0, munmap(mem, SZ_2M));
	close(old);
	mem = MAP(self->fd, SZ_2M);
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_1M));
}

/* An open file of which nothing is mapped is dead after unbinding. */
TEST_F_TIMEOUT(mmap, unbind_idle_fd, 90)
{
	struct p2pmem_info info = {};
	int old = self->fd, fd;
	char node[256];
	void *mem;

	EXPECT_EQ(variant->sysfs ? -1 : 0, ioctl(old, P2PMEM_IOC_INFO, &info));
	if (variant->sysfs)
		EXPECT_EQ(ENOTTY, errno);
	snprintf(node, sizeof(node), "%s", self->node);

	ASSERT_EQ(0, unbind_node(self, variant));
	EXPECT_EQ(NULL, map_file(old, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);
	if (!variant->sysfs) {
		EXPECT_EQ(-1, ioctl(old, P2PMEM_IOC_INFO, &info));
		EXPECT_EQ(ENODEV, errno);
	}
	fd = open(node, O_RDWR | O_CLOEXEC);
	EXPECT_EQ(-1, fd);
	EXPECT_TRUE(errno == ENOENT || errno == ENODEV || errno == ENXIO) {
		TH_LOG("%s", strerror(errno));
	}

	ASSERT_EQ(0, attach(self, variant));
	EXPECT_EQ(NULL, map_file(old, SZ_4K, 0));
	EXPECT_EQ(ENODEV, errno);
	mem = MAP(self->fd, SZ_4K);
	EXPECT_EQ(0, close(old));
	EXPECT_EQ(0, try_write64(mem, 1));
}

/* Unbinding waits for DMA to end, but not for processes to exit. */
TEST_F_TIMEOUT(mmap, unbind_under_dma, 90)
{
	struct loop *loops = ram_map_shared(SZ_4K);
	uint64_t end;
	pid_t pids[2];
	size_t i;

	if (self->peer.dma)
		SKIP(return, "the peer cannot reach the memory");
	ASSERT_NE(NULL, loops);
	for (i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = start_loop(self, &loops[i]);
		ASSERT_LT(0, pids[i]);
	}
	ASSERT_EQ(0, unbind_node(self, variant));
	end = now_ms();
	for (i = 0; i < ARRAY_SIZE(pids); i++) {
		EXPECT_EQ(0, wait_child(pids[i], 10000));
		EXPECT_TRUE(loops[i].err == -EFAULT || loops[i].err == -EIO ||
			    loops[i].err == SIGBUS) {
			TH_LOG("%d", loops[i].err);
		}
		EXPECT_LE(end, loops[i].ended + 2000);
	}
	ASSERT_EQ(0, attach(self, variant));
}

/* Unbinding waits for the DMA of a slow peer, and not longer. */
TEST_F_TIMEOUT(mmap, unbind_slow_client, 120)
{
	uint64_t *unbound = ram_map_shared(SZ_4K), done, start, val;
	struct io_event events[4];
	aio_context_t ctx;
	pid_t child;
	void *mem;
	int i;

	if (!peer_can_throttle())
		SKIP(return, "P2PDMA_SLOW and P2PDMA_FAST are not set");
	if (self->peer.dma)
		SKIP(return, "the peer cannot reach the memory");
	ASSERT_NE(NULL, unbound);
	ASSERT_EQ(0, aio_setup(4, &ctx));
	mem = MAP(self->fd, SZ_1M);
	ASSERT_EQ(0, peer_throttle(&self->peer));
	start = now_ms();
	ASSERT_EQ(0, submit_quarters(self, ctx, IOCB_CMD_PREAD, mem));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		i = unbind_node(self, variant);
		*unbound = now_ms();
		_exit(!!i);
	}
	/* Programs lose the memory at once, while the DMA goes on. */
	EXPECT_TRUE(WAIT_FOR(try_read64(mem, &val) == SIGBUS, 1000));
	EXPECT_EQ(0, *unbound);
	EXPECT_EQ(4, aio_wait(ctx, 4, 4, events, 60));
	done = now_ms();
	EXPECT_LT(start + 1000, done);
	EXPECT_EQ(0, wait_child(child, 20000));
	EXPECT_GT(done + 1000, *unbound);
	for (i = 0; i < 4; i++)
		EXPECT_EQ(SZ_1M / 4, events[i].res);
	ASSERT_EQ(0, attach(self, variant));
}

TEST_F_TIMEOUT(mmap, unbind_time, 90)
{
	uint64_t start, val;
	void *mem;

	mem = MAP(self->fd, SZ_4M);
	page_mark(mem, SZ_4M, 1);
	start = now_ms();
	ASSERT_EQ(0, unbind_node(self, variant));
	EXPECT_GT(1000, now_ms() - start);
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	ASSERT_EQ(0, attach(self, variant));
}

TEST_F_TIMEOUT(mmap, rebind, 240)
{
	uint64_t val;
	int round;
	void *mem;

	for (round = 0; round < rounds(20); round++) {
		mem = MAP(self->fd, 16 * SZ_4K);
		page_mark(mem, 8 * SZ_4K, round);
		ASSERT_EQ(0, unbind_node(self, variant));
		EXPECT_EQ(SIGBUS, try_read64(mem, &val));
		ASSERT_EQ(0, munmap(mem, 16 * SZ_4K));
		close(self->fd);
		ASSERT_EQ(0, attach(self, variant));
		EXPECT_EQ(self->available, memory_left(self));
	}
}

struct bind {
	int fd;			/* of the driver's file "bind" in sysfs */
	const char *name;	/* of the function */
};

static int op_bind(void *arg)
{
	struct bind *bind = arg;

	return write(bind->fd, bind->name, strlen(bind->name)) < 0 ? -errno : 0;
}

/*
 * Each allocation of probing fails once, except for those of the architecture's
 * memory hotplug, which does not recover from failure.
 */
TEST_F_TIMEOUT(mmap, bind_allocations_fail, 600)
{
	struct bind bind = { .name = self->fn.name };
	int nth, ret = 0, failed = 0;
	char buf[128], name[64], node[256];

	if (variant->sysfs)
		SKIP(return, "the variant nvme_cmb tests the same driver");
	if (variant->function)
		SKIP(return, "binding the function succeeds even if probing the child fails");
	if (!pci_fn_read(&self->fn, "numa_node", buf, sizeof(buf)) && atoi(buf) >= 0)
		SKIP(return, "several NUMA nodes: another task probes");
	if (!faults_ready() || !faults_exempt("arch_add_memory", "add_pages"))
		SKIP(return, "needs CONFIG_FAULT_INJECTION_STACKTRACE_FILTER");
	snprintf(node, sizeof(node), "%s", self->node);
	close(self->fd);
	ASSERT_EQ(0, unbind_node(self, variant));
	if (variant->child) {
		ASSERT_EQ(0, child_name(&self->fn, name, sizeof(name)));
		bind.name = name;
		snprintf(buf, sizeof(buf), "/sys/bus/auxiliary/drivers/%s.%s/bind",
			 variant->child, variant->child);
	} else {
		ASSERT_EQ(0, pci_fn_write(&self->fn, "driver_override", variant->driver));
		snprintf(buf, sizeof(buf), "/sys/bus/pci/drivers/%s/bind", variant->driver);
	}
	bind.fd = open(buf, O_WRONLY | O_CLOEXEC);
	ASSERT_LE(0, bind.fd);
	file_write("/dev/kmsg", "p2pdma selftest: allocations are made to fail\n");
	for (nth = 1; nth < 2000; nth++) {
		ret = with_fault(nth, op_bind, &bind);
		if (ret == -ERANGE)
			break;
		failed += !!ret;
		/* request_region() returns EBUSY if it cannot allocate its record. */
		EXPECT_TRUE(!ret || ret == -ENOMEM || ret == -EBUSY) {
			TH_LOG("allocation %d: %s", nth, strerror(-ret));
		}
		ASSERT_EQ(0, unbind_node(self, variant));
	}
	file_write("/dev/kmsg", "p2pdma selftest: allocations are left alone\n");
	TH_LOG("%d allocations, %d of them needed", nth - 1, failed);
	EXPECT_EQ(-ERANGE, ret);
	/* A few are those of writing to the file, not of probing. */
	EXPECT_LT(10, failed);
	close(bind.fd);
	EXPECT_TRUE(faults_exempt(NULL, NULL));
	ASSERT_EQ(0, attach(self, variant));
	EXPECT_EQ(self->available, memory_left(self));
	/* The node has its old number: no failure has kept the number in use. */
	EXPECT_STREQ(node, self->node);
}

/* The module can be unloaded once its last file is closed and unmapped, not before. */
TEST_F_TIMEOUT(mmap, rmmod_refused, 90)
{
	char path[64];
	void *mem;

	if (variant->sysfs)
		SKIP(return, "an open file in sysfs does not keep the module");
	snprintf(path, sizeof(path), "/sys/module/%s/initstate", module_of(variant));
	if (access(path, F_OK))
		SKIP(return, "%s is built in", module_of(variant));
	EXPECT_EQ(-1, syscall(SYS_delete_module, module_of(variant), O_NONBLOCK));
	EXPECT_TRUE(errno == EWOULDBLOCK || errno == EBUSY);
	mem = MAP(self->fd, SZ_4K);
	close(self->fd);
	EXPECT_EQ(-1, syscall(SYS_delete_module, module_of(variant), O_NONBLOCK));
	EXPECT_TRUE(errno == EWOULDBLOCK || errno == EBUSY);
	EXPECT_EQ(0, try_write64(mem, 1));
	ASSERT_EQ(0, munmap(mem, SZ_4K));

	EXPECT_EQ(0, syscall(SYS_delete_module, module_of(variant), O_NONBLOCK)) {
		TH_LOG("%s", strerror(errno));
	}
	EXPECT_EQ(0, load_driver(module_of(variant)));
	ASSERT_EQ(0, attach(self, variant));
	EXPECT_EQ(self->available, memory_left(self));
}

TEST_HARNESS_MAIN
