/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A boot sector that tests the disk it came from, through the BIOS.
 *
 * bios.py assembles it with the numbers below and fills the rest of the disk
 * with the pattern that `expect' computes.  It says what it did on the first
 * serial port and ends QEMU through isa-debug-exit (port 0xf4).
 *
 * SECTORS      sectors of the disk, less than 65536
 * READS        list "first, count" of sectors to read, count <= 127
 * WRITES       likewise, to write and read back
 * CHS_READ     a sector to read by cylinder, head and sector
 * BOOTS        a sector that counts boots: after the first the machine resets
 */

        .code16
        .set    STAGE2, 0x7e00
        .set    DATA, 0x2000            /* segment of what is read */
        .set    SERIAL, 0x3f8
        .set    EXIT, 0xf4

        .section .text
        .globl  _start
_start:
        ljmp    $0, $1f
1:      cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $0x7c00, %sp
        sti
        cld
        mov     %dl, drive
        mov     $text_boot, %si
        call    print
        /* The rest of this program is the first thing read. */
        movw    $1, packet_lba
        movw    $(stage2_end - stage2) / 512, packet_count
        movw    $0, packet_segment
        movw    $STAGE2, packet_offset
        mov     $0x42, %ah
        call    disk
        jc      1f
        movw    $DATA, packet_segment
        movw    $0, packet_offset
        jmp     stage2
1:      mov     $text_stage2, %si
        /* fall through */

/* Say %si and end. */
fail:
        call    print
        mov     $text_failed, %si
        call    print
        mov     $2, %al
finish:
        mov     $EXIT, %dx
        out     %al, %dx
1:      hlt
        jmp     1b

/* Print the string at %si. */
print:
        push    %dx
        mov     $SERIAL, %dx
1:      lodsb
        test    %al, %al
        jz      2f
        out     %al, %dx
        jmp     1b
2:      pop     %dx
        ret

/* int13 function %ah with the packet; carry set if it failed. */
disk:
        mov     drive, %dl
        mov     $packet, %si
        push    %ds
        push    %es
        int     $0x13
        pop     %es
        pop     %ds
        ret

text_boot:      .asciz  "boot\n"
text_stage2:    .asciz  "stage 2"
text_failed:    .asciz  " FAILED\n"

        .balign 4
packet:
        .byte   16, 0
packet_count:
        .word   0
packet_offset:
        .word   0
packet_segment:
        .word   0
packet_lba:
        .quad   0
drive:
        .byte   0

        .org    510
        .word   0xaa55

/* ---- sectors 1 and on ---- */
stage2:
        call    parameters
        call    boots
        mov     $reads, %bx
        mov     $text_read, %bp
1:      call    next
        jz      2f
        call    read
        jmp     1b
2:      call    chs
        mov     $writes, %bx
        mov     $text_write, %bp
1:      call    next
        jz      2f
        call    write
        jmp     1b
2:      mov     $text_done, %si
        call    print
        mov     $1, %al
        jmp     finish

/* The next pair at %bx into the packet, said with %bp; ZF at the end. */
next:
        mov     2(%bx), %cx
        mov     %cx, packet_count
        test    %cx, %cx
        jz      1f
        mov     %bp, %si
        call    print
        mov     (%bx), %ax
        mov     %ax, packet_lba
        call    number
        mov     %cx, %ax
        call    number
        add     $4, %bx
        or      $1, %al                 /* clears ZF */
1:      ret

/* Function 0x48: does the BIOS know the size of the disk? */
parameters:
        mov     $parameter_block, %si
        mov     drive, %dl
        mov     $0x48, %ah
        int     $0x13
        mov     $text_size, %si
        jc      fail
        cmpl    $SECTORS, parameter_sectors
        jne     fail
        call    print
        mov     parameter_sectors, %ax
        call    number
        jmp     newline

/* The first boot is told from the second by what it wrote. */
boots:
        mov     $text_boots, %si
        call    print
        movw    $BOOTS, packet_lba
        movw    $1, packet_count
        mov     $0x42, %ah
        call    disk
        mov     $text_refused, %si
        jc      fail
        mov     $DATA, %ax
        mov     %ax, %es
        incw    %es:0
        mov     $0x4300, %ax
        call    disk
        jnc     1f
        mov     $text_read_only, %si    /* no second boot of such a disk */
        jmp     print
1:      cmpw    $1, %es:0
        jne     2f
        mov     $text_reset, %si
        call    print
        lidt    no_idt                  /* a triple fault resets */
        int3
2:      jmp     newline

read:
        call    fetch
        xor     %dx, %dx
        call    expect
        mov     $text_wrong, %si
        jne     fail
        jmp     newline

/* Fill the buffer with something else first: it must come from the disk. */
fetch:
        mov     $DATA, %ax
        mov     %ax, %es
        xor     %di, %di
        mov     $0x5a5a, %ax
        mov     $127 * 256, %cx
        rep stosw
        mov     $0x42, %ah
        call    disk
        mov     $text_refused, %si
        jc      fail
        ret

/* What is written is the pattern inverted, then it is read back. */
write:
        mov     $0xffff, %dx
        mov     $store, %di
        call    pattern
        mov     $0x4300, %ax
        call    disk
        jnc     1f
        mov     $text_read_only, %si
        jmp     print
1:      call    fetch
        mov     $0xffff, %dx
        call    expect
        mov     $text_wrong, %si
        jne     fail
        jmp     newline

/* Function 2 reads one sector by its place in the geometry of function 8. */
chs:
        push    %es
        mov     drive, %dl
        mov     $8, %ah
        xor     %di, %di
        int     $0x13
        pop     %es
        mov     $text_chs, %si
        jc      fail
        call    print
        and     $0x3f, %cl
        movzbw  %cl, %cx                /* sectors a track */
        movzbw  %dh, %bx
        inc     %bx                     /* heads */
        mov     $CHS_READ, %ax
        xor     %dx, %dx
        div     %cx
        mov     %dl, %cl
        inc     %cl                     /* sector, from 1 */
        xor     %dx, %dx
        div     %bx
        mov     %al, %ch                /* cylinder */
        shl     $6, %ah
        or      %ah, %cl
        mov     %dl, %dh                /* head */
        mov     drive, %dl
        mov     $DATA, %ax
        mov     %ax, %es
        xor     %bx, %bx
        mov     $0x0201, %ax
        int     $0x13
        mov     $text_refused, %si
        jc      fail
        movw    $CHS_READ, packet_lba
        movw    $1, packet_count
        xor     %dx, %dx
        call    expect
        mov     $text_wrong, %si
        jne     fail
        jmp     newline

/*
 * Word n of sector s is s * 0x9e3b + n * 0x6d25, exclusive-or %dx.
 * ZF if the sectors of the packet, in the buffer, hold that.
 */
expect:
        mov     $compare, %di
        /* fall through */

/* Call %di for each word of the packet's sectors until it clears ZF. */
pattern:
        push    %bx
        push    %bp
        mov     $DATA, %ax
        mov     %ax, %es
        imul    $0x9e3b, packet_lba, %bp
        mov     packet_count, %cx
        xor     %si, %si
1:      push    %cx
        mov     %bp, %ax
        mov     $256, %cx
2:      mov     %ax, %bx
        xor     %dx, %bx
        call    *%di
        jne     3f
        add     $2, %si
        add     $0x6d25, %ax
        dec     %cx
        jnz     2b
        add     $0x9e3b, %bp
        pop     %cx
        dec     %cx
        jnz     1b
        jmp     4f
3:      pop     %cx
4:      pop     %bp
        pop     %bx
        ret

compare:
        cmp     %bx, %es:(%si)
        ret
store:
        mov     %bx, %es:(%si)
        cmp     %bx, %bx
        ret

/* Print %ax as a decimal number with a blank before it. */
number:
        pusha
        mov     $number_end, %di
        mov     $10, %bx
1:      xor     %dx, %dx
        div     %bx
        add     $'0', %dl
        dec     %di
        mov     %dl, (%di)
        test    %ax, %ax
        jnz     1b
        dec     %di
        movb    $' ', (%di)
        mov     %di, %si
        call    print
        popa
        ret

newline:
        mov     $text_newline, %si
        jmp     print

text_size:      .asciz  "size"
text_boots:     .asciz  "boots"
text_reset:     .asciz  " reset\n"
text_read:      .asciz  "read"
text_chs:       .asciz  "chs"
text_write:     .asciz  "write"
text_read_only: .asciz  " refused\n"
text_refused:   .asciz  ": error"
text_wrong:     .asciz  ": other data"
text_done:      .asciz  "done\n"
text_newline:   .asciz  "\n"

        .balign 4
reads:  .word   READS, 0, 0
writes: .word   WRITES, 0, 0
no_idt: .word   0, 0, 0

parameter_block:
        .word   26, 0
        .long   0, 0, 0
parameter_sectors:
        .quad   0
        .word   0

        .space  8
number_end:
        .byte   0
        .balign 512
stage2_end:
