// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of mappings of p2pmem/allocate, with the CMB as the memory. See
 * testbed.h for the environment variables.
 */
#define _GNU_SOURCE
#include "nvme_cmb_fixture.h"

TEST_F_TIMEOUT(nvme_cmb, mmap_refused, 90)
{
	size_t page = sysconf(_SC_PAGESIZE);
	void *mem;

	mem = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE, self->p2pmem, 0);
	EXPECT_EQ(MAP_FAILED, mem);
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(NULL, map_file(self->p2pmem, page, page));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(NULL, map_file(self->p2pmem, self->size + page, 0));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(self->size, pool_available(&self->cmb));
}

/* A mapping can be pinned (no VM_IO, no VM_PFNMAP), cannot grow, and is not dumped. */
TEST_F_TIMEOUT(nvme_cmb, mmap_flags, 90)
{
	char line[512];
	void *mem;

	mem = map_file(self->p2pmem, 4 * SZ_4K, 0);
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

/*
 * A mapping of memory behind a prefetchable BAR is write-combining and not
 * cached, also after mprotect(). Behind other BARs nothing may be combined.
 */
TEST_F_TIMEOUT(nvme_cmb, mmap_uncached, 90)
{
	void *mem;

	mem = map_file(self->p2pmem, SZ_4K, 0);
	ASSERT_NE(NULL, mem);
	mmio_write64(mem, 1);
	if (!page_table_mode(mem))
		SKIP(return, "needs CONFIG_PTDUMP_DEBUGFS, on x86");
	EXPECT_EQ(self->prefetchable, !strcmp(MODE_WC, page_table_mode(mem))) {
		TH_LOG("%s", page_table_mode(mem));
	}
	ASSERT_EQ(0, mprotect(mem, SZ_4K, PROT_READ));
	EXPECT_EQ(1, mmio_read64(mem));
	ASSERT_NE(NULL, page_table_mode(mem));
	EXPECT_EQ(self->prefetchable, !strcmp(MODE_WC, page_table_mode(mem))) {
		TH_LOG("%s", page_table_mode(mem));
	}
	ASSERT_EQ(0, munmap(mem, SZ_4K));
}

/* The kernel has mapped the memory write-combining or uncached, as the BAR permits. */
TEST_F_TIMEOUT(nvme_cmb, memory_type, 90)
{
	const char *mode = memory_type(self->phys);

	if (access("/sys/kernel/debug/x86/pat_memtype_list", R_OK))
		SKIP(return, "needs debugfs, on x86 with PAT");
	ASSERT_NE(NULL, mode);
	EXPECT_STREQ(self->prefetchable ? MODE_WC : MODE_UC, mode);
	EXPECT_STREQ(mode, memory_type(self->phys + self->size - 1) ?: "none");
}

/* The whole CMB can be mapped at once. */
TEST_F_TIMEOUT(nvme_cmb, mmap_whole, 90)
{
	void *mem;

	mem = map_file(self->p2pmem, self->size, 0);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, pool_available(&self->cmb));
	EXPECT_EQ(NULL, map_file(self->p2pmem, sysconf(_SC_PAGESIZE), 0));
	EXPECT_EQ(ENOMEM, errno);

	/* The first and the last page of the mapping are those of the CMB. */
	mmio_read64(mem);
	mmio_read64(mem + self->size - SZ_4K);
	EXPECT_EQ(self->phys, phys_addr(mem));
	EXPECT_EQ(self->phys + self->size - SZ_4K, phys_addr(mem + self->size - SZ_4K));
	mmio_fill(mem + self->size - SZ_4K, SZ_4K, 1);
	EXPECT_EQ(-1, mmio_check(mem + self->size - SZ_4K, SZ_4K, 1));

	ASSERT_EQ(0, munmap(mem, self->size));
	EXPECT_EQ(self->size, pool_available(&self->cmb));
}

TEST_HARNESS_MAIN
