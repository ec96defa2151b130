/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The marks that tests/vm/count.c looks for. */
#ifndef VM_COUNT_H
#define VM_COUNT_H

#define MARK_BASE 0x56424c00
#define MARKS 16

/* Does nothing, but under the plugin.  x86 only, as is the VM. */
#define COUNT_MARK(number) \
    asm volatile("nopl %c0(%%rax)" : : "i" (MARK_BASE + (number)))

#endif
