/**
 * Layout of the request ring (docs/abi.md): offsets and bits, data only.
 * `npm run gen` writes the same constants to native/abi/src/generated/ring.rs.
 */
export const RING_MAGIC = 0x4752_4b56 // 'VKRG'
export const RING_VERSION = 2
export const RING_SLOTS = 256
export const RING_WINDOW = 65_536

export const HDR_MAGIC = 0
export const HDR_VERSION = 4
export const HDR_SLOTS = 8
export const HDR_WINDOW = 12
export const HDR_ASLEEP = 64
export const HDR_CLAIMED = 128
export const HDR_POSTED = 192
/** What of the container's calls is watched: bits of WATCH_*. */
export const HDR_WATCH = 256
/** Bytes of a string or buffer that a record of a call takes along at most. */
export const HDR_WATCH_BYTES = 260
/** Calls that are recorded, a bit a number. */
export const HDR_WATCH_CALLS = 320
/** Thread entries in use, a bit each. */
export const HDR_THREADS = 384

export const SLOTS_OFF = 4096
export const SLOT_SIZE = 64
export const SLOT_WORD = 0
export const SLOT_TASK = 4
export const SLOT_ARGS = 8
export const SLOT_RET = 56
export const WINDOWS_OFF = SLOTS_OFF + RING_SLOTS * SLOT_SIZE
/** What each thread is doing: task u32 @0, tid u32 @4, number of the call + 1 u32 @8, 8 bytes at its first argument @16, arguments u64×4 @24. */
export const THREADS_OFF = WINDOWS_OFF + RING_SLOTS * RING_WINDOW
export const RING_THREADS = 1024
export const THREAD_SIZE = 64
export const THREAD_CALL = 8
export const THREAD_WORDS = 16
export const THREAD_ARGS = 24
/** One row a call: count u64 @0, failed u64 @8, nanoseconds u64 @16, longest u64 @24, then how many took below 64·2^n ns (the last: all longer ones), u32×24. */
export const STATS_OFF = THREADS_OFF + RING_THREADS * THREAD_SIZE
export const STATS_CALLS = 512
export const STATS_SIZE = 128
export const STATS_BUCKETS = 24
export const RING_SIZE = STATS_OFF + STATS_CALLS * STATS_SIZE

export const WATCH_RECORDS = 1
export const WATCH_STATS = 2

export const WORD_REQUEST = 0x8000_0000
export const WORD_DONE = 0x4000_0000
export const WORD_FDS = 0x2000_0000
export const WORD_WAITING = 0x1000_0000
export const WORD_NR_MASK = 0xffff

/** Grant at window offset 0 of an open's reply, 40 bytes. */
export const GRANT_HOST = 1
export const GRANT_IMAGE = 2
export const GRANT_DIR = 3
export const GRANT_LOADER = 4
export const GRANT_SIZE = 40
/** Of a host descriptor: it stands for an inotify instance. */
export const GRANT_NOTIFY = 4

/** First fd number of the loader's own descriptors; the guest's RLIMIT_NOFILE never exceeds it. */
export const HIDDEN_FD_BASE = 4064
/** Node id of a container's root directory. */
export const ROOT_NODE = 1
/** "errno" of an open of a FIFO for writing that nobody has open for reading: ask again soon. */
export const FIFO_NO_READER = 512
/** readlink of /proc/self/fd/N answers this plus N: only the loader knows what the descriptor is. */
export const FD_LINK = 0x4000_0000
/** "errno" of execve and getdents64: ask again with the descriptors that only the loader knows. */
export const ASK_WITH_FD = 513
/** "System call" of the loader's own: a line for the audit log. */
export const CALL_REPORT = 0xfff0
/** "System call" of the loader's own: the node id of something of the image that it opened itself. */
export const CALL_NODE = 0xfff1
/** "System call" of the loader's own: the record of a call. */
export const CALL_RECORD = 0xfff2

/** Pages that say what a container overrides of its image (src/fs/overridden.ts). */
export const OVERRIDDEN_GENERATION = 0
export const OVERRIDDEN_DEV = 4
export const OVERRIDDEN_COUNT = 8
export const OVERRIDDEN_BYTES = 64
/** No name of the image leads to this inode for sure, or its owner or mode have changed. */
export const OVERRIDDEN_COVERED = 1
/** Contents, times or link count have changed. */
export const OVERRIDDEN_CHANGED = 2
/** The directory has names that the image does not have. */
export const OVERRIDDEN_NAMES = 4
/** The directory is listed otherwise. */
export const OVERRIDDEN_LISTING = 8
