// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of P2PBAR_IOC_PEER, which asks whether a PCI function can access the
 * memory. See testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include "aio.h"
#include "p2pbar_fixture.h"

/* The tests may unbind P2PDMA_CMB. Copy the name of its driver: 0 or a negative errno. */
static int find_cmb(struct pci_fn *cmb, char *driver, size_t len)
{
	const char *name = getenv("P2PDMA_CMB");
	int ret;

	if (!name)
		return -ENOENT;
	ret = pci_fn_init(cmb, name);
	return ret ?: pci_fn_driver(cmb, driver, len);
}

/* Distance and map type match the topology. */
TEST_F_TIMEOUT(p2pbar, peer_query, 90)
{
	const char *expect = getenv("P2PDMA_EXPECT");
	struct p2pbar_peer peer;
	struct pci_fn other;
	char driver[64];
	uint32_t type;

	EXPECT_EQ(-ENOENT, ask_peer(self->fd, "fffe:00:00.0", &peer));
	EXPECT_EQ(-ENOENT, ask_peer(self->fd, "fffffffe:ff:1f.7", &peer));
	/* The distance of the device to itself is 0. */
	ASSERT_EQ(0, ask_peer(self->fd, self->fn.name, &peer));
	EXPECT_EQ(0, peer.distance);
	EXPECT_EQ(P2PBAR_MAP_BUS_ADDR, peer.map_type);

	ASSERT_EQ(0, ask_peer(self->fd, self->peer.fn.name, &peer));
	EXPECT_EQ(0, peer.reserved);
	if (expect) {
		type = P2PBAR_MAP_NONE;
		if (!strcmp(expect, "bus-address"))
			type = P2PBAR_MAP_BUS_ADDR;
		else if (!strcmp(expect, "host-bridge"))
			type = P2PBAR_MAP_THRU_HOST_BRIDGE;
		EXPECT_EQ(type, peer.map_type);
	}
	EXPECT_EQ(peer.map_type == P2PBAR_MAP_NONE, peer.distance == -1);
	EXPECT_NE(0, peer.distance);

	/* The function is there, and has no driver. */
	if (find_cmb(&other, driver, sizeof(driver)))
		return;
	EXPECT_EQ(0, pci_fn_unbind(&other));
	EXPECT_EQ(-EBUSY, ask_peer(self->fd, other.name, &peer));
	EXPECT_EQ(0, pci_fn_rebind(&other, driver));
}

