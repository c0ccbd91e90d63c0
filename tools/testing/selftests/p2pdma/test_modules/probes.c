// SPDX-License-Identifier: GPL-2.0
/*
 * Let functions of the kernel fail or take long, or count their calls.
 *
 * CONFIG_FAIL_FUNCTION cannot do this: none of the functions below is marked
 * with ALLOW_ERROR_INJECTION(), and the mark would allow BPF programs to
 * override them as well. So there is a list here, and no other function can be
 * probed.
 *
 * Except for PROBE_COUNT_IRQ and PROBE_DELAY_WORK, probes are for calls by the task
 * that set them.
 */
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/mutex.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "p2pdma_test.h"

static const struct {
	enum probe_kind kind;
	const char *symbol;
} functions[] = {
	/* These return an errno, and the caller has to undo what came before. */
	{ PROBE_FAIL, "gen_pool_add_owner" },
	/* If this fails, faults map the folio later. */
	{ PROBE_FAIL, "vm_insert_folio" },
	/* Returns NULL if there is no memory left. */
	{ PROBE_FAIL_NTH, "pci_p2pmem_alloc_folio" },
	/* The steps of a driver that adds memory and offers a device node. */
	{ PROBE_FAIL, "pcim_p2pdma_init" },
	{ PROBE_FAIL, "memremap_pages" },
	{ PROBE_FAIL, "misc_register" },
	/* Called with rcu_read_lock() held, so that unbinding has to wait. */
	{ PROBE_DELAY, "xa_store" },
	/* Clears memory that nobody has. */
	{ PROBE_DELAY_WORK, "__iowrite64_copy" },
	/* From its end on, the memory may belong to somebody else. */
	{ PROBE_DELAY_RETURN, "gen_pool_free_owner" },
	/* x86's pgprot_decrypted(). */
	{ PROBE_COUNT, "cc_mkdec" },
	/* Whether memory is taken at all. */
	{ PROBE_COUNT, "gen_pool_alloc_algo_owner" },
	/* Called for the last reference to a page. */
	{ PROBE_COUNT_IRQ, "free_zone_device_folio" },
};

struct probe {
	enum probe_kind kind;
	struct task_struct *task;
	unsigned long arg;
	atomic_t hits;
	struct kprobe kp;
	struct kretprobe rp;
};

static DEFINE_MUTEX(probes_lock);
static struct probe *probes[4];

/* Whether the call is the first one by the task in question, or its Nth. */
static bool probe_hit(struct probe *probe)
{
	if (probe->kind == PROBE_DELAY_WORK ? !(current->flags & PF_WQ_WORKER) :
	    current != probe->task)
		return false;
	if (probe->kind == PROBE_FAIL_NTH)
		return atomic_inc_return(&probe->hits) == probe->arg;
	return !atomic_cmpxchg(&probe->hits, 0, 1);
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

	if (probe->kind == PROBE_COUNT_IRQ) {
		/* The exception of the probe itself may count as an NMI. */
		if (hardirq_count() > (in_nmi() ? HARDIRQ_OFFSET : 0))
			atomic_inc(&probe->hits);
		return 0;
	}
	if (probe->kind == PROBE_COUNT) {
		if (current == probe->task &&
		    (regs_get_kernel_argument(regs, 0) & probe->arg) == probe->arg)
			atomic_inc(&probe->hits);
		return 0;
	}
	if (!probe_hit(probe))
		return 0;
	if (probe->kind == PROBE_DELAY || probe->kind == PROBE_DELAY_WORK) {
		mdelay(probe->arg);
		return 0;
	}
	/* The stub finds the registers and the stack as the function would. */
	WRITE_ONCE(fail_ret, probe->kind == PROBE_FAIL ? -(long)probe->arg : 0);
	instruction_pointer_set(regs, (unsigned long)fail_stub);
	return 1;
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
	if (probe_hit(probe))
		mdelay(probe->arg);
	return 0;
}

/* The name of the function as this module has it, NULL if it may not be probed. */
static const char *listed(enum probe_kind kind, const char *symbol)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(functions); i++) {
		if (functions[i].kind == kind && !strcmp(functions[i].symbol, symbol))
			return functions[i].symbol;
	}
	return NULL;
}

int probe_set(enum probe_kind kind, const char *symbol, unsigned long arg)
{
	struct probe *probe;
	int i, ret;

	/* Elsewhere the address of a function may not be that of its code. */
	if ((kind == PROBE_FAIL || kind == PROBE_FAIL_NTH) &&
	    !IS_ENABLED(CONFIG_X86_64) && !IS_ENABLED(CONFIG_ARM64))
		return -EOPNOTSUPP;
	symbol = listed(kind, symbol);
	if (!symbol)
		return -EPERM;
	if (kind != PROBE_COUNT && arg > 1000)
		return -EINVAL;
	guard(mutex)(&probes_lock);
	for (i = 0; i < ARRAY_SIZE(probes) && probes[i]; i++)
		;
	if (i == ARRAY_SIZE(probes))
		return -ENOSPC;
	probe = kzalloc_obj(*probe);
	if (!probe)
		return -ENOMEM;
	probe->kind = kind;
	probe->task = get_task_struct(current);
	probe->arg = arg;
	if (kind == PROBE_DELAY_RETURN) {
		probe->rp.handler = probe_return;
		probe->rp.kp.symbol_name = symbol;
		ret = register_kretprobe(&probe->rp);
	} else {
		probe->kp.pre_handler = probe_entry;
		probe->kp.post_handler = probe_post;
		probe->kp.symbol_name = symbol;
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

int probes_hits(bool off)
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
