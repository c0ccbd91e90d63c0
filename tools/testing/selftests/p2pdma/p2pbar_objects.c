// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the objects that P2PMEM_IOC_ALLOC allocates. See testbed.h for the
 * environment variables.
 */
#define _GNU_SOURCE
#include "p2pbar_fixture.h"

/* Objects of each type can be mapped, and the peer can access them. */
TEST_F_TIMEOUT(p2pbar, alloc_map_dma, 90)
{
	static const size_t lengths[] = { SZ_4K, 3 * SZ_4K, 33 * SZ_4K, SZ_1M, SZ_2M + SZ_4K };
	size_t i, len;
	uint32_t type;
	uint64_t key;
	void *mem;

	for (type = 0; type < NR_TYPES; type++) {
		if (!self->info[type].size) {
			EXPECT_EQ(-EOPNOTSUPP, alloc_object(self->fd, type, SZ_4K, &key));
			continue;
		}
		for (i = 0; i < (type == P2PBAR_MEM ? ARRAY_SIZE(lengths) : 1); i++) {
			len = lengths[i];
			mem = MAP_OBJECT(self->fd, type, len, &key);
			EXPECT_NE(0, key);
			/* The first access is one by DMA. */
			EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, len)) {
				TH_LOG("%s, %zu bytes", type_name(type), len);
			}
			EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, mem, len));
			mmio_fill(mem, len, i);
			EXPECT_EQ(-1, mmio_check(mem, len, i));
			ASSERT_EQ(0, munmap(mem, len));
			EXPECT_EQ(0, free_object(self->fd, key));
		}
	}
	EXPECT_TRUE(drained(self));
}

/* The page table has the cache mode of the object's type. */
TEST_F_TIMEOUT(p2pbar, cache_modes, 90)
{
	uint32_t type;
	uint64_t key;
	void *mem;

	for (type = 0; type < NR_TYPES; type++) {
		if (!self->info[type].size)
			continue;
		mem = MAP_OBJECT(self->fd, type, SZ_4K, &key);
		mmio_write64(mem, 1);
		if (!page_table_mode(mem))
			SKIP(return, "needs CONFIG_PTDUMP_DEBUGFS, on x86");
		EXPECT_STREQ(type == P2PBAR_UAR_WC ? MODE_WC : MODE_UC, page_table_mode(mem)) {
			TH_LOG("%s", type_name(type));
		}
	}
}

/* An object can only be mapped whole. */
TEST_F_TIMEOUT(p2pbar, exact_size, 90)
{
	uint64_t key;
	void *mem;

	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, 4 * SZ_4K, &key));
	EXPECT_EQ(EINVAL, map_errno(self->fd, SZ_4K, key));
	EXPECT_EQ(EINVAL, map_errno(self->fd, 3 * SZ_4K, key));
	EXPECT_EQ(EINVAL, map_errno(self->fd, 5 * SZ_4K, key));
	EXPECT_EQ(EINVAL, map_errno(self->fd, 3 * SZ_4K, key + SZ_4K));
	EXPECT_EQ(EINVAL, map_errno(self->fd, 4 * SZ_4K, key + SZ_4K));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 4 * SZ_4K, RW, MAP_PRIVATE, self->fd, key));
	EXPECT_EQ(EINVAL, errno);
	mem = map_file(self->fd, 4 * SZ_4K, key);
	ASSERT_NE(NULL, mem);
	page_mark(mem, 4 * SZ_4K, 1);
	EXPECT_EQ(MAP_FAILED, mremap(mem, 4 * SZ_4K, 5 * SZ_4K, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	/* A mapping can be unmapped in part. The object keeps its size. */
	ASSERT_EQ(0, munmap(mem + SZ_4K, SZ_4K));
	EXPECT_EQ(EINVAL, map_errno(self->fd, 3 * SZ_4K, key));
	ASSERT_EQ(0, munmap(mem, 4 * SZ_4K));
	mem = map_file(self->fd, 4 * SZ_4K, key);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-1, page_check(mem, 4 * SZ_4K, 1));
	ASSERT_EQ(0, munmap(mem, 4 * SZ_4K));
	EXPECT_EQ(0, free_object(self->fd, key));
}

