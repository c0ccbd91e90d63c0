// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for pagemaps and mappings of peer-to-peer DMA memory.
 */
#include <kunit/test.h>
#include <linux/err.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/sizes.h>

struct p2pdma_test {
	struct pci_dev pdev;
	struct p2pdma_provider provider;
	struct dev_pagemap *pgmap;	/* with room for two ranges */
	struct resource *res;		/* addresses without anything behind them */
	struct folio *freed;
	int nr_freed;
	unsigned long nr_pages;	/* that are handed out */
};

static void folio_free(struct folio *folio)
{
	struct dev_pagemap *pgmap = page_pgmap(folio_page(folio, 0));
	struct p2pdma_test *data;

	data = container_of(pgmap->provider, struct p2pdma_test, provider);
	data->freed = folio;
	data->nr_freed++;
	data->nr_pages -= folio_nr_pages(folio);
	/* One for each page, that zone_device_folio_init() has taken. */
	percpu_ref_put_many(&pgmap->ref, folio_nr_pages(folio));
}

static const struct dev_pagemap_ops ops = {
	.folio_free = folio_free,
};

static const struct dev_pagemap_ops no_ops = {};

static int p2pdma_test_init(struct kunit *test)
{
	struct p2pdma_test *data = kunit_kzalloc(test, sizeof(*data), GFP_KERNEL);
	size_t size = struct_size(data->pgmap, ranges, 2);

	KUNIT_ASSERT_NOT_NULL(test, data);
	data->provider.owner = &data->pdev.dev;
	data->pgmap = kunit_kzalloc(test, size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, data->pgmap);
	data->pgmap->type = MEMORY_DEVICE_PCI_P2PDMA;
	data->pgmap->ops = &ops;
	data->pgmap->provider = &data->provider;
	test->priv = data;
	return 0;
}

static void p2pdma_test_exit(struct kunit *test)
{
	struct p2pdma_test *data = test->priv;

	if (data && data->res)
		release_mem_region(data->res->start, resource_size(data->res));
}

/* Let the pagemap consist of @nr_range equal parts of a free memory region. */
static void get_region(struct kunit *test, int nr_range, resource_size_t size)
{
	struct p2pdma_test *data = test->priv;
	struct dev_pagemap *pgmap = data->pgmap;
	struct resource *res;
	int i;

	/* Elsewhere, it counts as the end of all memory from then on. */
	if (!IS_ENABLED(CONFIG_X86_64))
		kunit_skip(test, "not on this architecture");
	res = request_free_mem_region(&iomem_resource, SZ_128M, "p2pdma_kunit");
	if (IS_ERR(res))
		kunit_skip(test, "no physical addresses left");
	data->res = res;
	pgmap->nr_range = nr_range;
	for (i = 0; i < nr_range; i++) {
		pgmap->ranges[i].start = res->start + i * size;
		pgmap->ranges[i].end = pgmap->ranges[i].start + size - 1;
	}
}

/* These are refused before it turns out that the range is RAM, which is -ENXIO. */
static void p2pdma_malformed_pagemap(struct kunit *test)
{
	struct p2pdma_test *data = test->priv;
	const struct {
		enum memory_type type;
		unsigned int flags;
		const struct dev_pagemap_ops *ops;
		struct p2pdma_provider *provider;
		void *owner;
	} malformed[] = {
		{ .provider = &data->provider },
		{ .provider = &data->provider, .ops = &no_ops },
		/* Set up as pagemaps of other types are, which have an owner. */
		{ .owner = &data->provider, .ops = &ops },
		{ .ops = &ops },
		{},
		{ .type = MEMORY_DEVICE_GENERIC, .flags = PGMAP_WRITECOMBINE },
	};
	int i;

	KUNIT_ASSERT_TRUE(test, region_intersects(virt_to_phys(data), 1,
						  IORESOURCE_SYSTEM_RAM,
						  IORES_DESC_NONE) == REGION_INTERSECTS);

	for (i = 0; i < ARRAY_SIZE(malformed); i++) {
		struct dev_pagemap pgmap = {
			.type = malformed[i].type ?: MEMORY_DEVICE_PCI_P2PDMA,
			.flags = malformed[i].flags,
			.range = {
				.start = virt_to_phys(data),
				.end = virt_to_phys(data),
			},
			.nr_range = 1,
			.ops = malformed[i].ops,
			.provider = malformed[i].provider,
			.owner = malformed[i].owner,
		};

		kunit_warning_suppress(test) {
			KUNIT_EXPECT_EQ(test, PTR_ERR(memremap_pages(&pgmap, NUMA_NO_NODE)),
					-EINVAL);
			KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
		}
	}
}

