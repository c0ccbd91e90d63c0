/* SPDX-License-Identifier: GPL-2.0 */
#ifndef P2PDMA_TEST_H
#define P2PDMA_TEST_H

#include <linux/errno.h>
#include <linux/types.h>

struct pci_dev;

/* Write pci_p2pdma_distance_many() to the result of the command. */
int test_distance(struct pci_dev *provider, struct pci_dev *client);
/* The same for two made-up functions, see acs.c. */
int test_acs(void);

enum probe_kind {
	PROBE_FAIL,
	PROBE_FAIL_NTH,
	PROBE_DELAY,
	PROBE_DELAY_RETURN,
	PROBE_DELAY_WORK,
	PROBE_COUNT,
	PROBE_COUNT_IRQ,
};

#ifdef CONFIG_KPROBES
/*
 * Set a probe on a function, which has to be in the list of those that this
 * kind of probe is for: -EPERM if it is not.
 */
int probe_set(enum probe_kind kind, const char *symbol, unsigned long arg);
/* How often the probes were hit; @off: remove them. */
int probes_hits(bool off);
#else
static inline int probe_set(enum probe_kind kind, const char *symbol, unsigned long arg)
{
	return -EOPNOTSUPP;
}

static inline int probes_hits(bool off)
{
	return 0;
}
#endif

#endif
