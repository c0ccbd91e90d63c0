/* SPDX-License-Identifier: GPL-2.0 */
/* Child processes that a failing test does not leave behind. */
#ifndef SELFTESTS_P2PDMA_PROCESS_H
#define SELFTESTS_P2PDMA_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

/* fork(); the kernel kills the child when the thread that forked it exits. */
pid_t fork_child(void);
/*
 * Wait for a child, and kill it after @ms milliseconds. Return its wait status,
 * -ETIMEDOUT if it was killed, or another negative errno.
 */
int wait_child(pid_t pid, int ms);

#endif
