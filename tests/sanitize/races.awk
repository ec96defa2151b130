# SPDX-License-Identifier: GPL-2.0-or-later
#
# Sort ThreadSanitizer's reports, on standard input: one line for each place,
#
#   ours FRAME | FRAME      an access of our files to what another thread has
#   guest FRAME | FRAME     one of the two is the driver's, to the guest's memory
#   base FRAME | FRAME      no access of our files
#
# FRAME is "FILE:LINE in FUNCTION", the first of a stack that is no copying
# function of the C library.

function place(line,    part, file)
{
    sub(/^ *#[0-9]+ /, "", line)
    split(line, part, " ")
    file = part[2]
    sub(/^.*\.tree\//, "", file)
    return file " in " part[1]
}

# The guest is the one thread that no fence of QEMU binds: a driver that reads
# the used ring, or writes the next request, obeys the ring's own order.
# When the sanitizer has forgotten the driver's stack there is still that only
# mapped memory has no "Location".
function of_guest(frame)
{
    return frame ~ / in (flatview_(read|write)_continue_step|address_space_read)$/ ||
           frame == "" && !located
}

/^WARNING: ThreadSanitizer: data race/ { stacks = located = 0; frame[1] = frame[2] = "" }

/^  (Previous )?(([Aa]tomic )?[Rr]ead|([Aa]tomic )?[Ww]rite) of size/ { stacks++; next }
/^  Location is / { located = 1 }
/^  [A-Z]/ { if (stacks == 2) stacks = 3 }
/^ +#[0-9]+ / && (stacks == 1 || stacks == 2) && frame[stacks] == "" &&
    !/ (memcpy|memmove|memset|memcmp) / {
    frame[stacks] = place($0)
}

/^SUMMARY: ThreadSanitizer: data race/ {
    kind = "base"
    if (frame[1] ~ /hw\/block\/virtio-blk\// || frame[2] ~ /hw\/block\/virtio-blk\//)
        kind = of_guest(frame[1]) || of_guest(frame[2]) ? "guest" : "ours"
    print kind, frame[1], "|", frame[2]
    stacks = 0
    next
}

# Anything else that it reports: a lock, a leaked thread, an end.
/^SUMMARY: ThreadSanitizer: / {
    sub(/^SUMMARY: ThreadSanitizer: /, "")
    print /hw\/block\/virtio-blk\// ? "ours" : "base", $0
}
