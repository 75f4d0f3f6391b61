/* SPDX-License-Identifier: GPL-2.0-only */
/* On what it was measured. */
#ifndef REPORT_HOST_H
#define REPORT_HOST_H

/**
 * struct host - the machine
 * @kernel: its kernel's release
 * @cpu: name of its processors
 * @hypervisor: whose virtual machine it is, "" for none
 * @cpus: processors
 */
struct host {
	char kernel[80];
	char cpu[80];
	char hypervisor[16];
	unsigned int cpus;
};

void host_get(struct host *h);

#endif
