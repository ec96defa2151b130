/*
 * virtio-blk qtests: discard and write zeroes that the io_uring engine makes
 *
 * What the file holds and how much of it is allocated, what the block layer
 * knows of it, and when the engine leaves it alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/falloc.h>
#include "qemu/bswap.h"
#include "life.h"

#define AREA            (1024 * 1024)   /* bytes, written before */
#define AREA_SECTORS    (AREA / VBLK_SECTOR)
#define AREA_SEED       77
#define PUNCH           (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO            (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

#define SEGMENTS        3

typedef struct Row {
    const char *name;
    uint32_t type, flags;
    const char *opts;           /* of both nodes */
    const char *json;
    int mode;                   /* what the engine does, 0: the block layer */
    bool zeroes;                /* the area reads as zeroes afterwards */
    bool hole;                  /* and is not allocated */
} Row;

static const Row rows[] = {
    { "discard", VIRTIO_BLK_T_DISCARD, 0, ",discard=unmap", NULL,
      PUNCH, true, true },
    { "discard-direct", VIRTIO_BLK_T_DISCARD, 0,
      ",discard=unmap,cache.direct=on", LIFE_BLOCKS, PUNCH, true, true },
    { "discard-ignored", VIRTIO_BLK_T_DISCARD, 0, ",discard=ignore", NULL,
      0, false, false },
    { "zero", VIRTIO_BLK_T_WRITE_ZEROES, 0, ",discard=unmap", NULL,
      ZERO, true, false },
    { "zero-unmap", VIRTIO_BLK_T_WRITE_ZEROES,
      VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, ",discard=unmap", NULL,
      PUNCH, true, true },
    { "zero-unmap-ignored", VIRTIO_BLK_T_WRITE_ZEROES,
      VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, ",discard=ignore", NULL,
      ZERO, true, false },
    /* A flush has to follow. */
    { "zero-synced", VIRTIO_BLK_T_WRITE_ZEROES, 0, ",discard=unmap",
      "\"write-cache\":\"off\",", 0, true, false },
};

typedef struct Rig {
    const Row *row;
    LifeVm *vm;
    char *file, *log;
} Rig;

static bool rig_start(Rig *r, const Row *row)
{
    static const LifeCase c = { "range", VBLK_PCI_MODERN, .threads = 1,
                                .queues = 1 };
    g_autofree char *args = NULL, *nodes = NULL, *json = NULL;
    g_autofree char *data = g_malloc(AREA);
    uint8_t status;

    if (!vblk_kernel_has_uring()) {
        return false;
    }
    r->row = row;
    r->file = life_temp("range", LIFE_DISK_SIZE);
    r->log = life_temp("log", 0);
    json = g_strdup_printf("%s\"max-discard-segments\":%d,"
                           "\"max-write-zeroes-segments\":%d,",
                           row->json ?: "", SEGMENTS, SEGMENTS);
    args = g_strdup_printf("-trace virtio_blk_engine_range -D %s", r->log);
    nodes = g_strdup_printf("-blockdev driver=file,node-name=file0,filename=%s,"
                            "locking=off%s -blockdev driver=raw,node-name="
                            VBLK_NODE ",file=file0%s", r->file, row->opts,
                            row->opts);
    r->vm = life_start(&c, &(LifeSpec) { .blockdev = nodes, .args = args,
                                         .json = json });
    vblk_pattern(data, AREA, AREA_SEED);
    status = vblk_write(r->vm->v, 0, data, AREA);
    g_assert_cmpint(status, ==, VIRTIO_BLK_S_OK);
    return true;
}

static void rig_stop(Rig *r)
{
    life_stop(r->vm);
    unlink(r->file);
    unlink(r->log);
    g_free(r->file);
    g_free(r->log);
}

static void request(Rig *r, uint32_t type, void *data, uint32_t len)
{
    g_assert_cmpint(vblk_cmd(r->vm->v, 0, type, 0, data, len, NULL), ==,
                    VIRTIO_BLK_S_OK);
}

static struct virtio_blk_discard_write_zeroes segment(const Row *row,
                                                      uint64_t sector,
                                                      uint32_t num)
{
    return (struct virtio_blk_discard_write_zeroes) {
        .sector = cpu_to_le64(sector),
        .num_sectors = cpu_to_le32(num),
        .flags = cpu_to_le32(row->flags),
    };
}

/* Bytes of the file that take room on the disk. */
static uint64_t allocated(Rig *r)
{
    int fd = open(r->file, O_RDONLY);
    struct stat st;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(fdatasync(fd), ==, 0);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    close(fd);
    return st.st_blocks * 512ull;
}

static void assert_trace(Rig *r, unsigned segments)
{
    g_autofree char *mode = g_strdup_printf("mode 0x%x ", r->row->mode);

    g_assert_cmpint(life_count_words(r->log, "virtio_blk_engine_range"), ==,
                    r->row->mode ? segments : 0);
    g_assert_cmpint(life_count_words(r->log, mode), ==,
                    r->row->mode ? segments : 0);
    g_assert_cmpint(life_count_words(r->log, "ret -"), ==, 0);
}