/* Folios come back when their last reference is put. Nobody touches the memory. */
static void p2pdma_pagemap(struct kunit *test)
{
	static const unsigned int orders[] = { 0, 4, 0, 9 };
	struct p2pdma_test *data = test->priv;
	struct dev_pagemap *pgmap = data->pgmap;
	struct folio *folio;
	void *addr;
	int i;

	get_region(test, 1, SZ_128M);
	addr = memremap_pages(pgmap, NUMA_NO_NODE);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, addr);

	folio = pfn_folio(PHYS_PFN(pgmap->range.start));
	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		zone_device_folio_init(folio, pgmap, orders[i]);
		folio_unlock(folio);
		data->nr_pages += 1ul << orders[i];
		KUNIT_EXPECT_TRUE(test, folio_is_pci_p2pdma(folio));
		KUNIT_EXPECT_PTR_EQ(test, page_pgmap(folio_page(folio, 0)), pgmap);
		KUNIT_EXPECT_EQ(test, folio_order(folio), orders[i]);
		KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);

		folio_get(folio);
		folio_put(folio);
		KUNIT_EXPECT_EQ(test, data->nr_freed, i);
		data->freed = NULL;
		folio_put(folio);
		KUNIT_EXPECT_EQ(test, data->nr_freed, i + 1);
		KUNIT_EXPECT_PTR_EQ(test, data->freed, folio);
	}
	/* Unmapping waits for those that have not come back. */
	KUNIT_EXPECT_EQ(test, data->nr_pages, 0);
	if (data->nr_pages)
		percpu_ref_put_many(&pgmap->ref, data->nr_pages);
	memunmap_pages(pgmap);
}

/* A range that has a part in common with that of another pagemap is refused. */
static void p2pdma_conflict(struct kunit *test)
{
	static const struct {
		unsigned long start, end;	/* in MiB */
		int error;
	} ranges[] = {
		{ 32, 48, -EBUSY },
		{ 16, 34, -EBUSY },
		{ 46, 64, -EBUSY },
		{ 34, 46, -EBUSY },
		{ 16, 64, -EBUSY },
		{ 16, 32, 0 },
		{ 48, 64, 0 },
	};
	struct p2pdma_test *data = test->priv;
	struct dev_pagemap *pgmap = data->pgmap, *other, *found;
	unsigned long mib;
	void *addr;
	int i;

	get_region(test, 1, SZ_128M);
	other = kunit_kzalloc(test, sizeof(*other), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, other);
	pgmap->range.start = data->res->start + 32 * SZ_1M;
	pgmap->range.end = pgmap->range.start + 16 * SZ_1M - 1;
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, memremap_pages(pgmap, NUMA_NO_NODE));

	for (i = 0; i < ARRAY_SIZE(ranges); i++) {
		memset(other, 0, sizeof(*other));
		other->type = MEMORY_DEVICE_PCI_P2PDMA;
		other->ops = &ops;
		other->provider = &data->provider;
		other->nr_range = 1;
		other->range.start = data->res->start + ranges[i].start * SZ_1M;
		other->range.end = data->res->start + ranges[i].end * SZ_1M - 1;
		addr = memremap_pages(other, NUMA_NO_NODE);
		KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(addr), ranges[i].error);
		if (!IS_ERR(addr))
			memunmap_pages(other);
	}

	for (mib = 32; mib < 48; mib += 2) {
		found = get_dev_pagemap(PHYS_PFN(data->res->start + mib * SZ_1M));
		KUNIT_EXPECT_PTR_EQ(test, found, pgmap);
		put_dev_pagemap(found);
	}
	memunmap_pages(pgmap);
}

