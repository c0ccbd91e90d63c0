// SPDX-License-Identifier: GPL-2.0
/*
 * What the test "core" needs inside of the kernel.
 *
 * Two drivers take only functions that are given to them by driver_override:
 *
 *   p2pdma_test                a provider of peer-to-peer DMA without a pool of
 *                              memory
 *   p2pdma_test_two            a provider of two memories, that allocates from
 *                              its pool between the release of one and the other;
 *                              the result is the error
 *
 * A line written to p2pdma_test/run in debugfs is a command; write() returns
 * its error, read() tells its result:
 *
 *   alloc PROVIDER             allocate a page of its pool, write to it, see 100 us
 *                              later whether it is still the same, and free it
 *   distance PROVIDER CLIENT   pci_p2pdma_distance_many()
 *   map-sg PROVIDER CLIENT     map a page of the pool for DMA by the client;
 *                              the result is its DMA, bus and physical address
 *   map-sg-mask PROVIDER CLIENT
 *                              the same while the client's DMA mask is smaller
 *                              than the physical address
 *   acs                        distance_many() for two made-up functions with
 *                              more bridges that redirect than can be listed
 *   request-region FUNCTION BAR, release-region FUNCTION BAR
 *                              request a BAR as a driver of the function does,
 *                              and release it
 *   fail SYMBOL ERRNO          let the function's next call do nothing but
 *                              return this error
 *   fail-nth SYMBOL N          let its Nth call do nothing but return 0
 *   delay SYMBOL MS            let its next call begin that much later
 *   delay-work SYMBOL MS       the same for its next call in a workqueue
 *   delay-return SYMBOL MS     let its next call end that much later
 *   count SYMBOL MASK          count the calls whose first argument has all of
 *                              these bits
 *   count-irq SYMBOL 0         count the calls in hard interrupt context,
 *                              whichever task the interrupt came in
 *   off                        remove these; the result is how often they were
 *                              hit, which p2pdma_test/hits tells at any time
 *
 * The list of symbols is in probes.c.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "p2pdma_test.h"

static char result[128];

static struct pci_dev *get_function(const char *name)
{
	struct device *dev = bus_find_device_by_name(&pci_bus_type, NULL, name);

	return dev ? to_pci_dev(dev) : NULL;
}

static int test_alloc(struct pci_dev *pdev)
{
	void *mem = pci_alloc_p2pmem(pdev, PAGE_SIZE);
	int ret = 0, i;

	if (!mem)
		return -ENOMEM;
	for (i = 0; i < PAGE_SIZE; i += 4)
		writel(~i, (void __force __iomem *)mem + i);
	mb(); /* Empty the write-combining buffers */
	fsleep(100);
	for (i = 0; i < PAGE_SIZE; i += 4)
		if (readl((void __force __iomem *)mem + i) != ~i)
			ret = -EIO;
	pci_free_p2pmem(pdev, mem, PAGE_SIZE);
	return ret;
}

int test_distance(struct pci_dev *provider, struct pci_dev *client)
{
	struct device *clients[] = { &client->dev };

	scnprintf(result, sizeof(result), "%d\n",
		  pci_p2pdma_distance_many(provider, clients, 1, true));
	return 0;
}

static int test_map_sg(struct pci_dev *provider, struct pci_dev *client, bool mask)
{
	u64 old_mask = *client->dev.dma_mask;
	struct sg_table sgt = {};
	unsigned int nents;
	int ret;

	sgt.sgl = pci_p2pmem_alloc_sgl(provider, &nents, PAGE_SIZE);
	if (!sgt.sgl)
		return -ENOMEM;
	sgt.orig_nents = nents;
	/* Not by dma_set_mask(), which refuses what RAM cannot be mapped with. */
	if (mask)
		*client->dev.dma_mask = DMA_BIT_MASK(fls64(sg_phys(sgt.sgl)) - 1);
	ret = dma_map_sgtable(&client->dev, &sgt, DMA_BIDIRECTIONAL, 0);
	if (!ret) {
		scnprintf(result, sizeof(result), "%#llx %#llx %#llx\n",
			  (u64)sg_dma_address(sgt.sgl),
			  (u64)pci_p2pmem_virt_to_bus(provider, sg_virt(sgt.sgl)),
			  (u64)sg_phys(sgt.sgl));
		dma_unmap_sgtable(&client->dev, &sgt, DMA_BIDIRECTIONAL, 0);
	}
	*client->dev.dma_mask = old_mask;
	pci_p2pmem_free_sgl(provider, sgt.sgl);
	return ret;
}

static int test_region(const char *name, unsigned long bar, bool request)
{
	struct pci_dev *pdev = get_function(name);
	int ret = 0;

	if (!pdev)
		return -ENODEV;
	if (bar >= PCI_STD_NUM_BARS)
		ret = -EINVAL;
	else if (request)
		ret = pci_request_region(pdev, bar, KBUILD_MODNAME);
	else
		pci_release_region(pdev, bar);
	pci_dev_put(pdev);
	return ret;
}

