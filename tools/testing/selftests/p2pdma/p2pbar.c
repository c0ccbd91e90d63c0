// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the ioctls of p2pbar: arguments, limits and what is reported. See
 * testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <stddef.h>

#include "bar.h"
#include "p2pbar_fixture.h"

/* Programs of 32 bit, also of x86, use the same layout: there is no compat code. */
#define CHECK_SIZE(type, size) \
	static_assert(sizeof(struct type) == (size), #type)
#define CHECK_FIELD(type, field, at) \
	static_assert(offsetof(struct type, field) == (at), #type "." #field)
CHECK_SIZE(p2pmem_alloc, 24);
CHECK_FIELD(p2pmem_alloc, type, 8);
CHECK_FIELD(p2pmem_alloc, reserved, 12);
CHECK_FIELD(p2pmem_alloc, offset, 16);
CHECK_SIZE(p2pmem_free, 16);
CHECK_FIELD(p2pmem_free, reserved, 8);
CHECK_SIZE(p2pmem_limit, 16);
CHECK_FIELD(p2pmem_limit, reserved, 8);
CHECK_SIZE(p2pbar_peer, 16);
CHECK_FIELD(p2pbar_peer, bus, 4);
CHECK_FIELD(p2pbar_peer, devfn, 5);
CHECK_FIELD(p2pbar_peer, reserved, 6);
CHECK_FIELD(p2pbar_peer, distance, 8);
CHECK_FIELD(p2pbar_peer, map_type, 12);
CHECK_SIZE(p2pmem_info, 40);
CHECK_FIELD(p2pmem_info, reserved, 4);
CHECK_FIELD(p2pmem_info, size, 8);
CHECK_FIELD(p2pmem_info, used, 16);
CHECK_FIELD(p2pmem_info, limit, 24);
CHECK_FIELD(p2pmem_info, allocated, 32);
static_assert(P2PMEM_IOC_ALLOC == 0xc018bb00, "ALLOC");
static_assert(P2PMEM_IOC_FREE == 0x4010bb01, "FREE");
static_assert(P2PMEM_IOC_LIMIT == 0x4010bb02, "LIMIT");
static_assert(P2PBAR_IOC_PEER == 0xc010bb03, "PEER");
static_assert(P2PMEM_IOC_INFO == 0xc028bb04, "INFO");

/* INFO reports the memory of the BAR, and what this open file has of it. */
TEST_F_TIMEOUT(p2pbar, info, 90)
{
	uint64_t total = 0, limit = parameter("limit", 0), key;
	int bar = parameter("bar", 2);
	struct p2pmem_info info;
	struct pci_bar res;
	uint32_t type;
	void *mem;

	for (type = 0; type < NR_TYPES; type++) {
		EXPECT_EQ(0, self->info[type].size % SZ_4K);
		EXPECT_EQ(0, self->info[type].used);
		EXPECT_EQ(0, self->info[type].allocated);
		total += self->info[type].size;
	}
	EXPECT_LT(0, self->info[P2PBAR_MEM].size);
	ASSERT_EQ(0, pci_fn_bar(&self->fn, bar, &res));
	EXPECT_LE(total, res.len);
	/* Only a prefetchable BAR may be mapped write-combining. */
	EXPECT_EQ(res.prefetchable, !!self->info[P2PBAR_UAR_WC].size);
	EXPECT_LE(limit ?: total, self->info[P2PBAR_MEM].limit);
	if (limit)
		EXPECT_EQ(limit, self->info[P2PBAR_MEM].limit);

	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, 3 * SZ_4K, &key));
	mem = map_file(self->fd, 2 * SZ_4K, 0);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, get_info(self->fd, P2PBAR_MEM, &info));
	EXPECT_EQ(5 * SZ_4K, info.used);
	EXPECT_EQ(5 * SZ_4K, info.allocated);
	EXPECT_EQ(0, info.reserved);
	/* INFO reports @used for one type, and @allocated for all types together. */
	ASSERT_EQ(0, get_info(self->fd, P2PBAR_UAR_NC, &info));
	EXPECT_EQ(0, info.used);
	EXPECT_EQ(5 * SZ_4K, info.allocated);
	ASSERT_EQ(0, munmap(mem, 2 * SZ_4K));
	EXPECT_TRUE(has_allocated(self->fd, 3 * SZ_4K));
	EXPECT_EQ(0, free_object(self->fd, key));
	EXPECT_TRUE(has_allocated(self->fd, 0));
	EXPECT_TRUE(drained(self));
}

/* Invalid arguments give the errno of the uapi header, and allocate nothing. */
TEST_F_TIMEOUT(p2pbar, bad_arguments, 90)
{
	static const unsigned long cmds[] = {
		P2PMEM_IOC_ALLOC, P2PMEM_IOC_FREE, P2PMEM_IOC_LIMIT, P2PBAR_IOC_PEER,
		P2PMEM_IOC_INFO,
	};
	const struct {
		uint32_t type;
		uint64_t size;
		uint32_t reserved;
		int err;
	} allocs[] = {
		{ P2PBAR_MEM, 0, 0, EINVAL },
		{ P2PBAR_MEM, 1, 0, EINVAL },
		{ P2PBAR_MEM, SZ_4K - 1, 0, EINVAL },
		{ P2PBAR_MEM, SZ_4K + 1, 0, EINVAL },
		{ P2PBAR_MEM, ~0ull, 0, EINVAL },
		{ P2PBAR_MEM, SZ_4K, 1, EINVAL },
		{ P2PBAR_MEM, SZ_4K, 1u << 31, EINVAL },
		{ P2PBAR_MEM, self->info[P2PBAR_MEM].size + SZ_4K, 0, ENOSPC },
		{ P2PBAR_MEM, 1ull << 62, 0, ENOSPC },
		{ P2PBAR_MEM, ~(SZ_4K - 1), 0, ENOSPC },
		{ P2PBAR_UAR_NC, 0, 0, EINVAL },
		{ P2PBAR_UAR_NC, 2 * SZ_4K, 0, EINVAL },
		{ P2PBAR_UAR_NC, SZ_4K / 2, 0, EINVAL },
		{ P2PBAR_UAR_NC, SZ_4K, 1, EINVAL },
		{ NR_TYPES, SZ_4K, 0, EINVAL },
		{ 0x100, SZ_4K, 0, EINVAL },
		{ ~0u, SZ_4K, 0, EINVAL },
	};
	struct p2pmem_alloc *ro, alloc;
	struct p2pmem_limit limit = { .size = SZ_1M, .reserved = 1 };
	struct p2pmem_info info = { .reserved = 1 };
	struct p2pbar_peer peer = { .reserved = 1 };
	struct p2pmem_free free = { .reserved = 1 };
	uint64_t key;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(allocs); i++) {
		alloc.type = allocs[i].type;
		alloc.size = allocs[i].size;
		alloc.reserved = allocs[i].reserved;
		EXPECT_EQ(-1, ioctl(self->fd, P2PMEM_IOC_ALLOC, &alloc));
		EXPECT_EQ(allocs[i].err, errno) {
			TH_LOG("case %zu", i);
		}
	}

	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, SZ_4K, &key));
	free.offset = key;
	EXPECT_EQ(-1, ioctl(self->fd, P2PMEM_IOC_FREE, &free));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-ENOENT, free_object(self->fd, 0));
	EXPECT_EQ(-ENOENT, free_object(self->fd, key + 1));
	EXPECT_EQ(-ENOENT, free_object(self->fd, key + SZ_4K));
	EXPECT_EQ(-ENOENT, free_object(self->fd, ~0ull));
	EXPECT_EQ(0, free_object(self->fd, key));

	EXPECT_EQ(-1, ioctl(self->fd, P2PMEM_IOC_LIMIT, &limit));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(self->fd, P2PBAR_IOC_PEER, &peer));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(self->fd, P2PMEM_IOC_INFO, &info));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-EINVAL, get_info(self->fd, NR_TYPES, &info));
	EXPECT_EQ(-EINVAL, get_info(self->fd, ~0u, &info));

	for (i = 0; i < ARRAY_SIZE(cmds); i++) {
		EXPECT_EQ(-1, ioctl(self->fd, cmds[i], NULL));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, ioctl(self->fd, cmds[i], 1ul << 63));
		EXPECT_EQ(EFAULT, errno);
	}
	/* The driver cannot return the offset of the object, so it has to free the object. */
	ro = ram_map(SZ_4K);
	ASSERT_NE(NULL, ro);
	ro->size = SZ_1M;
	ASSERT_EQ(0, mprotect(ro, SZ_4K, PROT_READ));
	EXPECT_EQ(-1, ioctl(self->fd, P2PMEM_IOC_ALLOC, ro));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(has_allocated(self->fd, 0));
	EXPECT_TRUE(drained(self));
}

