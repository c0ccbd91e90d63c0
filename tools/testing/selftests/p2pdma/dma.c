// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "dma.h"
#include "mmio.h"
#include "p2pdma.h"
#include "pages.h"
#include "process.h"
#include "testbed.h"

int pread_all(int fd, void *buf, size_t len, uint64_t offset)
{
	ssize_t n;

	for (; len; len -= n, buf += n, offset += n) {
		n = pread(fd, buf, len, offset);
		if (n <= 0)
			return n ? -errno : -ENODATA;
	}
	return 0;
}

int pwrite_all(int fd, const void *buf, size_t len, uint64_t offset)
{
	ssize_t n;

	for (; len; len -= n, buf += n, offset += n) {
		n = pwrite(fd, buf, len, offset);
		if (n <= 0)
			return n ? -errno : -ENOSPC;
	}
	return 0;
}

/* A seed whose data neither the memory nor the disk can hold already. */
static uint64_t new_seed(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/* Write data to the disk from @from, read them back to @to, and compare. */
static int disk_round_trip(int disk, void *from, void *to, size_t len)
{
	uint64_t seed = new_seed();
	int ret;

	mmio_fill(from, len, seed);
	mmio_flush();
	ret = pwrite_all(disk, from, len, DISK_OFFSET);
	if (!ret)
		ret = pread_all(disk, to, len, DISK_OFFSET);
	if (!ret && mmio_check(to, len, seed) >= 0)
		ret = -EBADMSG;
	return ret;
}

int dma_in(int disk, void *mem, size_t len)
{
	void *ram = ram_map(len);
	int ret;

	if (!ram)
		return -ENOMEM;
	ret = disk_round_trip(disk, ram, mem, len);
	munmap(ram, len);
	return ret;
}

int dma_out(int disk, void *mem, size_t len)
{
	void *ram = ram_map(len);
	int ret;

	if (!ram)
		return -ENOMEM;
	ret = disk_round_trip(disk, mem, ram, len);
	munmap(ram, len);
	return ret;
}

pid_t dma_until_gone(int disk, void *mem, size_t len, int ret)
{
	uint64_t end = now_ms() + 60000;
	int *tries = ram_map_shared(sizeof(*tries)), now;
	bool going;
	pid_t pid;

	if (!tries)
		return -1;
	pid = fork_child();
	if (!pid) {
		while ((now = pread_all(disk, mem, len, 0)) == ret && now_ms() < end)
			__atomic_fetch_add(tries, 1, __ATOMIC_SEQ_CST);
		_exit(now != -EFAULT && now != -EIO);
	}
	going = pid > 0 && WAIT_FOR(__atomic_load_n(tries, __ATOMIC_SEQ_CST) >= 2, 10000);
	munmap(tries, sizeof(*tries));
	return going ? pid : -1;
}