/*
 * Free pages become folios again, of the same order or another one. A folio
 * inherits zone_device_data of the folios that its pages were part of.
 */
static void p2pdma_recycle(struct kunit *test)
{
	static const struct {
		unsigned int first;	/* page */
		unsigned int order;
		unsigned long data;
		unsigned long want;
	} steps[] = {
		{ 0, 9, 1, 0 },
		{ 0, 9, 2, 1 },
		/* These are parts of a larger folio. */
		{ 16, 4, 3, 2 },
		{ 32, 0, 3, 2 },
		{ 511, 0, 4, 2 },
		{ 16, 4, 5, 3 },
		/* These are larger folios that consist of smaller ones. */
		{ 0, 9, 6, 0 },
		{ 0, 8, 7, 6 },
		{ 256, 8, 7, 6 },
		{ 0, 9, 8, 7 },
		{ 0, 0, 9, 8 },
		{ 1, 0, 9, 8 },
		{ 0, 1, 10, 9 },
		{ 2, 1, 10, 8 },
		{ 0, 2, 11, 10 },
		{ 1, 0, 12, 11 },
		{ 0, 2, 13, 0 },
		{ 512, 9, 14, 0 },
	};
	struct p2pdma_test *data = test->priv;
	struct dev_pagemap *pgmap = data->pgmap;
	struct folio *folio;
	struct page *page;
	void *old;
	int i, nr;

	get_region(test, 1, SZ_128M);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, memremap_pages(pgmap, NUMA_NO_NODE));

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		page = pfn_to_page(PHYS_PFN(pgmap->range.start) + steps[i].first);
		folio = (struct folio *)page;
		nr = 1 << steps[i].order;
		old = zone_device_folio_recycle(folio, pgmap, steps[i].order,
						(void *)steps[i].data);
		data->nr_pages += nr;
		KUNIT_EXPECT_EQ_MSG(test, (unsigned long)old, steps[i].want, "step %d", i);
		KUNIT_EXPECT_EQ(test, folio_order(folio), steps[i].order);
		KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
		KUNIT_EXPECT_EQ(test, folio_mapcount(folio), 0);
		KUNIT_EXPECT_FALSE(test, folio_test_locked(folio));
		KUNIT_EXPECT_FALSE(test, folio_test_dirty(folio));
		KUNIT_EXPECT_TRUE(test, folio_is_pci_p2pdma(folio));
		KUNIT_EXPECT_PTR_EQ(test, page_pgmap(page + nr - 1), pgmap);
		KUNIT_EXPECT_PTR_EQ(test, page_folio(page + nr - 1), folio);
		KUNIT_EXPECT_PTR_NE(test, page_folio(page + nr), folio);
		if (steps[i].first)
			KUNIT_EXPECT_PTR_NE(test, page_folio(page - 1), folio);

		folio_set_dirty(folio);
		folio_set_referenced(folio);
		data->freed = NULL;
		folio_put(folio);
		KUNIT_EXPECT_PTR_EQ(test, data->freed, folio);
	}
	KUNIT_EXPECT_EQ(test, data->nr_pages, 0);
	if (data->nr_pages)
		percpu_ref_put_many(&pgmap->ref, data->nr_pages);
	memunmap_pages(pgmap);
}

static void p2pdma_pgprot(struct kunit *test)
{
	struct p2pdma_test *data = test->priv;
	struct dev_pagemap *pgmap = data->pgmap;
	const pgprot_t prots[] = {
		PAGE_KERNEL,
		vm_get_page_prot(VM_READ | VM_SHARED),
		vm_get_page_prot(VM_READ | VM_WRITE | VM_SHARED),
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		pgmap->type = MEMORY_DEVICE_PCI_P2PDMA;
		pgmap->flags = 0;
		KUNIT_EXPECT_EQ(test, pgprot_val(memremap_pgprot(pgmap, prots[i])),
				pgprot_val(pgprot_decrypted(pgprot_noncached(prots[i]))));
		pgmap->flags = PGMAP_WRITECOMBINE;
		KUNIT_EXPECT_EQ(test, pgprot_val(memremap_pgprot(pgmap, prots[i])),
				pgprot_val(pgprot_decrypted(pgprot_writecombine(prots[i]))));
		pgmap->flags = 0;
		pgmap->type = MEMORY_DEVICE_FS_DAX;
		KUNIT_EXPECT_EQ(test, pgprot_val(memremap_pgprot(pgmap, prots[i])),
				pgprot_val(pgprot_decrypted(prots[i])));
		pgmap->type = MEMORY_DEVICE_GENERIC;
		KUNIT_EXPECT_EQ(test, pgprot_val(memremap_pgprot(pgmap, prots[i])),
				pgprot_val(prots[i]));
	}
}