TEST_F_TIMEOUT(p2pbar, unknown_ioctl, 90)
{
	static const unsigned long cmds[] = {
		_IO(P2PMEM_IOC_MAGIC, 0),
		_IOR(P2PMEM_IOC_MAGIC, 0, struct p2pmem_alloc),
		_IOWR(P2PMEM_IOC_MAGIC, 0, struct p2pmem_free),
		_IOWR(P2PMEM_IOC_MAGIC, 1, struct p2pmem_free),
		_IOWR(P2PMEM_IOC_MAGIC, 5, struct p2pmem_info),
		_IO(P2PMEM_IOC_MAGIC, 255),
		_IOWR(P2PMEM_IOC_MAGIC + 1, 0, struct p2pmem_alloc),
	};
	char arg[64] = {};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cmds); i++) {
		EXPECT_EQ(-1, ioctl(self->fd, cmds[i], arg));
		EXPECT_EQ(ENOTTY, errno) {
			TH_LOG("%#lx", cmds[i]);
		}
	}
}

/* P2PMEM_IOC_LIMIT limits objects and mappings at offset 0 together. */
TEST_F_TIMEOUT(p2pbar, limit, 90)
{
	struct p2pmem_info info;
	uint64_t key, big, page;
	void *mem;
	int fd;

	ASSERT_EQ(0, set_limit(self->fd, 8 * SZ_4K));
	EXPECT_EQ(-EPERM, set_limit(self->fd, 8 * SZ_4K + 1));
	EXPECT_EQ(-EPERM, set_limit(self->fd, ~0ull));
	EXPECT_EQ(0, set_limit(self->fd, 8 * SZ_4K));
	ASSERT_EQ(0, get_info(self->fd, P2PBAR_MEM, &info));
	EXPECT_EQ(8 * SZ_4K, info.limit);

	EXPECT_EQ(-EDQUOT, alloc_object(self->fd, P2PBAR_MEM, 9 * SZ_4K, &big));
	EXPECT_EQ(EDQUOT, map_errno(self->fd, 9 * SZ_4K, 0));
	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, 5 * SZ_4K, &key));
	EXPECT_EQ(EDQUOT, map_errno(self->fd, 4 * SZ_4K, 0));
	mem = map_file(self->fd, 3 * SZ_4K, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-EDQUOT, alloc_object(self->fd, P2PBAR_MEM, SZ_4K, &page));
	EXPECT_EQ(EDQUOT, map_errno(self->fd, SZ_4K, 0));
	if (self->info[P2PBAR_UAR_NC].size)
		EXPECT_EQ(-EDQUOT, alloc_object(self->fd, P2PBAR_UAR_NC, SZ_4K, &page));
	/* Mapping an object does not count its memory again. */
	EXPECT_EQ(0, map_errno(self->fd, 5 * SZ_4K, key));
	/* The limit is that of one open file, not of others. */
	fd = open(self->node, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, map_errno(fd, 16 * SZ_4K, 0));
	close(fd);

	ASSERT_EQ(0, munmap(mem, 3 * SZ_4K));
	EXPECT_TRUE(has_allocated(self->fd, 5 * SZ_4K));
	EXPECT_EQ(0, map_errno(self->fd, 3 * SZ_4K, 0));
	EXPECT_TRUE(has_allocated(self->fd, 5 * SZ_4K));
	EXPECT_EQ(0, free_object(self->fd, key));
	EXPECT_TRUE(has_allocated(self->fd, 0));
	ASSERT_EQ(0, alloc_object(self->fd, P2PBAR_MEM, 8 * SZ_4K, &key));
	/* A lower limit does not take away what is allocated. */
	EXPECT_EQ(0, set_limit(self->fd, SZ_4K));
	EXPECT_EQ(0, map_errno(self->fd, 8 * SZ_4K, key));
	EXPECT_EQ(-EDQUOT, alloc_object(self->fd, P2PBAR_MEM, SZ_4K, &page));
	EXPECT_EQ(0, free_object(self->fd, key));
	EXPECT_TRUE(has_allocated(self->fd, 0));
	EXPECT_EQ(0, map_errno(self->fd, SZ_4K, 0));
}

