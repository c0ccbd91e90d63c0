/* SPDX-License-Identifier: GPL-2.0 */
/* Make the kernel's allocations fail, by fault injection. */
#ifndef SELFTESTS_P2PDMA_FAULTS_H
#define SELFTESTS_P2PDMA_FAULTS_H

#include <stdbool.h>

#include "p2pdma.h"

/* Configure fault injection so that with_fault() works; false if it cannot work. */
bool faults_ready(void);
/*
 * Run @op and let the @nth allocation that it makes in the kernel fail. Return
 * the result of @op, or -ERANGE if @op succeeded with less than @nth allocations.
 */
int with_fault(int nth, int (*op)(void *arg), void *arg);
/*
 * Exempt the allocations that are made below a call of a kernel function.
 * The compiler may let @function end with a jump to another function, @tail,
 * which is then exempt, too; NULL if there is none. With NULL for @function,
 * no allocation is exempt. Return false on error.
 */
bool faults_exempt(const char *function, const char *tail);

#endif
