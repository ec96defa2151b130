/*
 * fakehost: the zones of a zoned block device
 *
 * Geometry and limits come from queue/zoned, queue/chunk_sectors,
 * queue/max_open_zones and queue/max_active_zones (0: no limit).  All zones
 * are sequential and empty, but for those that the file "zones" tells of, a
 * line for each run of zones:
 *
 *     FIRST LAST WHAT CAPACITY
 *
 * with WHAT one of seq, conv, ro, offline, full, and CAPACITY in sectors, or 0
 * for the whole zone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/blkzoned.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "fakehost.h"

typedef struct blk_zone Zone;

static struct {
    pthread_mutex_t lock;       /* of all below */
    bool read;                  /* the description, that is */
    Zone *zone;                 /* NULL: not a zoned device */
    uint64_t num;
    uint64_t size;              /* sectors a zone */
    unsigned max_open;
    unsigned max_active;
} zones = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- set-up ---- */

static void zone_init(Zone *zone, uint64_t start, uint64_t len, uint8_t type)
{
    *zone = (Zone) {
        .start = start,
        .len = len,
        .wp = start,
        .type = type,
        .cond = BLK_ZONE_COND_EMPTY,
        .capacity = len,
    };
}

static void zone_describe(Zone *zone, const char *what, uint64_t capacity)
{
    if (capacity) {
        zone->capacity = capacity;
    }
    if (!strcmp(what, "conv")) {
        zone->type = BLK_ZONE_TYPE_CONVENTIONAL;
        zone->cond = BLK_ZONE_COND_NOT_WP;
    } else if (!strcmp(what, "ro")) {
        zone->cond = BLK_ZONE_COND_READONLY;
    } else if (!strcmp(what, "offline")) {
        zone->cond = BLK_ZONE_COND_OFFLINE;
    } else if (!strcmp(what, "full")) {
        zone->cond = BLK_ZONE_COND_FULL;
        zone->wp = zone->start + zone->len;
    }
}

static void read_description(void)
{
    FILE *f = fake_sysfs_open("zones");
    unsigned long first, last, capacity;
    char what[16];

    while (f && fscanf(f, "%lu %lu %15s %lu", &first, &last, what,
                       &capacity) == 4) {
        for (unsigned long i = first; i <= last && i < zones.num; i++) {
            zone_describe(&zones.zone[i], what, capacity);
        }
    }
    if (f) {
        fclose(f);
    }
}

static void read_zones(int fd)
{
    FILE *f = fake_sysfs_open("queue/zoned");
    uint64_t sectors = fake_bytes(fd) >> SECTOR_SHIFT;
    char model[16] = "none";
    uint8_t type;

    zones.read = true;
    if (!f) {
        return;
    }
    if (fscanf(f, "%15s", model) != 1 || !strcmp(model, "none")) {
        fclose(f);
        return;
    }
    fclose(f);
    type = strcmp(model, "host-managed") ? BLK_ZONE_TYPE_SEQWRITE_PREF
                                         : BLK_ZONE_TYPE_SEQWRITE_REQ;
    zones.size = fake_sysfs_number("queue/chunk_sectors", 128);
    zones.num = (sectors + zones.size - 1) / zones.size;
    zones.max_open = fake_sysfs_number("queue/max_open_zones", 0);
    zones.max_active = fake_sysfs_number("queue/max_active_zones", 0);
    zones.zone = calloc(zones.num, sizeof(Zone));
    for (uint64_t i = 0, at = 0; i < zones.num; i++, at += zones.size) {
        zone_init(&zones.zone[i], at,
                  at + zones.size > sectors ? sectors - at : zones.size, type);
    }
    read_description();
}

bool zones_present(int fd)
{
    bool present;

    pthread_mutex_lock(&zones.lock);
    if (!zones.read) {
        read_zones(fd);
    }
    present = zones.zone;
    pthread_mutex_unlock(&zones.lock);
    return present;
}

/* ---- states; all with the lock held ---- */