static void assert_area(Rig *r, uint64_t sector, uint64_t num, bool zeroes)
{
    g_autofree char *got = g_malloc(AREA), *want = g_malloc(AREA);

    vblk_pattern(want, AREA, AREA_SEED);
    if (zeroes) {
        memset(want + sector * VBLK_SECTOR, 0, num * VBLK_SECTOR);
    }
    g_assert_cmpint(vblk_read(r->vm->v, 0, got, AREA), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpmem(got, AREA, want, AREA);
}

static int64_t dirty_bytes(Rig *r)
{
    g_autoptr(QDict) rsp = NULL;
    QListEntry *e;

    rsp = qtest_qmp(r->vm->v->qts, "{'execute': 'query-named-block-nodes'}");
    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), e) {
        QDict *node = qobject_to(QDict, qlist_entry_obj(e));
        QList *maps = qdict_get_try_str(node, "node-name") &&
                      !strcmp(qdict_get_str(node, "node-name"), VBLK_NODE) ?
                      qdict_get_qlist(node, "dirty-bitmaps") : NULL;

        if (maps) {
            QDict *map = qobject_to(QDict, qlist_entry_obj(qlist_first(maps)));

            return qdict_get_int(map, "count");
        }
    }
    return -1;
}

/* One aligned range, by the table: the data, the room, who did it. */
static void test_row(const void *data)
{
    struct virtio_blk_discard_write_zeroes seg;
    uint64_t before, after;
    Rig r;

    if (!rig_start(&r, data)) {
        return;
    }
    before = allocated(&r);
    g_assert_cmpint(before, >=, AREA);
    seg = segment(r.row, AREA_SECTORS / 4, AREA_SECTORS / 2);
    request(&r, r.row->type, &seg, sizeof(seg));
    after = allocated(&r);
    assert_area(&r, AREA_SECTORS / 4, AREA_SECTORS / 2, r.row->zeroes);
    assert_trace(&r, 1);
    if (r.row->hole) {
        g_assert_cmpint(after, <=, before - AREA / 2);
    } else {
        g_assert_cmpint(after, >=, before);
    }
    rig_stop(&r);
}

/* Several segments are one request; bitmaps and statistics know of them. */
static void test_known(const void *data)
{
    struct virtio_blk_discard_write_zeroes seg[SEGMENTS];
    QDict *entry, *stats;
    Rig r;

    if (!rig_start(&r, data)) {
        return;
    }
    life_qmp(r.vm, "{'execute': 'block-dirty-bitmap-add', 'arguments': {"
             "'node': '" VBLK_NODE "', 'name': 'b', 'granularity': 65536}}");
    for (unsigned i = 0; i < SEGMENTS; i++) {
        seg[i] = segment(r.row, i * 256, 128);
    }
    request(&r, r.row->type, seg, sizeof(seg));
    assert_trace(&r, SEGMENTS);
    g_assert_cmpint(dirty_bytes(&r), ==, SEGMENTS * 65536);
    entry = life_block_entry(r.vm, "query-blockstats");
    stats = qdict_get_qdict(entry, "stats");
    if (r.row->type == VIRTIO_BLK_T_DISCARD) {
        g_assert_cmpint(qdict_get_int(stats, "unmap_operations"), ==, 1);
        g_assert_cmpint(qdict_get_int(stats, "unmap_bytes"), ==,
                        SEGMENTS * 65536);
        stats = qdict_get_qdict(qdict_get_qdict(entry, "parent"),
                                "driver-specific");
        g_assert_cmpint(qdict_get_int(stats, "discard-nb-ok"), ==,
                        SEGMENTS);
        g_assert_cmpint(qdict_get_int(stats, "discard-bytes-ok"), ==,
                        SEGMENTS * 65536);
    } else {
        g_assert_cmpint(qdict_get_int(stats, "wr_operations"), ==, 2);
    }
    qobject_unref(entry);
    rig_stop(&r);
}

/* A flush after it must not be skipped: it is a write as any other. */
static void test_flushed(const void *data)
{
    struct virtio_blk_discard_write_zeroes seg;
    QDict *entry;
    Rig r;

    if (!rig_start(&r, data)) {
        return;
    }
    life_qmp(r.vm, "{'execute': 'trace-event-set-state', 'arguments': {"
             "'name': 'virtio_blk_engine_flush', 'enable': true}}");
    for (unsigned i = 1; i < 4; i++) {
        seg = segment(r.row, i * 8, 8);
        request(&r, r.row->type, &seg, sizeof(seg));
        request(&r, VIRTIO_BLK_T_FLUSH, NULL, 0);
        g_assert_cmpint(life_count_words(r.log, "virtio_blk_engine_flush"),
                        ==, i);
    }
    entry = life_block_entry(r.vm, "query-blockstats");
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(entry, "stats"),
                                  "flush_operations"), ==, 3);
    qobject_unref(entry);
    rig_stop(&r);
}

static void add(const Row *row, const char *what, void (*fn)(const void *data))
{
    g_autofree char *name = g_strdup_printf("engine/range/%s/%s", row->name,
                                            what);

    vblk_add_data(name, row, fn);
}

void vblk_add_engine_range_tests(void)
{
    for (const Row *row = rows; row < rows + ARRAY_SIZE(rows); row++) {
        add(row, "area", test_row);
        if (row->mode && !row->json) {
            add(row, "known", test_known);
            add(row, "flushed", test_flushed);
        }
    }
}
