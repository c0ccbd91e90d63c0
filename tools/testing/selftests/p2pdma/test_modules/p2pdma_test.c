// SPDX-License-Identifier: GPL-2.0
/*
 * What the test "core" needs inside of the kernel.
 *
 * The driver, which takes only functions that are given to it by
 * driver_override, is a provider of peer-to-peer DMA without a pool of memory.
 *
 * A line written to p2pdma_test/run in debugfs is a command; write() returns
 * its error, read() tells its result:
 *
 *   alloc PROVIDER             allocate a page of its pool and free it
 *   distance PROVIDER CLIENT   pci_p2pdma_distance_many()
 *   map-sg PROVIDER CLIENT     map a page of the pool for DMA by the client;
 *                              the result is its DMA, bus and physical address
 *   acs                        distance_many() for two made-up functions with
 *                              more bridges that redirect than can be listed
 *   fail SYMBOL ERRNO          let the function's next call do nothing but
 *                              return this error
 *   delay SYMBOL MS            let its next call begin that much later
 *   delay-return SYMBOL MS     let its next call end that much later
 *   count SYMBOL MASK          count the calls whose first argument has all of
 *                              these bits
 *   count-irq SYMBOL 0         count the calls in hard interrupt context, whoever
 *                              was interrupted
 *   off                        remove these; the result is how often they were
 *                              hit, which p2pdma_test/hits tells at any time
 *
 * But for count-irq, probes are for calls by the task that set them.
 */
#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/seq_file.h>
#include <linux/string.h>

static char result[128];

enum probe_kind {
	PROBE_FAIL,
	PROBE_DELAY,
	PROBE_DELAY_RETURN,
	PROBE_COUNT,
	PROBE_COUNT_IRQ,
};

#ifdef CONFIG_KPROBES
struct probe {
	enum probe_kind kind;
	struct task_struct *task;
	unsigned long arg;
	atomic_t hits;
	char symbol[64];
	struct kprobe kp;
	struct kretprobe rp;
};

static DEFINE_MUTEX(probes_lock);
static struct probe *probes[4];

static bool probe_is_for(struct probe *probe)
{
	return current == probe->task;
}

static bool probe_hit_once(struct probe *probe)
{
	return probe_is_for(probe) && !atomic_cmpxchg(&probe->hits, 0, 1);
}

static long fail_ret;

/* What is run in the place of a function that has to fail. */
static noinline long fail_stub(void)
{
	return READ_ONCE(fail_ret);
}

static int probe_entry(struct kprobe *kp, struct pt_regs *regs)
{
	struct probe *probe = container_of(kp, struct probe, kp);

	switch (probe->kind) {
	case PROBE_FAIL:
		if (!probe_hit_once(probe))
			return 0;
		/* The stub finds the registers and the stack as the function would. */
		WRITE_ONCE(fail_ret, -(long)probe->arg);
		instruction_pointer_set(regs, (unsigned long)fail_stub);
		return 1;
	case PROBE_DELAY:
		if (probe_hit_once(probe))
			mdelay(probe->arg);
		return 0;
	case PROBE_COUNT_IRQ:
		/* The probe itself may be an exception that counts as an NMI. */
		if (hardirq_count() > (in_nmi() ? HARDIRQ_OFFSET : 0))
			atomic_inc(&probe->hits);
		return 0;
	default:
		if (probe_is_for(probe) &&
		    (regs_get_kernel_argument(regs, 0) & probe->arg) == probe->arg)
			atomic_inc(&probe->hits);
		return 0;
	}
}

/* A probe with a post handler is not optimized, so it may change the flow. */
static void probe_post(struct kprobe *kp, struct pt_regs *regs,
		       unsigned long flags)
{
}

static int probe_return(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	struct kretprobe *rp = get_kretprobe(ri);
	struct probe *probe;

	if (!rp)
		return 0;
	probe = container_of(rp, struct probe, rp);
	if (probe_hit_once(probe))
		mdelay(probe->arg);
	return 0;
}

