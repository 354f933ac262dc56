/** Memory. */
import { absent, flags, int, output, pointer, refused, syscall } from './schema.ts'

const local = { class: 'local', policy: 'mm' } as const

export const entries = [
  syscall(9, 'mmap', { addr: int, length: int, prot: int, flags, fd: int, offset: int }, { ...local, doc: 'Map memory or a file.', errno: ['EACCES'], quirk: 'PROT_EXEC needs a file approved by the manifest; anonymous executable memory is EACCES. Addresses are below 4 GiB.' }),
  syscall(10, 'mprotect', { addr: int, len: int, prot: int }, { ...local, doc: 'Change protection.', errno: ['EACCES'], quirk: 'PROT_EXEC is granted only to approved text that was never writable.' }),
  syscall(11, 'munmap', { addr: int, length: int }, { ...local, doc: 'Unmap memory.' }),
  syscall(12, 'brk', { addr: int }, { ...local, doc: 'Move the program break.' }),
  syscall(25, 'mremap', { old_address: int, old_size: int, new_size: int, flags, new_address: int }, { ...local, doc: 'Move or resize a mapping.' }),
  syscall(26, 'msync', { addr: int, length: int, flags }, { ...local, doc: 'Write a shared mapping back.' }),
  syscall(27, 'mincore', { addr: int, length: int, vec: pointer }, { ...local, doc: 'Say which pages are resident.' }),
  syscall(28, 'madvise', { addr: int, length: int, advice: int }, { ...local, doc: 'Give a hint, or drop pages.' }),
  syscall(149, 'mlock', { addr: int, len: int }, { ...local, doc: 'Lock memory.' }),
  syscall(150, 'munlock', { addr: int, len: int }, { ...local, doc: 'Unlock memory.' }),
  syscall(151, 'mlockall', { flags }, { ...local, doc: 'Lock memory.' }),
  syscall(152, 'munlockall', {}, { ...local, doc: 'Unlock all memory.' }),
  syscall(324, 'membarrier', { cmd: int, flags, cpu_id: int }, { class: 'direct', policy: 'mm', doc: 'Issue a memory barrier on all threads.' }),
  syscall(325, 'mlock2', { addr: int, len: int, flags }, { ...local, doc: 'Lock memory.' }),
  syscall(319, 'memfd_create', { name: output(0), flags }, { class: 'mediated', policy: 'mm', newFd: true, doc: 'Make a file that lives in memory.' }),
  syscall(329, 'pkey_mprotect', { addr: int, len: int, prot: int, pkey: int }, { ...local, doc: 'Change protection and protection key.', quirk: 'The processor has no protection keys, as pkeys(7) allows.' }),
  syscall(330, 'pkey_alloc', { flags, rights: int }, { ...local, doc: 'Allocate a protection key.', errno: ['ENOSPC'], quirk: 'The processor has no protection keys, as pkeys(7) allows.' }),
  syscall(331, 'pkey_free', { pkey: int }, { ...local, doc: 'Free a protection key.', errno: ['EINVAL'], quirk: 'The processor has no protection keys, as pkeys(7) allows.' }),
  ...refused('mm', 'Placement of memory is the host\'s; container engines allow it with CAP_SYS_NICE only.', { mbind: 237, set_mempolicy: 238, get_mempolicy: 239, migrate_pages: 256, move_pages: 279, set_mempolicy_home_node: 450 }),
  ...absent('mm', 'Deprecated since Linux 3.16; programs map instead.', { remap_file_pages: 216 }),
  ...absent('mm', 'Secret memory is not offered, as on kernels without it.', { memfd_secret: 447 }),
  ...refused('mm', 'Reaches into the memory of other processes or handles faults outside the kernel.', { userfaultfd: 323, process_vm_readv: 310, process_vm_writev: 311, process_madvise: 440, process_mrelease: 448 }),
]