static int run_on_functions(const char *what, const char *a, const char *b)
{
	struct pci_dev *provider = get_function(a);
	struct pci_dev *client = get_function(b);
	int ret = -ENODEV;

	if (!provider)
		goto out;
	ret = -EINVAL;
	if (!strcmp(what, "alloc")) {
		ret = test_alloc(provider);
		goto out;
	}
	if (!client) {
		ret = -ENODEV;
		goto out;
	}
	if (!strcmp(what, "distance"))
		ret = test_distance(provider, client);
	else if (!strcmp(what, "map-sg"))
		ret = test_map_sg(provider, client, false);
	else if (!strcmp(what, "map-sg-mask"))
		ret = test_map_sg(provider, client, true);
out:
	pci_dev_put(client);
	pci_dev_put(provider);
	return ret;
}

static int run_command(const char *what, const char *a, const char *b)
{
	unsigned long arg;

	if (!strcmp(what, "off")) {
		scnprintf(result, sizeof(result), "%d\n", probes_hits(true));
		return 0;
	}
	if (!strcmp(what, "acs"))
		return test_acs();
	if (kstrtoul(b, 0, &arg))
		return run_on_functions(what, a, b);
	if (!strcmp(what, "fail"))
		return probe_set(PROBE_FAIL, a, arg);
	if (!strcmp(what, "fail-nth"))
		return probe_set(PROBE_FAIL_NTH, a, arg);
	if (!strcmp(what, "delay"))
		return probe_set(PROBE_DELAY, a, arg);
	if (!strcmp(what, "delay-return"))
		return probe_set(PROBE_DELAY_RETURN, a, arg);
	if (!strcmp(what, "delay-work"))
		return probe_set(PROBE_DELAY_WORK, a, arg);
	if (!strcmp(what, "count"))
		return probe_set(PROBE_COUNT, a, arg);
	if (!strcmp(what, "count-irq"))
		return probe_set(PROBE_COUNT_IRQ, a, arg);
	if (!strcmp(what, "request-region"))
		return test_region(a, arg, true);
	if (!strcmp(what, "release-region"))
		return test_region(a, arg, false);
	return -EINVAL;
}

static ssize_t run_write(struct file *file, const char __user *ubuf, size_t len,
			 loff_t *pos)
{
	char buf[128], what[16] = "", a[64] = "", b[64] = "";
	int ret;

	if (len >= sizeof(buf))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, len))
		return -EFAULT;
	buf[len] = '\0';
	if (sscanf(buf, "%15s %63s %63s", what, a, b) < 1)
		return -EINVAL;
	ret = run_command(what, a, b);
	return ret ?: len;
}

static int run_show(struct seq_file *m, void *unused)
{
	seq_puts(m, result);
	return 0;
}

static int run_open(struct inode *inode, struct file *file)
{
	return single_open(file, run_show, NULL);
}

static const struct file_operations run_fops = {
	.owner = THIS_MODULE,
	.open = run_open,
	.read = seq_read,
	.write = run_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static int hits_get(void *data, u64 *val)
{
	*val = probes_hits(false);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(hits_fops, hits_get, NULL, "%llu\n");

static int provider_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	return pcim_p2pdma_init(pdev);
}

static struct pci_driver provider_driver = {
	.name = KBUILD_MODNAME,
	.probe = provider_probe,
};

/* The second memory has to begin where memremap_pages() can map it. */
#define MEMORY_SIZE	SZ_4M

/* The second memory is released already, the first one is not. */
static void alloc_while_released(void *data)
{
	scnprintf(result, sizeof(result), "%d\n", test_alloc(data));
}

static int two_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	int bar, ret;

	for (bar = 0; bar < PCI_STD_NUM_BARS; bar++) {
		if ((pci_resource_flags(pdev, bar) & IORESOURCE_MEM) &&
		    pci_resource_len(pdev, bar) >= 2 * MEMORY_SIZE)
			break;
	}
	if (bar == PCI_STD_NUM_BARS)
		return -ENOSPC;
	ret = pci_p2pdma_add_resource(pdev, bar, MEMORY_SIZE, 0);
	if (ret)
		return ret;
	ret = devm_add_action(&pdev->dev, alloc_while_released, pdev);
	if (ret)
		return ret;
	return pci_p2pdma_add_resource(pdev, bar, MEMORY_SIZE, MEMORY_SIZE);
}

static struct pci_driver two_driver = {
	.name = KBUILD_MODNAME "_two",
	.probe = two_probe,
};

static struct dentry *debug_dir;

static int __init p2pdma_test_init(void)
{
	int ret;

	ret = pci_register_driver(&provider_driver);
	if (ret)
		return ret;
	ret = pci_register_driver(&two_driver);
	if (ret) {
		pci_unregister_driver(&provider_driver);
		return ret;
	}
	debug_dir = debugfs_create_dir(KBUILD_MODNAME, NULL);
	debugfs_create_file("run", 0600, debug_dir, NULL, &run_fops);
	debugfs_create_file_unsafe("hits", 0400, debug_dir, NULL, &hits_fops);
	return 0;
}
module_init(p2pdma_test_init);

static void __exit p2pdma_test_exit(void)
{
	debugfs_remove(debug_dir);
	probes_hits(true);
	pci_unregister_driver(&two_driver);
	pci_unregister_driver(&provider_driver);
}
module_exit(p2pdma_test_exit);

MODULE_DESCRIPTION("Test module for peer-to-peer DMA");
MODULE_LICENSE("GPL");