static bool is_open(const Zone *zone)
{
    return zone->cond == BLK_ZONE_COND_IMP_OPEN ||
           zone->cond == BLK_ZONE_COND_EXP_OPEN;
}

static bool is_active(const Zone *zone)
{
    return is_open(zone) || zone->cond == BLK_ZONE_COND_CLOSED;
}

static bool is_dead(const Zone *zone)
{
    return zone->type == BLK_ZONE_TYPE_CONVENTIONAL ||
           zone->cond == BLK_ZONE_COND_READONLY ||
           zone->cond == BLK_ZONE_COND_OFFLINE;
}

static unsigned count(bool (*has)(const Zone *))
{
    unsigned n = 0;

    for (uint64_t i = 0; i < zones.num; i++) {
        n += has(&zones.zone[i]);
    }
    return n;
}

/* Close some zone that nobody asked to be open.  False when there is none. */
static bool make_room(void)
{
    for (uint64_t i = 0; i < zones.num; i++) {
        if (zones.zone[i].cond == BLK_ZONE_COND_IMP_OPEN) {
            zones.zone[i].cond = BLK_ZONE_COND_CLOSED;
            return true;
        }
    }
    return false;
}

static int zone_open(Zone *zone, bool by_command)
{
    if (is_dead(zone) || zone->cond == BLK_ZONE_COND_FULL) {
        return -EIO;
    }
    if (!is_open(zone)) {
        if (!is_active(zone) && zones.max_active &&
            count(is_active) >= zones.max_active) {
            return -EOVERFLOW;
        }
        if (zones.max_open && count(is_open) >= zones.max_open &&
            !make_room()) {
            return -ETOOMANYREFS;
        }
        zone->cond = BLK_ZONE_COND_IMP_OPEN;
    }
    if (by_command) {
        zone->cond = BLK_ZONE_COND_EXP_OPEN;
    }
    return 0;
}

static int zone_close(Zone *zone)
{
    if (is_dead(zone) || !is_active(zone)) {
        return -EIO;
    }
    zone->cond = zone->wp == zone->start ? BLK_ZONE_COND_EMPTY
                                         : BLK_ZONE_COND_CLOSED;
    return 0;
}

static int zone_finish(Zone *zone)
{
    if (is_dead(zone)) {
        return -EIO;
    }
    zone->cond = BLK_ZONE_COND_FULL;
    zone->wp = zone->start + zone->len;
    return 0;
}

static int zone_reset(Zone *zone, int fd)
{
    if (is_dead(zone)) {
        return -EIO;
    }
    fake_zero(fd, zone->start << SECTOR_SHIFT, zone->len << SECTOR_SHIFT);
    zone->cond = BLK_ZONE_COND_EMPTY;
    zone->wp = zone->start;
    return 0;
}

/* ---- ioctls ---- */

static int report(struct blk_zone_report *rep)
{
    const Zone *last = &zones.zone[zones.num - 1];
    uint64_t first = rep->sector / zones.size;
    unsigned n = 0;

    if (rep->sector >= last->start + last->len) {
        first = zones.num;
    }
    while (n < rep->nr_zones && first + n < zones.num) {
        rep->zones[n] = zones.zone[first + n];
        n++;
    }
    rep->nr_zones = n;
    rep->flags = BLK_ZONE_REP_CAPACITY;
    return 0;
}

static int one_zone(Zone *zone, unsigned long request, int fd)
{
    switch (request) {
    case BLKOPENZONE:
        return zone_open(zone, true);
    case BLKCLOSEZONE:
        return zone_close(zone);
    case BLKFINISHZONE:
        return zone_finish(zone);
    default:
        return zone_reset(zone, fd);
    }
}

