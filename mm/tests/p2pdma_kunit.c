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
#include <linux/pagemap.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/sizes.h>

struct p2pdma_test {
	struct pci_dev pdev;
	struct p2pdma_provider provider;
	struct dev_pagemap pgmap;
	struct folio *freed;
	int nr_freed;
	unsigned long nr_pages;	/* that are handed out */
};

static void folio_free(struct folio *folio)
{
	struct dev_pagemap *pgmap = page_pgmap(folio_page(folio, 0));
	struct p2pdma_test *data = container_of(pgmap, struct p2pdma_test, pgmap);

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

	KUNIT_ASSERT_NOT_NULL(test, data);
	data->provider.owner = &data->pdev.dev;
	test->priv = data;
	return 0;
}

/* These are refused before it turns out that the range is RAM, which is -ENXIO. */
static void p2pdma_malformed_pagemap(struct kunit *test)
{
	struct p2pdma_test *data = test->priv;
	const struct {
		const struct dev_pagemap_ops *ops;
		void *owner;
	} malformed[] = {
		{ NULL, &data->provider },
		{ &no_ops, &data->provider },
		{ &ops, NULL },
		{ NULL, NULL },
	};
	int i;

	KUNIT_ASSERT_TRUE(test, region_intersects(virt_to_phys(data), 1,
						  IORESOURCE_SYSTEM_RAM,
						  IORES_DESC_NONE) == REGION_INTERSECTS);

	for (i = 0; i < ARRAY_SIZE(malformed); i++) {
		struct dev_pagemap pgmap = {
			.type = MEMORY_DEVICE_PCI_P2PDMA,
			.range = {
				.start = virt_to_phys(data),
				.end = virt_to_phys(data),
			},
			.nr_range = 1,
			.ops = malformed[i].ops,
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
	struct dev_pagemap *pgmap = &data->pgmap;
	struct resource *res;
	struct folio *folio;
	void *addr;
	int i;

	/* Elsewhere, it counts as the end of all memory from then on. */
	if (!IS_ENABLED(CONFIG_X86_64))
		kunit_skip(test, "not on this architecture");
	res = request_free_mem_region(&iomem_resource, SZ_128M, "p2pdma_kunit");
	if (IS_ERR(res))
		kunit_skip(test, "no physical addresses left");
	pgmap->type = MEMORY_DEVICE_PCI_P2PDMA;
	pgmap->ops = &ops;
	pgmap->owner = &data->provider;
	pgmap->range.start = res->start;
	pgmap->range.end = res->end;
	pgmap->nr_range = 1;
	addr = memremap_pages(pgmap, NUMA_NO_NODE);
	if (IS_ERR(addr)) {
		KUNIT_FAIL(test, "memremap_pages(): %pe\n", addr);
		goto out;
	}

	folio = pfn_folio(PHYS_PFN(res->start));
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
out:
	release_mem_region(res->start, resource_size(res));
}

/* What a VMA looks like that is going to map pages of a pagemap. */
static void p2pdma_mmap_prepare(struct kunit *test)
{
	const pgprot_t prot = vm_get_page_prot(VM_READ | VM_WRITE | VM_SHARED);
	struct p2pdma_test *data = test->priv;
	int wc;

	for (wc = 0; wc < 2; wc++) {
		struct dev_pagemap pgmap = {
			.type = MEMORY_DEVICE_PCI_P2PDMA,
			.flags = wc ? PGMAP_WRITECOMBINE : 0,
			.ops = &ops,
			.owner = &data->provider,
		};
		struct vm_area_desc desc = {
			.end = SZ_2M,
			.page_prot = prot,
		};
		pgprot_t want = wc ? pgprot_writecombine(prot) : pgprot_noncached(prot);

		vma_desc_set_flags(&desc, VMA_SHARED_BIT, VMA_MAYSHARE_BIT);
		KUNIT_EXPECT_EQ(test, pci_p2pdma_mmap_prepare(&desc, &pgmap), 0);
		KUNIT_EXPECT_EQ(test, pgprot_val(desc.page_prot),
				pgprot_val(pgprot_decrypted(want)));
		KUNIT_EXPECT_TRUE(test, vma_desc_test(&desc, VMA_DONTEXPAND_BIT));
		KUNIT_EXPECT_TRUE(test, vma_desc_test(&desc, VMA_DONTDUMP_BIT));
		KUNIT_EXPECT_FALSE(test, vma_desc_test(&desc, VMA_IO_BIT));
		KUNIT_EXPECT_FALSE(test, vma_desc_test(&desc, VMA_PFNMAP_BIT));
		KUNIT_EXPECT_FALSE(test, vma_desc_test(&desc, VMA_MIXEDMAP_BIT));
	}
}

static struct kunit_case p2pdma_test_cases[] = {
	KUNIT_CASE(p2pdma_malformed_pagemap),
	KUNIT_CASE(p2pdma_pagemap),
	KUNIT_CASE(p2pdma_mmap_prepare),
	{}
};

static struct kunit_suite p2pdma_test_suite = {
	.name = "p2pdma",
	.init = p2pdma_test_init,
	.test_cases = p2pdma_test_cases,
};

kunit_test_suite(p2pdma_test_suite);

MODULE_DESCRIPTION("KUnit tests for peer-to-peer DMA memory");
MODULE_LICENSE("GPL");
