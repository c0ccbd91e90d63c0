/* SPDX-License-Identifier: GPL-2.0 */
/* Child processes that a failing test does not leave behind, and where processes run. */
#ifndef SELFTESTS_P2PDMA_PROCESS_H
#define SELFTESTS_P2PDMA_PROCESS_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* fork(); the kernel kills the child when the thread that forked it exits. */
pid_t fork_child(void);
/*
 * Wait for a child, and kill it after @ms milliseconds. Return its wait status,
 * -ETIMEDOUT if it was killed, or another negative errno.
 */
int wait_child(pid_t pid, int ms);

/* Run on one of the allowed processors; false if there is no @nth one. */
bool run_on(const cpu_set_t *allowed, int nth);

#endif
