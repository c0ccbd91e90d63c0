/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of peer-to-peer DMA share: PCI functions in sysfs. */
#ifndef SELFTESTS_P2PDMA_H
#define SELFTESTS_P2PDMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A PCI function, named like 0000:01:00.0. */
struct pci_fn {
	char name[16];
};

/* All of these return 0, or a negative errno. */
int file_write(const char *path, const char *val);
int file_read(const char *path, char *buf, size_t len);
int pci_fn_init(struct pci_fn *fn, const char *name);
int pci_fn_read(const struct pci_fn *fn, const char *attr, char *buf, size_t len);
int pci_fn_read_u64(const struct pci_fn *fn, const char *attr, uint64_t *val);
int pci_fn_write(const struct pci_fn *fn, const char *attr, const char *val);
/* Path of an attribute in sysfs, in a static buffer. */
const char *pci_fn_path(const struct pci_fn *fn, const char *attr);
/* Whether the kernel has the function, at this moment. */
bool pci_fn_is_present(const struct pci_fn *fn);
/* Name of the bound driver, or "" if there is none. */
int pci_fn_driver(const struct pci_fn *fn, char *buf, size_t len);
int pci_fn_unbind(const struct pci_fn *fn);
/*
 * Bind to @driver with @override in driver_override, "" for none. If that
 * fails, the result is what the driver's probe function returned.
 */
int pci_fn_bind(const struct pci_fn *fn, const char *driver, const char *override);

/* The /dev name of the first namespace of an NVMe controller, waiting for it. */
int nvme_disk(const struct pci_fn *fn, char *buf, size_t len);

/* Whether @word is in the kernel's command line. */
bool on_command_line(const char *word);

/* The line of smaps that tells the flags of the mapping that starts at @mem. */
int vma_flags(const void *mem, char *buf, size_t len);
/* What the page table says of @mem, on x86. */
int page_table_line(const void *mem, char *buf, size_t len);

uint64_t now_ms(void);

/* Load a module that lies in test_modules, beside the program. */
int module_load_named(const char *name);

/*
 * The module p2pdma_test: see its source for the commands. These return 0 or a
 * negative errno, but for the number of hits.
 */
#define TEST_MODULE	"p2pdma_test"
#define MODULE_RUN	"/sys/kernel/debug/" TEST_MODULE "/run"
int module_load(void);
int module_run(const char *fmt, ...);
/* How often the probes were hit. */
int module_hits(void);

#endif
