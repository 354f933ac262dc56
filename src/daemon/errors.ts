/** The daemon's own failures, never the guest's: code, client exit status, what to do next. */
export const errors = {
  VK_ERR_NO_IMAGE: { status: 125, hint: 'build one: recompiler build -o DIR --rootfs ROOT' },
  VK_ERR_IMAGE: { status: 125, hint: 'check it: recompiler verify IMAGE' },
  VK_ERR_SIGNATURE: { status: 125, hint: 'put the signer\'s public key into the key directory, or build the image again' },
  VK_ERR_DIGEST: { status: 125, hint: 'the image was changed after it was signed: recompiler verify IMAGE, then build it again' },
  VK_ERR_SPAWN: { status: 125, hint: 'recompiler doctor says what the host is missing' },
  VK_ERR_PROTOCOL: { status: 125, hint: 'client and daemon are of different versions: stop the daemon and try again' },
  VK_ERR_NO_CONTAINER: { status: 125, hint: 'recompiler ps -a lists them' },
  VK_ERR_ZYGOTE: { status: 125, hint: 'the image\'s zygote ended; run the command again' },
  VK_ERR_NAME: { status: 125, hint: 'choose another --name, or remove the old one: recompiler rm NAME' },
  VK_ERR_USER: { status: 125, hint: 'give a user of the image, or numbers: -u UID[:GID]' },
  VK_ERR_WORKDIR: { status: 125, hint: 'give a directory, or a path that can be made one: -w DIR' },
  VK_ERR_MOUNT: { status: 125, hint: '-v HOST:GUEST[:ro] takes two absolute paths; HOST must exist' },
  VK_ERR_PORT: { status: 125, hint: '-p [IP:][HOSTPORT]:PORT[/tcp|/udp]; the image\'s policy says which ports: recompiler inspect IMAGE' },
  VK_ERR_POLICY: { status: 125, hint: 'recompiler inspect IMAGE shows what was signed; build the image anew with more' },
  VK_ERR_NO_COMMAND: { status: 125, hint: 'the image names no command; give one: recompiler run IMAGE PATH [ARG...]' },
  VK_ERR_TOO_LONG: { status: 126, hint: 'arguments and environment together may have about 180 kB at a container\'s start' },
  VK_ERR_NOT_FOUND: { status: 127, hint: 'give the program\'s path, or one that is in the container\'s PATH' },
} as const

export type ErrorCode = keyof typeof errors

export class VkError extends Error {
  override name = 'VkError'
  readonly status: number
  readonly hint: string

  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.status = errors[code].status
    this.hint = errors[code].hint
  }
}
