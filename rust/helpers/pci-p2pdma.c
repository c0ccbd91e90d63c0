// SPDX-License-Identifier: GPL-2.0

#include <linux/pci-p2pdma.h>

__rust_helper enum pci_p2pdma_map_type
rust_helper_pci_p2pdma_state(struct pci_p2pdma_map_state *state,
			     struct device *dev, struct page *page)
{
	return pci_p2pdma_state(state, dev, page);
}

__rust_helper dma_addr_t
rust_helper_pci_p2pdma_bus_addr_map(struct p2pdma_provider *provider,
				    phys_addr_t paddr)
{
	return pci_p2pdma_bus_addr_map(provider, paddr);
}
