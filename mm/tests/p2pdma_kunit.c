// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for pagemaps and mappings of peer-to-peer DMA memory.
 */
#include <kunit/test.h>
#include <linux/err.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/sizes.h>

static void folio_free(struct folio *folio)
{
}

static const struct dev_pagemap_ops ops = {
	.folio_free = folio_free,
};

static const struct dev_pagemap_ops no_ops = {};

struct p2pdma_test {
	struct pci_dev pdev;
	struct p2pdma_provider provider;
};

static int p2pdma_test_init(struct kunit *test)
{
	struct p2pdma_test *data = kunit_kzalloc(test, sizeof(*data), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, data);
	data->provider.owner = &data->pdev.dev;
	test->priv = data;
	return 0;
}

/* None of these is looked at any further: the range is not even aligned. */
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

	for (i = 0; i < ARRAY_SIZE(malformed); i++) {
		struct dev_pagemap pgmap = {
			.type = MEMORY_DEVICE_PCI_P2PDMA,
			.range = { .start = 1, .end = 1 },
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
