// SPDX-License-Identifier: GPL-2.0
/*
 * A driver that maps pages of its device's pool from a file of its own.
 *
 * It takes only a function that is given to it by driver_override, and adds the
 * function's largest memory BAR to the pool, as one or two resources. The module
 * parameters "parts" and "premap" say how, at the next probe.
 *
 * A line written to /dev/p2pdma_pool is a command:
 *
 *   take PART N    allocate N more pages of this part of the BAR
 *   free PART N    put each Nth of them; the others keep their order
 *
 * read() returns four numbers: how many pages the last command took or put, the
 * lowest and the highest offset in the BAR of these, and how many ns it took.
 *
 * mmap() at page PART << 20 | I maps the pages that were taken of this part,
 * from the Ith on. With bit 24 set the VMA is not prepared, as by a driver that
 * has forgotten to.
 */
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/memremap.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#define MAX_PARTS	2
#define PGOFF_INDEX	((1ul << 20) - 1)
#define PGOFF_PART	BIT(20)
#define PGOFF_BARE	BIT(24)

static unsigned int parts = 1;
module_param(parts, uint, 0644);
MODULE_PARM_DESC(parts, "number of resources to add");

enum premap {
	PREMAP_NONE,
	PREMAP_UNCACHED,
	PREMAP_WRITECOMBINE,
};

static unsigned int premap;
module_param(premap, uint, 0644);
MODULE_PARM_DESC(premap, "map the BAR before: 0 not, 1 by ioremap(), 2 by ioremap_wc()");

struct part {
	struct dev_pagemap *pgmap;
	struct pci_p2pmem_search search;	/* goes on from one command to the next */
	struct page **pages;
	unsigned int nr, max;
};

/*
 * For one device, and by one program. The lock is taken below mmap_lock, so it
 * must not be held while memory is added.
 */
static DEFINE_MUTEX(lock);
static struct part part[MAX_PARTS];
static unsigned int nr_parts;	/* zero if no device is bound */
static phys_addr_t bar_start;
static struct {
	unsigned int nr;
	u64 low, high, ns;
} last;

static void account(struct page *page)
{
	u64 offset = page_to_phys(page) - bar_start;

	last.low = min(last.low, offset);
	last.high = max(last.high, offset);
	last.nr++;
}

static void take(struct part *p, unsigned int n)
{
	u64 start = ktime_get_ns();
	struct folio *folio;
	void *old;

	for (n = min(n, p->max - p->nr); n; n--) {
		folio = pci_p2pmem_alloc_folio(p->pgmap, 0, &p->search, NULL, &old);
		if (!folio)
			break;
		p->pages[p->nr++] = folio_page(folio, 0);
		account(folio_page(folio, 0));
	}
	last.ns = ktime_get_ns() - start;
}

static void put(struct part *p, unsigned int nth)
{
	unsigned int i, left = 0;
	u64 start = ktime_get_ns();

	for (i = 0; i < p->nr; i++) {
		if (i % nth) {
			p->pages[left++] = p->pages[i];
			continue;
		}
		account(p->pages[i]);
		put_page(p->pages[i]);
	}
	p->nr = left;
	last.ns = ktime_get_ns() - start;
}

static ssize_t pool_write(struct file *file, const char __user *ubuf, size_t len,
			  loff_t *pos)
{
	unsigned int i, n;
	char buf[64], what[8];

	if (len >= sizeof(buf))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, len))
		return -EFAULT;
	buf[len] = '\0';
	if (sscanf(buf, "%7s %u %u", what, &i, &n) != 3)
		return -EINVAL;

	guard(mutex)(&lock);
	if (i >= nr_parts)
		return nr_parts ? -EINVAL : -ENODEV;
	memset(&last, 0, sizeof(last));
	last.low = U64_MAX;
	if (!strcmp(what, "take"))
		take(&part[i], n);
	else if (!strcmp(what, "free") && n)
		put(&part[i], n);
	else
		return -EINVAL;
	return len;
}

static ssize_t pool_read(struct file *file, char __user *ubuf, size_t len, loff_t *pos)
{
	char buf[96];
	int n;

	scoped_guard(mutex, &lock)
		n = scnprintf(buf, sizeof(buf), "%u %#llx %#llx %llu\n", last.nr,
			      last.low, last.high, last.ns);
	return simple_read_from_buffer(ubuf, len, pos, buf, n);
}