/* The numbers of fdinfo in this order: limit, allocated, objects, mappings. */
static int read_fdinfo(int fd, uint64_t val[4])
{
	static const char * const names[] = {
		"p2pdma-limit", "p2pdma-allocated", "p2pdma-objects", "p2pdma-mappings",
	};
	int i, ret = 0;

	for (i = 0; !ret && i < 4; i++)
		ret = fdinfo_read(fd, names[i], &val[i]);
	return ret;
}

TEST_F_TIMEOUT(p2pbar, fdinfo, 90)
{
	const uint64_t none[] = { SZ_1M, 0, 0, 0 };
	const uint64_t mapped[] = { SZ_1M, 2 * SZ_4K, 1, 2 };
	uint64_t val[4], key;
	void *mem, *again;

	ASSERT_EQ(0, set_limit(self->fd, SZ_1M));
	ASSERT_EQ(0, read_fdinfo(self->fd, val));
	EXPECT_EQ(0, memcmp(val, none, sizeof(val)));
	mem = MAP_OBJECT(self->fd, P2PBAR_MEM, 2 * SZ_4K, &key);
	again = map_file(self->fd, 2 * SZ_4K, key);
	ASSERT_NE(NULL, again);
	ASSERT_EQ(0, read_fdinfo(self->fd, val));
	EXPECT_EQ(0, memcmp(val, mapped, sizeof(val)));
	ASSERT_EQ(0, munmap(mem, 2 * SZ_4K));
	ASSERT_EQ(0, munmap(again, 2 * SZ_4K));
	ASSERT_EQ(0, free_object(self->fd, key));
	EXPECT_TRUE(has_allocated(self->fd, 0));
	ASSERT_EQ(0, read_fdinfo(self->fd, val));
	EXPECT_EQ(0, memcmp(val, none, sizeof(val)));
}

/* Debugfs counts the memory, the objects and the mappings of each type. */
TEST_F_TIMEOUT(p2pbar, debugfs, 90)
{
	struct memory_use before, use;
	uint32_t type;
	uint64_t key;
	void *mem;

	if (access("/sys/kernel/debug/bdi", F_OK))
		SKIP(return, "needs debugfs at /sys/kernel/debug");
	for (type = 0; type < NR_TYPES; type++) {
		if (!self->info[type].size)
			continue;
		ASSERT_EQ(0, node_memory(self->node, type_name(type), &before));
		EXPECT_EQ(self->info[type].size, before.size);
		EXPECT_EQ(self->info[type].used, before.used);
		mem = MAP_OBJECT(self->fd, type, SZ_4K, &key);
		ASSERT_EQ(0, node_memory(self->node, type_name(type), &use));
		EXPECT_EQ(before.size, use.size);
		EXPECT_EQ(before.used + SZ_4K, use.used);
		EXPECT_EQ(before.objects + 1, use.objects);
		EXPECT_EQ(before.mappings + 1, use.mappings);
		ASSERT_EQ(0, munmap(mem, SZ_4K));
		ASSERT_EQ(0, free_object(self->fd, key));
		EXPECT_TRUE(drained(self));
		ASSERT_EQ(0, node_memory(self->node, type_name(type), &use));
		EXPECT_EQ(0, memcmp(&before, &use, sizeof(use)));
	}
	ASSERT_EQ(0, pci_fn_unbind(&self->fn));
	EXPECT_EQ(-ENOENT, node_memory(self->node, "mem", &use));
}

TEST_HARNESS_MAIN
