/** Linux error numbers (asm-generic/errno.h). Guest failures are negative values, never exceptions. */
export const EPERM = 1, ENOENT = 2, EIO = 5, ENXIO = 6, E2BIG = 7, ENOEXEC = 8, EBADF = 9, EAGAIN = 11, ENOMEM = 12
export const EACCES = 13, EFAULT = 14, EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19, ENOTDIR = 20, EISDIR = 21, EINVAL = 22
export const ENFILE = 23, EMFILE = 24, ENOTTY = 25, ETXTBSY = 26, EFBIG = 27, ENOSPC = 28, EROFS = 30, EMLINK = 31
export const ERANGE = 34, ENAMETOOLONG = 36, ENOSYS = 38, ENOTEMPTY = 39, ELOOP = 40, ENODATA = 61, EOPNOTSUPP = 95
export const EPROTOTYPE = 91, EAFNOSUPPORT = 97, EADDRINUSE = 98, EADDRNOTAVAIL = 99, ECONNREFUSED = 111
export const ESTALE = 116, EINPROGRESS = 115, EDQUOT = 122

/** A negative error number. */
export type Errno = number

const byName: Record<string, number> = {
  EPERM, ENOENT, EIO, ENXIO, EACCES, EEXIST, EXDEV, ENOTDIR, EISDIR, EINVAL, ENFILE, EMFILE, EFBIG, ENOSPC, EROFS,
  ENAMETOOLONG, ENOTEMPTY, ELOOP, EDQUOT, EAGAIN, ENOMEM, EBUSY, ETXTBSY, EMLINK, ENODEV,
}

/** The error of a host call that Node threw; what it does not know is EIO. */
export const errnoOf = (e: unknown): Errno => -(byName[(e as { code?: string }).code ?? ''] ?? EIO)