#ifdef CONFIG_X86_64
/* How the kernel maps the first page of each range, without the access rights. */
static bool kernel_maps_as(const struct dev_pagemap *pgmap, pgprot_t prot)
{
	const pteval_t bits = _PAGE_PWT | _PAGE_PCD;
	unsigned int level;
	pte_t *pte;
	int i;

	for (i = 0; i < pgmap->nr_range; i++) {
		pte = lookup_address((unsigned long)__va(pgmap->ranges[i].start), &level);
		if (!pte || (pte_val(*pte) & bits) != (pgprot_val(prot) & bits))
			return false;
	}
	return true;
}
#else
static bool kernel_maps_as(const struct dev_pagemap *pgmap, pgprot_t prot)
{
	return true;
}
#endif

/* Try it with @mapped[i] being how somebody else has mapped range i. */
static void try_cachemode(struct kunit *test, unsigned int flags,
			  void __iomem *(*const mapped[2])(resource_size_t, unsigned long),
			  int want_error, unsigned int want_flags)
{
	struct p2pdma_test *data = test->priv;
	struct dev_pagemap *pgmap = data->pgmap;
	void __iomem *mem[2] = {};
	void *addr;
	int i;

	for (i = 0; i < 2; i++) {
		if (!mapped[i])
			continue;
		mem[i] = mapped[i](pgmap->ranges[i].start, range_len(&pgmap->ranges[i]));
		KUNIT_EXPECT_NOT_NULL(test, (void __force *)mem[i]);
	}

	pgmap->flags = flags;
	addr = memremap_pages(pgmap, NUMA_NO_NODE);
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(addr), want_error);
	KUNIT_EXPECT_EQ(test, pgmap->flags, want_flags);
	KUNIT_EXPECT_EQ(test, pgmap->nr_range, 2);
	if (!IS_ERR(addr)) {
		KUNIT_EXPECT_TRUE(test, kernel_maps_as(pgmap, memremap_pgprot(pgmap, PAGE_KERNEL)));
		memunmap_pages(pgmap);
	}

	for (i = 0; i < 2; i++)
		if (mem[i])
			iounmap(mem[i]);
}

/* The flag says how the kernel has mapped the memory. */
static void p2pdma_cachemode(struct kunit *test)
{
	const unsigned int wc = PGMAP_WRITECOMBINE;
	void __iomem *(*map[2])(resource_size_t, unsigned long) = {};

	if (pgprot_val(pgprot_noncached(PAGE_KERNEL)) ==
	    pgprot_val(pgprot_writecombine(PAGE_KERNEL)))
		kunit_skip(test, "no write-combining");
	get_region(test, 2, SZ_2M);

	try_cachemode(test, 0, map, 0, 0);
	try_cachemode(test, wc, map, 0, wc);

	/* What is there is followed, and has no effect on who comes later. */
	map[0] = ioremap_wc;
	map[1] = ioremap_wc;
	try_cachemode(test, 0, map, 0, wc);
	try_cachemode(test, wc, map, 0, wc);
	map[1] = NULL;
	try_cachemode(test, 0, map, 0, wc);
	map[0] = ioremap;
	map[1] = ioremap;
	try_cachemode(test, wc, map, 0, 0);
	try_cachemode(test, 0, map, 0, 0);

	/* The ranges differ. */
	map[0] = ioremap_wc;
	try_cachemode(test, 0, map, -EBUSY, 0);
	try_cachemode(test, wc, map, -EBUSY, wc);
	map[0] = NULL;
	try_cachemode(test, wc, map, -EBUSY, wc);
	try_cachemode(test, 0, map, 0, 0);

	/* No flag says this. */
	map[0] = ioremap_uc;
	map[1] = ioremap_uc;
	try_cachemode(test, 0, map, -EBUSY, 0);
	try_cachemode(test, wc, map, -EBUSY, wc);
}

