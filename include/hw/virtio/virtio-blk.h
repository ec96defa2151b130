/*
 * virtio-blk device model: public types
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_VIRTIO_BLK_H
#define QEMU_VIRTIO_BLK_H

#include "standard-headers/linux/virtio_blk.h"
#include "hw/block/block.h"
#include "hw/virtio/virtio.h"
#include "qapi/qapi-types-common.h"
#include "qapi/qapi-types-virtio.h"
#include "qom/object.h"
#include "system/block-backend.h"
#include "system/block-ram-registrar.h"
#include "system/iothread.h"

#define TYPE_VIRTIO_BLK "virtio-blk-device"
#define TYPE_VHOST_BLK "vhost-blk-device"       /* a VirtIOBlock, too */
OBJECT_DECLARE_TYPE(VirtIOBlock, VirtIOBlkClass, VIRTIO_BLK)

/* num-queues as the user left it: the transport picks a number. */
#define VIRTIO_BLK_AUTO_NUM_QUEUES UINT16_MAX

typedef struct VirtIOBlkBounce VirtIOBlkBounce;
typedef struct VirtIOBlkEngine VirtIOBlkEngine;
typedef struct VirtIOBlkPlain VirtIOBlkPlain;
typedef struct VirtIOBlkQueue VirtIOBlkQueue;
typedef struct VirtIOBlkVhost VirtIOBlkVhost;
typedef struct VirtIOBlockReq VirtIOBlockReq;

/*
 * VirtIOBlkConf: what the user asked for.  Written by property setters before
 * realize, constant from then on (num_queues is settled during realize).
 */
typedef struct VirtIOBlkConf {
    BlockConf conf;
    IOThread *iothread;
    IOThreadVirtQueueMappingList *iothread_vq_mapping_list;
    char *serial;
    char *io_engine;                    /* engine name, NULL: the type's own */
    char *vhostfd;                      /* an open /dev/vhost-blk, or NULL */
    bool request_merging;
    bool seg_max_adjust;
    bool report_discard_granularity;
    bool x_enable_wce_if_config_wce;
    bool scsi;
    bool secure_erase;
    bool lifetime;
    OnOffAuto write_zeroes_may_unmap;   /* what the config space says */
    OnOffAuto register_memory;          /* with io_uring, for direct I/O */
    uint16_t num_queues;
    uint16_t queue_size;                /* descriptors per virtqueue */
    /* Limits of one segment in 512-byte sectors, and segments a request. */
    uint32_t max_discard_sectors;
    uint32_t max_discard_segments;
    uint32_t max_write_zeroes_sectors;
    uint32_t max_write_zeroes_segments;
    uint32_t max_secure_erase_sectors;
    uint32_t max_secure_erase_segments;
} VirtIOBlkConf;

/* VirtIOBlkStoppedList: requests parked by a "stop" error policy, in order. */
typedef QSIMPLEQ_HEAD(, VirtIOBlockReq) VirtIOBlkStoppedList;

/*
 * VirtIOBlock: one virtio block device (VIRTIO 1.4, 5.2).
 *
 * Fields without a comment on locking belong to the main loop thread (BQL).
 */
struct VirtIOBlock {
    VirtIODevice parent_obj;

    VirtIOBlkConf conf;
    BlockBackend *blk;                  /* conf.conf.blk, any thread */
    BlockRAMRegistrar blk_ram_registrar;
    VMChangeStateEntry *vm_change;
    uint64_t host_features;             /* from properties and the medium */
    size_t config_size;                 /* bytes of config space shown */
    bool original_wce;                  /* write cache before any driver */
    bool may_unmap;                     /* as last looked up; config space */

    VirtIOBlkQueue *queues;             /* conf.num_queues entries */

    /*
     * Changed only while no request is in the engine; read by every queue.
     * @plain is set while the engine goes past the block layer.
     */
    const VirtIOBlkEngine *engine;
    VirtIOBlkPlain *plain;
    const char *engine_why;             /* static text for people; BQL */
    bool engine_held;                   /* no queue may enter a fast engine */
    bool engine_waits;                  /* for idle queues, to be selected */
    VirtIOBlkVhost *vhost;              /* the kernel backend, where opened */
    bool registers_memory;              /* constant after realize */

    QemuMutex stopped_lock;
    VirtIOBlkStoppedList stopped;       /* protected by stopped_lock */

    QemuMutex medium_lock;
    char *medium_name;                  /* protected by medium_lock */

    /* Completions whose write to a device's registers is going on. */
    QLIST_HEAD(, VirtIOBlkBounce) bounced;

    bool ioeventfd_disabled;
    bool ioeventfd_started;             /* see virtio_blk_start_ioeventfd() */
    bool ioeventfd_starting;
    bool queues_detached;               /* while stopping; any thread reads */
};

/*
 * VirtIOBlkClass: what subclasses may change.
 *
 * @vhost: the kernel backend is what this type is for: io-engine=vhost is its
 * default, and io-engine=auto takes it where it is there.
 *
 * @handle_unknown_request: called for a request type that the device does not
 * know, in the thread of the request's queue.  Returns true when it took the
 * request, which it must then end with virtio_blk_req_complete().
 */
typedef struct VirtIOBlkClass {
    VirtioDeviceClass parent_class;

    bool vhost;
    bool (*handle_unknown_request)(VirtIOBlockReq *req, uint32_t type);
} VirtIOBlkClass;

/*
 * virtio_blk_req_complete: give a request back to the driver and free it.
 * @req: the request, owned by the caller until now
 * @status: VIRTIO_BLK_S_*
 *
 * For requests that wrote nothing but the status byte.  Called in the thread
 * of the request's queue.
 */
void virtio_blk_req_complete(VirtIOBlockReq *req, uint8_t status);

#endif
