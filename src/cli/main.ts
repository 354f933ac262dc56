/** The TypeScript side of `recompiler`: verb → its file. The Rust client runs what is about containers itself. */
import { BuildError } from '../image/tree.ts'
import { FAILED } from './output.ts'

type Verb = (argv: string[]) => number | Promise<number>

/** Loaded when asked for: a verb does not pay for the others. */
const verbs: Readonly<Record<string, () => Promise<Verb>>> = {
  build: async () => (await import('./build.ts')).buildVerb,
  images: async () => (await import('./images.ts')).imagesVerb,
  rmi: async () => (await import('./images.ts')).rmiVerb,
  verify: async () => (await import('./verify.ts')).verifyVerb,
  inspect: async () => (await import('./inspect.ts')).inspectVerb,
  analyze: async () => (await import('./analyze.ts')).analyzeVerb,
  extract: async () => (await import('./extract.ts')).extractVerb,
  doctor: async () => (await import('./doctor.ts')).doctorVerb,
  audit: async () => (await import('./audit.ts')).auditVerb,
  keys: async () => (await import('./keys.ts')).keysVerb,
}

const usage = `usage: recompiler VERB …        the verbs of images and of this host take --json, but extract

images
  build [-t NAME] [-o DIR] INPUT  translate an image; INPUT is one of
        IMAGE | --image IMAGE       an OCI layout or a docker or OCI archive, found out by itself; IMAGE:TAG for one of several
        --oci DIR[:TAG]             an OCI image layout
        --docker-archive FILE[:REF] what \`docker save\` writes
        --rootfs DIR                a root file system
        --from-host PATH...         programs of this host with their libraries
      --exec path+digest|digest   where a known program may lie (default path+digest)
      --policy FILE               the policy to sign, a JSON object (docs/policy.md); options stand in place of its fields:
      --egress RULE               DESTINATION[:PORT[-PORT]][/tcp|/udp] that may be connected to; may be repeated
      --publish PORT[-PORT][/tcp|/udp]   ports that run -p may publish; may be repeated
      --network proxied|native    who carries what leaves the container (default proxied)
      --max-size SIZE             refuse images that unpack to more (default 64G)
      --no-translate              interpret everything: a fast build, a slow image
      --no-cache                  translate everything anew
      --no-stubs                  keep the executables themselves in the image's layer
      --hints FILE                translate these addresses as well (analyze --profile)
      --count                     translated code counts its instructions: slower, for profiles
  images                          names in the store
  rmi NAME...                     remove names
  verify IMAGE                    check signature, parts and contents; exit 1 when a check fails
  inspect IMAGE                   manifest, policy, sizes
  analyze IMAGE | ELF...          programs, libraries, calls, and what is not supported
  analyze --profile FILE... [--hints OUT] [--flame-graph OUT.svg]   what ran translated, what did not, and why
  extract IMAGE [--elf PATH] --symbol NAME | --address 0x…   x86, wasm and native code of one function, side by side

programs
  run [-i] [-t] [-e K=V] [-w DIR] [-u USER] [-p [IP:][HOSTPORT]:PORT] [--profile FILE] IMAGE PATH [ARG...]
  exec [-i] [-t] [-e K=V] [-w DIR] [-u USER] CONTAINER PATH [ARG...]
  ps [-a | --wait [CONTAINER]]    running containers; --wait: their threads, and what each waits on
  policy CONTAINER [--egress RULE]... [--no-egress]   what it may reach, has used, was refused; narrower rules
  logs | stop | wait | rm CONTAINER
  trace [OPTION]... IMAGE PATH [ARG...] | trace [OPTION]... -p CONTAINER     system calls, a line each
      -e CALL,%GROUP,...          only these (%file %net %process %signal %mm %fd ...; ! before them: all but these)
      -Z, --errno NAME,...        only what failed, or failed so
      -c                          a table of counts and times; -T times, -s BYTES of strings, -o FILE
  stats [-t SECONDS] CONTAINER    counts and times of its calls while this runs

this host
  doctor                          what the host has, what is missing and how to get it; exit 1 when something is needed
  audit verify FILE [--checkpoint SEQ:HASH]   is the audit log whole? exit 1 when not
  keys [show | generate | export [FILE]]      the signing key of builds

IMAGE is a directory that build made, or a name in the store. Exit status 125: recompiler itself failed.
`

async function main(argv: string[]): Promise<number> {
  const [name, ...rest] = argv
  if (name === undefined || name === 'help' || name === '--help' || name === '-h' || rest.includes('--help')) {
    process.stdout.write(usage)
    return name === undefined ? FAILED : 0
  }
  const verb = Object.hasOwn(verbs, name) ? verbs[name] : undefined
  if (!verb) throw new BuildError(`there is no verb ${JSON.stringify(name)}; \`recompiler help\` lists them`)
  return (await verb())(rest)
}

/** A failure in words when it is the input's or the host's fault, with its stack when it is ours. */
function explain(e: unknown): string {
  if (e instanceof BuildError) return e.message
  const { code, syscall, message } = e as NodeJS.ErrnoException
  if (syscall) return code === 'ENOSPC' ? `${message}; make room and try again` : message
  return (e as Error).stack ?? String(e)
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (e) {
  process.stderr.write(`recompiler: ${explain(e)}\n`)
  process.exitCode = FAILED
}