/* What a VMA looks like that is going to map pages of a pagemap. */
static void p2pdma_mmap_prepare(struct kunit *test)
{
	const pgprot_t prot = vm_get_page_prot(VM_READ | VM_WRITE | VM_SHARED);
	struct p2pdma_test *data = test->priv;
	struct dev_pagemap *pgmap = data->pgmap;
	int wc;

	for (wc = 0; wc < 2; wc++) {
		struct vm_area_desc desc = {
			.end = SZ_2M,
			.page_prot = prot,
		};

		pgmap->flags = wc ? PGMAP_WRITECOMBINE : 0;
		vma_desc_set_flags(&desc, VMA_SHARED_BIT, VMA_MAYSHARE_BIT);
		KUNIT_EXPECT_EQ(test, pci_p2pdma_mmap_prepare(&desc, pgmap), 0);
		KUNIT_EXPECT_EQ(test, pgprot_val(desc.page_prot),
				pgprot_val(memremap_pgprot(pgmap, prot)));
		KUNIT_EXPECT_TRUE(test, vma_desc_test(&desc, VMA_DONTEXPAND_BIT));
		KUNIT_EXPECT_TRUE(test, vma_desc_test(&desc, VMA_DONTDUMP_BIT));
		KUNIT_EXPECT_FALSE(test, vma_desc_test(&desc, VMA_IO_BIT));
		KUNIT_EXPECT_FALSE(test, vma_desc_test(&desc, VMA_PFNMAP_BIT));
		KUNIT_EXPECT_FALSE(test, vma_desc_test(&desc, VMA_MIXEDMAP_BIT));
	}
}

static void p2pdma_mmap_private(struct kunit *test)
{
	const pgprot_t prot = vm_get_page_prot(VM_READ | VM_WRITE);
	struct p2pdma_test *data = test->priv;
	struct vm_area_desc desc = {
		.end = SZ_2M,
		.page_prot = prot,
	};

	vma_desc_set_flags(&desc, VMA_READ_BIT, VMA_WRITE_BIT);
	KUNIT_EXPECT_EQ(test, pci_p2pdma_mmap_prepare(&desc, data->pgmap), -EINVAL);
	KUNIT_EXPECT_EQ(test, pgprot_val(desc.page_prot), pgprot_val(prot));
	KUNIT_EXPECT_FALSE(test, vma_desc_test(&desc, VMA_DONTEXPAND_BIT));
	/* Read-only and shared, MAYSHARE without SHARED, is fine. */
	vma_desc_set_flags(&desc, VMA_MAYSHARE_BIT);
	KUNIT_EXPECT_EQ(test, pci_p2pdma_mmap_prepare(&desc, data->pgmap), 0);
}

static struct kunit_case p2pdma_test_cases[] = {
	KUNIT_CASE(p2pdma_malformed_pagemap),
	KUNIT_CASE(p2pdma_pagemap),
	KUNIT_CASE(p2pdma_conflict),
	KUNIT_CASE(p2pdma_recycle),
	KUNIT_CASE(p2pdma_pgprot),
	KUNIT_CASE(p2pdma_cachemode),
	KUNIT_CASE(p2pdma_mmap_prepare),
	KUNIT_CASE(p2pdma_mmap_private),
	{}
};

static struct kunit_suite p2pdma_test_suite = {
	.name = "p2pdma",
	.init = p2pdma_test_init,
	.exit = p2pdma_test_exit,
	.test_cases = p2pdma_test_cases,
};

kunit_test_suite(p2pdma_test_suite);

MODULE_DESCRIPTION("KUnit tests for peer-to-peer DMA memory");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_LICENSE("GPL");