static int probe_set(enum probe_kind kind, const char *symbol, unsigned long arg)
{
	struct probe *probe;
	int i, ret = -ENOSPC;

	/* Elsewhere the address of a function may not be that of its code. */
	if (kind == PROBE_FAIL && !IS_ENABLED(CONFIG_X86_64) && !IS_ENABLED(CONFIG_ARM64))
		return -EOPNOTSUPP;
	if (strlen(symbol) >= sizeof(probe->symbol))
		return -EINVAL;
	if (kind != PROBE_COUNT && arg > 1000)
		return -EINVAL;
	guard(mutex)(&probes_lock);
	for (i = 0; i < ARRAY_SIZE(probes) && probes[i]; i++)
		;
	if (i == ARRAY_SIZE(probes))
		return ret;
	probe = kzalloc_obj(*probe);
	if (!probe)
		return -ENOMEM;
	probe->kind = kind;
	probe->task = get_task_struct(current);
	probe->arg = arg;
	strscpy(probe->symbol, symbol);
	if (kind == PROBE_DELAY_RETURN) {
		probe->rp.handler = probe_return;
		probe->rp.kp.symbol_name = probe->symbol;
		ret = register_kretprobe(&probe->rp);
	} else {
		probe->kp.pre_handler = probe_entry;
		probe->kp.post_handler = probe_post;
		probe->kp.symbol_name = probe->symbol;
		ret = register_kprobe(&probe->kp);
	}
	if (ret) {
		put_task_struct(probe->task);
		kfree(probe);
		return ret;
	}
	probes[i] = probe;
	return 0;
}

static int probes_hits(bool off)
{
	struct probe *probe;
	int i, hits = 0;

	guard(mutex)(&probes_lock);
	for (i = 0; i < ARRAY_SIZE(probes); i++) {
		probe = probes[i];
		if (!probe)
			continue;
		if (off && probe->kind == PROBE_DELAY_RETURN)
			unregister_kretprobe(&probe->rp);
		else if (off)
			unregister_kprobe(&probe->kp);
		hits += atomic_read(&probe->hits);
		if (off) {
			put_task_struct(probe->task);
			kfree(probe);
			probes[i] = NULL;
		}
	}
	return hits;
}

#else /* CONFIG_KPROBES */
static int probe_set(enum probe_kind kind, const char *symbol, unsigned long arg)
{
	return -EOPNOTSUPP;
}

static int probes_hits(bool off)
{
	return 0;
}
#endif /* CONFIG_KPROBES */

static struct pci_dev *get_function(const char *name)
{
	struct device *dev = bus_find_device_by_name(&pci_bus_type, NULL, name);

	return dev ? to_pci_dev(dev) : NULL;
}

static int test_alloc(struct pci_dev *pdev)
{
	void *mem = pci_alloc_p2pmem(pdev, PAGE_SIZE);

	if (!mem)
		return -ENOMEM;
	pci_free_p2pmem(pdev, mem, PAGE_SIZE);
	return 0;
}

static int test_distance(struct pci_dev *provider, struct pci_dev *client)
{
	struct device *clients[] = { &client->dev };

	scnprintf(result, sizeof(result), "%d\n",
		  pci_p2pdma_distance_many(provider, clients, 1, true));
	return 0;
}

static int test_map_sg(struct pci_dev *provider, struct pci_dev *client)
{
	struct sg_table sgt = {};
	unsigned int nents;
	int ret;

	sgt.sgl = pci_p2pmem_alloc_sgl(provider, &nents, PAGE_SIZE);
	if (!sgt.sgl)
		return -ENOMEM;
	sgt.orig_nents = nents;
	ret = dma_map_sgtable(&client->dev, &sgt, DMA_BIDIRECTIONAL, 0);
	if (!ret) {
		scnprintf(result, sizeof(result), "%#llx %#llx %#llx\n",
			  (u64)sg_dma_address(sgt.sgl),
			  (u64)pci_p2pmem_virt_to_bus(provider, sg_virt(sgt.sgl)),
			  (u64)sg_phys(sgt.sgl));
		dma_unmap_sgtable(&client->dev, &sgt, DMA_BIDIRECTIONAL, 0);
	}
	pci_p2pmem_free_sgl(provider, sgt.sgl);
	return ret;
}

/*
 * Two paths of bridges, all with redirection, that meet in one more bridge:
 *
 *   root bus - bridge - bus - ... - bus - provider
 *                         \- ... - bus - client
 */
#define FAKE_DEPTH	8
#define FAKE_ACS_CAP	0x100

struct fake_pci {
	struct pci_bus root, common, bus[2][FAKE_DEPTH];
	struct pci_dev top, bridge[2][FAKE_DEPTH], leaf[2];
};