/* Take and release the device lock of a function that has a driver, until @end. */
static int contend_for_lock(const struct pci_fn *fn, uint64_t end)
{
	int fd = open(pci_fn_path(fn, "enable"), O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return 1;
	/* The write takes the lock, and then fails because of the driver. */
	while (now_ms() < end) {
		if (pwrite(fd, "1", 1, 0) != -1 || errno != EBUSY)
			return 2;
	}
	return 0;
}

/*
 * The ioctl waits while somebody else holds the device lock of the function. It
 * does not fail.
 */
TEST_F_TIMEOUT(p2pbar, peer_waits_for_lock, 90)
{
	uint64_t end = now_ms() + 3000;
	struct p2pbar_peer first, peer;
	int asked = 0, failed = 0;
	pid_t pids[3];
	size_t i;

	ASSERT_EQ(0, ask_peer(self->fd, self->peer.fn.name, &first));
	for (i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = fork_child();
		ASSERT_LE(0, pids[i]);
		if (!pids[i])
			_exit(contend_for_lock(&self->peer.fn, end));
	}
	while (now_ms() < end) {
		failed += ask_peer(self->fd, self->peer.fn.name, &peer) ||
			  memcmp(&first, &peer, sizeof(peer));
		asked++;
	}
	EXPECT_LT(10, asked);
	EXPECT_EQ(0, failed) {
		TH_LOG("of %d", asked);
	}
	for (i = 0; i < ARRAY_SIZE(pids); i++)
		EXPECT_EQ(0, wait_child(pids[i], 10000));
}

static void do_nothing(int sig)
{
	(void)sig;
}

/*
 * A signal interrupts the ioctl while it waits for the device lock. Unbinding
 * nvme_cmb holds that lock until DMA to the CMB is over, which a throttled disk
 * makes last.
 */
TEST_F_TIMEOUT(p2pbar, peer_interrupted, 120)
{
	struct sigaction sa = { .sa_handler = do_nothing };
	const size_t len = SZ_1M / 4;
	struct io_event events[4];
	struct p2pbar_peer peer;
	char driver[64], node[64];
	aio_context_t ctx;
	struct pci_fn cmb;
	uint64_t start, val;
	pid_t child;
	void *mem;
	int fd, i;

	if (!peer_can_throttle())
		SKIP(return, "P2PDMA_SLOW and P2PDMA_FAST are not set");
	if (self->peer.dma)
		SKIP(return, "the peer cannot reach the memory");
	if (find_cmb(&cmb, driver, sizeof(driver)) || load_driver("nvme_cmb"))
		SKIP(return, "needs P2PDMA_CMB and nvme_cmb");
	ASSERT_EQ(0, pci_fn_rebind(&cmb, "nvme_cmb"));
	ASSERT_EQ(0, misc_node(&cmb, node, sizeof(node)));
	fd = open(node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	mem = map_file(fd, 4 * len, 0);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, aio_setup(4, &ctx));
	ASSERT_EQ(0, peer_throttle(&self->peer));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, aio_submit(ctx, IOCB_CMD_PREAD, self->peer.disk, mem + i * len, len,
					DISK_OFFSET + i * len));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		_exit(!!pci_fn_unbind(&cmb));
	/* Unbinding takes the lock before it takes the mapping away. */
	EXPECT_TRUE(WAIT_FOR(try_read64(mem, &val) == SIGBUS, 1000));

	ASSERT_EQ(0, sigaction(SIGALRM, &sa, NULL));
	start = now_ms();
	alarm(1);
	EXPECT_EQ(-EINTR, ask_peer(self->fd, cmb.name, &peer));
	EXPECT_LE(900, now_ms() - start);
	alarm(0);
	/* Without a signal, the ioctl waits for the end of the unbinding. */
	EXPECT_EQ(-EBUSY, ask_peer(self->fd, cmb.name, &peer));
	EXPECT_EQ(4, aio_wait(ctx, 4, 4, events, 60));
	EXPECT_EQ(0, wait_child(child, 20000));
	EXPECT_EQ(0, pci_fn_rebind(&cmb, driver));
}

/*
 * Read the rest of the kernel log, and count the lines that name one of two
 * functions, or the P2PDMA core.
 */
static int count_log_lines(int kmsg, const char *a, const char *b)
{
	char line[8192];
	int lines = 0;
	ssize_t n;

	/* EPIPE: records were overwritten before they could be read. */
	while ((n = read(kmsg, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
		if (n <= 0)
			continue;
		line[n] = '\0';
		lines += strstr(line, a) || strstr(line, b) || strstr(line, "P2PDMA");
	}
	return lines;
}

/* User space cannot flood the kernel log with the ioctl. */
TEST_F_TIMEOUT(p2pbar, peer_logs_nothing, 90)
{
	struct p2pbar_peer peer;
	int kmsg, i, failed = 0;

	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_LE(0, kmsg);
	ASSERT_EQ(0, lseek(kmsg, 0, SEEK_END));
	for (i = 0; i < 1000; i++)
		failed += !!ask_peer(self->fd, self->peer.fn.name, &peer);
	EXPECT_EQ(0, failed);
	EXPECT_EQ(0, count_log_lines(kmsg, self->fn.name, self->peer.fn.name));
	close(kmsg);
}

TEST_HARNESS_MAIN
