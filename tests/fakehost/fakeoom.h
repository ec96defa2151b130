/*
 * fakehost: the host runs out of something
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FAKEOOM_H
#define FAKEOOM_H

#include <stdint.h>

/*
 * FakeOom: the file that FAKEHOST_OOM names, mapped by the library and by the
 * test.  Any thread of the emulator counts; the test writes while it waits for
 * an answer of none.
 */
typedef struct FakeOom {
    uint32_t armed;             /* count, and fail one */
    uint32_t nth;               /* which one: the first is 1 */
    uint32_t count;             /* calls since it was armed */
    char only[24];              /* count these; empty: all */
    char failed[28];            /* name of the function, empty: none */
} FakeOom;

/* fake_oom: is this call of @what the one to fail? */
int fake_oom(const char *what);
/* fake_eventfd: one of the library's own, which does not count. */
int fake_eventfd(unsigned value, int flags);

#endif