static int manage(const struct blk_zone_range *range, unsigned long request,
                  int fd)
{
    uint64_t end = range->sector + range->nr_sectors;
    uint64_t sectors = fake_bytes(fd) >> SECTOR_SHIFT;
    bool all = request == BLKRESETZONE && range->nr_sectors == sectors;
    int error = 0;

    if (range->sector % zones.size || !range->nr_sectors || end > sectors ||
        (end % zones.size && end != sectors)) {
        return -EINVAL;
    }
    for (uint64_t i = range->sector / zones.size;
         !error && i * zones.size < end; i++) {
        if (!all || !is_dead(&zones.zone[i])) {
            error = one_zone(&zones.zone[i], request, fd);
        }
    }
    return error;
}

int zones_ioctl(int fd, unsigned long request, void *arg)
{
    int error;

    pthread_mutex_lock(&zones.lock);
    switch (request) {
    case BLKREPORTZONE:
        error = report(arg);
        break;
    case BLKOPENZONE:
    case BLKCLOSEZONE:
    case BLKFINISHZONE:
    case BLKRESETZONE:
        error = manage(arg, request, fd);
        break;
    default:
        error = -ENOTTY;
    }
    pthread_mutex_unlock(&zones.lock);
    return error;
}

/* ---- reads and writes ---- */

int zones_read(off_t offset, uint64_t bytes)
{
    uint64_t end = (offset + bytes) >> SECTOR_SHIFT;
    int error = 0;

    pthread_mutex_lock(&zones.lock);
    for (uint64_t i = (offset >> SECTOR_SHIFT) / zones.size;
         i < zones.num && zones.zone[i].start < end; i++) {
        if (zones.zone[i].cond == BLK_ZONE_COND_OFFLINE) {
            error = -EIO;
        }
    }
    pthread_mutex_unlock(&zones.lock);
    return error;
}

static int write_check(Zone *zone, uint64_t sector, uint64_t end)
{
    if (end > zone->start + zone->capacity) {
        return -EIO;
    }
    if (zone->type == BLK_ZONE_TYPE_CONVENTIONAL) {
        return 0;
    }
    if (zone->type == BLK_ZONE_TYPE_SEQWRITE_REQ && sector != zone->wp) {
        return -EIO;
    }
    if (zone->type == BLK_ZONE_TYPE_SEQWRITE_PREF &&
        zone->cond == BLK_ZONE_COND_FULL) {
        return 0;
    }
    return zone_open(zone, false);
}

/* Where to stop at in this zone, as Linux splits writes that go on. */
static uint64_t part_end(const Zone *zone, uint64_t end)
{
    uint64_t zone_end = zone->start + zone->len;

    return zone->type == BLK_ZONE_TYPE_SEQWRITE_REQ || end < zone_end ?
           end : zone_end;
}

int zones_write_begin(off_t offset, uint64_t bytes)
{
    uint64_t sector = offset >> SECTOR_SHIFT;
    uint64_t end = (offset + bytes) >> SECTOR_SHIFT;
    int error = 0;

    pthread_mutex_lock(&zones.lock);
    while (!error && sector < end) {
        Zone *zone = &zones.zone[sector / zones.size];
        uint64_t stop = part_end(zone, end);

        error = write_check(zone, sector, stop);
        sector = stop;
    }
    if (error) {
        pthread_mutex_unlock(&zones.lock);
    }
    return error;
}

static void advance(Zone *zone, uint64_t end)
{
    if (!is_open(zone) || end <= zone->wp) {
        return;
    }
    zone->wp = end;
    if (end == zone->start + zone->capacity) {
        zone->cond = BLK_ZONE_COND_FULL;
        zone->wp = zone->start + zone->len;
    }
}

void zones_write_end(off_t offset, uint64_t bytes, bool ok)
{
    uint64_t sector = offset >> SECTOR_SHIFT;
    uint64_t end = (offset + bytes) >> SECTOR_SHIFT;

    while (ok && sector < end) {
        Zone *zone = &zones.zone[sector / zones.size];
        uint64_t stop = part_end(zone, end);

        advance(zone, stop);
        sector = stop;
    }
    pthread_mutex_unlock(&zones.lock);
}
