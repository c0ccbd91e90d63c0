// SPDX-License-Identifier: GPL-2.0
/*
 * Two paths of bridges, all with redirection, that meet in one more bridge:
 *
 *   root bus - bridge - bus - ... - bus - provider
 *                         \- ... - bus - client
 */
#include <linux/completion.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "p2pdma_test.h"

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

int test_acs(void)
{
	struct fake_pci *fake;
	struct pci_bus *bus;
	int side, depth, ret;

	guard(mutex)(&acs_lock);

#ifdef CONFIG_X86
	/* For other processors the host bridge is looked up, and there is none. */
	if (boot_cpu_data.x86_vendor != X86_VENDOR_AMD || boot_cpu_data.x86 < 0x17)
		return -EOPNOTSUPP;
#else
	return -EOPNOTSUPP;
#endif
	fake = kvzalloc_obj(*fake);
	if (!fake)
		return -ENOMEM;
	/* One for this function: the completion must not come before all are put. */
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
