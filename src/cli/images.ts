/** `recompiler images` and `recompiler rmi`: names in the store. */
import { listImages, removeImage, storeDirectory } from '../image/store.ts'
import { BuildError } from '../image/tree.ts'
import { args, bytes, columns, print } from './output.ts'

export function imagesVerb(argv: string[]): number {
  const { values } = args('images', { args: argv, options: { json: { type: 'boolean' } } })
  const images = listImages()
  print(values.json, images, () => images.length === 0
    ? [`no images in ${storeDirectory()}; \`recompiler build -t NAME …\` makes one`]
    : columns([['NAME', 'MANIFEST', 'SIZE', 'DIRECTORY'], ...images.map((i) => [i.name, i.digest?.slice(0, 12) ?? 'damaged', bytes(i.size), i.linked ? `→ ${i.dir}` : i.dir])]))
  return 0
}

export function rmiVerb(argv: string[]): number {
  const { values, positionals } = args('rmi', { args: argv, allowPositionals: true, options: { json: { type: 'boolean' } } })
  if (positionals.length === 0) throw new BuildError('rmi: which names? `recompiler images` lists them')
  for (const name of positionals) removeImage(name)
  print(values.json, { removed: positionals }, () => positionals.map((n) => `removed ${n}`))
  return 0
}
