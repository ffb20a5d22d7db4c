"""Having the C library keep the memory of large bodies for the next ones.

A large body passes through a few blocks of its size: as bytes, as a text, as bytes again.  glibc
gives freed memory back to the system when there is more of it than twice the size of the largest
block that it has ever given back, at most 64 MiB (mallopt(3), M_MMAP_THRESHOLD).  So while no block
was larger than a body, it gives back what the next body takes again, page by page, which costs more
than all that is done with the body.  Giving back one block of the largest size that counts changes
that; nothing is written into it, so it costs two system calls and no memory.
"""

from __future__ import annotations

# From this size on, bodies are worth it.
LARGE = 64 * 1024
# glibc's DEFAULT_MMAP_THRESHOLD_MAX of 32 MiB, less what Python and glibc need around a block.
LARGEST_BLOCK = 32 * 1024 * 1024 - 64 * 1024

_kept = False


def keep_for_large_bodies() -> None:
    """Have the memory of large bodies kept, from the first call on.  Does nothing elsewhere."""
    global _kept
    if not _kept:
        _kept = True
        # Zeros, which the system hands out unwritten.
        bytes(LARGEST_BLOCK)