static int fake_read(struct pci_bus *bus, unsigned int devfn, int where,
		     int size, u32 *val)
{
	*val = where == FAKE_ACS_CAP + PCI_ACS_CTRL ? PCI_ACS_RR : 0;
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops fake_ops = {
	.read = fake_read,
};

static DEFINE_MUTEX(acs_lock);
static atomic_t fake_left;
static DECLARE_COMPLETION(fake_done);

static void fake_release(struct device *dev)
{
	if (atomic_dec_and_test(&fake_left))
		complete(&fake_done);
}

static void fake_bus(struct pci_bus *bus, struct pci_dev *bridge)
{
	bus->ops = &fake_ops;
	bus->self = bridge;
	bus->parent = bridge ? bridge->bus : NULL;
}

static int fake_dev(struct pci_dev *pdev, struct pci_bus *bus, bool bridge,
		    const char *name, int side, int depth)
{
	device_initialize(&pdev->dev);
	atomic_inc(&fake_left);
	pdev->dev.release = fake_release;
	pdev->dev.bus = &pci_bus_type;
	pdev->bus = bus;
	pdev->acs_cap = bridge ? FAKE_ACS_CAP : 0;
	return dev_set_name(&pdev->dev, "fake-%s-%d-%d", name, side, depth);
}

static int test_acs(void)
{
	struct fake_pci *fake;
	struct pci_bus *bus;
	int side, depth, ret;

#ifdef CONFIG_X86
	/* Others than these are asked for their host bridge, which is no more. */
	if (boot_cpu_data.x86_vendor != X86_VENDOR_AMD || boot_cpu_data.x86 < 0x17)
		return -EOPNOTSUPP;
#else
	return -EOPNOTSUPP;
#endif
	fake = kvzalloc_obj(*fake);
	if (!fake)
		return -ENOMEM;
	/* One for this function, so that it is not done before all are put. */
	atomic_set(&fake_left, 1);
	reinit_completion(&fake_done);
	fake_bus(&fake->root, NULL);
	ret = fake_dev(&fake->top, &fake->root, true, "top", 0, 0);
	fake_bus(&fake->common, &fake->top);
	for (side = 0; side < 2; side++) {
		bus = &fake->common;
		for (depth = 0; depth < FAKE_DEPTH; depth++) {
			ret = fake_dev(&fake->bridge[side][depth], bus, true,
				       "bridge", side, depth) ?: ret;
			fake_bus(&fake->bus[side][depth], &fake->bridge[side][depth]);
			bus = &fake->bus[side][depth];
		}
		ret = fake_dev(&fake->leaf[side], bus, false, "leaf", side, 0) ?: ret;
	}
	if (!ret)
		ret = test_distance(&fake->leaf[0], &fake->leaf[1]);
	put_device(&fake->top.dev);
	for (side = 0; side < 2; side++) {
		for (depth = 0; depth < FAKE_DEPTH; depth++)
			put_device(&fake->bridge[side][depth].dev);
		put_device(&fake->leaf[side].dev);
	}
	if (!atomic_dec_and_test(&fake_left))
		wait_for_completion(&fake_done);
	kvfree(fake);
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
		ret = test_map_sg(provider, client);
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
	if (!strcmp(what, "acs")) {
		guard(mutex)(&acs_lock);
		return test_acs();
	}
	if (kstrtoul(b, 0, &arg))
		return run_on_functions(what, a, b);
	if (!strcmp(what, "fail"))
		return probe_set(PROBE_FAIL, a, arg);
	if (!strcmp(what, "delay"))
		return probe_set(PROBE_DELAY, a, arg);
	if (!strcmp(what, "delay-return"))
		return probe_set(PROBE_DELAY_RETURN, a, arg);
	if (!strcmp(what, "count"))
		return probe_set(PROBE_COUNT, a, arg);
	if (!strcmp(what, "count-irq"))
		return probe_set(PROBE_COUNT_IRQ, a, arg);
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

static struct dentry *debug_dir;

static int __init p2pdma_test_init(void)
{
	int ret;

	ret = pci_register_driver(&provider_driver);
	if (ret)
		return ret;
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
	pci_unregister_driver(&provider_driver);
}
module_exit(p2pdma_test_exit);

MODULE_DESCRIPTION("Test module for peer-to-peer DMA");
MODULE_LICENSE("GPL");
