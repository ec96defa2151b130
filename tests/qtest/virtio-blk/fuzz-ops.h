/*
 * virtio-blk fuzzing: an input is a list of what a driver and a user do
 *
 * The same interpreter runs inside the fuzzer (fuzz-target.c) and, for what is
 * kept of its inputs, beside an ordinary QEMU (fuzz-replay.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BLK_FUZZ_OPS_H
#define TESTS_VIRTIO_BLK_FUZZ_OPS_H

#include "fixture.h"

/*
 * FuzzHost: the machine that an input is run on.  Its device has the id "v"
 * and the node "d"; a node "t" of the same size is free for jobs.
 */
typedef struct FuzzHost {
    QTestState *qts;
    const char *args;                   /* of QEMU; tell the transport */
    /* Let the device do some of its work; returns soon. */
    void (*run)(struct FuzzHost *h);
    /* Execute a command of QMP, whatever it answers. */
    void (*qmp)(struct FuzzHost *h, const char *command);
    void (*system_reset)(struct FuzzHost *h);
} FuzzHost;

/*
 * Do what the input says.  Then the machine is reset, and a good request must
 * be answered well; aborts if it is not.
 */
void fuzz_ops(FuzzHost *h, const uint8_t *data, size_t size);

#endif