static vm_fault_t pool_fault(struct vm_fault *vmf)
{
	unsigned long index = vmf->pgoff & PGOFF_INDEX;
	struct part *p = &part[!!(vmf->pgoff & PGOFF_PART)];

	/* The page may not be put until it is mapped. */
	guard(mutex)(&lock);
	if (index >= p->nr)
		return VM_FAULT_SIGBUS;
	return pci_p2pdma_insert_page(vmf, p->pages[index]);
}

static const struct vm_operations_struct pool_vm_ops = {
	.fault = pool_fault,
};

static int pool_mmap_prepare(struct vm_area_desc *desc)
{
	unsigned int i = !!(desc->pgoff & PGOFF_PART);
	int ret;

	guard(mutex)(&lock);
	if (i >= nr_parts)
		return -ENODEV;
	if (!(desc->pgoff & PGOFF_BARE)) {
		ret = pci_p2pdma_mmap_prepare(desc, part[i].pgmap);
		if (ret)
			return ret;
	}
	desc->vm_ops = &pool_vm_ops;
	return 0;
}

static const struct file_operations pool_fops = {
	.owner = THIS_MODULE,
	.read = pool_read,
	.write = pool_write,
	.mmap_prepare = pool_mmap_prepare,
};

static struct miscdevice pool_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = KBUILD_MODNAME,
	.mode = 0600,
	.fops = &pool_fops,
};

static void forget_parts(void)
{
	unsigned int i;

	guard(mutex)(&lock);
	for (i = 0; i < MAX_PARTS; i++) {
		put(&part[i], 1);
		kvfree(part[i].pages);
	}
	memset(part, 0, sizeof(part));
	nr_parts = 0;
}

/* The pagemap of what was added, which is there until the driver is unbound. */
static int add_part(struct part *p, struct pci_dev *pdev, int bar, size_t size, u64 offset)
{
	int ret;

	ret = pci_p2pdma_add_resource(pdev, bar, size, offset);
	if (ret)
		return ret;
	p->max = size >> PAGE_SHIFT;
	p->pages = kvcalloc(p->max, sizeof(*p->pages), GFP_KERNEL);
	if (!p->pages)
		return -ENOMEM;
	p->pgmap = get_dev_pagemap(PHYS_PFN(pci_resource_start(pdev, bar) + offset));
	put_dev_pagemap(p->pgmap);
	return 0;
}

static int add_parts(struct pci_dev *pdev, int bar, unsigned int nr)
{
	size_t size = pci_resource_len(pdev, bar) / nr;
	unsigned int i;
	int ret;

	bar_start = pci_resource_start(pdev, bar);
	for (i = 0; i < nr; i++) {
		ret = add_part(&part[i], pdev, bar, size, i * size);
		if (ret)
			return ret;
	}
	guard(mutex)(&lock);
	nr_parts = nr;
	return 0;
}

static int largest_bar(struct pci_dev *pdev)
{
	int i, bar = -1;

	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		if (!(pci_resource_flags(pdev, i) & IORESOURCE_MEM))
			continue;
		if (bar < 0 || pci_resource_len(pdev, i) > pci_resource_len(pdev, bar))
			bar = i;
	}
	return bar;
}

static int pool_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	void __iomem *mem = NULL;
	int bar, ret;

	bar = largest_bar(pdev);
	if (bar < 0 || !parts || parts > MAX_PARTS)
		return -EINVAL;
	if (nr_parts)
		return -EBUSY;
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	if (premap == PREMAP_UNCACHED)
		mem = devm_ioremap(&pdev->dev, pci_resource_start(pdev, bar),
				   pci_resource_len(pdev, bar));
	else if (premap == PREMAP_WRITECOMBINE)
		mem = devm_ioremap_wc(&pdev->dev, pci_resource_start(pdev, bar),
				      pci_resource_len(pdev, bar));
	if (premap != PREMAP_NONE && !mem)
		return -ENOMEM;

	ret = add_parts(pdev, bar, parts);
	if (!ret)
		ret = misc_register(&pool_misc);
	if (ret)
		forget_parts();
	return ret;
}

static void pool_remove(struct pci_dev *pdev)
{
	misc_deregister(&pool_misc);
	forget_parts();
}

static struct pci_driver pool_driver = {
	.name = KBUILD_MODNAME,
	.probe = pool_probe,
	.remove = pool_remove,
};
module_pci_driver(pool_driver);

MODULE_DESCRIPTION("Test driver that maps a pool of peer-to-peer DMA memory");
MODULE_LICENSE("GPL");
