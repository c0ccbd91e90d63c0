// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the ioctls of linux/p2pmem.h, which each device node has. See testbed.h
 * for the environment variables.
 */
#define _GNU_SOURCE
#include <linux/p2pmem.h>
#include <sys/ioctl.h>

#include "mmap_fixture.h"

static int object_ioctl(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) ? -errno : 0;
}

/* These return 0 or a negative errno. */
static int object_alloc(int fd, uint64_t size, uint64_t *offset)
{
	struct p2pmem_alloc arg = { .size = size };
	int ret = object_ioctl(fd, P2PMEM_IOC_ALLOC, &arg);

	*offset = arg.offset;
	return ret;
}

static int object_free(int fd, uint64_t offset)
{
	struct p2pmem_free arg = { .offset = offset };

	return object_ioctl(fd, P2PMEM_IOC_FREE, &arg);
}

static int object_limit(int fd, uint64_t size)
{
	struct p2pmem_limit arg = { .size = size };

	return object_ioctl(fd, P2PMEM_IOC_LIMIT, &arg);
}

static int object_info(int fd, struct p2pmem_info *arg)
{
	memset(arg, 0, sizeof(*arg));
	return object_ioctl(fd, P2PMEM_IOC_INFO, arg);
}

static int map_error(int fd, size_t len, uint64_t offset)
{
	void *mem = map_file(fd, len, offset);

	if (!mem)
		return errno;
	munmap(mem, len);
	return 0;
}

/* An object keeps its data and is mapped any number of times, until it is freed. */
TEST_F_TIMEOUT(mmap, object, 120)
{
	static const size_t sizes[] = { SZ_4K, 3 * SZ_4K, SZ_2M, SZ_2M + SZ_4K, SZ_4M };
	void *mem, *again;
	uint64_t offset;
	size_t i, len;

	if (variant->sysfs)
		SKIP(return, "files in sysfs have no ioctls");
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		len = sizes[i];
		ASSERT_EQ(0, object_alloc(self->fd, len, &offset));
		EXPECT_NE(0, offset);
		mem = map_file(self->fd, len, offset);
		ASSERT_NE(NULL, mem);
		/* Later, this file gets memory that it has used itself. */
		if (!i)
			EXPECT_EQ(0, mmio_count_nonzero(mem, len));
		mmio_fill(mem, len, i);
		ASSERT_EQ(0, munmap(mem, len));

		mem = map_file(self->fd, len, offset);
		ASSERT_NE(NULL, mem);
		again = map_file(self->fd, len, offset);
		ASSERT_NE(NULL, again);
		EXPECT_EQ(-1, mmio_check(again, len, i));
		EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, len));
		EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, again, len));
		mmio_fill(mem, len, i + 1);
		mmio_flush();
		EXPECT_EQ(-1, mmio_check(again, len, i + 1));

		EXPECT_EQ(EINVAL, map_error(self->fd, len + SZ_4K, offset));
		EXPECT_EQ(EINVAL, map_error(self->fd, SZ_4K, offset + SZ_4K));
		EXPECT_EQ(-ENOENT, object_free(self->fd, offset + SZ_4K));
		ASSERT_EQ(0, object_free(self->fd, offset));
		EXPECT_EQ(-ENOENT, object_free(self->fd, offset));
		EXPECT_EQ(EINVAL, map_error(self->fd, len, offset));
		/* What is mapped stays until it is unmapped. */
		EXPECT_EQ(-1, mmio_check(again, len, i + 1));
		ASSERT_EQ(0, munmap(mem, len));
		ASSERT_EQ(0, munmap(again, len));
		EXPECT_TRUE(drained(self));
	}
}

/* An object belongs to the open file that has allocated it, and goes with the file. */
TEST_F_TIMEOUT(mmap, object_owner, 90)
{
	uint64_t offset, other;
	int fd;

	if (variant->sysfs)
		SKIP(return, "files in sysfs have no ioctls");
	fd = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, object_alloc(fd, SZ_4M, &offset));
	EXPECT_EQ(EINVAL, map_error(self->fd, SZ_4M, offset));
	EXPECT_EQ(-ENOENT, object_free(self->fd, offset));
	ASSERT_EQ(0, object_alloc(self->fd, SZ_4K, &other));
	EXPECT_EQ(0, map_error(fd, SZ_4M, offset));
	ASSERT_EQ(0, close(fd));
	ASSERT_EQ(0, object_free(self->fd, other));
	EXPECT_TRUE(drained(self));
}

/* What is allocated is counted, and may not exceed the limit. */
TEST_F_TIMEOUT(mmap, object_limit, 90)
{
	struct p2pmem_info before, info;
	uint64_t offset, second;

	if (variant->sysfs)
		SKIP(return, "files in sysfs have no ioctls");
	ASSERT_EQ(0, object_info(self->fd, &before));
	EXPECT_EQ(self->available, before.size - before.used);
	EXPECT_EQ(0, before.allocated);
	ASSERT_EQ(0, object_alloc(self->fd, SZ_1M, &offset));
	MAP(self->fd, 3 * SZ_4K);
	ASSERT_EQ(0, object_info(self->fd, &info));
	EXPECT_EQ(before.used + SZ_1M + 3 * SZ_4K, info.used);
	EXPECT_EQ(SZ_1M + 3 * SZ_4K, info.allocated);
	EXPECT_EQ(before.limit, info.limit);

	ASSERT_EQ(0, object_limit(self->fd, SZ_1M + 4 * SZ_4K));
	EXPECT_EQ(-EPERM, object_limit(self->fd, SZ_2M));
	EXPECT_EQ(-EDQUOT, object_alloc(self->fd, 2 * SZ_4K, &second));
	EXPECT_EQ(EDQUOT, map_error(self->fd, 2 * SZ_4K, 0));
	EXPECT_EQ(0, map_error(self->fd, SZ_4K, 0));
	ASSERT_EQ(0, object_free(self->fd, offset));
	EXPECT_EQ(0, object_alloc(self->fd, SZ_1M, &offset));
	ASSERT_EQ(0, object_info(self->fd, &info));
	EXPECT_EQ(SZ_1M + 4 * SZ_4K, info.limit);
	EXPECT_EQ(SZ_1M + 3 * SZ_4K, info.allocated);
	EXPECT_EQ(0, object_free(self->fd, offset));
}