/* All mappings of an object show the same memory. */
TEST_F_TIMEOUT(p2pbar, share_between_mappings, 90)
{
	uint64_t key, other_key;
	void *mem, *again, *other;

	mem = MAP_OBJECT(self->fd, P2PBAR_MEM, SZ_1M, &key);
	page_mark(mem, SZ_1M, 1);
	again = map_file(self->fd, SZ_1M, key);
	ASSERT_NE(NULL, again);
	other = MAP_OBJECT(self->fd, P2PBAR_MEM, SZ_1M, &other_key);
	EXPECT_NE(key, other_key);
	page_mark(other, SZ_1M, 2);
	EXPECT_EQ(-1, page_check(again, SZ_1M, 1));
	EXPECT_EQ(phys_addr(mem), phys_addr(again));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, again, SZ_1M));
	EXPECT_EQ(mmio_checksum(mem, SZ_1M), mmio_checksum(again, SZ_1M));
	page_mark(again, SZ_1M, 3);
	ASSERT_EQ(0, munmap(again, SZ_1M));
	EXPECT_EQ(-1, page_check(mem, SZ_1M, 3));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
	/* The object keeps its data while it is not mapped. */
	mem = map_file(self->fd, SZ_1M, key);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-1, page_check(mem, SZ_1M, 3));
	EXPECT_EQ(-1, page_check(other, SZ_1M, 2));
}

/* A freed object cannot be mapped. Its memory is free once it is unmapped. */
TEST_F_TIMEOUT(p2pbar, free_semantics, 90)
{
	struct p2pmem_info info;
	pid_t child;
	uint64_t key;
	void *mem;

	mem = MAP_OBJECT(self->fd, P2PBAR_MEM, SZ_1M, &key);
	page_mark(mem, SZ_1M / 2, 1);
	/* A process that inherited the file can map and free the object, too. */
	child = fork_child();
	if (!child)
		_exit(map_errno(self->fd, SZ_1M, key) || free_object(self->fd, key));
	EXPECT_EQ(0, wait_child(child, 10000));
	EXPECT_EQ(EINVAL, map_errno(self->fd, SZ_1M, key));
	EXPECT_EQ(-ENOENT, free_object(self->fd, key));
	/* The mapping keeps the memory, also that which nobody has accessed yet. */
	EXPECT_EQ(-1, page_check(mem, SZ_1M / 2, 1));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_1M));
	EXPECT_EQ(self->peer.dma, dma_out(self->peer.disk, mem, SZ_1M));
	ASSERT_EQ(0, get_info(self->fd, P2PBAR_MEM, &info));
	EXPECT_EQ(self->info[P2PBAR_MEM].used + SZ_1M, info.used);
	ASSERT_EQ(0, munmap(mem, SZ_1M / 2));
	EXPECT_EQ(0, try_write64(mem + SZ_1M / 2, 1));
	ASSERT_EQ(0, munmap(mem + SZ_1M / 2, SZ_1M / 2));
	EXPECT_TRUE(drained(self));
	EXPECT_TRUE(has_allocated(self->fd, 0));
	EXPECT_EQ(-ENOENT, free_object(self->fd, key));
}

/* close() frees the objects. The last munmap() frees those that are mapped. */
TEST_F_TIMEOUT(p2pbar, close_frees, 90)
{
	uint64_t key, unmapped;
	void *mem;

	mem = MAP_OBJECT(self->fd, P2PBAR_MEM, SZ_1M, &key);
	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, SZ_2M, &unmapped));
	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(self->peer.dma, dma_in(self->peer.disk, mem, SZ_1M));
	EXPECT_EQ(0, try_write64(mem, 1));
	ASSERT_EQ(0, munmap(mem, SZ_1M));
	EXPECT_TRUE(drained(self));
}

