/**
 * Layout of the request ring (docs/abi.md): offsets and bits, data only.
 * `npm run gen` writes the same constants to native/abi/src/generated/ring.rs.
 */
export const RING_MAGIC = 0x4752_4b56 // 'VKRG'
export const RING_VERSION = 1
export const RING_SLOTS = 256
export const RING_WINDOW = 65_536

export const HDR_MAGIC = 0
export const HDR_VERSION = 4
export const HDR_SLOTS = 8
export const HDR_WINDOW = 12
export const HDR_ASLEEP = 64
export const HDR_CLAIMED = 128
export const HDR_POSTED = 192

export const SLOTS_OFF = 4096
export const SLOT_SIZE = 64
export const SLOT_WORD = 0
export const SLOT_TASK = 4
export const SLOT_ARGS = 8
export const SLOT_RET = 56
export const WINDOWS_OFF = SLOTS_OFF + RING_SLOTS * SLOT_SIZE
export const RING_SIZE = WINDOWS_OFF + RING_SLOTS * RING_WINDOW

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