TEST_F_TIMEOUT(mmap, object_invalid, 90)
{
	struct p2pmem_alloc alloc = { .size = SZ_4K };
	struct p2pmem_info info = { .reserved = 1 };
	struct p2pmem_limit limit = { .reserved = 1 };
	struct p2pmem_free free = { .reserved = 1 };
	uint64_t offset;
	void *ro;

	if (variant->sysfs)
		SKIP(return, "files in sysfs have no ioctls");
	EXPECT_EQ(-EINVAL, object_alloc(self->fd, 0, &offset));
	EXPECT_EQ(-EINVAL, object_alloc(self->fd, SZ_4K + 8, &offset));
	EXPECT_EQ(-ENOSPC, object_alloc(self->fd, self->available + SZ_4K, &offset));
	EXPECT_EQ(-ENOSPC, object_alloc(self->fd, -SZ_4K, &offset));
	alloc.reserved = 1;
	EXPECT_EQ(-EINVAL, object_ioctl(self->fd, P2PMEM_IOC_ALLOC, &alloc));
	alloc = (struct p2pmem_alloc) { .size = SZ_4K, .type = 3 };
	EXPECT_EQ(-EINVAL, object_ioctl(self->fd, P2PMEM_IOC_ALLOC, &alloc));
	EXPECT_EQ(-EINVAL, object_ioctl(self->fd, P2PMEM_IOC_INFO, &info));
	info = (struct p2pmem_info) { .type = 3 };
	EXPECT_EQ(-EINVAL, object_ioctl(self->fd, P2PMEM_IOC_INFO, &info));
	EXPECT_EQ(-EINVAL, object_ioctl(self->fd, P2PMEM_IOC_LIMIT, &limit));
	EXPECT_EQ(-EINVAL, object_ioctl(self->fd, P2PMEM_IOC_FREE, &free));
	EXPECT_EQ(-EFAULT, object_ioctl(self->fd, P2PMEM_IOC_ALLOC, NULL));
	EXPECT_EQ(-EFAULT, object_ioctl(self->fd, P2PMEM_IOC_FREE, NULL));
	EXPECT_EQ(-EFAULT, object_ioctl(self->fd, P2PMEM_IOC_LIMIT, NULL));
	EXPECT_EQ(-EFAULT, object_ioctl(self->fd, P2PMEM_IOC_INFO, NULL));
	EXPECT_EQ(-ENOTTY, object_ioctl(self->fd, _IO(P2PMEM_IOC_MAGIC, 0), &alloc));
	EXPECT_EQ(-ENOTTY, object_ioctl(self->fd, _IOWR(P2PMEM_IOC_MAGIC, 15, uint64_t), &alloc));

	/* Nothing stays allocated if the offset cannot be told. */
	ro = ram_map(SZ_4K);
	ASSERT_NE(NULL, ro);
	alloc = (struct p2pmem_alloc) { .size = SZ_4K };
	memcpy(ro, &alloc, sizeof(alloc));
	ASSERT_EQ(0, mprotect(ro, SZ_4K, PROT_READ));
	EXPECT_EQ(-EFAULT, object_ioctl(self->fd, P2PMEM_IOC_ALLOC, ro));
	EXPECT_TRUE(drained(self));
}

/* Unbinding takes objects away, mapped or not. */
TEST_F_TIMEOUT(mmap, object_unbind, 90)
{
	uint64_t offset, idle, val;
	struct p2pmem_info info;
	int old = self->fd;
	void *mem;

	if (variant->sysfs)
		SKIP(return, "files in sysfs have no ioctls");
	ASSERT_EQ(0, object_alloc(old, SZ_4M, &offset));
	ASSERT_EQ(0, object_alloc(old, SZ_1M, &idle));
	mem = map_file(old, SZ_4M, offset);
	ASSERT_NE(NULL, mem);
	page_mark(mem, SZ_4M, 1);
	ASSERT_EQ(0, unbind_node(self, variant));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(SIGBUS, try_write64(mem + SZ_4M - SZ_4K, 1));
	EXPECT_EQ(ENODEV, map_error(old, SZ_1M, idle));
	EXPECT_EQ(-ENODEV, object_alloc(old, SZ_4K, &val));
	EXPECT_EQ(-ENODEV, object_free(old, idle));
	EXPECT_EQ(-ENODEV, object_limit(old, SZ_4K));
	EXPECT_EQ(-ENODEV, object_info(old, &info));

	ASSERT_EQ(0, attach(self, variant));
	EXPECT_EQ(self->available, memory_left(self));
	EXPECT_EQ(-ENODEV, object_free(old, offset));
	EXPECT_EQ(SIGBUS, try_read64(mem, &val));
	EXPECT_EQ(EINVAL, map_error(self->fd, SZ_4M, offset));
}

TEST_HARNESS_MAIN
