/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A plugin for QEMU's TCG: how many instructions each CPU executes.
 *
 * The guest executes "nopl MARK(%rax)" where it wants to know; MARK is
 * MARK_BASE plus a number of its own, below MARKS.  Each such line goes to the
 * log (-d plugin):
 *     mark NUMBER: COUNT of CPU 0, COUNT of CPU 1, ...
 */
#include <glib.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <qemu-plugin.h>

#include "count.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static qemu_plugin_u64 executed;

static void mark(unsigned int cpu, void *opaque)
{
    g_autoptr(GString) line = g_string_new(NULL);

    g_string_printf(line, "mark %u:", GPOINTER_TO_UINT(opaque));
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++) {
        g_string_append_printf(line, " %" PRIu64,
                               qemu_plugin_u64_get(executed, i));
    }
    g_string_append_c(line, '\n');
    qemu_plugin_outs(line->str);
}

/* The number of a mark, or -1. */
static int marked(struct qemu_plugin_insn *insn)
{
    static const uint8_t nopl[] = { 0x0f, 0x1f, 0x80 };
    uint8_t code[7];
    uint32_t value;

    if (qemu_plugin_insn_size(insn) != sizeof(code)) {
        return -1;
    }
    qemu_plugin_insn_data(insn, code, sizeof(code));
    memcpy(&value, code + sizeof(nopl), sizeof(value));
    if (memcmp(code, nopl, sizeof(nopl)) || value < MARK_BASE ||
        value >= MARK_BASE + MARKS) {
        return -1;
    }
    return value - MARK_BASE;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        int number = marked(insn);

        if (number >= 0) {
            qemu_plugin_register_vcpu_insn_exec_cb(
                insn, mark, QEMU_PLUGIN_CB_NO_REGS,
                GUINT_TO_POINTER(number));
        }
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
            insn, QEMU_PLUGIN_INLINE_ADD_U64, executed, 1);
    }
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
                                           const qemu_info_t *info,
                                           int argc, char **argv)
{
    executed = qemu_plugin_scoreboard_u64(
        qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
