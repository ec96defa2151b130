/*
 * virtio-blk fuzzing: taking numbers from an input
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BLK_FUZZ_INPUT_H
#define TESTS_VIRTIO_BLK_FUZZ_INPUT_H

/* FuzzInput: what is left of an input; zeroes come after its end. */
typedef struct FuzzInput {
    const uint8_t *p;
    size_t left;
} FuzzInput;

static inline void fuzz_take(FuzzInput *in, void *to, size_t size)
{
    size_t n = MIN(size, in->left);

    /* What is empty may be a null pointer. */
    if (size) {
        memset(to, 0, size);
    }
    if (n) {
        memcpy(to, in->p, n);
        in->p += n;
        in->left -= n;
    }
}

static inline uint8_t fuzz_u8(FuzzInput *in)
{
    uint8_t x;

    fuzz_take(in, &x, sizeof(x));
    return x;
}

static inline uint16_t fuzz_u16(FuzzInput *in)
{
    uint16_t x;

    fuzz_take(in, &x, sizeof(x));
    return x;
}

static inline uint32_t fuzz_u32(FuzzInput *in)
{
    uint32_t x;

    fuzz_take(in, &x, sizeof(x));
    return x;
}

static inline uint64_t fuzz_u64(FuzzInput *in)
{
    uint64_t x;

    fuzz_take(in, &x, sizeof(x));
    return x;
}

/* Also with NDEBUG, and a crash for the fuzzer. */
#define FUZZ_CHECK(x) do {                                          \
        if (!(x)) {                                                 \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__,      \
                    __LINE__, #x);                                  \
            abort();                                                \
        }                                                           \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
