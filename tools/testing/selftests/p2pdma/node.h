/* SPDX-License-Identifier: GPL-2.0 */
/* Bind drivers to PCI functions, and find what the drivers then offer. */
#ifndef SELFTESTS_P2PDMA_NODE_H
#define SELFTESTS_P2PDMA_NODE_H

#include <stdio.h>

#include "p2pdma.h"

struct p2pmem_info;

/* Unless told otherwise, these functions return 0 or a negative errno. */

/* modprobe; -ENOENT if this fails. */
int load_driver(const char *driver);
/*
 * Unbind the function's driver and bind @driver, "" for none. Afterwards the
 * function has a driver_override only if @driver does not take it without one.
 */
int pci_fn_rebind(const struct pci_fn *fn, const char *driver);

/*
 * Copy the name of the device that a function has on the auxiliary bus, or a path
 * below its folder in sysfs: -ENODEV if there is none, -EEXIST if there are several.
 */
int child_name(const struct pci_fn *fn, char *buf, size_t len);
int child_path(const struct pci_fn *fn, const char *attr, char *buf, size_t len);
int child_unbind(const struct pci_fn *fn);
/* Bind the driver of the module @driver. */
int child_bind(const struct pci_fn *fn, const char *driver);

/*
 * Copy the path in /dev of the misc device of a function, or of its child. Wait 2 s
 * for the node.
 */
int misc_node(const struct pci_fn *fn, char *buf, size_t len);
/* The same, and open the node: a file descriptor or a negative errno. */
int misc_open(const struct pci_fn *fn, char *buf, size_t len);

/*
 * Open a file in the debugfs folder of a device node, which has the node's
 * name: /sys/kernel/debug/p2pdma/p2pbar0 for /dev/p2pbar0. NULL with errno set on error.
 */
FILE *node_debugfs(const char *node, const char *file);

/* A line of the file "memory" in the debugfs folder of a device node. */
struct memory_use {
	unsigned long long size;
	unsigned long long used;
	unsigned long long objects;
	unsigned long long mappings;
};

/* Read the line that starts with @name, -ENOENT if there is none. */
int node_memory(const char *node, const char *name, struct memory_use *use);
/* P2PMEM_IOC_INFO by an open file of its own. */
int node_info(const char *node, uint32_t type, struct p2pmem_info *info);
/* Read the decimal number after "@name:\t" in fdinfo of an open file of this process. */
int fdinfo_read(int fd, const char *name, uint64_t *val);

#endif
