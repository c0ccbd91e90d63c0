/* SPDX-License-Identifier: GPL-2.0 */
/* The BARs of PCI functions. */
#ifndef SELFTESTS_P2PDMA_BAR_H
#define SELFTESTS_P2PDMA_BAR_H

#include <stdbool.h>

#include "p2pdma.h"

struct pci_bar {
	uint64_t start;		/* its physical address */
	uint64_t len;		/* 0 if the function does not have this BAR */
	bool prefetchable;
};

/* These functions return 0 or a negative errno. */
int pci_fn_bar(const struct pci_fn *fn, int bar, struct pci_bar *res);
/* The address in the BAR's register, which is the one on the bus. */
int pci_fn_bar_bus_address(const struct pci_fn *fn, int bar, uint64_t *addr);
/* Whether /proc/iomem has a resource of exactly this range and name, else -ENOENT. */
int find_iomem(const struct pci_bar *res, const char *name);

/* Map the start of a BAR through its resource file; NULL with errno set on error. */
void *pci_fn_map_bar(const struct pci_fn *fn, int bar, size_t len);

#endif