/* An open file cannot use the objects of another one. */
TEST_F_TIMEOUT(p2pbar, foreign_keys, 90)
{
	uint64_t key, own;
	void *mem, *other;
	int fd;

	mem = MAP_OBJECT(self->fd, P2PBAR_MEM, SZ_4K, &key);
	mmio_write64(mem, 1);
	fd = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(EINVAL, map_errno(fd, SZ_4K, key));
	EXPECT_EQ(-ENOENT, free_object(fd, key));
	/* The same offset can name different objects of different open files. */
	other = MAP_OBJECT(fd, P2PBAR_MEM, SZ_4K, &own);
	EXPECT_EQ(0, mmio_read64(other));
	mmio_write64(other, 2);
	EXPECT_EQ(1, mmio_read64(mem));
	EXPECT_NE(phys_addr(mem), phys_addr(other));
	close(fd);
	ASSERT_EQ(0, munmap(other, SZ_4K));
	EXPECT_EQ(0, map_errno(self->fd, SZ_4K, key));
	EXPECT_EQ(0, free_object(self->fd, key));
}

/* All memory of a type can be allocated, and none more. */
TEST_F_TIMEOUT(p2pbar, exhaustion, 120)
{
	uint64_t keys[1024], page;
	struct p2pmem_info info;
	size_t n = 0, len = SZ_16M;
	int ret;

	while (n < ARRAY_SIZE(keys) && len >= SZ_4K) {
		ret = alloc_object(self->fd, P2PBAR_MEM, len, &keys[n]);
		if (!ret) {
			n++;
			continue;
		}
		EXPECT_EQ(-ENOSPC, ret);
		len /= 2;
	}
	ASSERT_EQ(0, get_info(self->fd, P2PBAR_MEM, &info));
	EXPECT_EQ(info.size, info.used);
	EXPECT_EQ(ENOMEM, map_errno(self->fd, SZ_4K, 0));
	/* The other types have memory of their own. */
	if (self->info[P2PBAR_UAR_NC].size) {
		EXPECT_EQ(0, alloc_object(self->fd, P2PBAR_UAR_NC, SZ_4K, &page));
		EXPECT_EQ(0, free_object(self->fd, page));
	}
	while (n--)
		EXPECT_EQ(0, free_object(self->fd, keys[n]));
	EXPECT_TRUE(drained(self));
	EXPECT_EQ(0, map_errno(self->fd, SZ_16M, 0));
}

/* All pages of the UAR types can be freed and allocated again. Then they are clear. */
TEST_F_TIMEOUT(p2pbar, uar_deferred_free, 600)
{
	uint64_t *keys;
	size_t i, n, dirty = 0;
	uint32_t type;
	void *mem;
	int fd;

	for (type = P2PBAR_UAR_NC; type < NR_TYPES; type++) {
		n = self->info[type].size / SZ_4K;
		keys = calloc(n + 1, sizeof(*keys));
		ASSERT_NE(NULL, keys);
		for (i = 0; i < n; i++) {
			mem = MAP_OBJECT(self->fd, type, SZ_4K, &keys[i]);
			mmio_fill(mem, SZ_4K, i);
			ASSERT_EQ(0, munmap(mem, SZ_4K));
		}
		EXPECT_EQ(n ? -ENOSPC : -EOPNOTSUPP,
			  alloc_object(self->fd, type, SZ_4K, &keys[n]));
		for (i = 0; i < n; i++)
			EXPECT_EQ(0, free_object(self->fd, keys[i]));
		EXPECT_TRUE(drained(self));

		fd = open(self->node, O_RDWR | O_CLOEXEC);
		ASSERT_LE(0, fd);
		for (i = 0; i < n; i++) {
			mem = MAP_OBJECT(fd, type, SZ_4K, &keys[i]);
			dirty += mmio_count_nonzero(mem, SZ_4K);
			ASSERT_EQ(0, munmap(mem, SZ_4K));
		}
		EXPECT_EQ(0, dirty);
		close(fd);
		EXPECT_TRUE(drained(self));
		free(keys);
	}
}

TEST_HARNESS_MAIN
