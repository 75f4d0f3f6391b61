// SPDX-License-Identifier: GPL-2.0-only
#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench.h"
#include "report-host.h"

#define CPUID_HYPERVISOR	0x40000000
#define CPUID_BRAND		0x80000002
#define FEATURE_HYPERVISOR	(1U << 31)

/* Twelve characters in three registers. */
static void get_hypervisor(char name[static 13])
{
	unsigned int a, b, c, d;

	name[0] = '\0';
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & FEATURE_HYPERVISOR))
		return;
	__cpuid(CPUID_HYPERVISOR, a, b, c, d);
	memcpy(name, &b, 4);
	memcpy(name + 4, &c, 4);
	memcpy(name + 8, &d, 4);
	name[12] = '\0';
}

static void get_cpu(char name[static 49])
{
	unsigned int regs[4];

	name[0] = '\0';
	for (unsigned int i = 0; i < 3; i++) {
		if (!__get_cpuid(CPUID_BRAND + i, &regs[0], &regs[1], &regs[2], &regs[3]))
			return;
		memcpy(name + i * 16, regs, 16);
		name[(i + 1) * 16] = '\0';
	}
}

void host_get(struct host *h)
{
	struct utsname uts;

	if (uname(&uts))
		die("uname");
	snprintf(h->kernel, sizeof(h->kernel), "%s", uts.release);
	get_hypervisor(h->hypervisor);
	get_cpu(h->cpu);
	h->cpus = sysconf(_SC_NPROCESSORS_ONLN);
}
