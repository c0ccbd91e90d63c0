// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "p2pdma.h"
#include "process.h"

pid_t fork_child(void)
{
	pid_t parent = getpid(), pid;

	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* The parent may have exited before prctl(). */
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

int wait_child(pid_t pid, int ms)
{
	uint64_t end = now_ms() + ms;
	bool killed = false;
	int status;
	pid_t ret;

	while (!(ret = waitpid(pid, &status, WNOHANG))) {
		if (now_ms() >= end) {
			if (killed)
				return -ETIMEDOUT;
			kill(pid, SIGKILL);
			killed = true;
			end = now_ms() + 1000;
		}
		usleep(1000);
	}
	if (ret < 0)
		return -errno;
	return killed ? -ETIMEDOUT : status;
}

bool run_on(const cpu_set_t *allowed, int nth)
{
	cpu_set_t set;
	int cpu;

	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, allowed) || nth--)
			continue;
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		return !sched_setaffinity(0, sizeof(set), &set);
	}
	return false;
}
