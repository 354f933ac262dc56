/** Memory. */
import { absent, int, output, refused, syscall } from './schema.ts'

const local = { class: 'local', policy: 'mm' } as const

export const entries = [
  syscall(9, 'mmap', { addr: int, length: int, prot: int, flags: int, fd: int, offset: int }, { ...local, doc: 'Map memory or a file.', errno: ['EACCES'], quirk: 'PROT_EXEC needs a file approved by the manifest; anonymous executable memory is EACCES. Addresses are below 4 GiB.' }),
  syscall(10, 'mprotect', { addr: int, len: int, prot: int }, { ...local, doc: 'Change protection.', errno: ['EACCES'], quirk: 'PROT_EXEC is granted only to approved text that was never writable.' }),
  syscall(11, 'munmap', { addr: int, length: int }, { ...local, doc: 'Unmap memory.' }),
  syscall(12, 'brk', { addr: int }, { ...local, doc: 'Move the program break.' }),
  syscall(25, 'mremap', { old_address: int, old_size: int, new_size: int, flags: int, new_address: int }, { ...local, doc: 'Move or resize a mapping.', errno: ['EINVAL'], quirk: 'MREMAP_DONTUNMAP and an old size of zero are EINVAL.' }),
  syscall(26, 'msync', { addr: int, length: int, flags: int }, { ...local, doc: 'Write a shared mapping back.' }),
  syscall(27, 'mincore', { addr: int, length: int, vec: int }, { ...local, doc: 'Say which pages are resident.', quirk: 'Every mapped page is reported resident.' }),
  syscall(28, 'madvise', { addr: int, length: int, advice: int }, { ...local, doc: 'Give a hint, or drop pages.' }),
  syscall(149, 'mlock', { addr: int, len: int }, { ...local, doc: 'Accept; nothing is locked.', quirk: 'Memory is not locked.' }),
  syscall(150, 'munlock', { addr: int, len: int }, { ...local, doc: 'Accept.' }),
  syscall(151, 'mlockall', { flags: int }, { ...local, doc: 'Accept; nothing is locked.', quirk: 'Memory is not locked.' }),
  syscall(152, 'munlockall', {}, { ...local, doc: 'Accept.' }),
  syscall(324, 'membarrier', { cmd: int, flags: int, cpu_id: int }, { ...local, doc: 'Issue a memory barrier on all threads.', quirk: 'The query command and the global command only.' }),
  syscall(325, 'mlock2', { addr: int, len: int, flags: int }, { ...local, doc: 'Accept; nothing is locked.', quirk: 'Memory is not locked.' }),
  syscall(319, 'memfd_create', { name: output(0), flags: int }, { class: 'mediated', policy: 'mm', newFd: true, doc: 'Make a file that lives in memory.' }),
  ...absent('mm', 'Placement of memory is the host\'s.', { mbind: 237, set_mempolicy: 238, get_mempolicy: 239, migrate_pages: 256, move_pages: 279, set_mempolicy_home_node: 450, remap_file_pages: 216 }),
  ...absent('mm', 'Protection keys and secret memory are not offered.', { pkey_mprotect: 329, pkey_alloc: 330, pkey_free: 331, memfd_secret: 447 }),
  ...refused('mm', 'Reaches into the memory of other processes or handles faults outside the kernel.', { userfaultfd: 323, process_vm_readv: 310, process_vm_writev: 311, process_madvise: 440, process_mrelease: 448 }),
]
